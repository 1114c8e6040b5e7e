/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The transitions of one page between private and shared; the p2m's words change here. Merging takes
 * two steps, so that a batch of pages costs two flushes: nominate, which write-protects; then, after
 * the flush, compare with the frame to merge with and change over, if nobody wrote. Private to mm/:
 * the p2m breaks, the scan merges, mm/reclaim evicts.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/flush.h"
#include "mm/p2m.h"
#include "mm/types.h"

/*
 * A write to the shared or zero page that `e` describes: a frame of its own, with the same contents;
 * the last page on a frame just keeps it. HV_OK: private now, and `e` says so. HV_EBUSY: something
 * changed; look again. HV_EAGAIN: off the fast path, please. HV_ENOMEM.
 */
enum hv_err cow_break(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e) __must_check;
/* A write to the nominated page that `e` describes: plainly private again. Results as above. */
enum hv_err cow_withdraw(struct p2m *p, uint32_t access, struct p2m_entry *e) __must_check;

/* Write-protect the private 4 KiB page that `e` describes. False: it changed, or is pinned. `e` is up
 * to date afterwards; protection counts after the batch's flush. */
bool cow_nominate(struct p2m *p, gfn_t gfn, struct p2m_entry *e,
                  struct flush_batch *b) __must_check;
/*
 * If the nominated page still has the contents of shared frame `with`, let it stand on that; the
 * caller's reference becomes the page's. Otherwise the page is plainly private again, and the
 * reference stays the caller's. `with` may be the zero frame, which has no references. The page's own
 * frame goes into the batch.
 */
bool cow_merge(struct p2m *p, gfn_t gfn, struct p2m_entry *e, mfn_t with,
               struct flush_batch *b) __must_check;
/* If the nominated page's contents have this key, now that nobody can write them, make its own frame a
 * shared one with a second reference for the caller. Otherwise the page is plainly private again.
 * HV_EBUSY: somebody wrote, or holds it. HV_ENOENT: the key is another. HV_ENOMEM: the index is full. */
enum hv_err cow_promote(struct p2m *p, struct p2m_entry *e, uint64_t key) __must_check;

/* Nobody wrote since the page was nominated, and nobody holds it; p locked. If it is merely held, it is
 * plainly private afterwards. */
bool cow_still_nominated(struct p2m_entry *e) __must_check;
/* The page, shared or still nominated, loses its frame: its contents are at `place` in `state` from now on. A
 * nominated one's goes into the batch; a shared one's is let go, to be put once the batch is flushed
 * (p2m_drop). p locked. */
void cow_evict(struct p2m *p, gfn_t gfn, struct p2m_entry *e, enum p2m_state state, uint64_t place,
               struct flush_batch *b);
