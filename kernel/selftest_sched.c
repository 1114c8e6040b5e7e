/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the simulation in tests/host/test_runq.c cannot show: switching, waking, timers and calls
 * between real processors. Each case is a function that returns whether its numbers came out.
 */
#include "kernel/selftest_sched.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/smp.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/rng.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/timer.h"
#include "kernel/sched/wait.h"
#include "mm/buddy.h"

#define MAX_WORKERS 64
#define MS 1000000ull

struct worker {
    struct thread *thread;
    struct waitq queue;
    uint64_t value; /* atomic */
    uint64_t ran_ns, stolen_ns;
    bool *stop; /* atomic */
};

static struct worker workers[MAX_WORKERS];

static uint64_t get(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void put(uint64_t *p, uint64_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static bool start(struct worker *w, void (*fn)(void *), uint32_t weight)
{
    if (thread_create("selftest", fn, w, weight, OWNER_HOST, &w->thread) != HV_OK) {
        return false;
    }
    thread_start(w->thread);
    return true;
}

static void add_one(void *arg)
{
    struct worker *w = arg;

    put(&w->value, get(&w->value) + 1);
}

/* Thousands of short lives, many at a time. */
static bool case_create_exit(void)
{
    const unsigned rounds = 60, width = 50;

    for (unsigned i = 0; i < width; i++) {
        workers[i].value = 0;
    }
    for (unsigned r = 0; r < rounds; r++) {
        unsigned n = 0;
        while (n < width && start(&workers[n], add_one, WEIGHT_NORMAL)) {
            n++;
        }
        for (unsigned i = 0; i < n; i++) {
            thread_join(workers[i].thread);
        }
        if (n < width) {
            return false;
        }
    }
    for (unsigned i = 0; i < width; i++) {
        if (workers[i].value != rounds) {
            return false;
        }
    }
    return true;
}

/* Waits for its turn (an odd value), takes it, wakes its neighbour. */
#define RING_ROUNDS 100

static unsigned ring_size;

static void ring_member(void *arg)
{
    struct worker *w = arg;
    struct worker *next = &workers[(unsigned)(w - workers + 1) % ring_size];

    for (uint64_t round = 1; round <= RING_ROUNDS; round++) {
        waitq_wait(&w->queue, get(&w->value) >= round);
        put(&next->value, get(&next->value) + 1);
        waitq_wake_one(&next->queue);
    }
}

/* A token round a ring of threads: each hand-over is a sleep and a wake, often across processors. */
static bool case_ring(void)
{
    ring_size = 24;
    for (unsigned i = 0; i < ring_size; i++) {
        waitq_init(&workers[i].queue);
        workers[i].value = 0;
    }
    for (unsigned i = 0; i < ring_size; i++) {
        if (!start(&workers[i], ring_member, WEIGHT_NORMAL)) {
            return false;
        }
    }
    put(&workers[0].value, 1);
    waitq_wake_all(&workers[0].queue);
    for (unsigned i = 0; i < ring_size; i++) {
        thread_join(workers[i].thread);
    }
    return workers[1].value == RING_ROUNDS && workers[0].value == RING_ROUNDS + 1;
}

static struct waitq storm_queue = {
    .lock = SPINLOCK_INIT(RANK_WAITQ, "storm"),
    .waiters = LIST_INIT(storm_queue.waiters),
};
static uint64_t storm_generation;

#define STORM_ROUNDS 100

static void storm_member(void *arg)
{
    struct worker *w = arg;

    for (uint64_t g = 1; g <= STORM_ROUNDS; g++) {
        waitq_wait(&storm_queue, get(&storm_generation) >= g);
        thread_wake(workers[(unsigned)(w - workers + 7) % MAX_WORKERS].thread); /* in vain */
        put(&w->value, g); /* last: when all have come here, any may be freed */
    }
}

/* All wait for one event, again and again, and wake each other without cause meanwhile. */
static bool case_wake_storm(void)
{
    storm_generation = 0;
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        workers[i].value = 0;
        if (thread_create("storm", storm_member, &workers[i], WEIGHT_NORMAL, OWNER_HOST,
                          &workers[i].thread) != HV_OK) {
            return false;
        }
    }
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        thread_start(workers[i].thread);
    }
    for (uint64_t g = 1; g <= STORM_ROUNDS; g++) {
        put(&storm_generation, g);
        waitq_wake_all(&storm_queue);
        for (unsigned i = 0; i < MAX_WORKERS; i++) {
            while (get(&workers[i].value) < g) {
                sched_yield();
            }
        }
    }
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        thread_join(workers[i].thread);
    }
    return true;
}

