/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large pages that come and go: a 2 MiB (1 GiB) page is split where it stands, into words over the
 * same frames; 512 small pages are brought together on a 2 MiB frame again. Which ones, and when, is
 * the caller's policy (kernel/vm/largepages.c). Thread context, no lock held.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;
struct p2m_entry;

/*
 * Split the large page around gfn into pages of the next smaller size. What this takes is a frame for their
 * words, unless one is left from earlier: allocated, or, so that who makes memory free needs none, *spare, a
 * frame of use FRAME_HOST, which is MFN_NONE once it is used. HV_ENOENT: no large page there. HV_EBUSY: part
 * of it is pinned, or it changed meanwhile. HV_ENOMEM: no frame, or `spare` is not NULL and *spare MFN_NONE.
 */
enum hv_err p2m_large_split(struct p2m *p, gfn_t gfn, mfn_t *spare) __must_check;

/*
 * Put the 2 MiB of small pages around gfn onto `block`, 512 frames of use FRAME_GUEST and p's owner,
 * which become the p2m's. At most max_shared of them may be shared, zero or untouched: each of these
 * costs a frame. HV_ENOENT: not such a region. HV_EBUSY: something in it changed, or is pinned;
 * `block` stays the caller's after every error.
 */
enum hv_err p2m_large_join(struct p2m *p, gfn_t gfn, unsigned max_shared, mfn_t block) __must_check;
/* Pages of a 2 MiB region that cost a frame if it is to be one page. */
struct p2m_region {
    unsigned fresh; /* shared, zero or untouched */
    unsigned away;  /* compressed or swapped: they have to be brought back first */
};
/* Would it, were all pages there? Looks only. */
bool p2m_large_joinable(struct p2m *p, gfn_t gfn, unsigned max_shared, unsigned max_swapped,
                        struct p2m_region *out);
/* Decompress, or begin to read, what is away of the region around gfn. Returns how many pages are still
 * away: they come later, or cannot be had now. Takes the p2m lock; does not wait. */
unsigned p2m_large_bring_back(struct p2m *p, gfn_t gfn);

/* Note which 2 MiB pages were used since the last call: the others get colder by one, up to 15. */
void p2m_large_age(struct p2m *p);
/* How often p2m_large_age was called since the large page that `e` describes was used, up to 15. */
unsigned p2m_large_cold(const struct p2m_entry *e);
/* Split up to nr large pages, coldest first; 1 GiB pages count as one each time. Calls split(p, gfn)
 * for each 2 MiB region that was split. Returns how many. */
uint64_t p2m_large_split_coldest(struct p2m *p, uint64_t nr,
                                 void (*split)(struct p2m *p, gfn_t gfn));
/* The first 2 MiB region at or behind gfn that lies wholly in RAM and in one range; false: none. */
bool p2m_large_next_region(struct p2m *p, gfn_t *gfn);

/* Move the private page gfn to frame `to`, a single one of any use, so that its present one becomes
 * free. HV_EBUSY: it is pinned, was written meanwhile, or stands elsewhere by now than on `from`;
 * `to` stays the caller's. */
enum hv_err p2m_large_move(struct p2m *p, gfn_t gfn, mfn_t from, mfn_t to) __must_check;
