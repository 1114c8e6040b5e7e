/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One processor's queue of armed timers, by growing deadline, and what its hardware timer is set to.
 * Pure: kernel/sched/timer.c adds locks and hardware, tests/host/test_timerq.c arms by the thousand.
 * The hardware is set lazily: it may fire before the first deadline (the timer that wanted it was
 * cancelled or put off), never after it.
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "kernel/sched/timer.h"

#define TIMERQ_NEVER UINT64_MAX

struct timerq {
    struct spinlock lock; /* irqsave; the caller of every function here holds it */
    struct list timers;   /* lock */
    uint64_t programmed;  /* deadline the hardware is set to, TIMERQ_NEVER if stopped; lock */
};

/* Empty, the hardware stopped. */
void timerq_init(struct timerq *q);

/* Queue t, which is in no queue, for t->deadline_tsc; equal deadlines fire in the order of arming. */
void timerq_insert(struct timerq *q, struct timer *t);
void timerq_remove(struct timerq *q, struct timer *t);

/* Take out the first timer if it is due at time `now`, else NULL. */
struct timer *timerq_pop_due(struct timerq *q, uint64_t now);

/* True if the hardware must be set to an earlier deadline, which it stores in *deadline and notes as
 * programmed. */
bool timerq_program(struct timerq *q, uint64_t *deadline);
/* The hardware fired: it is set to nothing. */
void timerq_fired(struct timerq *q);
