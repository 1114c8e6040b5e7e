/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Threads and proportional-share scheduling. One run queue per processor; the runnable thread with
 * the smallest virtual time runs; virtual time grows by run time divided by weight. The hypervisor
 * is not preemptive: a thread gives up the processor when it sleeps, yields, or (vCPU threads) when
 * need_resched is seen at an exit. Idle processors halt and are woken by an interrupt.
 */
#pragma once

#include "arch/x86_64/percpu.h"
#include "kernel/lib/err.h"
#include "kernel/lib/list.h"
#include "kernel/lib/spinlock.h"

enum thread_state { THREAD_NEW, THREAD_RUNNABLE, THREAD_RUNNING, THREAD_BLOCKED, THREAD_DEAD };

#define WEIGHT_NORMAL 1000u
#define SLICE_NS 5000000ull /* how long a thread runs while others wait */

struct thread {
    uint64_t sp;              /* saved stack pointer while not running */
    uint64_t stack_top;
    char name[32];
    enum thread_state state;  /* run queue lock of `cpu` */
    unsigned cpu;             /* processor whose queue holds or last held it */
    bool on_cpu;              /* its stack is in use (atomic): not to be run elsewhere before clear */
    uint32_t weight;
    uint64_t vtime;           /* weighted run time, ns */
    uint64_t run_ns;          /* total run time */
    uint64_t started_tsc;
    struct list run_node;     /* run queue lock */
    struct list all_node;     /* thread list lock */
    struct list wait_node;    /* wait queue lock */
    bool wake_pending;        /* a wake came before it blocked */
    uint32_t owner;           /* VM id or OWNER_HOST, for the stack's frames */
    void (*fn)(void *arg);
    void *arg;
    /* Called by the switcher when the thread leaves / gets a processor, interrupts off; may be NULL.
     * vCPU threads put and load hardware state here. */
    void (*switch_out)(struct thread *t);
    void (*switch_in)(struct thread *t);
};

/* Boot: make the running context the boot processor's first thread, start its queue. */
void sched_init(void);
/* Each processor: become its idle thread. Never returns on application processors. */
void sched_start_cpu(void);

/* A thread with its own guarded stack, not started. Its frames are charged to `owner`. */
enum hv_err thread_create(const char *name, void (*fn)(void *), void *arg, uint32_t weight,
                          uint32_t owner, struct thread **out) __must_check;
void thread_start(struct thread *t);
/* End the running thread. */
void thread_exit(void) __noreturn;
/* Wait until t is dead, then free it and its stack. */
void thread_join(struct thread *t);

/* Give the processor to others if any is due; sleeps never. */
void sched_yield(void);
/* Block until thread_wake(); a wake that came first is not lost. Holds no lock, interrupts on. */
void thread_block(void);
/* Make t runnable (any context, interrupts may be off); kicks or wakes a processor for it. */
void thread_wake(struct thread *t);
void thread_sleep_ns(uint64_t ns);

static inline struct thread *thread_current(void)
{
    return this_cpu()->current;
}
static inline bool sched_need_resched(void)
{
    return __atomic_load_n(&this_cpu()->need_resched, __ATOMIC_RELAXED);
}

/* Walk all threads for `vms`/`cpus`; fn returns false to stop. */
void thread_for_each(bool (*fn)(struct thread *t, void *arg), void *arg);

struct sched_cpu_stats {
    uint64_t idle_ns, busy_ns, switches;
    unsigned runnable;
};
void sched_cpu_stats(unsigned cpu, struct sched_cpu_stats *out);
