/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scheduler's machinery: carries out what kernel/sched/runq.c decides.
 *
 * A thread is in a queue, or on a processor (on_cpu), or blocked, never two of these. Leaving takes
 * two steps: schedule() chooses the next thread and sets the old one's state; sched_finish_switch(),
 * already on the next thread's stack, clears on_cpu and only then queues the old thread again. A
 * wake that comes in between leaves wake_pending, which the second step heeds. So nobody ever finds
 * a queued thread whose stack is still in use, and nobody has to wait for another processor.
 *
 * A thread's state is guarded by the lock of the run queue that t->cpu names. Queues of two
 * processors are never locked together: a thread on its way from one to another is RUNNABLE and in
 * neither.
 *
 * An idle processor sets its bit in `idle_mask`, then looks for work, then halts with interrupts
 * closed up to the HLT; a waker queues the thread, then looks for a bit, clears it and kicks that
 * processor. One of the two sees the other. Whoever clears a bit kicks, so a bit that is cleared
 * once too often only wakes a processor in vain.
 */
#include "kernel/sched/sched.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/mitigate.h"
#include "arch/x86_64/smp.h"
#include "kernel/log.h"
#include "kernel/sched/runq.h"
#include "kernel/sched/sched_internal.h"
#include "kernel/sched/timer.h"
#include "mm/buddy.h"
#include "mm/slab.h"

struct sched_cpu {
    struct runq q;
    struct cpu *cpu;
    struct thread *prev; /* whom the processor is switching away from; itself only */
    struct timer slice;  /* end of the running thread's slice, armed while others wait */
    uint64_t accounted;  /* ns up to which time has been charged; itself only */
    uint64_t idle_ns, busy_ns, switches; /* written by itself (atomic) */
    struct thread idle;
};

void sched_switch(uint64_t *save_sp, uint64_t load_sp, struct cpu *cpu); /* switch.asm */

static struct sched_cpu boot_sched;
static struct thread boot_thread;
static struct sched_cpu *scheds[MAX_CPUS]; /* written before the processor starts */
static struct runq *queues[MAX_CPUS];
static uint64_t idle_mask[MAX_CPUS / 64]; /* atomic */
static uint64_t vclock;                   /* highest virtual time picked (atomic); see runq.h */

static struct sched_cpu *self(void)
{
    return scheds[this_cpu()->id];
}

static bool is_idle_thread(const struct sched_cpu *sc, const struct thread *t)
{
    return t == &sc->idle;
}

/* ---- Waking other processors ------------------------------------------------------------------ */

static void request_resched(struct sched_cpu *sc)
{
    __atomic_store_n(&sc->cpu->need_resched, true, __ATOMIC_RELAXED);
    if (sc->cpu != this_cpu()) {
        smp_kick(sc->cpu->id);
    }
}

static void set_idle(unsigned cpu, bool idle)
{
    uint64_t bit = 1ull << (cpu % 64);

    if (idle) {
        __atomic_fetch_or(&idle_mask[cpu / 64], bit, __ATOMIC_SEQ_CST);
    } else if (__atomic_load_n(&idle_mask[cpu / 64], __ATOMIC_RELAXED) & bit) {
        __atomic_fetch_and(&idle_mask[cpu / 64], ~bit, __ATOMIC_SEQ_CST);
    }
}

/* Threads wait in sc's queue: if another processor idles, it may come for one. Its bit is cleared
 * here already, so that the next waker finds the next idle processor. */
static void wake_an_idle_one(struct sched_cpu *sc)
{
    uint32_t idle = runq_find_idle(idle_mask, nr_cpus(), sc->cpu->id);

    if (idle != RUNQ_NONE) {
        set_idle(idle, false);
        request_resched(scheds[idle]);
    }
}

/* Threads wait in sc's queue: have an idle processor fetch one, or one that is far ahead. */
static void ask_for_relief(struct sched_cpu *sc)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* queued, then look for idle processors */
    wake_an_idle_one(sc);
    uint32_t leading = runq_find_leading(queues, nr_cpus(), sc->cpu->id, clock_now_ns());
    if (leading != RUNQ_NONE) {
        request_resched(scheds[leading]);
    }
}

/* ---- Slices ------------------------------------------------------------------------------------ */

static void slice_ended(struct timer *t)
{
    struct sched_cpu *sc = container_of(t, struct sched_cpu, slice);

    if (__atomic_load_n(&sc->q.nr_waiting, __ATOMIC_RELAXED) != 0) {
        __atomic_store_n(&sc->cpu->need_resched, true, __ATOMIC_RELAXED);
    }
}