static void burn(void *arg)
{
    struct worker *w = arg;

    uint64_t last = clock_now_ns();
    while (!__atomic_load_n(w->stop, __ATOMIC_RELAXED)) {
        uint64_t now = clock_now_ns();
        w->stolen_ns = MAX(w->stolen_ns, now - last);
        last = now;
        if (sched_need_resched()) {
            sched_yield();
            last = clock_now_ns();
        }
    }
    w->ran_ns = w->thread->run_ns;
}

/* Threads that compute, of the given weights, share all processors within `percent`, but for what an
 * outer machine took from one of our processors in one go, which is charged to whoever ran. */
static bool share(unsigned n, const uint32_t *weight, unsigned nr_weights, uint64_t ms,
                  unsigned percent)
{
    bool stop = false, ok = true;
    uint64_t total = 0, sum = 0, stolen = 0;

    for (unsigned i = 0; i < n; i++) {
        workers[i].stop = &stop;
        workers[i].stolen_ns = 0;
        if (!start(&workers[i], burn, weight[i % nr_weights])) {
            return false;
        }
        sum += weight[i % nr_weights];
    }
    thread_sleep_ns(ms * MS);
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < n; i++) {
        thread_join(workers[i].thread);
        total += workers[i].ran_ns;
        stolen = MAX(stolen, workers[i].stolen_ns);
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t due = total / sum * weight[i % nr_weights];
        uint64_t ran = workers[i].ran_ns;
        uint64_t off = ran > due ? ran - due : due - ran;
        if (off > due * percent / 100 + stolen) {
            log_info("selftest sched: thread %u of %u ran %llu ms, %llu were due, %llu stolen", i,
                     n, (unsigned long long)(ran / MS), (unsigned long long)(due / MS),
                     (unsigned long long)(stolen / MS));
            ok = false;
        }
    }
    return ok;
}

static bool case_equal_shares(void)
{
    static const uint32_t equal[] = {WEIGHT_NORMAL};
    unsigned n = MIN(nr_cpus() * 2 + 1, (unsigned)MAX_WORKERS);

    return share(n, equal, 1, 2000, 10);
}

static bool case_weights(void)
{
    static const uint32_t weight[] = {1000, 2000, 4000};
    unsigned n = MIN(nr_cpus() * 6, (unsigned)MAX_WORKERS / 3 * 3);

    return share(n, weight, 3, 3000, 15);
}

static void sleep_often(void *arg)
{
    struct worker *w = arg;
    struct rng rng;

    rng_seed(&rng, (uint64_t)(w - workers));
    for (unsigned i = 0; i < 40; i++) {
        uint64_t ns = rng_below(&rng, 5 * MS);
        uint64_t begin = clock_now_ns();
        thread_sleep_ns(ns);
        if (clock_now_ns() - begin + 1 < ns) { /* the conversions round down */
            put(&w->value, 1);
        }
    }
}

/* No sleep ends early, and all end. */
static bool case_sleeps(void)
{
    bool ok = true;

    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        workers[i].value = 0;
        if (!start(&workers[i], sleep_often, WEIGHT_NORMAL)) {
            return false;
        }
    }
    for (unsigned i = 0; i < MAX_WORKERS; i++) {
        thread_join(workers[i].thread);
        ok = ok && workers[i].value == 0;
    }
    return ok;
}

static void wake_oneself(void *arg)
{
    const struct worker *w = arg;

    while (!__atomic_load_n(w->stop, __ATOMIC_RELAXED)) {
        thread_wake(thread_current());
        thread_block();
    }
}

/* Who is woken whenever he wants to sleep lets others in: those that compute get half of the time. */
static bool case_self_wakes(void)
{
    const uint64_t span = 400 * MS;
    unsigned n = MIN(nr_cpus(), (unsigned)MAX_WORKERS / 2);
    uint64_t ran = 0, stolen = 0;
    bool stop = false;

    for (unsigned i = 0; i < 2 * n; i++) {
        workers[i].stop = &stop;
        workers[i].stolen_ns = 0;
        if (!start(&workers[i], i < n ? wake_oneself : burn, WEIGHT_NORMAL)) {
            return false;
        }
    }
    thread_sleep_ns(span);
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < 2 * n; i++) {
        thread_join(workers[i].thread);
        ran += i < n ? 0 : workers[i].ran_ns;
        stolen += i < n ? 0 : workers[i].stolen_ns;
    }
    return ran + stolen >= span * n / 4;
}

