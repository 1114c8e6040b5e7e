/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decisions of the scheduler; see runq.h for the algorithm. Called by kernel/sched/sched.c and by
 * the simulation in tests/host/test_runq.c.
 */
#include "kernel/sched/runq.h"

#define HINT(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define PUBLISH(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

void runq_init(struct runq *q)
{
    *q = (struct runq){.head_vtime = RUNQ_EMPTY, .current_vtime = RUNQ_EMPTY};
    spin_init(&q->lock, RANK_RUNQ, "run queue");
    list_init(&q->waiting);
}

struct thread *runq_first(const struct runq *q)
{
    struct list *first = list_first(&q->waiting);
    return first ? list_entry(first, struct thread, run_node) : NULL;
}

static void publish_head(struct runq *q)
{
    const struct thread *first = runq_first(q);
    PUBLISH(q->head_vtime, first ? first->vtime : RUNQ_EMPTY);
}

void runq_insert(struct runq *q, struct thread *t)
{
    struct list *pos = &q->waiting;
    const struct thread *first = runq_first(q);

    /* Woken threads mostly go to the front, those at the end of their slice to the back. */
    if (first && t->vtime >= first->vtime) {
        pos = q->waiting.prev;
        while (list_entry(pos, struct thread, run_node)->vtime > t->vtime) {
            pos = pos->prev;
        }
    }
    list_add(pos, &t->run_node);
    PUBLISH(q->nr_waiting, q->nr_waiting + 1);
    PUBLISH(q->load, q->load + t->weight);
    publish_head(q);
}

void runq_remove(struct runq *q, struct thread *t)
{
    list_del(&t->run_node);
    PUBLISH(q->nr_waiting, q->nr_waiting - 1);
    PUBLISH(q->load, q->load - t->weight);
    publish_head(q);
}

void runq_set_current(struct runq *q, const struct thread *t, uint64_t now)
{
    uint32_t weight = t ? t->weight : 0;

    PUBLISH(q->load, q->load - q->current_weight + weight);
    PUBLISH(q->current_weight, weight);
    PUBLISH(q->current_since, now);
    PUBLISH(q->current_vtime, t ? t->vtime : RUNQ_EMPTY);
}

/* Run time to virtual time, without overflow: a thread may run for hours between two charges. */
static uint64_t weighted(uint64_t ns, uint32_t weight)
{
    if (weight == WEIGHT_NORMAL || weight == 0) {
        return ns;
    }
    if (ns < (1ull << 32)) {
        return ns * WEIGHT_NORMAL / weight;
    }
    return ns / weight * WEIGHT_NORMAL + ns % weight * WEIGHT_NORMAL / weight;
}

void runq_charge(struct thread *t, uint64_t ns)
{
    __atomic_store_n(&t->run_ns, t->run_ns + ns, __ATOMIC_RELAXED);
    t->vtime += weighted(ns, t->weight);
}

static void bound_credit(struct thread *t, uint64_t vclock, uint64_t credit)
{
    uint64_t least = vclock > credit ? vclock - credit : 0;

    if (t->vtime < least) {
        t->vtime = least;
    }
}

void runq_normalise_woken(struct thread *t, uint64_t vclock)
{
    bound_credit(t, vclock, weighted(RUNQ_BONUS, t->weight));
}

void runq_normalise_running(struct thread *t, uint64_t vclock)
{
    /* Lags that balancing leaves alone must stay. */
    bound_credit(t, vclock, MAX(weighted(RUNQ_MAX_LAG, t->weight), 2 * RUNQ_LAG));
}

struct thread *runq_pick(struct runq *q, struct thread *prev, uint64_t lead, uint64_t *vclock)
{
    struct thread *next = runq_first(q);

    if (prev && (!next || prev->vtime + lead < next->vtime)) {
        next = prev;
    } else if (next) {
        runq_remove(q, next);
    } else {
        return NULL;
    }
    *vclock = MAX(*vclock, next->vtime);
    runq_normalise_running(next, *vclock);
    return next;
}

