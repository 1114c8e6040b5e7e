/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of swapping share. Nobody else includes this.
 *
 * Requests that the store is done with wait in a list without a lock until a thread reaps them: the
 * store's `done` only links and wakes.
 */
#pragma once

#include "kernel/lib/rng.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/slots.h"
#include "mm/reclaim/store.h"
#include "kernel/lib/ratelimit.h"
#include "mm/reclaim/swap.h"

#define NR_BATCHES 4u
#define RUN_PAGES 8u /* neighbours that leave together, aligned, and come back together */
/* Frames set aside: what one batch can need in a cache; and, which the caches leave alone, nodes for the large
 * pages that all batches come from, two for each run: it may be of a 1 GiB page. */
#define CACHE_SPARES SWAP_BATCH
#define NODE_SPARES (NR_BATCHES * (SWAP_BATCH / RUN_PAGES) * 2)

struct done_node {
    struct done_node *next;
};

struct swap {
    struct swap_config cfg; /* constant, but for the store, which is set once (atomic) */
    bool ready;
    struct spinlock lock; /* RANK_SWAP: lists of free requests, spares, rng */
    struct list free_batches, free_reads;
    unsigned nr_free_reads;
    bool reads_lacked; /* somebody found no free read, and few have become free since */
    struct rng rng;
    mfn_t spare[CACHE_SPARES + NODE_SPARES];
    unsigned nr_spare;
    struct done_node *done_reads, *done_batches; /* atomic */
    struct swap_stats stats;                     /* each number atomic */
    struct ratelimit limit;                      /* of lines about slots, in ns */
};
extern struct swap swap;

static inline uint64_t swap_slot(uint64_t word)
{
    return word_place(word) & SWAP_SLOT_MASK;
}

static inline void swap_add(uint64_t *what, uint64_t nr)
{
    __atomic_fetch_add(what, nr, __ATOMIC_RELAXED);
}

static inline uint64_t swap_load(const uint64_t *what)
{
    return __atomic_load_n(what, __ATOMIC_RELAXED);
}

/* From the store's `done`. */
static inline void done_push(struct done_node **list, struct done_node *node)
{
    node->next = __atomic_load_n(list, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(list, &node->next, node, true, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED)) {}
}

/* All that is there; the caller's. */
static inline struct done_node *done_take(struct done_node **list)
{
    if (__atomic_load_n(list, __ATOMIC_RELAXED) == NULL) {
        return NULL;
    }
    return __atomic_exchange_n(list, NULL, __ATOMIC_ACQUIRE);
}

/* The last use of p in a request: p may be gone afterwards. */
static inline void swap_release(struct p2m *p)
{
    __atomic_fetch_sub(&p->io, 1, __ATOMIC_RELEASE);
}

static inline void swap_hold(struct p2m *p)
{
    __atomic_fetch_add(&p->io, 1, __ATOMIC_RELAXED);
}

/* swap_in.c */
enum hv_err swap_in_init(void) __must_check;
void swap_in_fini(void);
void swap_in_reap(void);

/* swap_batch.c: what has been chosen leaves. */
struct swap_batch;
enum hv_err batch_init(void) __must_check;
void batch_fini(void);
/* NULL: all are under way, or reads go first. */
struct swap_batch *batch_get(struct p2m *p, bool urgent) __must_check;
/* False: there is no room, or gfn is there already. Else gfn, which `e` describes, goes along: a page that is
 * to be nominated, one on a shared frame, or one that is compressed. */
bool batch_add(struct swap_batch *b, gfn_t gfn, const struct p2m_entry *e);
/* Nominate, compress what may be, start writing the rest; the batch is used up. */
void batch_run(struct swap_batch *b, const struct swap_how *how, struct swap_step *out);
uint64_t batch_reap(void);
/* One of the frames that were set aside, of use FRAME_HOST; MFN_NONE: there are no more than `leave`, which are
 * for others. Back with what was not used; MFN_NONE is ignored. */
mfn_t spare_take(unsigned leave);
void spare_put(mfn_t mfn);
