/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sampling of a VM's pages; see sample.h. Watched pages are looked at with every tick, so that what was
 * touched is known before somebody else changes the translation, and so that large pages which are in
 * use are whole again after a tick.
 */
#include "mm/reclaim/sample.h"

#include "kernel/lib/rng.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/slab.h"
#include "mm/view.h"

#define TRIES 64u       /* random pages of RAM to find one that is granted */
#define FIXED_SHIFT 16u /* of the averages, beyond estimates */
#define SLOW_GROUPS 64u
#define FAST_GROUPS 6u
#define NEXT_PCT 84u /* what fast moves in a period, in percent of the difference */

struct watch {
    gfn_t gfn;
    enum view_watch how;
    bool live;    /* it is being watched */
    bool touched; /* and was touched */
};

struct sample {
    struct p2m *p;
    struct rng rng;
    unsigned size;    /* of watch[] */
    unsigned group;   /* that is due next */
    uint64_t next_ns; /* VM time when it is; 0: nothing has begun */
    uint64_t groups;  /* completed with at least one sample */
    uint64_t slow, fast;
    struct sample_estimate now; /* its fields: atomic, relaxed */
    struct sample_stats stats;
    struct watch watch[SAMPLE_MAX_SIZE];
};

enum hv_err sample_create(struct p2m *p, uint64_t seed, struct sample **out)
{
    struct sample *s = env_may_allocate("sample") ? kmalloc(sizeof(*s), p->owner) : NULL;

    if (s == NULL) {
        return HV_ENOMEM;
    }
    s->p = p;
    rng_seed(&s->rng, seed);
    s->now = (struct sample_estimate){
        .active = SAMPLE_ONE, .slow = SAMPLE_ONE, .fast = SAMPLE_ONE, .next = SAMPLE_ONE};
    *out = s;
    return HV_OK;
}

static void unwatch(struct sample *s, const struct watch *w, struct flush_batch *b)
{
    if (w->how == WATCH_PIECE) {
        s->p->view->ops->unwatch(s->p->view, w->gfn, b);
    }
}

void sample_destroy(struct sample *s)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &s->p->domain);
    for (unsigned i = 0; i < s->size; i++) {
        if (s->watch[i].live && !s->watch[i].touched) {
            unwatch(s, &s->watch[i], &batch);
        }
    }
    flush_batch_commit(&batch);
    kfree(s);
}

/* ---- Choosing ---- */

static bool is_granted(const struct p2m_entry *e)
{
    return mfn_valid(e->mfn);
}

static gfn_t random_page(struct sample *s)
{
    const struct p2m *p = s->p;
    uint64_t nr = 0, n;

    for (unsigned i = 0; i < p->nr_ram; i++) {
        nr += p->ram[i].nr;
    }
    n = rng_below(&s->rng, nr);
    for (unsigned i = 0; i < p->nr_ram; i++) {
        if (n < p->ram[i].nr) {
            return gfn_add(p->ram[i].first, n);
        }
        n -= p->ram[i].nr;
    }
    return p->ram[0].first;
}

static bool is_watched(const struct sample *s, gfn_t gfn)
{
    for (unsigned i = 0; i < s->size; i++) {
        if (s->watch[i].live && s->watch[i].gfn.n == gfn.n) {
            return true;
        }
    }
    return false;
}

/* A random granted page, each with the same probability. False: too few are granted to meet one. */
static bool choose(struct sample *s, gfn_t *gfn, struct p2m_entry *e)
{
    for (unsigned i = 0; s->p->nr_ram != 0 && i < TRIES; i++) {
        *gfn = random_page(s);
        p2m_query(s->p, *gfn, e);
        if (is_granted(e) && !is_watched(s, *gfn)) {
            return true;
        }
    }
    return false;
}

static void begin(struct sample *s, struct watch *w, const struct sample_options *o,
                  struct flush_batch *b)
{
    struct view *view = s->p->view;
    struct p2m_entry e;

    *w = (struct watch){.live = false};
    if (!choose(s, &w->gfn, &e) ||
        view->ops->watch(view, w->gfn, o->method != SAMPLE_FAULT, b, &w->how) != HV_OK) {
        return;
    }
    w->live = true;
    s->stats.splits += w->how == WATCH_PIECE;
}

/* ---- Looking ---- */

/* All are looked at before any large page becomes whole: then nothing tells the others in it. */
static void poll(struct sample *s, struct flush_batch *b)
{
    struct view *view = s->p->view;
    bool seen[SAMPLE_MAX_SIZE];

    for (unsigned i = 0; i < s->size; i++) {
        struct watch *w = &s->watch[i];

        seen[i] = false;
        if (!w->live || w->touched) {
            continue;
        }
        switch (view->ops->watched(view, w->gfn, w->how)) {
        case USE_SEEN:
            w->touched = true;
            seen[i] = true;
            break;
        case USE_UNKNOWN:
            w->live = false;
            s->stats.lost++;
            break;
        default:
            break;
        }
    }
    for (unsigned i = 0; i < s->size; i++) {
        if (seen[i]) {
            unwatch(s, &s->watch[i], b);
        }
    }
}

