/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that their guest has given up: a balloon's. A ballooned page has no frame; a touch by guest,
 * device or emulator pops it, which makes it untouched memory again (and counts it), so that it reads
 * as zero. Who may give up what, and when, is mm/reclaim/balloon.c's business.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/flush.h"
#include "mm/types.h"

struct p2m;

/* Pages that are being given up together: their frames become free at its end, after one flush. On
 * the stack of a thread off the guest fast path; no lock held. */
#define P2M_BALLOON_SHARED 64u
struct p2m_balloon_batch {
    struct p2m *p2m;
    struct flush_batch flush;
    unsigned nr_shared;
    mfn_t shared[P2M_BALLOON_SHARED]; /* frames that some of the pages stood on */
};

/* Empty; p2m_balloon_end must follow. */
void p2m_balloon_begin(struct p2m_balloon_batch *b, struct p2m *p);
/*
 * Give up the page gfn: 4 KiB, or with ORDER_2M the aligned 2 MiB there, all or nothing. Large pages
 * around a small one are split; what stood on shared frames leaves them. HV_ENOENT: part of it is no
 * RAM, or gfn is not aligned. HV_EEXIST: part of it is ballooned already. HV_EBUSY: part of it is
 * pinned. HV_ENOMEM: no memory for a split. After an error the memory is the guest's as before, but may
 * read as zero.
 */
enum hv_err p2m_balloon(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order) __must_check;
/* Flush, then free. Idempotent. */
void p2m_balloon_end(struct p2m_balloon_batch *b);

/* Discard the page gfn, sizes as above: whatever it stood on is free at the batch's end, and it is untouched
 * memory from now on. The parts that are pinned, ballooned, on their way in or could not be split stay as they
 * are. Adds the pages that had something behind them to *nr. HV_ENOENT: part of it is no RAM. */
enum hv_err p2m_discard(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order,
                        uint64_t *nr) __must_check;

/* The guest takes it back: untouched from now on. HV_ENOENT: as above. HV_EEXIST: part of it is not
 * ballooned. HV_ENOMEM: no memory to take 4 KiB out of a ballooned 2 MiB. */
enum hv_err p2m_unballoon(struct p2m *p, gfn_t gfn, unsigned order) __must_check;
/* The same of every ballooned page. Long, in slices. */
void p2m_unballoon_all(struct p2m *p);
