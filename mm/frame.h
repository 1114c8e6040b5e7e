/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame table: one 16-byte record for every 4 KiB frame of the machine.
 *
 * Memory is cut into blocks of 2^order aligned frames, and only the first frame of a block, its
 * head, has a meaningful record; the others' are stale. Blocks are aligned and cover everything, so
 * the head of any frame is found from the largest order downwards (frame_head): at each step the
 * aligned position is a head itself, or an earlier step would have found the block that covers it.
 *
 * Who may write a record: the allocator while the frame is free, the owner while it is not (guest
 * frames and p2m nodes under the p2m lock, tables under the view lock, slabs under the slab lock).
 */
#pragma once

#include "kernel/lib/types.h"
#include "mm/buddy.h"
#include "mm/types.h"

#define FRAME_LINK_NONE UINT32_MAX /* end of a chain of frames */
#define FRAME_GFN_NONE UINT64_MAX  /* a guest frame that no gfn has yet */

/* Flags beside the order. */
#define FRAME_CACHED 0x80u  /* free, in a processor's cache */
#define FRAME_ASIDE 0x40u   /* free, set aside to complete a 1 GiB block */
#define FRAME_PENDING 0x20u /* removed, waits in a flush batch */
#define FRAME_ORDER_MASK 0x1fu

struct frame {
    union {
        struct {
            uint8_t use;   /* enum frame_use */
            uint8_t order; /* of the block, with flags in the high bits */
            uint16_t owner;
            uint32_t refs; /* guest: pins; shared: references; slab: see slab.c; p2m node: see
                            * p2m_internal.h; compressed: see compress.c; pending: epoch */
        };
        uint64_t word; /* all of these, for one atomic store: others may look at any time */
    };
    union {
        uint64_t gfn; /* guest: first gfn of the block; p2m node: see p2m_internal.h */
        struct {
            uint32_t next,
                prev; /* chains of free, cached, slab, compressed frames; shared: index.c */
        };
    };
};
_Static_assert(sizeof(struct frame) == 16, "one frame record is 16 bytes");

extern struct frame *frame_table; /* set once by buddy_init */
extern uint64_t frame_nr;         /* records in it */

/* The record of a frame; meaningful only for the head of a block. */
static inline struct frame *frame_of(mfn_t mfn)
{
    return &frame_table[mfn.n];
}

/* Use, order, owner and references of a record that others may be changing. */
static inline struct frame frame_look(mfn_t mfn)
{
    return (struct frame){{.word = __atomic_load_n(&frame_of(mfn)->word, __ATOMIC_ACQUIRE)}, {0}};
}

static inline mfn_t frame_mfn(const struct frame *f)
{
    return MFN((uint64_t)(f - frame_table));
}

static inline unsigned frame_order(const struct frame *f)
{
    return f->order & FRAME_ORDER_MASK;
}

/* Make mfn the head of a block; no references, gfn and links untouched. */
static inline void frame_set(mfn_t mfn, enum frame_use use, unsigned order, uint32_t owner)
{
    struct frame f = {{{.use = (uint8_t)use, .order = (uint8_t)order, .owner = (uint16_t)owner}},
                      {0}};

    __atomic_store_n(&frame_of(mfn)->word, f.word, __ATOMIC_RELEASE);
}

/* The head of the block that contains mfn. The block may not change meanwhile. */
mfn_t frame_head(mfn_t mfn);

/*
 * Make the aligned part [mfn, mfn + 2^order) of a block in use a block of its own; the rest becomes
 * blocks of the same use, owner and (for guest frames) consecutive gfns. Callers serialise all
 * operations on parts of one block. References must be zero.
 */
void frame_carve(mfn_t mfn, unsigned order);