struct tick {
    struct timer timer;
    uint64_t fired; /* atomic */
};

static void count_tick(struct timer *t)
{
    struct tick *k = container_of(t, struct tick, timer);

    put(&k->fired, get(&k->fired) + 1);
}

static void arm_and_cancel(void *arg)
{
    struct worker *w = arg;
    struct rng rng;

    rng_seed(&rng, 99 + (uint64_t)(w - workers));
    for (unsigned i = 0; i < 400; i++) {
        struct tick k = {.fired = 0};
        timer_init(&k.timer, count_tick);
        timer_arm(&k.timer, rdtsc() + clock_ns_to_tsc(rng_below(&rng, MS / 10)));
        timer_arm(&k.timer, rdtsc() + clock_ns_to_tsc(rng_below(&rng, MS / 10)));
        sched_yield(); /* perhaps to go on elsewhere */
        timer_cancel(&k.timer);
        uint64_t fired = get(&k.fired);
        sched_yield();
        if (fired > 2 || get(&k.fired) != fired) {
            put(&w->value, 1);
        }
    }
}

/* A cancelled timer stays silent, wherever it was armed; its memory is a stack that moves on. */
static bool case_timer_cancel(void)
{
    bool ok = true;

    for (unsigned i = 0; i < 16; i++) {
        workers[i].value = 0;
        if (!start(&workers[i], arm_and_cancel, WEIGHT_NORMAL)) {
            return false;
        }
    }
    for (unsigned i = 0; i < 16; i++) {
        thread_join(workers[i].thread);
        ok = ok && workers[i].value == 0;
    }
    return ok;
}

static void count_call(void *arg)
{
    __atomic_fetch_add((uint64_t *)arg, 1, __ATOMIC_RELAXED);
}

#define NR_CALLS 20

static void call_often(void *arg)
{
    struct worker *w = arg;

    for (unsigned i = 0; i < NR_CALLS; i++) {
        smp_call_others(count_call, &w->value);
    }
}

static bool case_calls(void)
{
    bool ok = true;

    for (unsigned i = 0; i < 4; i++) {
        workers[i].value = 0;
        if (!start(&workers[i], call_often, WEIGHT_NORMAL)) {
            return false;
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        thread_join(workers[i].thread);
        ok = ok && workers[i].value == (uint64_t)NR_CALLS * (nr_cpus() - 1);
    }
    return ok;
}

/* With nothing to do, processors halt: nearly all of the time is idle time. */
static bool case_idle(void)
{
    uint64_t before = 0, after = 0, span = 200 * MS;
    struct sched_cpu_stats stats;

    for (unsigned i = 0; i < nr_cpus(); i++) {
        sched_cpu_stats(i, &stats);
        before += stats.busy_ns;
    }
    thread_sleep_ns(span);
    for (unsigned i = 0; i < nr_cpus(); i++) {
        sched_cpu_stats(i, &stats);
        after += stats.busy_ns;
    }
    return after - before < span * nr_cpus() / 2;
}

bool selftest_sched(void)
{
    static const struct {
        const char *name;
        bool (*fn)(void);
    } cases[] = {
        {"create_exit", case_create_exit},
        {"ring", case_ring},
        {"wake_storm", case_wake_storm},
        {"equal_shares", case_equal_shares},
        {"weights", case_weights},
        {"sleeps", case_sleeps},
        {"self_wakes", case_self_wakes},
        {"timer_cancel", case_timer_cancel},
        {"calls", case_calls},
        {"idle", case_idle},
    };
    unsigned passed = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t begin = clock_now_ns();
        bool ok = cases[i].fn();
        passed += ok ? 1 : 0;
        log_info("selftest sched: %s %s (%llu ms)", ok ? "PASS" : "FAIL", cases[i].name,
                 (unsigned long long)((clock_now_ns() - begin) / MS));
    }
    log_info("selftest sched: %u of %u passed on %u processors", passed,
             (unsigned)ARRAY_SIZE(cases), nr_cpus());
    return passed == ARRAY_SIZE(cases);
}

void selftest_run(const char *cmdline)
{
    char word[16];

    if (!parse_option(cmdline, "selftest", word, sizeof(word))) {
        return;
    }
    if (str_equal(word, "sched")) {
        (void)selftest_sched();
    } else {
        log_error("command line: selftest=%s: accepted: sched", word);
    }
}