/* Time the running thread's slice from now on, if anybody waits. Interrupts off, no lock held. */
static void start_slice(struct sched_cpu *sc)
{
    if (__atomic_load_n(&sc->q.nr_waiting, __ATOMIC_RELAXED) != 0) {
        timer_arm(&sc->slice, rdtsc() + clock_ns_to_tsc(runq_slice(&sc->q)));
    }
}

void sched_kicked(void)
{
    struct sched_cpu *sc = self();

    if (sc && !__atomic_load_n(&sc->slice.armed, __ATOMIC_RELAXED)) {
        start_slice(sc);
    }
}

/* ---- Making threads runnable ------------------------------------------------------------------- */

/* Lock the queue that guards t; interrupts are off. */
static struct sched_cpu *lock_queue_of(const struct thread *t)
{
    for (;;) {
        unsigned cpu = __atomic_load_n(&t->cpu, __ATOMIC_RELAXED);
        spin_lock(&scheds[cpu]->q.lock);
        if (likely(cpu == __atomic_load_n(&t->cpu, __ATOMIC_RELAXED))) {
            return scheds[cpu];
        }
        spin_unlock(&scheds[cpu]->q.lock);
    }
}

static void raise_vclock(uint64_t to)
{
    uint64_t v = __atomic_load_n(&vclock, __ATOMIC_RELAXED);

    while (v < to && !__atomic_compare_exchange_n(&vclock, &v, to, true, __ATOMIC_RELAXED,
                                                  __ATOMIC_RELAXED)) {}
}

/* A thread has been queued on sc: see that it gets a processor in due time. No lock held. */
static void announce(struct sched_cpu *sc, bool preempt, bool first)
{
    if (preempt) {
        request_resched(sc);
    } else if (first && sc->cpu == this_cpu()) {
        start_slice(sc);
    } else if (first) {
        smp_kick(sc->cpu->id);
    }
    if (__atomic_load_n(&sc->q.current_vtime, __ATOMIC_RELAXED) != RUNQ_EMPTY) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* queued, then look for idle processors */
        wake_an_idle_one(sc);
    }
}

/* t, RUNNABLE and in no queue, goes into that of a processor of the scheduler's choice. Called with
 * sc, t's present queue, locked; returns with no lock held. */
static void place(struct sched_cpu *sc, struct thread *t)
{
    uint64_t now = clock_now_ns();
    uint32_t target = runq_place(queues, nr_cpus(), idle_mask, sc->cpu->id);
    uint64_t v = __atomic_load_n(&vclock, __ATOMIC_RELAXED);

    v = runq_clock(queues, nr_cpus(), target, v, now);
    raise_vclock(v);
    set_idle(target, false); /* it will be kicked; the next waker shall find the next one */
    runq_normalise_woken(t, v);
    if (target != sc->cpu->id) {
        __atomic_store_n(&t->cpu, target, __ATOMIC_RELAXED);
        spin_unlock(&sc->q.lock);
        sc = scheds[target];
        spin_lock(&sc->q.lock);
    }
    runq_insert(&sc->q, t);
    bool preempt = runq_preempts(&sc->q, t->vtime, now);
    bool first = sc->q.nr_waiting == 1;
    spin_unlock(&sc->q.lock);
    announce(sc, preempt, first);
}

void thread_wake(struct thread *t)
{
    uint64_t flags = irq_save();
    struct sched_cpu *sc = lock_queue_of(t);

    if (t->state == THREAD_BLOCKED && !t->on_cpu) {
        t->state = THREAD_RUNNABLE;
        place(sc, t);
    } else {
        t->wake_pending = true;
        spin_unlock(&sc->q.lock);
    }
    irq_restore(flags);
}

void sched_admit(struct thread *t)
{
    uint64_t flags = irq_save();
    struct sched_cpu *sc = lock_queue_of(t);

    if (t->state != THREAD_NEW) {
        panic("thread %s started twice", t->name);
    }
    t->state = THREAD_RUNNABLE;
    place(sc, t);
    irq_restore(flags);
}

bool sched_is_gone(const struct thread *t)
{
    uint64_t flags = irq_save();
    struct sched_cpu *sc = lock_queue_of(t);
    bool gone = !t->on_cpu && (t->state == THREAD_DEAD || t->state == THREAD_NEW);

    spin_unlock(&sc->q.lock);
    irq_restore(flags);
    return gone;
}

/* ---- Switching --------------------------------------------------------------------------------- */

/* Charge the time since the last call to the running thread. */
static void account(struct sched_cpu *sc, struct thread *running, uint64_t now)
{
    uint64_t ns = now - sc->accounted;

    sc->accounted = now;
    if (is_idle_thread(sc, running)) {
        __atomic_store_n(&sc->idle_ns, sc->idle_ns + ns, __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&sc->busy_ns, sc->busy_ns + ns, __ATOMIC_RELAXED);
        runq_charge(running, ns);
    }
}

