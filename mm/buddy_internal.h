/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What buddy.c (allocation), buddy_init.c (start-up), buddy_retire.c (bad memory) and buddy_audit.c
 * (counting) share. Nobody else includes this.
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "mm/buddy.h"

#define BUDDY_MAX_CPUS 256
#define BUDDY_ORDERS (BUDDY_MAX_ORDER + 1)
#define BUDDY_ASIDE_ORDER ORDER_2M
#define BUDDY_MAX_BAD 64 /* bad frames in use at a time */
#define LOW_FRAMES (GIB(4) >> PAGE_SHIFT)

enum { ZONE_LOW, ZONE_HIGH, NR_ZONES };

/* The free blocks below or above 4 GiB; chains through the frame records. */
struct buddy_zone {
    uint32_t head[BUDDY_ORDERS];
    uint64_t nr[BUDDY_ORDERS];
    uint32_t avail; /* bit per order whose list is not empty */
    uint32_t aside; /* 2 MiB pieces set aside */
    uint64_t aside_nr;
};

/* Single free frames of one processor, and what single frames it handed out and took back. */
struct buddy_cache {
    bool busy; /* the lock */
    uint32_t head;
    uint32_t nr;
    int64_t used[NR_FRAME_USES]; /* by use; the sum over all processors counts */
} __aligned(128);

struct buddy_state {
    struct spinlock lock; /* protects all of this */
    struct buddy_zone zone[NR_ZONES];
    uint64_t total;
    uint64_t nr_free;            /* frames in the lists, set-aside ones included (atomic) */
    uint64_t reserve;            /* of these, for BUDDY_RESERVE */
    uint64_t total_high;         /* of these, in ZONE_HIGH */
    int64_t used[NR_FRAME_USES]; /* frames of larger blocks, and of single ones not from a cache */
    mfn_t bad[BUDDY_MAX_BAD];    /* frames in use that are to be retired once they are freed */
    unsigned nr_bad;             /* read without the lock, to see whether to look at all */
};

extern struct buddy_state buddy_state;
extern struct buddy_cache buddy_caches[BUDDY_MAX_CPUS];

/* Stop the allocator on all processors, for counting. Returns what buddy_unlock_all needs. */
unsigned buddy_lock_all(void);
void buddy_unlock_all(unsigned nr);
/* Everything locked: empty the caches of the `nr` processors into the lists. */
void buddy_drain_locked(unsigned nr);

/* buddy_state.lock held: return a block to the lists, merged with its buddies. */
void buddy_block_free(mfn_t mfn, unsigned order);
/* buddy_state.lock held: buddy_alloc_at. */
enum hv_err buddy_take_at(mfn_t mfn, unsigned order, enum frame_use use,
                          uint32_t owner) __must_check;

static inline bool buddy_any_bad(void)
{
    return __atomic_load_n(&buddy_state.nr_bad, __ATOMIC_RELAXED) != 0;
}
/* A single frame that is being freed, its cache locked: true if it was bad and is retired now. */
bool buddy_retire_freed(mfn_t mfn);
/* buddy_state.lock held: buddy_block_free, less the bad frames in the block. */
void buddy_free_around_bad(mfn_t mfn, unsigned order);
