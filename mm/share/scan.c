/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scan; see scan.h. One scan at a time in the whole host (share_scan_enter).
 *
 * The order of a pass over n pages is a bijection of [0, 2^k), 2^k >= n, whose results of n and more
 * are left out: a multiplicative congruential step of full period, then a fold of the upper half into
 * the lower, which is weak in such sequences.
 */
#include "mm/share/scan.h"

#include "kernel/lib/rng.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/share/cow.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share_internal.h"
#include "mm/slab.h"

#define SLICE 32u
#define RELAX_PAGES 4u /* hashed between two looks at what else is to do */

struct share_scan {
    uint64_t nr_pages; /* of the pass */
    unsigned bits;
    uint64_t multiplier, increment;
    uint64_t at, left; /* state of the sequence, steps until it closes; 0: no pass under way */
    uint64_t under_large;
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

struct slice {
    struct p2m *p;
    struct share_scan *s;
    bool all; /* hot pages too */
    unsigned nr;
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

static void pass_begin(struct p2m *p, struct share_scan *s)
{
    struct rng rng;

    s->nr_pages = 0;
    for (unsigned i = 0; i < p->nr_ram; i++) {
        s->nr_pages += p->ram[i].nr;
    }
    s->bits = 2;
    while (BIT(s->bits) < s->nr_pages) {
        s->bits++;
    }
    rng_seed(&rng, share_next_seed());
    /* "Full period": multiplier 1 modulo 4, increment odd. */
    s->multiplier = (rng_next(&rng) & ~3ULL) | 1;
    s->increment = rng_next(&rng) | 1;
    s->at = rng_next(&rng) & (BIT(s->bits) - 1);
    s->left = BIT(s->bits);
    s->under_large = 0;
}

/* The next page of the pass. False: it is over. */
static bool pass_next(struct p2m *p, struct share_scan *s, gfn_t *gfn)
{
    uint64_t mask = BIT(s->bits) - 1;

    while (s->left != 0) {
        uint64_t n = s->at ^ (s->at >> (s->bits / 2));

        s->at = (s->at * s->multiplier + s->increment) & mask;
        s->left--;
        if (n >= s->nr_pages) {
            continue;
        }
        for (unsigned i = 0; i < p->nr_ram; i++) {
            if (n < p->ram[i].nr) {
                *gfn = gfn_add(p->ram[i].first, n);
                return true;
            }
            n -= p->ram[i].nr;
        }
    }
    return false;
}

static void pass_end(struct share_scan *s)
{
    s->stats.passes++;
    s->stats.under_large = s->under_large;
}

/* ---- One page ---- */

/* A page that was written after it had been merged is passed by, less and less long. */
static bool is_hot(struct slice *w, struct p2m_entry *e)
{
    uint64_t heat = word_heat(e->seq);

    if (likely(heat == 0) || w->all) {
        return false;
    }
    spin_lock(&w->p->lock);
    if (p2m_same(e) && e->writable) {
        uint64_t value = word_next(e->seq, P2M_PRIVATE, word_mfn(e->seq));

        p2m_change(e, (value & ~HEAT_MASK) | (heat - 1) << HEAT_SHIFT);
    }
    spin_unlock(&w->p->lock);
    w->s->stats.hot++;
    return true;
}

/* Does the hinted page still have these contents? Describes it. */
static bool verify(struct p2m *p, gfn_t gfn, uint64_t key, struct p2m_entry *e)
{
    bool same;
    void *page;

    if (!p2m_pin_private(p, gfn, e, &page)) {
        return false;
    }
    same = index_key(hash_page(page), p->salt) == key;
    p2m_put(p, gfn, page);
    return same;
}

/* Write-protect the page behind a verified hint and make its frame a shared one. */
static bool promote(struct p2m *p, gfn_t gfn, uint64_t key, struct p2m_entry *e)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &p->domain);
    if (!cow_nominate(p, gfn, e, &batch)) {
        return false;
    }
    flush_batch_commit(&batch);
    return cow_promote(p, e, key);
}

enum hint_result { HINT_STALE, HINT_BUSY, HINT_UNDER_LARGE, HINT_PROMOTED };

/* Follow a hint; HINT_PROMOTED: *with is a shared frame with a reference for us. */
static enum hint_result follow_hint(struct slice *w, const struct index_page *page, uint64_t key,
                                    bool small, mfn_t *with)
{
    struct p2m *other = share_hold(page->member);
    enum hint_result result = HINT_STALE;
    struct p2m_entry e;

    if (other != NULL && other->salt == w->p->salt && verify(other, page->gfn, key, &e)) {
        *with = e.mfn;
        if (e.order != ORDER_4K || !small) {
            result = HINT_UNDER_LARGE;
        } else {
            result = promote(other, page->gfn, key, &e) ? HINT_PROMOTED : HINT_BUSY;
        }
    }
    if (other != NULL) {
        share_release(page->member);
    }
    if (result == HINT_STALE) {
        w->s->stats.stale++;
    }
    if (result == HINT_STALE || result == HINT_PROMOTED) {
        index_unhint(key, page);
    }
    return result;
}

