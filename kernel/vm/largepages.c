/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy of large pages; see largepages.h. They break while the level of memory says so
 * (mm/reclaim/policy.h); joining needs twice as much free memory as is wanted, and stops at one and a
 * half times. Caller: the sharing thread.
 */
#include "kernel/vm/largepages.h"

#include "kernel/options.h"
#include "mm/buddy.h"
#include "mm/compact.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/index.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"

#define SPLITS_PER_TICK 8u /* of one VM */
#define JOINS_PER_TICK 4u  /* of one VM */
#define WATCH_TICKS 15u
#define REGION_PAGES BIT(ORDER_2M)

static unsigned watch_ticks; /* atomic: somebody looks at the pages' ages */
static uint64_t nr_split,
    nr_joined; /* written by the thread alone; others read them as statistics */
static uint64_t
    join_at[INDEX_MAX_MEMBERS]; /* where the search for a region goes on; the thread's */

static bool short_of_memory(void)
{
    return (reclaim_actions() & MEM_DO_BREAK) != 0;
}

/* ---- Below high ---- */

/* The hashes of its pages were prepared while it was whole. */
static void share_region(struct p2m *p, gfn_t gfn)
{
    if (options_get(OPT_SHARE_SCAN_GHZ) != 0) {
        scan_range(p, gfn, REGION_PAGES);
    }
}

static void split_some(struct p2m *p)
{
    nr_split += p2m_large_split_coldest(p, SPLITS_PER_TICK, share_region);
}

/* ---- Plenty ---- */

static bool plenty(uint64_t costs)
{
    return buddy_free_frames() >= costs + reclaim_min_free() * 3 / 2;
}

static enum hv_err get_block(struct p2m *p, mfn_t *block)
{
    enum hv_err err = buddy_alloc(ORDER_2M, FRAME_GUEST, p2m_owner(p), 0, block);

    if (err == HV_ENOMEM && options_get(OPT_LPAGE_DEFRAG_ENABLE) != 0) {
        err = compact_block(p2m_owner(p), block);
    }
    return err;
}

/* Join the region; false: leave it at that for this tick. What is still on its way when it was asked
 * for is there when the search comes by again. */
static bool join_region(struct p2m *p, gfn_t gfn, unsigned max_shared)
{
    unsigned max_swapped = (unsigned)options_get(OPT_LPAGE_MAX_SWAPPED_PAGES);
    struct p2m_region r;
    mfn_t block;

    if (!p2m_large_joinable(p, gfn, max_shared, max_swapped, &r)) {
        return true;
    }
    if (!plenty(r.fresh + r.away + REGION_PAGES)) {
        return false;
    }
    if (r.away != 0 && p2m_large_bring_back(p, gfn) != 0) {
        return true;
    }
    if (get_block(p, &block) != HV_OK) {
        return false;
    }
    if (p2m_large_join(p, gfn, max_shared, block) == HV_OK) {
        nr_joined++;
    } else {
        buddy_free(block, ORDER_2M);
    }
    return true;
}

static void join_some(struct p2m *p, unsigned member)
{
    unsigned max_shared = (unsigned)options_get(OPT_LPAGE_MAX_SHARED_PAGES);
    uint64_t joined = nr_joined;
    gfn_t gfn = GFN(join_at[member]);

    while (nr_joined - joined < JOINS_PER_TICK) {
        if (!p2m_large_next_region(p, &gfn)) {
            gfn = GFN(0); /* from the beginning, next time */
            break;
        }
        if (!join_region(p, gfn, max_shared)) {
            break;
        }
        gfn.n += REGION_PAGES;
    }
    join_at[member] = gfn.n;
}

/* ---- The tick ---- */

void largepages_tick(void)
{
    bool join = options_get(OPT_LPAGE_ALWAYS_TRY_FOR_NPT) != 0 &&
                options_get(OPT_ALLOC_GUEST_LARGE_PAGE) != 0;
    bool watched = __atomic_load_n(&watch_ticks, __ATOMIC_RELAXED) != 0;
    unsigned member;

    if (watched) {
        __atomic_fetch_sub(&watch_ticks, 1, __ATOMIC_RELAXED);
    }
    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = share_member(p);
        if (p2m_wants_large(p)) {
            if (watched || !plenty(reclaim_min_free() / 2)) {
                p2m_large_age(p);
            }
            if (short_of_memory()) {
                split_some(p);
            } else if (join && plenty(reclaim_min_free() / 2)) {
                join_some(p, member);
            }
        }
        share_release(member);
    }
}

void largepages_watch(void)
{
    __atomic_store_n(&watch_ticks, WATCH_TICKS, __ATOMIC_RELAXED);
}

void largepages_state(struct largepages_state *out)
{
    struct compact_stats c;

    compact_stats(&c);
    *out = (struct largepages_state){
        .high = !short_of_memory(),
        .min_free = reclaim_min_free(),
        .split = nr_split,
        .joined = nr_joined,
        .compacted = c.blocks,
        .moved = c.moved,
    };
}
