/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction; see compact.h. What is free in the block is taken first, so that nobody else gets it;
 * then page after page moves, and what it leaves behind is taken as well. Caller:
 * kernel/vm/largepages.c.
 */
#include "mm/compact.h"

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/p2m_large.h"
#include "mm/share/share.h"

#define BLOCK BIT(ORDER_2M)
#define MIN_FREE (BLOCK / 4) /* frames that must be free for a block to be worth it */
#define LOOK_BLOCKS 2048u    /* looked at in one call */

static struct compact_stats stats; /* the caller's */
static uint64_t cursor;            /* where the search goes on; the caller's */

/* Frames of the block that are free; 0 if anything in it cannot move. Records change meanwhile: what
 * this says is checked again by every step. */
static uint64_t worth(mfn_t base)
{
    uint64_t nr_free = 0;

    for (uint64_t i = 0; i < BLOCK;) {
        struct frame f = frame_look(mfn_add(base, i));
        uint64_t size = BIT(frame_order(&f));

        if (f.use == FRAME_FREE) {
            nr_free += size;
        } else if (f.use != FRAME_GUEST || size != 1 || f.refs != 0) {
            return 0;
        }
        i += size;
    }
    return nr_free < BLOCK ? nr_free : 0;
}

static bool find_block(mfn_t *out)
{
    uint64_t nr_blocks = frame_nr / BLOCK;
    uint64_t best = MIN_FREE - 1;

    for (uint64_t i = 0; i < MIN(nr_blocks, (uint64_t)LOOK_BLOCKS); i++) {
        mfn_t base = MFN(cursor % nr_blocks * BLOCK);
        uint64_t nr_free;

        cursor++;
        /* Only blocks that are not part of larger ones. */
        nr_free = frame_head(base).n == base.n ? worth(base) : 0;
        if (nr_free > best) {
            best = nr_free;
            *out = base;
        }
        if (i % 64 == 63) {
            env_relax();
        }
    }
    return best >= MIN_FREE;
}

/* The member whose frames carry this owner, held. */
static struct p2m *hold_owner(uint32_t owner)
{
    struct p2m *p = share_next(0);

    while (p != NULL && p->owner != owner) {
        unsigned member = p->member;
        struct p2m *next = share_next(member);

        share_release(member);
        p = next;
    }
    return p;
}

static enum hv_err move_frame(mfn_t mfn, mfn_t to)
{
    gfn_t gfn = GFN(frame_of(mfn)->gfn);
    struct p2m *p = hold_owner(frame_look(mfn).owner);
    enum hv_err err = HV_EBUSY;

    if (p != NULL) {
        err = gfn.n >> GFN_BITS ? HV_EBUSY : p2m_large_move(p, gfn, mfn, to);
        share_release(p->member);
    }
    return err;
}

/* Frames to move to, taken beforehand: later ones would come out of the block. In a chain. */
struct targets {
    uint32_t head;
    uint64_t nr;
};

static enum hv_err take_targets(struct targets *t, uint64_t nr)
{
    while (t->nr < nr) {
        mfn_t mfn;
        enum hv_err err = env_may_allocate("compact.target")
                              ? buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &mfn)
                              : HV_ENOMEM;

        if (err != HV_OK) {
            return err;
        }
        frame_of(mfn)->next = t->head;
        t->head = (uint32_t)mfn.n;
        t->nr++;
    }
    return HV_OK;
}

static mfn_t pop_target(struct targets *t)
{
    mfn_t mfn = MFN(t->head);

    t->head = frame_of(mfn)->next;
    t->nr--;
    return mfn;
}

static enum hv_err empty_block(mfn_t base, struct targets *t)
{
    for (uint64_t i = 0; i < BLOCK; i++) {
        mfn_t mfn = mfn_add(base, i);
        enum hv_err err;
        mfn_t to;

        if (frame_head(mfn).n != mfn.n || frame_look(mfn).use != FRAME_GUEST) {
            continue;
        }
        if (t->nr == 0) {
            return HV_EBUSY;
        }
        to = pop_target(t);
        err = move_frame(mfn, to);
        if (err != HV_OK) {
            buddy_free(to, 0);
            return err;
        }
        stats.moved++;
        env_relax();
    }
    return HV_OK;
}

enum hv_err compact_block(uint32_t owner, mfn_t *out)
{
    struct targets targets = {.head = FRAME_LINK_NONE};
    mfn_t base = MFN(0);
    enum hv_err err;

    if (!find_block(&base)) {
        return HV_ENOMEM;
    }
    err = take_targets(&targets, BLOCK - buddy_isolate(base, ORDER_2M));
    if (err == HV_OK) {
        err = empty_block(base, &targets);
    }
    while (targets.nr != 0) {
        buddy_free(pop_target(&targets), 0);
    }
    if (err == HV_OK && buddy_isolate(base, ORDER_2M) == BLOCK) {
        buddy_unisolate(base, ORDER_2M, FRAME_GUEST, owner);
        stats.blocks++;
        *out = base;
        return HV_OK;
    }
    stats.failed++;
    buddy_end_isolation(base, ORDER_2M);
    return err == HV_OK ? HV_EBUSY : err;
}

void compact_stats(struct compact_stats *out)
{
    *out = stats;
}
