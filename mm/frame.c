/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame table: finding and carving blocks. Callers: the allocator, flush batches, the p2m and
 * the audits.
 */
#include "mm/frame.h"

#include "mm/env.h"

struct frame *frame_table;
uint64_t frame_nr;

mfn_t frame_head(mfn_t mfn)
{
    for (unsigned order = BUDDY_MAX_ORDER; order > 0; order--) {
        mfn_t at = MFN(ALIGN_DOWN(mfn.n, BIT(order)));

        if (mfn.n - at.n <
            BIT(__atomic_load_n(&frame_of(at)->order, __ATOMIC_ACQUIRE) & FRAME_ORDER_MASK)) {
            return at;
        }
    }
    return mfn;
}

void frame_carve(mfn_t mfn, unsigned order)
{
    mfn_t head = frame_head(mfn);
    struct frame was = *frame_of(head);
    unsigned have = frame_order(&was);
    mfn_t block = head;

    if (was.use == FRAME_FREE || was.use == FRAME_RESERVED || (was.order & ~FRAME_ORDER_MASK)) {
        env_panic("frame: %#llx is not in use (use %u order %#x)", (unsigned long long)mfn.n,
                  was.use, was.order);
    }
    if (have == order && head.n == mfn.n) {
        return;
    }
    if (have < order || !IS_ALIGNED(mfn.n, BIT(order)) || was.refs != 0) {
        env_panic("frame: cannot carve %#llx order %u from %#llx order %u refs %u",
                  (unsigned long long)mfn.n, order, (unsigned long long)head.n, have, was.refs);
    }
    /* Halve, and go on with the half that contains mfn. The upper half's record is complete before
     * the lower one shrinks: frame_head never meets a stale record. */
    while (have > order) {
        mfn_t upper = mfn_add(head, BIT(--have));

        frame_set(upper, (enum frame_use)was.use, have, was.owner);
        if (was.use == FRAME_GUEST && was.gfn != FRAME_GFN_NONE) {
            frame_of(upper)->gfn = was.gfn + (upper.n - block.n);
        }
        __atomic_store_n(&frame_of(head)->order, (uint8_t)have, __ATOMIC_RELEASE);
        head = mfn.n >= upper.n ? upper : head;
    }
}
