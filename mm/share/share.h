/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Content-based page sharing, as a whole: which p2ms take part, the host's numbers, the audit.
 *
 *   hash.c    contents as numbers
 *   index.c   the table of hints and shared frames
 *   cow.c     the transitions of one page: nominate, merge, break
 *   scan.c    which pages to look at, and what to do with them
 *
 * A page goes private -> (nominated) -> shared by the scan, and back by a write. Pages are merged only
 * if their p2ms have the same salt; the zero frame is one for all salts.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;

/* Behind every page in state P2M_ZERO; MFN_NONE before share_init. Constant afterwards. */
extern mfn_t share_zero_frame;

/* For a machine of nr_frames; once, before any p2m joins. HV_ENOMEM: pages cannot be shared. */
enum hv_err share_init(uint64_t nr_frames) __must_check;
/* For tests: nobody is a member any more. */
void share_fini(void);
/* Seed of hashes and of the order in which pages are scanned; before the first page is scanned. */
void share_seed(uint64_t seed);

/* Let p's pages be shared from now on; its RAM and view are there. Nothing happens when there are
 * too many members or no memory. */
void share_join(struct p2m *p);
/* Waits until no scan uses p; its hints go, its shared pages stay shared. Idempotent. No lock held. */
void share_leave(struct p2m *p);
/* p, which left, stands on no shared frame any more: the audit can be certain again. */
void share_gone(struct p2m *p);

/* A member by number, kept from leaving until share_release. NULL: none. */
struct p2m *share_hold(unsigned member) __must_check;
void share_release(unsigned member);
/* The first member above `member`, held; NULL: none. For loops over all. */
struct p2m *share_next(unsigned member) __must_check;
/* p's number, 0 if it is no member. */
unsigned share_member(const struct p2m *p);

struct share_stats {
    uint64_t pages;  /* guest pages on shared frames and on the zero frame (esxtop: shared) */
    uint64_t common; /* frames behind them (esxtop: common); saving is the difference */
    uint64_t zero;   /* of the pages, those on the zero frame */
    uint64_t hints;
    uint64_t table_bytes, table_max_bytes; /* the content index: now, and its bound */
    unsigned members;
};
/* Numbers of this moment; while guests run they may be a few pages apart. */
void share_stats(struct share_stats *out);

struct share_recount {
    bool certain;    /* references were compared; else guests changed too much meanwhile, or one was
                      * being taken apart */
    uint64_t frames; /* shared frames; `several`: those on which several members stand */
    uint64_t several;
};
/*
 * Recount all references to shared frames from the members' p2ms, and the index. Logs disagreements;
 * false if there are any. Guests may run: what changes meanwhile is counted again, a few times. No
 * lock held; no scan runs meanwhile.
 */
bool share_audit(struct share_recount *out);
