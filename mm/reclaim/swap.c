/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whose turn it is: the choice of victims, set-up, numbers; see swap.h. What has been chosen leaves by
 * swap_batch.c and comes back by swap_in.c.
 */
#include "mm/reclaim/swap.h"

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m_large.h"
#include "mm/reclaim/swap_internal.h"
#include "mm/share/index.h"
#include "mm/share/scan.h"

/* Runs drawn for a batch, then as many again, which take any shared page too where there are slots. Only if
 * none of them gave a page all pages are looked through. */
#define TRIES 64u
#define RECENT_PAGES 256u /* that left or stayed, after which both tallies are halved (most_stay) */
#define TABLE_PART 16u
#define RELAX_PAGES 1024u /* looked at between two looks at what else is to do */
#define LOG_BURST 16
#define LOG_INTERVAL_NS 5000000000ull

struct swap swap = {.lock = SPINLOCK_INIT(RANK_SWAP, "swap")};

/* ---- Victims ---- */

static uint64_t draw(uint64_t limit)
{
    spin_lock(&swap.lock);
    uint64_t n = rng_below(&swap.rng, limit);
    spin_unlock(&swap.lock);
    return n;
}

static uint64_t nr_pages(const struct p2m *p)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < p->nr_ram; i++) {
        sum += p->ram[i].nr;
    }
    return sum;
}

/* Page number n of p's RAM. */
static gfn_t nth_page(const struct p2m *p, uint64_t n)
{
    for (unsigned i = 0; i < p->nr_ram; i++) {
        if (n < p->ram[i].nr) {
            return gfn_add(p->ram[i].first, n);
        }
        n -= p->ram[i].nr;
    }
    return GFN(0);
}

/* The large page around gfn becomes smaller ones. */
static bool split(struct p2m *p, gfn_t gfn)
{
    mfn_t spare = spare_take(0);
    enum hv_err err = p2m_large_split(p, gfn, &spare);

    spare_put(spare);
    return err == HV_OK;
}

/*
 * Is the page that `e` describes one? A private page of 4 KiB that nobody holds; one of a large page, by
 * splitting that, after which `e` describes the small page. Large pages that are in use stay. The last page on
 * a shared frame; one of several, which frees nothing by itself, with `any_shared`: only for a slot.
 */
static bool is_victim(struct p2m *p, gfn_t gfn, struct p2m_entry *e, bool any_shared)
{
    while (e->state == P2M_PRIVATE && e->order != ORDER_4K) {
        if (!split(p, gfn)) {
            return false;
        }
        p2m_query(p, gfn, e);
    }
    if (e->state == P2M_SHARED) {
        return index_refs(e->mfn) == 1 || any_shared;
    }
    return e->state == P2M_PRIVATE && e->writable && p2m_pin_record(e)->refs == 0;
}

/* Consider the run around gfn. */
static unsigned add_run(struct p2m *p, struct swap_batch *b, gfn_t gfn, unsigned most,
                        bool any_shared)
{
    gfn_t first = GFN(ALIGN_DOWN(gfn.n, RUN_PAGES));
    struct p2m_entry e;
    unsigned nr = 0;

    p2m_query(p, first, &e);
    for (unsigned i = 0; i < RUN_PAGES && nr < most; i++) {
        gfn_t at = gfn_add(first, i);

        if (i != 0) {
            p2m_query_next(p, at, &e);
        }
        if (is_victim(p, at, &e, any_shared)) {
            if (!batch_add(b, at, &e)) {
                break;
            }
            nr++;
        }
    }
    return nr;
}

/* Few are left of any kind: go through all of RAM from a random place. */
static unsigned look_through(struct p2m *p, struct swap_batch *b, uint64_t pages, unsigned most,
                             bool any_shared)
{
    uint64_t at = draw(pages);
    unsigned nr = 0;

    for (uint64_t i = 0; i < pages && nr < most; i++) {
        gfn_t gfn = nth_page(p, (at + i) % pages);
        struct p2m_entry e;

        p2m_query(p, gfn, &e);
        nr += is_victim(p, gfn, &e, any_shared) && batch_add(b, gfn, &e);
        if (i % RELAX_PAGES == RELAX_PAGES - 1) {
            env_relax();
        }
    }
    return nr;
}

static bool has_free_slots(void)
{
    struct slots_stats s;

    if (!swap_has_store()) {
        return false;
    }
    slots_stats(&s);
    return s.used + s.bad < s.total;
}

/* Do most of those that are chosen stay, for they are written meanwhile? Asked at most once a batch, for
 * asking also ages the tallies: what happened earlier counts half, then a quarter. Takes the p2m lock. */
static bool most_stay(struct p2m *p)
{
    bool stay;

    spin_lock(&p->lock);
    stay = p->swap_stayed > p->swap_went;
    if (p->swap_stayed + p->swap_went > RECENT_PAGES) {
        p->swap_stayed /= 2;
        p->swap_went /= 2;
    }
    spin_unlock(&p->lock);
    return stay;
}

/* Pages that free nothing by themselves make up for what lacks; and where those that are written all the time would
 * stand before them, every fourth run is for them as well. */
