/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timer queues as sorted lists: a processor carries a few dozen timers at most, mostly armed near
 * the front. Called by kernel/sched/timer.c.
 */
#include "kernel/sched/timerq.h"

void timerq_init(struct timerq *q)
{
    spin_init(&q->lock, RANK_TIMER, "timer queue");
    list_init(&q->timers);
    q->programmed = TIMERQ_NEVER;
}

void timerq_insert(struct timerq *q, struct timer *t)
{
    struct list *pos;

    list_for_each (pos, &q->timers) {
        if (list_entry(pos, struct timer, node)->deadline_tsc > t->deadline_tsc) {
            break;
        }
    }
    list_add_tail(pos, &t->node);
    __atomic_store_n(&t->armed, true, __ATOMIC_RELAXED);
}

void timerq_remove(struct timerq *q, struct timer *t)
{
    (void)q;
    list_del(&t->node);
    __atomic_store_n(&t->armed, false, __ATOMIC_RELAXED);
}

struct timer *timerq_pop_due(struct timerq *q, uint64_t now)
{
    struct list *first = list_first(&q->timers);

    if (!first) {
        return NULL;
    }
    struct timer *t = list_entry(first, struct timer, node);
    if (t->deadline_tsc > now) {
        return NULL;
    }
    timerq_remove(q, t);
    return t;
}

bool timerq_program(struct timerq *q, uint64_t *deadline)
{
    struct list *first = list_first(&q->timers);

    if (!first) {
        return false;
    }
    *deadline = list_entry(first, struct timer, node)->deadline_tsc;
    if (*deadline >= q->programmed) {
        return false;
    }
    q->programmed = *deadline;
    return true;
}

void timerq_fired(struct timerq *q)
{
    q->programmed = TIMERQ_NEVER;
}
