/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whole machines simulated with the scheduler's decisions (kernel/sched/runq.c): processors, threads
 * that compute or compute and sleep in turn, time in nanoseconds from event to event. The machinery
 * around the decisions follows kernel/sched/sched.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/sched/runq.h"

#define MAX_SIM_CPUS 8
#define MAX_SIM_THREADS 256
#define NEVER UINT64_MAX
#define MS 1000000ull
#define S 1000000000ull

struct sim_thread {
    struct thread t;
    uint64_t burst, pause; /* runs `burst` ns, then sleeps `pause` ns; burst 0: computes for ever */
    uint64_t left;         /* of the present burst */
    uint64_t wake_at;
    uint64_t longest_wait, runnable_since;
};

struct sim_cpu {
    struct runq q;
    struct thread *current; /* NULL: idle */
    uint64_t accounted, slice_end;
    bool resched;
};

static struct sim_cpu cpus[MAX_SIM_CPUS];
static struct runq *queues[MAX_SIM_CPUS];
static struct sim_thread threads[MAX_SIM_THREADS];
static unsigned nr_sim_cpus, nr_threads, nr_switches;
static uint64_t idle_mask[MAX_CPUS / 64], vclock, now;

static void sim_start(unsigned n)
{
    nr_sim_cpus = n;
    nr_threads = nr_switches = 0;
    vclock = now = 0;
    idle_mask[0] = (1ull << n) - 1;
    for (unsigned i = 0; i < n; i++) {
        runq_init(&cpus[i].q);
        queues[i] = &cpus[i].q;
        cpus[i].current = NULL;
        cpus[i].accounted = 0;
        cpus[i].slice_end = NEVER;
        cpus[i].resched = false;
    }
}

static struct sim_thread *sim_of(struct thread *t)
{
    return container_of(t, struct sim_thread, t);
}

static void start_slice(struct sim_cpu *c)
{
    c->slice_end = c->q.nr_waiting ? now + runq_slice(&c->q) : NEVER;
}

static void wake_an_idle_one(unsigned self)
{
    uint32_t idle = runq_find_idle(idle_mask, nr_sim_cpus, self);
    if (idle != RUNQ_NONE) {
        idle_mask[0] &= ~(1ull << idle);
        cpus[idle].resched = true;
    }
}

static void sim_wake(struct sim_thread *s)
{
    unsigned target = runq_place(queues, nr_sim_cpus, idle_mask, s->t.cpu);
    struct sim_cpu *c = &cpus[target];

    assert_true(target < nr_sim_cpus);
    idle_mask[0] &= ~(1ull << target);
    vclock = runq_clock(queues, nr_sim_cpus, target, vclock, now);
    runq_normalise_woken(&s->t, vclock);
    s->t.cpu = target;
    s->runnable_since = now;
    runq_insert(&c->q, &s->t);
    if (runq_preempts(&c->q, s->t.vtime, now)) {
        c->resched = true;
    } else if (c->q.nr_waiting == 1) {
        start_slice(c);
    }
    if (c->current) {
        wake_an_idle_one(target);
    }
}

static struct sim_thread *sim_add(uint32_t weight, uint64_t burst, uint64_t pause)
{
    struct sim_thread *s = &threads[nr_threads++];

    *s = (struct sim_thread){.burst = burst, .pause = pause, .left = burst, .wake_at = NEVER};
    s->t.weight = weight;
    list_init(&s->t.run_node);
    sim_wake(s);
    return s;
}

static void account(struct sim_cpu *c)
{
    uint64_t ns = now - c->accounted;

    c->accounted = now;
    if (c->current) {
        runq_charge(c->current, ns);
        sim_of(c->current)->left -= sim_of(c->current)->burst ? ns : 0;
    }
}

static void relieve(unsigned self, uint64_t vtime)
{
    uint32_t from = runq_find_lagging(queues, nr_sim_cpus, self, vtime);

    if (from != RUNQ_NONE) {
        struct thread *t = runq_first(queues[from]);
        assert_non_null(t);
        runq_remove(queues[from], t);
        t->cpu = self;
        runq_insert(queues[self], t);
        if (queues[from]->nr_waiting) {
            wake_an_idle_one(self);
        }
    }
}