/* Move a thread here that lags behind `vtime`, what this processor would run otherwise. */
static void relieve(struct sched_cpu *sc, uint64_t vtime)
{
    uint32_t from = runq_find_lagging(queues, nr_cpus(), sc->cpu->id, vtime);

    if (from == RUNQ_NONE) {
        return;
    }
    struct runq *q = queues[from];
    spin_lock(&q->lock);
    struct thread *t = runq_first(q);
    if (t && t->vtime < vtime) {
        runq_remove(q, t);
        __atomic_store_n(&t->cpu, sc->cpu->id, __ATOMIC_RELAXED);
    } else {
        t = NULL;
    }
    bool more = q->nr_waiting != 0;
    spin_unlock(&q->lock);
    if (t) {
        spin_lock(&sc->q.lock);
        runq_insert(&sc->q, t);
        spin_unlock(&sc->q.lock);
        if (more) {
            wake_an_idle_one(sc); /* one wakes the next */
        }
    }
}

/* One of the host's own: it carries no vCPU. */
static bool is_service_thread(const struct sched_cpu *sc, const struct thread *t)
{
    return t->switch_out == NULL && !is_idle_thread(sc, t);
}

/*
 * Choose among the queue's first thread, `prev` unless it leaves for `after` other than RUNNABLE,
 * and idling; settle all states. Returns prev if it goes on.
 */
static struct thread *choose(struct sched_cpu *sc, struct thread *prev, enum thread_state after,
                             uint64_t lead, uint64_t now)
{
    bool was_idle = is_idle_thread(sc, prev);
    uint64_t v = __atomic_load_n(&vclock, __ATOMIC_RELAXED);

    spin_lock(&sc->q.lock);
    /* Woken again already: it goes on if it is its turn, for who is woken all the time must let others in. */
    if (after == THREAD_BLOCKED && prev->wake_pending) {
        prev->wake_pending = false;
        after = THREAD_RUNNABLE;
    }
    bool may_go_on = after == THREAD_RUNNABLE && !was_idle;
    struct thread *next = runq_pick(&sc->q, may_go_on ? prev : NULL, lead, &v);
    if (!next) {
        next = &sc->idle;
    }
    prev->state = after;
    next->state = THREAD_RUNNING;
    next->on_cpu = true;
    runq_set_current(&sc->q, is_idle_thread(sc, next) ? NULL : next, now);
    spin_unlock(&sc->q.lock);
    raise_vclock(v);
    return next;
}

static void schedule(enum thread_state after, uint64_t lead)
{
    uint64_t flags = irq_save();
    struct sched_cpu *sc = self();
    struct thread *prev = sc->cpu->current;
    uint64_t now = clock_now_ns();
    uint64_t best = __atomic_load_n(&sc->q.head_vtime, __ATOMIC_RELAXED);

    __atomic_store_n(&sc->cpu->need_resched, false, __ATOMIC_RELAXED);
    account(sc, prev, now);
    if (after == THREAD_RUNNABLE && !is_idle_thread(sc, prev)) {
        best = MIN(best, prev->vtime);
    }
    relieve(sc, best);

    struct thread *next = choose(sc, prev, after, lead, now);
    if (next != prev) {
        if (prev->switch_out) {
            prev->switch_out(prev);
        }
        if (is_service_thread(sc, next)) {
            mitigate_served();
        }
        sc->prev = prev;
        sc->cpu->current = next;
        __atomic_store_n(&sc->switches, sc->switches + 1, __ATOMIC_RELAXED);
        sched_switch(&prev->sp, next->sp, sc->cpu);
        sched_finish_switch();
    } else {
        start_slice(sc);
    }
    irq_restore(flags);
}

void sched_finish_switch(void)
{
    struct sched_cpu *sc = self();
    struct thread *prev = sc->prev, *me = sc->cpu->current;

    spin_lock(&sc->q.lock);
    bool dead = prev->state == THREAD_DEAD;
    if (prev->state == THREAD_BLOCKED && prev->wake_pending) {
        prev->wake_pending = false;
        prev->state = THREAD_RUNNABLE;
    }
    if (prev->state == THREAD_RUNNABLE && !is_idle_thread(sc, prev)) {
        runq_insert(&sc->q, prev);
    }
    prev->on_cpu = false;
    bool others_wait = sc->q.nr_waiting != 0;
    spin_unlock(&sc->q.lock); /* from here on others may run prev, or free it */

    me->started_tsc = rdtsc();
    if (others_wait) {
        start_slice(sc);
        ask_for_relief(sc);
    }
    if (dead) {
        thread_announce_death();
    }
    if (me->switch_in) {
        me->switch_in(me);
    }
}

