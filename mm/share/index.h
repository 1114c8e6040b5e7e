/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The content index: which pages might be alike, and which frames several pages stand on.
 *
 * One chained hash table for the host, of 16-byte entries of two kinds. A *shared* entry names a
 * frame that pages stand on, with the whole 64-bit key of its contents. A *hint* says that some page
 * (member, gfn) had a key with these upper 44 bits when it was last looked at; the page is not
 * protected, so a hint is verified before it is used. Keys are hashes of contents mixed with the salt.
 *
 *     shared   key 64                            | frame 32            | link 31, 0
 *     hint     key, upper 44 bits  | gfn, low 20 | member 16, gfn, high 16 | link 31, 1
 *
 * The table grows by chunks up to a bound that is set at start (three entries for four frames of the
 * machine); then new entries take the place of old hints, in turn.
 *
 * A shared frame is a frame of use FRAME_SHARED; its record counts references: one for each page
 * that stands on it, for each reader that pins it, and for whoever has just found it. There is no way
 * back from a frame to its pages.
 *
 * All of it is guarded by share_lock (mm/share/share.h), but for the counting of references, which is
 * atomic: a reference from a page falls to the one of the index's user that finds it last.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

#define INDEX_MAX_MEMBERS 1024u

struct index_page {
    unsigned member;
    gfn_t gfn;
};

enum index_found { INDEX_NOTHING, INDEX_SHARED, INDEX_HINT };

struct index_hit {
    enum index_found found;
    bool self;              /* our own hint was seen */
    mfn_t mfn;              /* INDEX_SHARED: with a reference for the caller */
    struct index_page page; /* INDEX_HINT */
};

struct index_stats {
    uint64_t shared;      /* entries of shared frames, which is frames */
    uint64_t hints;       /* entries of hints */
    uint64_t max_entries; /* bound */
    uint64_t bytes;       /* memory of the table now */
    uint64_t max_bytes;   /* and at most */
    uint64_t evicted;     /* hints that made room */
};

/* Empty, for a machine of nr_frames; nothing else may run. HV_ENOMEM. */
enum hv_err index_init(uint64_t nr_frames) __must_check;
void index_fini(void);

/* The key of contents with this hash, for a salt. */
uint64_t index_key(uint64_t hash, uint32_t salt);
/* Room for `nr` entries without eviction, as far as bound and memory allow. No lock held. */
void index_make_room(unsigned nr);

/* The key will be looked for soon: first its bucket, then, once that is there, an entry. */
void index_prefetch_bucket(uint64_t key);
void index_prefetch_entry(uint64_t key);
/* Look for pages like `self`, whose contents have this key, in its salt. A shared frame is preferred
 * to a hint, the youngest hint to others. */
void index_find(uint64_t key, uint32_t salt, const struct index_page *self, struct index_hit *hit);
/* Leave a hint that `page` has this key. */
void index_hint(uint64_t key, const struct index_page *page);
/* Remove the hint, if it is still there. */
void index_unhint(uint64_t key, const struct index_page *page);
/* Remove every hint of a member. Relaxes now and then: no lock held. */
void index_purge(unsigned member);
/* Hints of a member. */
uint64_t index_hints(unsigned member);

/* Enter a frame, of use FRAME_SHARED, with `refs` references. HV_ENOMEM: the table is full of shared
 * frames. Takes share_lock. */
enum hv_err index_add(uint64_t key, uint32_t salt, mfn_t mfn, uint32_t refs) __must_check;
/* Take another reference. False: the count is at its end. The caller has one. */
bool index_hold(mfn_t mfn) __must_check;
/* Drop a reference. True: it was the last, and the frame is free. Not on the fast path. */
bool index_put(mfn_t mfn);
/* The same on the fast path: a frame that nobody holds any more waits for index_reap. */
void index_put_fast(mfn_t mfn);
void index_reap(void);
/* If the caller's reference is the only one, take the frame out of the index: it is the caller's. */
bool index_claim(mfn_t mfn) __must_check;
uint32_t index_refs(mfn_t mfn);
uint32_t index_salt(mfn_t mfn);

/* Takes share_lock. */
void index_stats(struct index_stats *out);
/* Walk the table and compare with its counters; logs disagreements. */
bool index_audit(void);
/* Call fn for every shared frame, share_lock held. */
void index_for_each_shared(void (*fn)(mfn_t mfn, uint32_t entry, void *arg), void *arg);
/* Number of the frame's entry, below the number of entries. */
uint32_t index_entry(mfn_t mfn);
uint32_t index_nr_entries(void);

/* Tests lower it: most references that a frame takes. */
extern uint32_t index_refs_max;