static void schedule(unsigned self)
{
    struct sim_cpu *c = &cpus[self];
    struct thread *prev = c->current;
    uint64_t best = c->q.head_vtime;

    c->resched = false;
    account(c);
    if (prev && sim_of(prev)->burst && sim_of(prev)->left == 0) {
        sim_of(prev)->wake_at = now + sim_of(prev)->pause;
        sim_of(prev)->left = sim_of(prev)->burst;
        prev = NULL;
    }
    if (prev) {
        best = MIN(best, prev->vtime);
    }
    relieve(self, best);
    struct thread *next = runq_pick(&c->q, prev, 0, &vclock);
    runq_set_current(&c->q, next, now);
    if (next != c->current) {
        nr_switches++;
        if (prev) {
            sim_of(prev)->runnable_since = now;
            runq_insert(&c->q, prev);
        }
        if (next) {
            uint64_t waited = now - sim_of(next)->runnable_since;
            sim_of(next)->longest_wait = MAX(sim_of(next)->longest_wait, waited);
        }
    }
    c->current = next;
    idle_mask[0] = next ? idle_mask[0] & ~(1ull << self) : idle_mask[0] | 1ull << self;
    start_slice(c);
    if (c->q.nr_waiting) {
        wake_an_idle_one(self);
        uint32_t leading = runq_find_leading(queues, nr_sim_cpus, self, now);
        if (leading != RUNQ_NONE) {
            cpus[leading].resched = true;
        }
    }
}

static uint64_t next_event(void)
{
    uint64_t at = NEVER;

    for (unsigned i = 0; i < nr_threads; i++) {
        at = MIN(at, threads[i].wake_at);
    }
    for (unsigned i = 0; i < nr_sim_cpus; i++) {
        struct sim_cpu *c = &cpus[i];
        at = MIN(at, c->slice_end);
        if (c->current && sim_of(c->current)->burst) {
            at = MIN(at, c->accounted + sim_of(c->current)->left);
        }
    }
    return at;
}

static void check_conservation(void)
{
    unsigned runnable = 0, queued = 0;

    for (unsigned i = 0; i < nr_threads; i++) {
        runnable += threads[i].wake_at == NEVER;
    }
    for (unsigned i = 0; i < nr_sim_cpus; i++) {
        uint64_t load = 0, last = 0;
        struct list *pos;
        list_for_each (pos, &cpus[i].q.waiting) {
            const struct thread *t = list_entry(pos, struct thread, run_node);
            assert_true(t->vtime >= last);
            assert_int_equal(t->cpu, i);
            last = t->vtime;
            load += t->weight;
            queued++;
        }
        if (cpus[i].current) {
            load += cpus[i].current->weight;
            queued++;
        }
        assert_int_equal(cpus[i].q.load, load);
    }
    assert_int_equal(runnable, queued);
}

/* No processor idles while somebody waits, once the kicks of this moment have been served. */
static void check_work_conserving(void)
{
    unsigned idle = 0, waiting = 0;

    for (unsigned i = 0; i < nr_sim_cpus; i++) {
        idle += cpus[i].current == NULL;
        waiting += cpus[i].q.nr_waiting;
    }
    assert_true(idle == 0 || waiting == 0);
}

static void sim_run(uint64_t until)
{
    for (;;) {
        for (bool again = true; again;) {
            again = false;
            for (unsigned i = 0; i < nr_sim_cpus; i++) {
                struct sim_cpu *c = &cpus[i];
                bool burst_over = c->current && sim_of(c->current)->burst &&
                                  c->accounted + sim_of(c->current)->left <= now;
                if (c->resched || burst_over || c->slice_end <= now) {
                    schedule(i);
                    again = true;
                }
            }
        }
        check_conservation();
        check_work_conserving();
        uint64_t at = next_event();
        if (at >= until) {
            break;
        }
        now = at;
        for (unsigned i = 0; i < nr_threads; i++) {
            if (threads[i].wake_at <= now) {
                threads[i].wake_at = NEVER;
                sim_wake(&threads[i]);
            }
        }
    }
    now = until;
    for (unsigned i = 0; i < nr_sim_cpus; i++) {
        account(&cpus[i]);
        runq_set_current(&cpus[i].q, cpus[i].current, now);
    }
}

