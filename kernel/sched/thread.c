/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads: birth, death, the list of all. Callers: everything that runs beside something else.
 */
#include "kernel/sched/sched.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/hostmap.h"
#include "kernel/lib/string.h"
#include "kernel/sched/sched_internal.h"
#include "kernel/sched/timer.h"
#include "kernel/sched/wait.h"
#include "mm/slab.h"

void sched_thread_entry(void); /* switch.asm */

static struct spinlock list_lock = SPINLOCK_INIT(RANK_CALL, "thread list");
static struct list all_threads = LIST_INIT(all_threads); /* list_lock */

/* Everybody who joins waits here: a thread's own memory must not be touched once it may be freed. */
static struct waitq deaths = {
    .lock = SPINLOCK_INIT(RANK_WAITQ, "deaths"),
    .waiters = LIST_INIT(deaths.waiters),
};

void thread_lay_out(struct thread *t, const char *name, uint32_t weight, unsigned cpu)
{
    *t = (struct thread){
        .state = THREAD_NEW,
        .cpu = cpu,
        .weight = MIN(MAX(weight, WEIGHT_MIN), WEIGHT_MAX),
    };
    (void)str_copy(t->name, sizeof(t->name), name);
    list_init(&t->run_node);
    list_init(&t->all_node);
    list_init(&t->wait_node);
}

void thread_lay_out_stack(struct thread *t)
{
    uint64_t *sp = (uint64_t *)t->stack_top;

    *--sp = 0; /* keeps the stack aligned as after a call */
    *--sp = (uint64_t)sched_thread_entry;
    for (unsigned i = 0; i < 6; i++) {
        *--sp = 0; /* rbp rbx r12 .. r15 */
    }
    t->sp = (uint64_t)sp;
}

void thread_enlist(struct thread *t)
{
    spin_lock(&list_lock);
    list_add_tail(&all_threads, &t->all_node);
    spin_unlock(&list_lock);
}

enum hv_err thread_create(const char *name, void (*fn)(void *), void *arg, uint32_t weight,
                          uint32_t owner, struct thread **out)
{
    struct thread *t = kmalloc(sizeof(*t), owner);

    if (!t) {
        return HV_ENOMEM;
    }
    thread_lay_out(t, name, weight, this_cpu()->id);
    t->owner = owner;
    t->fn = fn;
    t->arg = arg;
    t->stack_top = hostmap_stack_alloc(owner);
    if (!t->stack_top) {
        kfree(t);
        return HV_ENOMEM;
    }
    thread_lay_out_stack(t);
    thread_enlist(t);
    *out = t;
    return HV_OK;
}

void thread_start(struct thread *t)
{
    sched_admit(t);
}

void thread_exit(void)
{
    sched_leave_for_ever();
}

void thread_announce_death(void)
{
    waitq_wake_all(&deaths);
}

void thread_join(struct thread *t)
{
    waitq_wait(&deaths, sched_is_gone(t));
    spin_lock(&list_lock);
    list_del(&t->all_node);
    spin_unlock(&list_lock);
    hostmap_stack_free(t->stack_top);
    kfree(t);
}

struct sleeper {
    struct timer timer;
    struct thread *thread;
    bool due; /* atomic */
};

static void sleep_ended(struct timer *timer)
{
    struct sleeper *s = container_of(timer, struct sleeper, timer);

    __atomic_store_n(&s->due, true, __ATOMIC_RELEASE);
    thread_wake(s->thread);
}

void thread_sleep_ns(uint64_t ns)
{
    struct sleeper s = {.thread = thread_current()};

    timer_init(&s.timer, sleep_ended);
    timer_arm(&s.timer, rdtsc() + clock_ns_to_tsc(ns));
    while (!__atomic_load_n(&s.due, __ATOMIC_ACQUIRE)) {
        thread_block();
    }
    timer_cancel(&s.timer); /* the callback may still be about to return */
}

void thread_for_each(bool (*fn)(struct thread *t, void *arg), void *arg)
{
    struct list *pos;

    spin_lock(&list_lock);
    list_for_each (pos, &all_threads) {
        if (!fn(list_entry(pos, struct thread, all_node), arg)) {
            break;
        }
    }
    spin_unlock(&list_lock);
}