void sched_thread_main(void)
{
    sched_finish_switch();
    irq_enable();
    struct thread *t = thread_current();
    t->fn(t->arg);
    thread_exit();
}

void sched_yield(void)
{
    schedule(THREAD_RUNNABLE, sched_need_resched() ? 0 : RUNQ_GRANULARITY);
}

void thread_block(void)
{
    struct cpu *cpu = this_cpu();

    if (cpu->irq_depth != 0 || cpu->lock_ranks != 0) {
        panic("%s blocks in an interrupt handler or holding a lock", cpu->current->name);
    }
    schedule(THREAD_BLOCKED, 0);
}

void sched_leave_for_ever(void)
{
    schedule(THREAD_DEAD, 0);
    panic("a dead thread runs");
}

/* ---- Idling and start-up ----------------------------------------------------------------------- */

static bool work_for(const struct sched_cpu *sc)
{
    return __atomic_load_n(&sc->q.nr_waiting, __ATOMIC_RELAXED) != 0 ||
           runq_find_lagging(queues, nr_cpus(), sc->cpu->id, RUNQ_EMPTY) != RUNQ_NONE;
}

static void idle_loop(void) __noreturn;
static void idle_loop(void)
{
    struct sched_cpu *sc = self(); /* idle threads never move */

    for (;;) {
        irq_disable();
        set_idle(sc->cpu->id, true);
        if (!work_for(sc)) {
            /* STI takes effect behind HLT: nothing comes in between. */
            __asm__ volatile("sti; hlt; cli" ::: "memory");
        }
        set_idle(sc->cpu->id, false);
        irq_enable();
        schedule(THREAD_RUNNABLE, 0);
    }
}

static void idle_main(void *arg)
{
    (void)arg;
    idle_loop();
}

static void init_cpu(struct sched_cpu *sc, struct cpu *cpu)
{
    runq_init(&sc->q);
    sc->cpu = cpu;
    timer_init(&sc->slice, slice_ended);
    thread_lay_out(&sc->idle, "idle", WEIGHT_MIN, cpu->id);
    cpu->idle = &sc->idle;
    queues[cpu->id] = &sc->q;
    scheds[cpu->id] = sc;
}

void sched_init(void)
{
    struct cpu *cpu = this_cpu();
    struct thread *idle = &boot_sched.idle;

    timer_setup();
    init_cpu(&boot_sched, cpu);
    idle->stack_top = hostmap_stack_alloc(OWNER_HOST);
    if (!idle->stack_top) {
        panic("no memory for the idle thread's stack");
    }
    idle->fn = idle_main;
    thread_lay_out_stack(idle);

    thread_lay_out(&boot_thread, "boot", WEIGHT_NORMAL, cpu->id);
    boot_thread.state = THREAD_RUNNING;
    boot_thread.on_cpu = true;
    boot_thread.started_tsc = rdtsc();
    boot_sched.accounted = clock_now_ns();
    runq_set_current(&boot_sched.q, &boot_thread, boot_sched.accounted);
    cpu->current = &boot_thread;
    thread_enlist(&boot_thread);
}

enum hv_err sched_init_cpu(struct cpu *cpu)
{
    struct sched_cpu *sc = scheds[cpu->id];

    if (!sc) {
        sc = kmalloc(sizeof(*sc), OWNER_HOST);
        if (!sc) {
            return HV_ENOMEM;
        }
    }
    init_cpu(sc, cpu);
    return HV_OK;
}

void sched_start_cpu(void)
{
    struct sched_cpu *sc = self();
    struct thread *idle = &sc->idle;

    if (sc == &boot_sched) {
        return;
    }
    idle->state = THREAD_RUNNING;
    idle->on_cpu = true;
    sc->accounted = clock_now_ns();
    sc->cpu->current = idle;
    idle_loop();
}

void sched_cpu_stats(unsigned cpu, struct sched_cpu_stats *out)
{
    const struct sched_cpu *sc = scheds[cpu];

    *out = (struct sched_cpu_stats){
        .idle_ns = __atomic_load_n(&sc->idle_ns, __ATOMIC_RELAXED),
        .busy_ns = __atomic_load_n(&sc->busy_ns, __ATOMIC_RELAXED),
        .switches = __atomic_load_n(&sc->switches, __ATOMIC_RELAXED),
        .runnable = __atomic_load_n(&sc->q.nr_waiting, __ATOMIC_RELAXED) +
                    (__atomic_load_n(&sc->q.current_vtime, __ATOMIC_RELAXED) != RUNQ_EMPTY),
    };
}
