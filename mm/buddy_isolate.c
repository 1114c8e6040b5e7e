/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Holding back what is free in a block, for compaction: such frames have use FRAME_HOST and an owner
 * that is nobody's.
 */
#include "mm/buddy_internal.h"
#include "mm/frame.h"

#define OWNER_ISOLATED OWNER_MAX

static bool is_isolated(const struct frame *f)
{
    return f->use == FRAME_HOST && f->owner == OWNER_ISOLATED;
}

uint64_t buddy_isolate(mfn_t base, unsigned order)
{
    uint64_t held = 0;
    unsigned nr = buddy_lock_all();

    /* Frames of ours may be in processors' caches. */
    buddy_drain_locked(nr);
    /* A part of a larger block has no records of its own. */
    for (uint64_t i = frame_head(base).n == base.n ? 0 : BIT(order); i < BIT(order);) {
        mfn_t mfn = mfn_add(base, i);
        struct frame f = frame_look(mfn);
        unsigned have = frame_order(&f);

        if (f.use == FRAME_FREE && have <= order &&
            buddy_take_at(mfn, have, FRAME_HOST, OWNER_ISOLATED) == HV_OK) {
            held += BIT(have);
        } else if (is_isolated(&f)) {
            held += BIT(have);
        }
        i += BIT(have);
    }
    buddy_unlock_all(nr);
    return held;
}

void buddy_unisolate(mfn_t base, unsigned order, enum frame_use use, uint32_t owner)
{
    unsigned nr = buddy_lock_all();

    frame_set(base, use, order, owner);
    frame_of(base)->gfn = FRAME_GFN_NONE;
    buddy_state.used[FRAME_HOST] -= (int64_t)BIT(order);
    buddy_state.used[use] += (int64_t)BIT(order);
    buddy_unlock_all(nr);
}

void buddy_end_isolation(mfn_t base, unsigned order)
{
    unsigned nr = buddy_lock_all();

    for (uint64_t i = 0; i < BIT(order);) {
        mfn_t mfn = mfn_add(base, i);
        struct frame f = frame_look(mfn);
        unsigned have = frame_order(&f);

        if (is_isolated(&f)) {
            buddy_state.used[FRAME_HOST] -= (int64_t)BIT(have);
            buddy_block_free(mfn, have);
        }
        i += BIT(have);
    }
    buddy_unlock_all(nr);
}
