/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Wait queues. A waker takes the waiters it wakes out of the queue, under the queue's lock, so a
 * waiter's memory is not touched after its waitq_finish. Called from threads; waking also from
 * interrupt handlers and timer callbacks.
 */
#include "kernel/sched/wait.h"

#include "arch/x86_64/irqflags.h"

void waitq_init(struct waitq *q)
{
    spin_init(&q->lock, RANK_WAITQ, "wait queue");
    list_init(&q->waiters);
}

void waitq_prepare(struct waitq *q)
{
    struct thread *t = thread_current();
    uint64_t flags = spin_lock_irqsave(&q->lock);

    if (list_empty(&t->wait_node)) {
        list_add_tail(&q->waiters, &t->wait_node);
    }
    spin_unlock_irqrestore(&q->lock, flags);
}

void waitq_finish(struct waitq *q)
{
    struct thread *t = thread_current();
    uint64_t flags = spin_lock_irqsave(&q->lock);

    list_del(&t->wait_node);
    spin_unlock_irqrestore(&q->lock, flags);
}

/* Wake the first waiter, if any; false if there was none. The queue is locked. */
static bool wake_first(struct waitq *q)
{
    struct list *first = list_first(&q->waiters);

    if (!first) {
        return false;
    }
    list_del(first);
    thread_wake(list_entry(first, struct thread, wait_node));
    return true;
}

void waitq_wake_all(struct waitq *q)
{
    uint64_t flags = spin_lock_irqsave(&q->lock);

    while (wake_first(q)) {}
    spin_unlock_irqrestore(&q->lock, flags);
}

void waitq_wake_one(struct waitq *q)
{
    uint64_t flags = spin_lock_irqsave(&q->lock);

    (void)wake_first(q);
    spin_unlock_irqrestore(&q->lock, flags);
}