uint64_t runq_slice(const struct runq *q)
{
    uint64_t slice = RUNQ_LATENCY / (HINT(q->nr_waiting) + 1);

    return MIN(MAX(slice, RUNQ_GRANULARITY), SLICE_NS);
}

uint64_t runq_current_vtime(const struct runq *q, uint64_t now)
{
    uint64_t vtime = HINT(q->current_vtime);
    uint64_t since = HINT(q->current_since);

    if (vtime == RUNQ_EMPTY || now <= since) {
        return vtime;
    }
    return vtime + weighted(now - since, HINT(q->current_weight));
}

bool runq_preempts(const struct runq *q, uint64_t vtime, uint64_t now)
{
    uint64_t current = runq_current_vtime(q, now);

    return current == RUNQ_EMPTY || vtime + RUNQ_GRANULARITY < current;
}

uint64_t runq_clock(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t vclock,
                    uint64_t now)
{
    for (uint32_t i = 0; i < nr && i < RUNQ_SCAN; i++) {
        const struct runq *q = queues[(self + i) % nr];
        uint64_t least = MIN(runq_current_vtime(q, now), HINT(q->head_vtime));
        if (least != RUNQ_EMPTY) {
            vclock = MAX(vclock, least);
        }
    }
    return vclock;
}

static bool is_set(const uint64_t *bits, uint32_t n)
{
    return (HINT(bits[n / 64]) >> (n % 64)) & 1;
}

uint32_t runq_find_idle(const uint64_t *idle, uint32_t nr, uint32_t from)
{
    uint32_t words = (nr + 63) / 64;

    for (uint32_t i = 0; i <= words; i++) {
        uint32_t w = (from / 64 + i) % words;
        uint64_t bits = HINT(idle[w]);
        if (i == 0) {
            bits &= ~0ull << (from % 64);
        }
        if (bits) {
            return w * 64 + (uint32_t)__builtin_ctzll(bits);
        }
    }
    return RUNQ_NONE;
}

uint32_t runq_place(struct runq *const *queues, uint32_t nr, const uint64_t *idle, uint32_t last)
{
    if (is_set(idle, last)) {
        return last;
    }
    uint32_t best = runq_find_idle(idle, nr, last);
    if (best != RUNQ_NONE) {
        return best;
    }
    best = last;
    uint64_t least = HINT(queues[last]->load);
    for (uint32_t i = 1; i < nr && i <= RUNQ_SCAN; i++) {
        uint32_t cpu = (last + i) % nr;
        uint64_t load = HINT(queues[cpu]->load);
        if (load < least) {
            least = load;
            best = cpu;
        }
    }
    return best;
}

uint32_t runq_find_lagging(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t vtime)
{
    uint64_t least = vtime == RUNQ_EMPTY ? RUNQ_EMPTY : vtime > RUNQ_LAG ? vtime - RUNQ_LAG : 0;
    uint32_t found = RUNQ_NONE;
    uint32_t scan = vtime == RUNQ_EMPTY ? nr : RUNQ_SCAN;

    for (uint32_t i = 1; i < nr && i <= scan; i++) {
        uint32_t cpu = (self + i) % nr;
        uint64_t head = HINT(queues[cpu]->head_vtime);
        if (head < least) {
            least = head;
            found = cpu;
        }
    }
    return found;
}

uint32_t runq_find_leading(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t now)
{
    uint64_t head = HINT(queues[self]->head_vtime);
    uint32_t found = RUNQ_NONE;

    if (head == RUNQ_EMPTY) {
        return RUNQ_NONE;
    }
    uint64_t most = head + RUNQ_LAG;
    for (uint32_t i = 1; i < nr && i <= RUNQ_SCAN; i++) {
        uint32_t cpu = (self + i) % nr;
        /* One that has threads waiting looks around by itself when its slice ends. */
        if (HINT(queues[cpu]->nr_waiting) != 0) {
            continue;
        }
        uint64_t vtime = runq_current_vtime(queues[cpu], now);
        if (vtime != RUNQ_EMPTY && vtime > most) {
            most = vtime;
            found = cpu;
        }
    }
    return found;
}
