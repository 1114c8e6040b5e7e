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
#define WEIGHT_MIN 10u
#define WEIGHT_MAX 1000000u
#define SLICE_NS 5000000ull /* how long a thread runs while others wait */

struct thread {
    uint64_t sp; /* saved stack pointer while not running */
    uint64_t stack_top;
    char name[32];
    enum thread_state state; /* run queue lock of `cpu` */
    unsigned cpu;            /* processor whose queue holds or last held it (atomic; same lock) */
    bool on_cpu;             /* its stack is in use, so it is in no queue; same lock */
    uint32_t weight;         /* WEIGHT_MIN .. WEIGHT_MAX, constant */
    uint64_t vtime;          /* weighted run time, ns; whoever runs it, else same lock */
    uint64_t run_ns;         /* total run time (atomic) */
    uint64_t started_tsc;    /* when it last got a processor */
    struct list run_node;    /* same lock */
    struct list all_node;    /* thread list lock */
    struct list wait_node;   /* wait queue lock */
    bool wake_pending;       /* a wake came before it blocked; same lock */
    uint32_t owner;          /* VM id or OWNER_HOST, for the stack's frames */
    void (*fn)(void *arg);
    void *arg;
    /* Called by the switcher when the thread leaves / gets a processor, interrupts off, no scheduler
     * lock held; may be NULL, set before thread_start. vCPU threads put and load hardware state here.
     * Neither is called when a thread that gives way is chosen again at once. */
    void (*switch_out)(struct thread *t);
    void (*switch_in)(struct thread *t);
};

/* Boot: make the running context the boot processor's first thread, start its queue and the timers.
 * After slab, irq, lapic and clock. */
void sched_init(void);
/* Boot processor: prepare the run queue of another processor before that is started. */
enum hv_err sched_init_cpu(struct cpu *cpu) __must_check;
/* Each processor, ready for interrupts: the running context of an application processor becomes its
 * idle thread and never returns. The boot processor has its own since sched_init: returns at once. */
void sched_start_cpu(void);

/* A thread with its own guarded stack, not started. Its frames are charged to `owner`. HV_ENOMEM. */
enum hv_err thread_create(const char *name, void (*fn)(void *), void *arg, uint32_t weight,
                          uint32_t owner, struct thread **out) __must_check;
void thread_start(struct thread *t);
/* End the running thread; returning from its function does the same. Somebody must join it. */
void thread_exit(void) __noreturn;
/* Wait until t is dead (or was never started), then free it and its stack. */
void thread_join(struct thread *t);

/* Give the processor to others if any is due; sleeps never. When nothing asked for it, one that is
 * nearly due will do, so that a loop of yields lets others in. */
void sched_yield(void);
/* Block until thread_wake(); a wake that came first is not lost, and one that nobody waits for any
 * more ends the next block early, so callers check their condition again. Holds no lock, interrupts
 * on. */
void thread_block(void);
/* Make t runnable (any context but NMI, interrupts may be off); kicks or wakes a processor for it. */
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

/* Walk all threads but the idle ones, for `vms`/`cpus`; fn returns false to stop. The thread list is
 * locked (RANK_WAITQ). */
void thread_for_each(bool (*fn)(struct thread *t, void *arg), void *arg);

struct sched_cpu_stats {
    uint64_t idle_ns, busy_ns, switches;
    unsigned runnable;
};
/* Of a processor that is running; numbers that move on while they are read. */
void sched_cpu_stats(unsigned cpu, struct sched_cpu_stats *out);

/* A kick arrived here (arch/x86_64/smp.c): see whether the running thread's slice must be timed. */
void sched_kicked(void);
