/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wait queues. The waiter checks its condition after it has queued itself, so no wake-up is lost:
 *
 *     waitq_wait(&q, condition_expression);
 */
#pragma once

#include "kernel/sched/sched.h"

struct waitq {
    struct spinlock lock; /* irqsave */
    struct list waiters;
};

/* Nobody waits. */
void waitq_init(struct waitq *q);
void waitq_prepare(struct waitq *q); /* queue the running thread */
void waitq_finish(struct waitq *q);  /* take it out again */
/* Any context but NMI. */
void waitq_wake_all(struct waitq *q);
void waitq_wake_one(struct waitq *q);

#define waitq_wait(q, cond)   \
    do {                      \
        for (;;) {            \
            waitq_prepare(q); \
            if (cond) {       \
                break;        \
            }                 \
            thread_block();   \
        }                     \
        waitq_finish(q);      \
    } while (0)
