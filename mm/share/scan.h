/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scan: which pages are looked at, in which order, and what becomes of them.
 *
 * Each pass visits every page of a VM's RAM once, in runs of a few neighbours whose order is drawn anew
 * for each pass, so that pages of different VMs, or a guest's own walk through its memory, cannot fall in
 * step with it. A page is
 * looked at in this order:
 *
 *     not private, or pinned                     nothing
 *     written lately after it had been merged    nothing, a few passes long
 *     all zero                                   merge with the zero frame
 *     a shared frame has its key                 compare, merge
 *     another page's hint has its key            if that page still has: make its frame a shared one,
 *                                                compare, merge; else drop the hint
 *     otherwise                                  leave a hint
 *
 * Work goes in slices of a few dozen pages: candidates are collected, all of them write-protected,
 * flushed once, compared and changed over, flushed once more. Pieces of large pages are looked at as
 * well, but only counted: large pages are split by mm/p2m_large, when memory is short.
 *
 * Callers: kernel/vm's scanner thread and the shell, off the fast path, no lock held.
 */
#pragma once

#include "mm/types.h"

struct p2m;

struct scan_stats {
    uint64_t pages;       /* visited */
    uint64_t hashed;      /* of these, hashed */
    uint64_t merged;      /* became shared or zero */
    uint64_t stale;       /* hints whose page had changed */
    uint64_t differed;    /* candidates that were not alike, or were written meanwhile */
    uint64_t hot;         /* left alone */
    uint64_t passes;      /* completed */
    uint64_t hints;       /* now in the index */
    uint64_t under_large; /* pages under large pages that could be shared: last complete pass */
};

/* Visit up to nr pages of p, a held member (share_hold); goes on where the last call ended. */
void scan_pages(struct p2m *p, uint64_t nr);
/* One whole pass over p now, hot pages included, whatever the rates. */
void scan_all(struct p2m *p);
/* Look at nr pages from first on now; for a region that was just split. */
void scan_range(struct p2m *p, gfn_t first, uint64_t nr);
/* Look at up to 32 pages that are to lose their frames: those that can be shared are. Does nothing
 * while another scan runs. */
void scan_offer(struct p2m *p, const gfn_t *gfn, unsigned nr);
void scan_stats(struct p2m *p, struct scan_stats *out);
