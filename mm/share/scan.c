/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scan; see scan.h. One slice at a time in the whole host (share_scan_enter); between two, others
 * scan or audit, and a member may leave.
 *
 * A pass goes over runs of 16 pages, because processors fetch ahead what is read in order (nearly three
 * times as fast as single pages at random). The order of n runs is a bijection of [0, 2^k), 2^k >= n,
 * whose results of n and more are left out: a multiplicative congruential step of full period, then a
 * fold of the upper half into the lower, which is weak in such sequences.
 */
#include "mm/share/scan.h"

#include "kernel/lib/mutant.h"
#include "kernel/lib/rng.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/share/cow.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share_internal.h"
#include "mm/slab.h"

#define SLICE 32u
#define RUN_PAGES 16u
#define GROUP 8u /* pages looked at between two looks at what else is to do */

/* A walk over all pages. */
struct pass {
    uint64_t nr_pages;
    unsigned bits;
    uint64_t multiplier, increment;
    uint64_t at, left;  /* state of the sequence, steps until it closes */
    uint64_t page, end; /* of the run: the next page, the first one behind */
    uint64_t under_large;
};

/* Changed by who has the right to scan. */
struct share_scan {
    struct pass pass; /* of scan_pages */
    struct scan_stats stats;
};

/* A page that may be merged. */
struct candidate {
    gfn_t gfn;
    struct p2m_entry e;
    mfn_t with; /* with a reference, unless it is the zero frame */
    uint64_t key;
    bool nominated;
};

/* The page that is looked at, pinned. */
struct look {
    gfn_t gfn;
    struct p2m_entry e;
    void *page;
    bool small; /* by itself, not a piece of a large page */
    bool zero;
    uint64_t key;
};

struct slice {
    struct p2m *p;
    struct pass *pass;
    struct scan_stats *stats;
    bool all;   /* hot pages too */
    bool offer; /* leave no hints: the pages are about to go */
    unsigned nr, nr_looks;
    struct look look[GROUP];
    struct candidate c[SLICE];
};

struct share_scan *scan_create(const struct p2m *p)
{
    return kmalloc(sizeof(struct share_scan), p->owner);
}

void scan_destroy(struct share_scan *s)
{
    kfree(s);
}

/* ---- The order ---- */

static void pass_begin(struct p2m *p, struct pass *s)
{
    struct rng rng;

    s->nr_pages = 0;
    for (unsigned i = 0; i < p->nr_ram; i++) {
        s->nr_pages += p->ram[i].nr;
    }
    s->bits = 2;
    while (BIT(s->bits) * RUN_PAGES < s->nr_pages) {
        s->bits++;
    }
    rng_seed(&rng, share_next_seed());
    /* "Full period": multiplier 1 modulo 4, increment odd. */
    s->multiplier = (rng_next(&rng) & ~3ULL) | 1;
    s->increment = rng_next(&rng) | 1;
    s->at = rng_next(&rng) & (BIT(s->bits) - 1);
    s->left = BIT(s->bits);
    s->page = s->end = 0;
    s->under_large = 0;
}

/* Over, or none was begun. */
static bool pass_over(const struct pass *s)
{
    return s->left == 0 && s->page == s->end;
}

/* False: there is no further run. */
static bool next_run(struct pass *s)
{
    while (s->left != 0) {
        uint64_t run = s->at ^ (s->at >> (s->bits / 2));

        s->at = (s->at * s->multiplier + s->increment) & (BIT(s->bits) - 1);
        s->left--;
        if (run * RUN_PAGES < s->nr_pages) {
            s->page = run * RUN_PAGES;
            s->end = MIN(s->page + RUN_PAGES, s->nr_pages);
            return true;
        }
    }
    return false;
}

/* The next page of the pass. False: it is over. */
static bool pass_next(struct p2m *p, struct pass *s, gfn_t *gfn)
{
    uint64_t n;

    if (s->page == s->end && !next_run(s)) {
        return false;
    }
    n = s->page++;
    for (unsigned i = 0; i < p->nr_ram; i++) {
        if (n < p->ram[i].nr) {
            *gfn = gfn_add(p->ram[i].first, n);
            return true;
        }
        n -= p->ram[i].nr;
    }
    return false;
}

/* ---- One page ---- */

/* A page that was written after it had been merged is passed by, less and less long. */
static bool is_hot(struct slice *w, struct p2m_entry *e)
{
    uint64_t heat = word_heat(e->seq);

    /* Of large pages the word says how cold they are. */
    if (likely(heat == 0) || e->order != ORDER_4K || w->all) {
        return false;
    }
    spin_lock(&w->p->lock);
    if (p2m_same(e) && e->writable) {
        uint64_t value = word_next(e->seq, P2M_PRIVATE, word_mfn(e->seq));

        p2m_change(e, (value & ~HEAT_MASK) | (heat - 1) << HEAT_SHIFT);
    }
    spin_unlock(&w->p->lock);
    w->stats->hot++;
    return true;
}