static void assert_share(const struct sim_thread *s, uint64_t expected, unsigned percent)
{
    uint64_t slack = expected / 100 * percent;

    if (s->t.run_ns + slack < expected || s->t.run_ns > expected + slack) {
        fail_msg("thread %u (weight %u) ran %llu us, expected %llu +- %u %%",
                 (unsigned)(s - threads), s->t.weight, (unsigned long long)s->t.run_ns / 1000,
                 (unsigned long long)expected / 1000, percent);
    }
}

static void equal_threads(unsigned n_cpus, unsigned n, uint64_t duration, unsigned percent)
{
    sim_start(n_cpus);
    for (unsigned i = 0; i < n; i++) {
        sim_add(WEIGHT_NORMAL, 0, 0);
    }
    sim_run(duration);
    for (unsigned i = 0; i < n; i++) {
        assert_share(&threads[i], n <= n_cpus ? duration : duration * n_cpus / n, percent);
    }
}

static void test_equal(void **state)
{
    (void)state;
    equal_threads(1, 2, 1 * S, 2);
    equal_threads(1, 7, 2 * S, 3);
    equal_threads(2, 2, 1 * S, 0);
    equal_threads(2, 3, 2 * S, 3);
    equal_threads(2, 5, 2 * S, 3);
    equal_threads(4, 5, 3 * S, 3);
    equal_threads(8, 11, 4 * S, 3);
    equal_threads(2, 100, 5 * S, 5);
    equal_threads(8, 255, 10 * S, 5);
}

static void test_weights(void **state)
{
    (void)state;
    static const uint32_t weight[] = {500, 1000, 2000, 1000, 4000, 500, 1000};
    uint64_t total = 0, duration = 5 * S;

    sim_start(2);
    for (unsigned i = 0; i < 7; i++) {
        sim_add(weight[i], 0, 0);
        total += weight[i];
    }
    sim_run(duration);
    for (unsigned i = 0; i < 7; i++) {
        assert_share(&threads[i], duration * 2 * weight[i] / total, 4);
    }
}

/* 40 of weight 1000 and 40 of weight 4000 on 4 processors. */
static void test_many_weights(void **state)
{
    (void)state;
    sim_start(4);
    for (unsigned i = 0; i < 80; i++) {
        sim_add(i % 2 ? 4000 : 1000, 0, 0);
    }
    sim_run(10 * S);
    for (unsigned i = 0; i < 80; i++) {
        assert_share(&threads[i], 10 * S * 4 / 200 * (i % 2 ? 4 : 1), 5);
    }
}

/* A weight larger than a processor gets that processor; the others share the rest. */
static void test_infeasible_weight(void **state)
{
    (void)state;
    sim_start(2);
    struct sim_thread *heavy = sim_add(100000, 0, 0);
    sim_add(1000, 0, 0);
    sim_add(1000, 0, 0);
    sim_run(4 * S);
    assert_share(heavy, 4 * S, 1);
    assert_share(&threads[1], 2 * S, 3);
    assert_share(&threads[2], 2 * S, 3);

    /* It has saved up no more than RUNQ_LAG, which is half a second at this weight. */
    struct sim_thread *peer[3];
    for (unsigned i = 0; i < 3; i++) {
        peer[i] = sim_add(100000, 0, 0);
    }
    sim_run(8 * S);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(peer[i]->t.run_ns > 1400 * MS);
    }
}

/* Whoever slept for an hour does not then run for an hour. */
static void test_sleeper_saves_nothing(void **state)
{
    (void)state;
    sim_start(1);
    struct sim_thread *hog = sim_add(WEIGHT_NORMAL, 0, 0);
    struct sim_thread *sleeper = sim_add(WEIGHT_NORMAL, 1, 3600 * S);
    sim_run(3600 * S);
    sleeper->burst = 0;
    uint64_t before = hog->t.run_ns;
    sim_run(3601 * S);
    assert_in_range(hog->t.run_ns - before, 480 * MS, 520 * MS);
}