static unsigned choose_victims(struct p2m *p, struct swap_batch *b, unsigned most)
{
    bool slots = has_free_slots(), mixed = slots && most_stay(p);
    uint64_t pages = nr_pages(p);
    unsigned nr = 0;

    if (pages == 0) {
        return 0;
    }
    for (unsigned i = 0; i < 2 * TRIES && nr < most; i++) {
        bool any_shared = (slots && i >= TRIES) || (mixed && i % 4 == 0);

        nr += add_run(p, b, nth_page(p, draw(pages)), most - nr, any_shared);
    }
    return nr != 0 ? nr : look_through(p, b, pages, most, slots);
}

/* ---- The cache's oldest ---- */

static unsigned choose_oldest(struct p2m *p, struct swap_batch *b)
{
    gfn_t oldest[SWAP_BATCH];
    unsigned nr, added = 0;

    spin_lock(&p->lock);
    nr = zip_oldest(p, oldest, SWAP_BATCH);
    for (unsigned i = 0; i < nr; i++) {
        struct p2m_entry e;

        p2m_query(p, oldest[i], &e);
        added += batch_add(b, oldest[i], &e);
    }
    spin_unlock(&p->lock);
    return added;
}

/* The cache is at its bound: its oldest pages are next. */
static bool cache_is_full(struct p2m *p, const struct swap_how *how)
{
    struct p2m_counters count;

    p2m_counters(p, &count);
    return count.zip_frames != 0 && count.zip_frames >= count.ram * how->zip_pct / 100;
}

/* ---- Taking ---- */

/* NULL: none. It may be gone. */
static struct store *the_store(void)
{
    return swap.ready ? __atomic_load_n(&swap.cfg.store, __ATOMIC_ACQUIRE) : NULL;
}

bool swap_has_store(void)
{
    const struct store *s = the_store();

    return s != NULL && !store_gone(s);
}

bool swap_possible(const struct p2m *p)
{
    return swap.ready && !p->no_paging;
}

enum hv_err swap_out(struct p2m *p, uint64_t most, const struct swap_how *how,
                     struct swap_step *out)
{
    bool full = cache_is_full(p, how);
    struct swap_batch *b;
    unsigned nr;

    *out = (struct swap_step){0};
    if (!swap.ready || p->no_paging || ((full || !how->compress) && !swap_has_store())) {
        return HV_ENOENT;
    }
    out->freed += batch_reap();
    b = batch_get(p, how->urgent);
    if (b == NULL) {
        return HV_EAGAIN;
    }
    if (full) {
        nr = choose_oldest(p, b);
    } else {
        nr = choose_victims(p, b, (unsigned)MIN(most, (uint64_t)SWAP_BATCH));
    }
    batch_run(b, how, out);
    if (full && nr == 0) {
        return HV_EAGAIN; /* all of the cache is on its way */
    }
    /* Nothing where there were victims: the store is full. */
    return nr != 0 && out->freed + out->started != 0 ? HV_OK : HV_ENOENT;
}

uint64_t swap_reap(void)
{
    if (!swap.ready) {
        return 0;
    }
    swap_in_reap();
    return batch_reap();
}

void swap_leave(struct p2m *p)
{
    while (__atomic_load_n(&p->io, __ATOMIC_ACQUIRE) != 0) {
        (void)swap_reap();
        env_relax();
    }
}

/* ---- Set-up ---- */

/* As many slots as the table may have memory for: 1/TABLE_PART of what is free. */
static uint64_t affordable(const struct store *s)
{
    uint64_t nr = MIN(s->nr_slots, SLOTS_MAX);

    while (slots_frames(nr) > buddy_free_frames() / TABLE_PART + 1) {
        nr /= 2;
    }
    return nr;
}

uint64_t swap_add_store(struct store *s)
{
    uint64_t nr = affordable(s);

    if (!swap.ready || swap.cfg.store != NULL) {
        return 0;
    }
    while (nr != 0 && slots_init(nr) != HV_OK) {
        nr /= 2;
    }
    if (nr != 0) {
        __atomic_store_n(&swap.cfg.store, s, __ATOMIC_RELEASE);
    }
    return nr;
}

enum hv_err swap_init(const struct swap_config *cfg)
{
    uint64_t nr = cfg->store != NULL ? affordable(cfg->store) : 0;
    enum hv_err err = HV_OK;

    swap.cfg = *cfg;
    swap.stats = (struct swap_stats){0};
    ratelimit_init(&swap.limit, LOG_BURST, LOG_INTERVAL_NS);
    rng_seed(&swap.rng, cfg->seed);
    list_init(&swap.free_batches);
    list_init(&swap.free_reads);
    if (nr != 0) {
        err = slots_init(nr);
    }
    if (err == HV_OK) {
        err = batch_init();
    }
    if (err == HV_OK) {
        err = swap_in_init();
    }
    swap.ready = err == HV_OK;
    if (err != HV_OK) {
        swap_in_fini();
        batch_fini();
        slots_fini();
    }
    return err;
}

void swap_fini(void)
{
    if (swap.ready) {
        (void)swap_reap();
        swap.ready = false;
        swap_in_fini();
        batch_fini();
        slots_fini();
    }
}

/* ---- Numbers ---- */

void swap_stats(struct swap_stats *out)
{
    const struct store *store = the_store();
    struct slots_stats s;

    slots_stats(&s);
    *out = swap.stats;
    out->store = store != NULL ? store->name : NULL;
    out->gone = store != NULL && store_gone(store);
    out->slots = s.total;
    out->used = s.used;
    out->bad = s.bad;
}