/*
 * Does the hinted page look like `page` still? Describes it. Of a page that is going to be promoted,
 * which hashes it, a glance is enough, to spare pages that changed the write protection.
 */
static bool resembles(struct p2m *p, gfn_t gfn, const void *page, bool small, struct p2m_entry *e)
{
    bool same;
    void *hinted;

    if (!p2m_pin_private(p, gfn, e, &hinted)) {
        return false;
    }
    same = small && e->order == ORDER_4K ? hash_alike(hinted, page) : hash_same(hinted, page);
    p2m_unpin_private(p, gfn, e, hinted);
    return same;
}

/* Write-protect the page behind a hint and make its frame a shared one, if it has the key. */
static enum hv_err promote(struct p2m *p, gfn_t gfn, uint64_t key, struct p2m_entry *e)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &p->domain);
    if (!cow_nominate(p, gfn, e, &batch)) {
        return HV_EBUSY;
    }
    if (!MUTANT(promote_without_flush)) {
        flush_batch_commit(&batch);
    }
    return cow_promote(p, e, key);
}

enum hint_result { HINT_STALE, HINT_BUSY, HINT_UNDER_LARGE, HINT_PROMOTED };

static enum hint_result result_of(enum hv_err promotion)
{
    if (promotion == HV_OK) {
        return HINT_PROMOTED;
    }
    return promotion == HV_ENOENT ? HINT_STALE : HINT_BUSY;
}

/* Follow a hint; HINT_PROMOTED: *with is a shared frame with a reference for us. */
static enum hint_result follow_hint(struct slice *w, const struct look *l,
                                    const struct index_page *hint, mfn_t *with)
{
    bool own = hint->member == w->p->member;
    struct p2m *other = own ? w->p : share_hold(hint->member);
    enum hint_result result = HINT_STALE;
    struct p2m_entry e;

    if (other != NULL && other->salt == w->p->salt &&
        resembles(other, hint->gfn, l->page, l->small, &e)) {
        *with = e.mfn;
        if (e.order != ORDER_4K || !l->small) {
            result = HINT_UNDER_LARGE;
        } else {
            result = result_of(promote(other, hint->gfn, l->key, &e));
        }
    }
    if (other != NULL && !own) {
        share_release(hint->member);
    }
    if (result == HINT_STALE) {
        w->stats->stale++;
    }
    if (result == HINT_STALE || result == HINT_PROMOTED) {
        index_unhint(l->key, hint);
    }
    return result;
}

static void add_candidate(struct slice *w, gfn_t gfn, const struct p2m_entry *e, mfn_t with)
{
    w->c[w->nr++] = (struct candidate){.gfn = gfn, .e = *e, .with = with};
}

/* A private page with this key: find its like, or leave a hint. */
static void look_up(struct slice *w, const struct look *l)
{
    const struct index_page self = {w->p->member, l->gfn};
    struct index_hit hit;
    enum hint_result result = HINT_STALE;

    index_find(l->key, w->p->salt, &self, &hit);
    if (hit.found == INDEX_HINT) {
        result = follow_hint(w, l, &hit.page, &hit.mfn);
        if (result == HINT_PROMOTED) {
            hit.found = INDEX_SHARED;
        } else if (result == HINT_UNDER_LARGE) {
            w->pass->under_large += !l->small;
        }
    }
    if (hit.found == INDEX_SHARED && l->small) {
        add_candidate(w, l->gfn, &l->e, hit.mfn);
    } else if (hit.found == INDEX_SHARED) {
        index_put(hit.mfn);
        w->pass->under_large++;
    } else if (!w->offer && !hit.self && (l->small || result == HINT_STALE)) {
        /* Also if the hinted page cannot be merged with just now: another one may come. */
        index_hint(l->key, &self);
    }
}

/* ---- A group of pages ---- */

/* Hold the page if it is to be looked at. */
static void collect(struct slice *w, gfn_t gfn)
{
    struct look *l = &w->look[w->nr_looks];

    w->stats->pages++;
    if (!p2m_pin_private(w->p, gfn, &l->e, &l->page)) {
        return;
    }
    if (is_hot(w, &l->e)) {
        p2m_unpin_private(w->p, gfn, &l->e, l->page);
        return;
    }
    l->gfn = gfn;
    l->small = l->e.order == ORDER_4K;
    hash_prefetch(l->page);
    w->nr_looks++;
}

static void hash_look(struct slice *w, struct look *l)
{
    l->zero = hash_is_zero(l->page);
    if (!l->zero) {
        l->key = index_key(hash_page(l->page), w->p->salt);
        index_prefetch_bucket(l->key);
        w->stats->hashed++;
    }
}

static void finish_look(struct slice *w, const struct look *l)
{
    if (!l->zero) {
        look_up(w, l);
    } else if (l->small) {
        add_candidate(w, l->gfn, &l->e, share_zero_frame);
    } else {
        w->pass->under_large++;
    }
    p2m_unpin_private(w->p, l->gfn, &l->e, l->page);
}

