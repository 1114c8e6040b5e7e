/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compressed pages: LZ4, and per VM a cache of frames that holds what came out of it.
 *
 * A frame of the cache holds two pages compressed to half a page, or four to a quarter, each behind a
 * header of 8 bytes that says whose it is; what does not fit into half a page is not kept. A page that
 * repeats one word of 32 bits takes no memory at all: the p2m's word says which. The frames are charged
 * to the VM. They are in two orders: full ones by the time they became full, from which the oldest is
 * taken when the cache is to shrink; and, by size, those with room.
 *
 *     word of the p2m   1 | pattern 32           in place of a frame number: one repeated word
 *                       0 | frame 32 | quarter 2     where the compressed page begins
 *
 * A touch decompresses the page into a frame of its own and removes it from the cache. The cache lives
 * under its p2m's lock. Callers: the p2m, swap.c, swap_batch.c, swap_in.c; kernel/bench_swap.c (zip_page).
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/frame.h"
#include "mm/types.h"

struct p2m;
struct p2m_entry;

#define ZIP_HEADER 8u
#define ZIP_MOST (PAGE_SIZE / 2 - ZIP_HEADER) /* bytes of a page that is worth it */
#define ZIP_STATE_BYTES 8192u                 /* what compressing needs besides, aligned to 8 */

struct zip_cache {
    uint32_t full, full_end; /* chain through the frames' records, oldest first */
    uint32_t room[2];        /* frames with room: of halves, of quarters */
    uint64_t pages;          /* in frames */
};

/* An empty cache; allocates nothing. */
void zip_init(struct p2m *p);
/* Free the frames; nothing uses the p2m any more. */
void zip_fini(struct p2m *p);

/* Compress a page, which may be changing, into at most ZIP_MOST bytes at `to`; 0: it does not fit. */
unsigned zip_page(void *state, const void *page, void *to);
/* Is it one word of 32 bits, repeated? */
bool zip_is_filled(const void *page, uint32_t *pattern);

/* Places in words (p2m_internal.h, word_place). */
uint64_t zip_place_filled(uint32_t pattern);

/*
 * Keep `bytes` of a compressed page; p locked. HV_ENOMEM: it takes a frame, and *spare is MFN_NONE;
 * else *spare, a frame of use FRAME_HOST, is the cache's and MFN_NONE afterwards.
 */
enum hv_err zip_put(struct p2m *p, gfn_t gfn, const void *data, unsigned bytes, mfn_t *spare,
                    uint64_t *place) __must_check;
/* The page at `place`, which a word of p names, into `page`; p locked. */
void zip_get(struct p2m *p, uint64_t place, void *page);
/* The page at `place` is kept no more; p locked. True: a frame became free. */
bool zip_drop(struct p2m *p, uint64_t place);

/* Resolve the compressed gfn that `e` describes. HV_OK: private now, and `e` says so. HV_EBUSY:
 * something changed; look again. HV_EAGAIN: off the fast path, please. HV_ENOMEM. */
enum hv_err zip_in(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e) __must_check;

/* All pages of the oldest frames, at most `most`, which are to leave now; p locked. Returns how many. Each is
 * passed over from then on until it was dropped, or zip_stays says that the page at `place` does not leave; its
 * p2m locked. */
unsigned zip_oldest(struct p2m *p, gfn_t *gfn, unsigned most);
void zip_stays(uint64_t place);

/* For the audit, p locked: is there such a page of gfn; walk the frames, count them and their pages. */
bool zip_audit_place(const struct p2m *p, uint64_t place, uint64_t gfn);
bool zip_audit(const struct p2m *p, uint64_t *frames, uint64_t *pages);
