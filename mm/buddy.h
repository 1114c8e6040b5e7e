/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine-frame allocator: buddy lists from 4 KiB (order 0) to 1 GiB (order 18), with a small
 * cache of single frames per processor so that the guest fast path takes no shared lock. Not called
 * from interrupt handlers.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

#define BUDDY_MAX_ORDER ORDER_1G

/* What a frame is used for; kept in the frame table and counted, so that every frame has an owner. */
enum frame_use {
    FRAME_RESERVED = 0, /* not RAM, firmware's, or unusable */
    FRAME_FREE,
    FRAME_HOST,    /* the hypervisor's own: image, stacks, slabs, host tables, modules */
    FRAME_GUEST,   /* guest memory; owner is the VM, the record holds its gfn */
    FRAME_SHARED,  /* guest memory that several gfns stand on; see mm/share/index.h */
    FRAME_P2M,     /* p2m radix nodes; owner is the VM (overhead) */
    FRAME_VIEW,    /* nested or shadow tables; owner is the VM (overhead) */
    FRAME_VM,      /* other structures of a VM: control blocks, bitmaps, stacks (overhead) */
    FRAME_ZIP,     /* compressed guest memory; owner is the VM (mm/reclaim/compress.h) */
    FRAME_RETIRED, /* reported bad by the machine; never used again */
    NR_FRAME_USES
};

/* "guest", "p2m", ... for messages. */
const char *buddy_use_name(enum frame_use use);

#define OWNER_HOST 0u /* VM ids start at 1 */
#define OWNER_MAX 0xffffu

#define BUDDY_ZERO 0x1u    /* contents are zero on return (single frames and small orders only) */
#define BUDDY_FAST 0x2u    /* guest fast path: never waits; HV_EAGAIN when a lock is contended */
#define BUDDY_LOW 0x4u     /* below 4 GiB */
#define BUDDY_RESERVE 0x8u /* may use the reserve (buddy_set_reserve) */

/*
 * Start with no memory at all: lays out the frame table for frames [0, nr_frames) inside `table_mfn`
 * (a range the caller found free), everything RESERVED. Boot only, one processor.
 */
enum hv_err buddy_init(mfn_t table_mfn, uint64_t nr_frames) __must_check;
/* Bytes that buddy_init needs for the frame table of nr_frames frames (16 per frame, rounded up). */
uint64_t buddy_table_bytes(uint64_t nr_frames);
/* Hand the frames [first, first+nr) to the allocator as free memory, or mark them as the host's. */
void buddy_add(mfn_t first, uint64_t nr);
void buddy_reserve_host(mfn_t first, uint64_t nr);

/* Allocate 2^order contiguous, aligned frames. HV_ENOMEM: none that large. */
enum hv_err buddy_alloc(unsigned order, enum frame_use use, uint32_t owner, uint32_t flags,
                        mfn_t *out) __must_check;
/* Allocate exactly the block at mfn. HV_EBUSY: not free as a whole. */
enum hv_err buddy_alloc_at(mfn_t mfn, unsigned order, enum frame_use use,
                           uint32_t owner) __must_check;
/*
 * Give back what one buddy_alloc returned, or any aligned part of it (callers serialise the parts of
 * one block). Takes the allocator's lock now and then: not on the guest fast path, except for a
 * single frame that was just allocated there.
 */
void buddy_free(mfn_t mfn, unsigned order);

/* Give a single frame in use another use and owner; its references become zero. Not on the guest
 * fast path. */
void buddy_retype(mfn_t mfn, enum frame_use use, uint32_t owner);

/* The same of a whole block, whose head mfn is. */
void buddy_free_block(mfn_t mfn, unsigned order);

/*
 * Set a free 1 GiB block aside, so that a VM can fill it with 2 MiB pieces one by one
 * (buddy_alloc_at). The pieces stay free memory: other allocations take them once nothing else is
 * left. HV_ENOMEM: no block that large is free.
 */
enum hv_err buddy_set_aside(mfn_t *base) __must_check;
/* Return the pieces that are still set aside to the common lists. */
void buddy_end_aside(mfn_t base);

/*
 * Keep whatever is free in a block from being handed out; returns how many of its frames are held back
 * by now. Then either all of it is one block in use (every frame must be held back), or what is held
 * back is free again. One thread at a time. Takes the allocator's locks.
 */
uint64_t buddy_isolate(mfn_t base, unsigned order);
void buddy_unisolate(mfn_t base, unsigned order, enum frame_use use, uint32_t owner);
void buddy_end_isolation(mfn_t base, unsigned order);

/* Who has a frame. */
struct buddy_holder {
    enum frame_use use;
    uint32_t owner; /* OWNER_HOST or a VM */
    gfn_t gfn;      /* guest memory: where the VM has it */
};
/*
 * The machine reports that a frame is bad: never hand it out again. HV_OK: it was free, and is
 * retired. HV_EBUSY: it is in use by *holder, and is retired as soon as that frees it. HV_ENOENT: not
 * RAM of ours, or retired already. HV_ENOMEM: in use, and too many such frames are waiting. Thread
 * context; takes the allocator's locks.
 */
enum hv_err buddy_retire(mfn_t mfn, struct buddy_holder *holder) __must_check;

/*
 * Keep the last `nr` free frames for who asks with BUDDY_RESERVE: copies of shared pages that are
 * written, and what the hypervisor needs to go on. Guest memory otherwise, frames to be shared and
 * new VMs' structures leave them alone. Frames in processors' caches do not count. At first 0.
 */
void buddy_set_reserve(uint64_t nr);
/* Frames in the common lists now: free, but for processors' caches. No lock taken. */
uint64_t buddy_free_frames(void);
/* Of them, those that anybody may have: the reserve left out. */
uint64_t buddy_available_frames(void);
/* Frames of RAM. */
uint64_t buddy_total_frames(void);

struct buddy_stats {
    uint64_t total;               /* frames of RAM known to the allocator */
    uint64_t free;                /* frames free, per-processor caches included */
    uint64_t total_high;          /* of these, at and above 4 GiB */
    uint64_t free_high;           /* likewise, but for the caches */
    uint64_t used[NR_FRAME_USES]; /* frames by use */
    uint64_t free_blocks[BUDDY_MAX_ORDER + 1];
    uint64_t table_bytes; /* frame table, and where it is */
    hpa_t table;
};
/* A consistent snapshot; takes the allocator's lock. */
void buddy_stats(struct buddy_stats *out);
/* Frames of each use that carry `owner`, recounted from the frame table (slow; for the audit). */
void buddy_count_owner(uint32_t owner, uint64_t out[NR_FRAME_USES]);
/* Recount everything from the frame table and free lists and compare with the counters.
 * Returns true if all agree; otherwise logs each disagreement. */
bool buddy_audit(void);