/* Step by step for all pages that were collected: what one waits for of memory, the others fill. */
static void look_at_group(struct slice *w)
{
    for (unsigned i = 0; i < w->nr_looks; i++) {
        hash_look(w, &w->look[i]);
    }
    for (unsigned i = 0; i < w->nr_looks; i++) {
        if (!w->look[i].zero) {
            index_prefetch_entry(w->look[i].key);
        }
    }
    for (unsigned i = 0; i < w->nr_looks; i++) {
        finish_look(w, &w->look[i]);
    }
    w->nr_looks = 0;
}

/* May another group be looked at? */
static bool has_room(const struct slice *w)
{
    return w->nr + GROUP <= SLICE;
}

/* ---- A slice ---- */

static void nominate_all(struct slice *w)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &w->p->domain);
    for (unsigned i = 0; i < w->nr; i++) {
        struct candidate *c = &w->c[i];

        c->nominated = cow_nominate(w->p, c->gfn, &c->e, &batch);
    }
    if (!MUTANT(merge_without_flush)) {
        flush_batch_commit(&batch);
    }
}

static void merge_all(struct slice *w)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &w->p->domain);
    for (unsigned i = 0; i < w->nr; i++) {
        struct candidate *c = &w->c[i];

        if (c->nominated && cow_merge(w->p, c->gfn, &c->e, c->with, &batch)) {
            w->stats->merged++;
            continue;
        }
        w->stats->differed++;
        if (c->with.n != share_zero_frame.n) {
            index_put(c->with);
        }
    }
    flush_batch_commit(&batch);
    w->nr = 0;
}

/* Visit at most nr pages; returns how many. */
static uint64_t run_slice(struct slice *w, uint64_t nr)
{
    uint64_t visited = 0;
    gfn_t gfn;

    share_scan_enter();
    if (pass_over(w->pass)) {
        pass_begin(w->p, w->pass);
    }
    index_make_room(2 * SLICE);
    while (visited < nr && has_room(w) && !pass_over(w->pass)) {
        while (visited < nr && w->nr_looks < GROUP && pass_next(w->p, w->pass, &gfn)) {
            visited++;
            collect(w, gfn);
        }
        look_at_group(w);
        env_relax();
    }
    nominate_all(w);
    merge_all(w);
    if (pass_over(w->pass)) {
        w->stats->passes++;
        w->stats->under_large = w->pass->under_large;
    }
    share_scan_leave();
    index_reap();
    env_relax();
    return visited;
}

/* Candidates are written before they are read. */
static void slice_init(struct slice *w, struct p2m *p, struct pass *pass, bool all)
{
    w->p = p;
    w->pass = pass;
    w->stats = &p->scan->stats;
    w->all = all;
    w->offer = false;
    w->nr = 0;
    w->nr_looks = 0;
}

void scan_range(struct p2m *p, gfn_t first, uint64_t nr)
{
    struct slice w;

    slice_init(&w, p, &p->scan->pass, false);
    for (uint64_t done = 0; done < nr && !share_is_leaving(p->member);) {
        share_scan_enter();
        index_make_room(2 * SLICE);
        while (done < nr && has_room(&w)) {
            for (; done < nr && w.nr_looks < GROUP; done++) {
                collect(&w, gfn_add(first, done));
            }
            look_at_group(&w);
        }
        nominate_all(&w);
        merge_all(&w);
        share_scan_leave();
        env_relax();
    }
}

void scan_offer(struct p2m *p, const gfn_t *gfn, unsigned nr)
{
    struct slice w;

    if (p->member == 0 || share_is_leaving(p->member) || !share_scan_try_enter()) {
        return;
    }
    slice_init(&w, p, &p->scan->pass, true);
    w.offer = true;
    index_make_room(nr);
    for (unsigned i = 0; i < nr && has_room(&w);) {
        for (; i < nr && w.nr_looks < GROUP; i++) {
            collect(&w, gfn[i]);
        }
        look_at_group(&w);
    }
    nominate_all(&w);
    merge_all(&w);
    share_scan_leave();
}

void scan_pages(struct p2m *p, uint64_t nr)
{
    struct slice w;

    slice_init(&w, p, &p->scan->pass, false);
    while (nr > 0 && !share_is_leaving(p->member)) {
        nr -= run_slice(&w, MIN(nr, (uint64_t)(2 * SLICE)));
        if (w.pass->nr_pages == 0) {
            break;
        }
    }
}

void scan_all(struct p2m *p)
{
    struct pass pass = {.left = 0};
    struct slice w;

    slice_init(&w, p, &pass, true);
    do {
        (void)run_slice(&w, 2 * SLICE);
    } while (!pass_over(&pass) && !share_is_leaving(p->member));
}

void scan_stats(struct p2m *p, struct scan_stats *out)
{
    *out = (struct scan_stats){0};
    if (p->member != 0) {
        *out = p->scan->stats;
        out->hints = index_hints(p->member);
    }
}
