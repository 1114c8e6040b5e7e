/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One-shot timers: the queues of kernel/sched/timerq.c with their locks, driven by each processor's
 * local APIC timer. A timer is in at most one queue; t->cpu names the queue whose lock guards it and
 * changes only with that lock held. Callers: the scheduler, virtual timers, device models.
 */
#include "kernel/sched/timer.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irq.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/percpu.h"
#include "kernel/log.h"
#include "kernel/sched/timerq.h"

static struct timerq queues[MAX_CPUS];

/* Lock the queue that guards t; interrupts are off. */
static struct timerq *lock_queue_of(const struct timer *t)
{
    for (;;) {
        unsigned cpu = __atomic_load_n(&t->cpu, __ATOMIC_RELAXED);
        spin_lock(&queues[cpu].lock);
        if (likely(cpu == __atomic_load_n(&t->cpu, __ATOMIC_RELAXED))) {
            return &queues[cpu];
        }
        spin_unlock(&queues[cpu].lock);
    }
}

/* Set the hardware to q's first deadline; q is this processor's, locked. */
static void program(struct timerq *q)
{
    uint64_t deadline;

    if (timerq_program(q, &deadline)) {
        lapic_timer_arm(deadline);
    }
}

/* VEC_TIMER. The callback runs without the lock, so it may arm timers, its own included. */
static void timer_interrupt(void *arg)
{
    struct timerq *q = &queues[this_cpu()->id];

    (void)arg;
    spin_lock(&q->lock);
    timerq_fired(q);
    for (struct timer *t; (t = timerq_pop_due(q, rdtsc())) != NULL;) {
        __atomic_fetch_add(&t->running, 1, __ATOMIC_RELAXED);
        spin_unlock(&q->lock);
        t->fn(t);
        __atomic_fetch_sub(&t->running, 1, __ATOMIC_RELEASE);
        spin_lock(&q->lock);
    }
    program(q);
    spin_unlock(&q->lock);
}

void timer_setup(void)
{
    for (unsigned i = 0; i < MAX_CPUS; i++) {
        timerq_init(&queues[i]);
    }
    if (irq_install(VEC_TIMER, timer_interrupt, NULL) != HV_OK) {
        panic("the timer vector is taken");
    }
}

void timer_init(struct timer *t, void (*fn)(struct timer *t))
{
    *t = (struct timer){.fn = fn};
    list_init(&t->node);
}

void timer_arm(struct timer *t, uint64_t deadline_tsc)
{
    uint64_t flags = irq_save();
    unsigned self = this_cpu()->id;

    for (;;) {
        struct timerq *q = lock_queue_of(t);
        if (t->armed) {
            timerq_remove(q, t);
        }
        if (likely(q == &queues[self])) {
            t->deadline_tsc = deadline_tsc;
            timerq_insert(q, t);
            program(q);
            spin_unlock(&q->lock);
            break;
        }
        /* Ours from now on; whoever comes in between finds it unarmed. */
        __atomic_store_n(&t->cpu, self, __ATOMIC_RELAXED);
        spin_unlock(&q->lock);
    }
    irq_restore(flags);
}

void timer_cancel(struct timer *t)
{
    uint32_t running;

    do {
        uint64_t flags = irq_save();
        struct timerq *q = lock_queue_of(t);
        if (t->armed) {
            timerq_remove(q, t);
        }
        running = __atomic_load_n(&t->running, __ATOMIC_ACQUIRE);
        spin_unlock(&q->lock);
        irq_restore(flags);
        if (running != 0) {
            __builtin_ia32_pause();
        }
    } while (running != 0);
}