static void add_candidate(struct slice *w, gfn_t gfn, const struct p2m_entry *e, mfn_t with)
{
    w->c[w->nr++] = (struct candidate){.gfn = gfn, .e = *e, .with = with};
}

/* A private page with this key: find its like, or leave a hint. */
static void look_up(struct slice *w, gfn_t gfn, const struct p2m_entry *e, uint64_t key)
{
    const struct index_page self = {w->p->member, gfn};
    bool small = e->order == ORDER_4K;
    struct index_hit hit;
    enum hint_result result = HINT_STALE;

    index_find(key, w->p->salt, &self, &hit);
    if (hit.found == INDEX_HINT) {
        result = follow_hint(w, &hit.page, key, small, &hit.mfn);
        if (result == HINT_PROMOTED) {
            hit.found = INDEX_SHARED;
        } else if (result == HINT_UNDER_LARGE) {
            w->s->under_large += !small;
        }
    }
    if (hit.found == INDEX_SHARED && small) {
        add_candidate(w, gfn, e, hit.mfn);
    } else if (hit.found == INDEX_SHARED) {
        index_put(hit.mfn);
        w->s->under_large++;
    } else if (!hit.self && (small || result == HINT_STALE)) {
        /* Also if the hinted page cannot be merged with just now: another one may come. */
        index_hint(key, &self);
    }
}

static void look(struct slice *w, gfn_t gfn)
{
    struct p2m *p = w->p;
    struct p2m_entry e;
    bool is_zero;
    uint64_t key = 0;
    void *page;

    w->s->stats.pages++;
    p2m_query(p, gfn, &e);
    if (e.state != P2M_PRIVATE || is_hot(w, &e) || !p2m_pin_private(p, gfn, &e, &page)) {
        return;
    }
    is_zero = hash_is_zero(page);
    if (!is_zero) {
        key = index_key(hash_page(page), p->salt);
        w->s->stats.hashed++;
    }
    p2m_put(p, gfn, page);
    if (!is_zero) {
        look_up(w, gfn, &e, key);
    } else if (e.order == ORDER_4K) {
        add_candidate(w, gfn, &e, share_zero_frame);
    } else {
        w->s->under_large++;
    }
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
    flush_batch_commit(&batch);
}

static void merge_all(struct slice *w)
{
    struct flush_batch batch;

    flush_batch_init(&batch, &w->p->domain);
    for (unsigned i = 0; i < w->nr; i++) {
        struct candidate *c = &w->c[i];

        if (c->nominated && cow_merge(w->p, c->gfn, &c->e, c->with, &batch)) {
            w->s->stats.merged++;
            continue;
        }
        w->s->stats.differed++;
        if (c->with.n != share_zero_frame.n) {
            index_put(c->with);
        }
    }
    flush_batch_commit(&batch);
    w->nr = 0;
}

/* Visit at most nr pages; returns how many, 0 when the pass is over. */
static uint64_t run_slice(struct slice *w, uint64_t nr)
{
    uint64_t hashed = w->s->stats.hashed;
    uint64_t visited = 0;
    gfn_t gfn;

    index_make_room(2 * SLICE);
    while (visited < nr && w->nr < SLICE && pass_next(w->p, w->s, &gfn)) {
        visited++;
        look(w, gfn);
        if (w->s->stats.hashed - hashed >= RELAX_PAGES) {
            hashed = w->s->stats.hashed;
            env_relax();
        }
    }
    nominate_all(w);
    merge_all(w);
    index_reap();
    env_relax();
    return visited;
}

static void run(struct p2m *p, uint64_t nr, bool all)
{
    struct slice w = {.p = p, .s = p->scan, .all = all};

    if (all || w.s->left == 0) {
        pass_begin(p, w.s);
    }
    while (nr > 0) {
        uint64_t done = run_slice(&w, MIN(nr, (uint64_t)(2 * SLICE)));

        nr -= done;
        if (w.s->left == 0) {
            pass_end(w.s);
            if (all || w.s->nr_pages == 0) {
                return;
            }
            pass_begin(p, w.s);
        }
    }
}

void scan_pages(struct p2m *p, uint64_t nr)
{
    share_scan_enter();
    run(p, nr, false);
    share_scan_leave();
}

void scan_all(struct p2m *p)
{
    share_scan_enter();
    run(p, UINT64_MAX, true);
    share_scan_leave();
}

void scan_stats(struct p2m *p, struct scan_stats *out)
{
    *out = (struct scan_stats){0};
    if (p->member != 0) {
        *out = p->scan->stats;
        out->hints = index_hints(p->member);
    }
}
