/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What buddy.c (allocation) and buddy_audit.c (counting) share. Nobody else includes this.
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "mm/buddy.h"

#define BUDDY_MAX_CPUS 256
#define BUDDY_ORDERS (BUDDY_MAX_ORDER + 1)
#define BUDDY_ASIDE_ORDER ORDER_2M
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
    uint64_t total_high;         /* of these, in ZONE_HIGH */
    int64_t used[NR_FRAME_USES]; /* frames of larger blocks, and of single ones not from a cache */
};

extern struct buddy_state buddy_state;
extern struct buddy_cache buddy_caches[BUDDY_MAX_CPUS];

/* Stop the allocator on all processors, for counting. Returns what buddy_unlock_all needs. */
unsigned buddy_lock_all(void);
void buddy_unlock_all(unsigned nr);
