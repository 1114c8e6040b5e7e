/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the reclaimer share: a VM's entry, and the way over all of them. Nobody else
 * includes this.
 *
 * Entries belong to the carrier's thread but for the fields under reclaim_lock. A held entry stays, and
 * with it its p2m and sampler.
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/share.h"

struct reclaim_vm {
    struct p2m *p2m;                    /* constant */
    uint32_t owner;                     /* constant */
    char name[RECLAIM_NAME_MAX];        /* constant */
    unsigned slot;                      /* in the table; constant */
    unsigned users;                     /* reclaim_lock */
    bool leaving;                       /* reclaim_lock */
    struct sample *sample;              /* the thread's; estimates: any time */
    bool runs;                          /* the thread's */
    uint64_t memory;                    /* constant */
    uint64_t min, max, shares;          /* reclaim_lock */
    uint64_t target, active, touched;   /* of the last balance; reclaim_lock */
    bool has_target;                    /* there has been one; reclaim_lock */
    uint64_t held;                      /* when the carrier looked last; reclaim_lock */
    uint64_t excess, room, pending;     /* of the last orders; reclaim_lock */
    uint64_t came_down;                 /* since the orders before, while asked to; the thread's */
    const char *cause;                  /* of the target; the thread's */
    uint64_t record[RECLAIM_MAX_MEANS]; /* number of its last record, by means; the thread's */
};

extern struct spinlock reclaim_lock;

/* The next VM in the table behind slot `after` (UINT_MAX: the first), held; NULL: none. */
struct reclaim_vm *reclaim_next(unsigned after) __must_check;
void reclaim_release(struct reclaim_vm *m);
#define reclaim_for_each(m) for ((m) = reclaim_next(UINT32_MAX); (m) != NULL; (m) = reclaim_step(m))
/* Release m; the one behind it, held. */
static inline struct reclaim_vm *reclaim_step(struct reclaim_vm *m)
{
    unsigned slot = m->slot;

    reclaim_release(m);
    return reclaim_next(slot);
}

/* Machine memory that p stands on: its own frames, its compressed pages' and its part of common ones,
 * whose host-wide numbers are in `all`. In frames. */
uint64_t reclaim_held(struct p2m *p, const struct share_stats *all, uint64_t *granted);

/* ---- reclaim.c: the level of memory, for the carrier ---- */

struct reclaim_level {
    enum mem_state state;
    unsigned actions;
    uint64_t min_free, goal, lend_above;
    uint64_t unblock_at; /* free frames with which nobody is blocked, whatever the level */
    bool takes;          /* there is more to do than to break large pages */
};
/* As of the last look at free memory. The balancing thread's. */
void reclaim_level(struct reclaim_level *out);
/* Note frames taken just now. */
void reclaim_note_taken(uint64_t frames);
void reclaim_note_orders(uint64_t orders, uint64_t pending);

/* ---- reclaim_record.c ---- */

/* Enter *r, or add it to record `last` if that is there still and differs in numbers only. Returns its
 * number. The thread's. */
uint64_t reclaim_write_record(const struct reclaim_record *r, uint64_t last);