/* A thread that sleeps briefly again and again gets no more than its share, and gets it promptly. */
static void test_interactive(void **state)
{
    (void)state;
    sim_start(1);
    for (unsigned i = 0; i < 4; i++) {
        sim_add(WEIGHT_NORMAL, 0, 0);
    }
    struct sim_thread *rare = sim_add(WEIGHT_NORMAL, MS / 10, 20 * MS);
    struct sim_thread *greedy = sim_add(WEIGHT_NORMAL, 4 * MS, MS / 100);
    sim_run(S / 10);
    rare->longest_wait = 0; /* at first all were equal */
    sim_run(10 * S);
    assert_true(rare->longest_wait <= 6 * MS);
    assert_true(rare->t.run_ns >= 10 * S / 21 / 10 * 7 / 10);
    assert_true(greedy->t.run_ns <= 10 * S / 5 * 115 / 100);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(threads[i].t.run_ns >= 10 * S / 6 * 97 / 100);
    }
}

/* A new thread starts with the others, not ahead of them by all the time that they have run. */
static void test_newcomer(void **state)
{
    (void)state;
    sim_start(2);
    sim_add(WEIGHT_NORMAL, 0, 0);
    sim_run(100 * S);
    for (unsigned i = 0; i < 3; i++) {
        sim_add(WEIGHT_NORMAL, 0, 0);
    }
    uint64_t first = threads[0].t.run_ns;
    sim_run(104 * S);
    assert_in_range(threads[0].t.run_ns - first, 1920 * MS, 2080 * MS);
    for (unsigned i = 1; i < 4; i++) {
        assert_share(&threads[i], 2 * S, 4);
    }
}

static void test_random_machines(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 60; seed++) {
        srand(seed);
        sim_start(1 + (unsigned)rand() % MAX_SIM_CPUS);
        unsigned n = 1 + (unsigned)rand() % 60;
        for (unsigned i = 0; i < n; i++) {
            uint32_t weight = WEIGHT_MIN + (uint32_t)rand() % 8000;
            bool hog = rand() % 3 == 0;
            sim_add(weight, hog ? 0 : 1 + (uint64_t)rand() % (20 * MS),
                    1 + (uint64_t)rand() % (20 * MS));
        }
        sim_run(S); /* the checks after each event are the test */
    }
}

static void test_switch_rate(void **state)
{
    (void)state;
    equal_threads(2, 100, S, 30);
    assert_true(nr_switches <= 2 * 1100);
    equal_threads(2, 3, S, 5);
    assert_true(nr_switches <= 2 * 250);
}

static void test_long_run_is_charged_exactly(void **state)
{
    (void)state;
    struct thread t = {.weight = 3000};

    runq_charge(&t, 30000ull * S);
    assert_int_equal(t.vtime, 10000ull * S);
    assert_int_equal(t.run_ns, 30000ull * S);
}

static void test_find_idle(void **state)
{
    (void)state;
    uint64_t idle[4] = {0};

    assert_int_equal(runq_find_idle(idle, 256, 7), RUNQ_NONE);
    idle[2] = 1ull << 5;
    for (unsigned from = 0; from < 256; from++) {
        assert_int_equal(runq_find_idle(idle, 256, from), 133);
    }
    idle[0] = 1ull << 3;
    assert_int_equal(runq_find_idle(idle, 256, 3), 3);
    assert_int_equal(runq_find_idle(idle, 256, 4), 133);
    assert_int_equal(runq_find_idle(idle, 256, 134), 3);
    assert_int_equal(runq_find_idle(idle, 4, 3), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_many_weights),
        cmocka_unit_test(test_infeasible_weight),
        cmocka_unit_test(test_sleeper_saves_nothing),
        cmocka_unit_test(test_interactive),
        cmocka_unit_test(test_newcomer),
        cmocka_unit_test(test_random_machines),
        cmocka_unit_test(test_switch_rate),
        cmocka_unit_test(test_long_run_is_charged_exactly),
        cmocka_unit_test(test_find_idle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