/* Its period is over. True: it counts. */
static bool end(struct sample *s, struct watch *w, struct flush_batch *b)
{
    bool counts = w->live;

    if (w->live && !w->touched) {
        struct p2m_entry e;

        unwatch(s, w, b);
        /* What was taken from the VM meanwhile says nothing. */
        p2m_query(s->p, w->gfn, &e);
        if (!is_granted(&e)) {
            counts = false;
            s->stats.lost++;
        }
    }
    w->live = false;
    return counts;
}

/* ---- Averages ---- */

static void set(unsigned *at, uint64_t value)
{
    __atomic_store_n(at, (unsigned)value, __ATOMIC_RELAXED);
}

static void move(uint64_t *average, uint64_t to, uint64_t groups)
{
    int64_t by = ((int64_t)to - (int64_t)*average) / (int64_t)groups;

    *average = (uint64_t)((int64_t)*average + by);
}

/* A group is complete. At first the averages are the plain mean. */
static void average(struct sample *s, unsigned touched, unsigned nr)
{
    uint64_t x = ((uint64_t)touched * SAMPLE_ONE << FIXED_SHIFT) / nr;

    s->groups++;
    move(&s->fast, x, MIN(s->groups, (uint64_t)FAST_GROUPS));
    move(&s->slow, x, MIN(s->groups, (uint64_t)SLOW_GROUPS));
    if (s->groups >= SAMPLE_GROUPS) {
        __atomic_store_n(&s->now.known, true, __ATOMIC_RELAXED);
    }
}

static void publish(struct sample *s, const struct sample_options *o)
{
    uint64_t fast = s->fast >> FIXED_SHIFT, slow = s->slow >> FIXED_SHIFT, next = fast;
    uint64_t floor = (uint64_t)o->min_pct * SAMPLE_ONE / 100;
    unsigned touched = 0, nr = 0;

    if (s->groups < SAMPLE_GROUPS) {
        return;
    }
    for (unsigned i = 0; i < s->size; i++) {
        nr += s->watch[i].live;
        touched += s->watch[i].live && s->watch[i].touched;
    }
    if (nr != 0 && (uint64_t)touched * SAMPLE_ONE / nr > fast) {
        next += ((uint64_t)touched * SAMPLE_ONE / nr - fast) * NEXT_PCT / 100;
    }
    set(&s->now.slow, slow);
    set(&s->now.fast, fast);
    set(&s->now.next, next);
    set(&s->now.active, MAX(MAX(slow, next), floor));
}

/* ---- The tick ---- */

/* Samples of the group that is due: counted, then replaced. */
static void turn_group(struct sample *s, const struct sample_options *o, struct flush_batch *b)
{
    unsigned size = MIN(o->size, SAMPLE_MAX_SIZE), nr = 0, touched = 0;

    for (unsigned i = s->group; i < s->size; i += SAMPLE_GROUPS) {
        bool was_touched = s->watch[i].touched;

        if (end(s, &s->watch[i], b)) {
            nr++;
            touched += was_touched;
        }
    }
    s->stats.watched += nr;
    s->stats.touched += touched;
    if (nr != 0) {
        average(s, touched, nr);
    }
    s->size = MAX(s->size, size);
    for (unsigned i = s->group; i < size; i += SAMPLE_GROUPS) {
        begin(s, &s->watch[i], o, b);
    }
    s->group = (s->group + 1) % SAMPLE_GROUPS;
    s->stats.periods += s->group == 0;
}

void sample_tick(struct sample *s, const struct sample_options *o, uint64_t vm_time_ns)
{
    uint64_t step = MAX(o->period_ns / SAMPLE_GROUPS, 1ull);
    struct flush_batch batch;

    if (s->next_ns == 0 || s->next_ns > vm_time_ns + o->period_ns) {
        s->next_ns = vm_time_ns;
    }
    flush_batch_init(&batch, &s->p->domain);
    poll(s, &batch);
    /* One group at a time: who looks late gives every sample its whole period all the same. */
    if (vm_time_ns >= s->next_ns) {
        turn_group(s, o, &batch);
        s->next_ns = MAX(s->next_ns + step, vm_time_ns + step / 2);
    }
    flush_batch_commit(&batch);
    publish(s, o);
}

void sample_estimate(const struct sample *s, struct sample_estimate *out)
{
    out->active = __atomic_load_n(&s->now.active, __ATOMIC_RELAXED);
    out->slow = __atomic_load_n(&s->now.slow, __ATOMIC_RELAXED);
    out->fast = __atomic_load_n(&s->now.fast, __ATOMIC_RELAXED);
    out->next = __atomic_load_n(&s->now.next, __ATOMIC_RELAXED);
    out->known = __atomic_load_n(&s->now.known, __ATOMIC_RELAXED);
}

void sample_stats(const struct sample *s, struct sample_stats *out)
{
    *out = s->stats;
}
