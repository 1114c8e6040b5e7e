/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking pages from guests that do not give them, and bringing them back: compressed into the VM's
 * cache (compress.h) if that pays, else written to a slot of the store (store.h, slots.h).
 *
 *     private --nominate--> nominated --unchanged, filled or small--> compressed --oldest--+
 *        ^  ^                 |    |                                      |                |
 *        |  +---- a write ----+    +--- unchanged, written to a slot --> swapped <---------+
 *        |                                                                |
 *        +---- decompressed, or read into a frame (incoming) -------------+
 *
 * A page on a shared frame takes the same way: the last one on its frame like any other; one of several
 * only where others are few, or are written faster than they can leave, and only to a slot.
 *
 * Victims are drawn at random, in short runs of neighbours, so that no guest's own replacement can
 * fall in step. All of a batch are nominated (write-protected, one flush; mm/share/cow.h), copied,
 * and what was not written meanwhile leaves at the end: a page stays in its frame until its copy is
 * safe. Taking allocates nothing: batches, copies, and spare frames for the caches and for the words of large
 * pages that are split, are reserved by swap_init; spares that were used are replaced by what became free.
 *
 * A slot's contents are encrypted with a key of this boot (crypt.h) and checked by a sum when they
 * come back. A slot that cannot be written is retired, and the page tried elsewhere. A page that
 * cannot be read back gives HV_EIO to who touches it, once for each failed attempt.
 *
 * Nothing here sleeps. Callers: the p2m (swap_in, swap_leave), kernel/vm/swapping.c, tests.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;
struct p2m_entry;
struct store;

struct swap_config {
    struct store *store; /* NULL: nowhere to write to; pages are only compressed */
    bool encrypt;        /* crypt_set_key was called */
    uint64_t seed;       /* of the choice of victims */
    uint64_t read_along; /* neighbours are read along while so many frames are free */
    /* A request for p ended: who waits for one of its pages looks again. NULL: one of the writes, or
     * room for requests: who takes pages looks again (swap_reap). Thread context, no lock. */
    void (*wake)(struct p2m *p);
    /* A read ended after somebody had found none free: who waits for a page of any p2m looks again. */
    void (*wake_all)(void);
};

/* Reserve what taking needs; before any p2m exists, once. HV_ENOMEM: pages stay where they are. */
enum hv_err swap_init(const struct swap_config *cfg) __must_check;
/* There is somewhere to write to, from now on; once, if swap_init was not given a store. Returns how many
 * of its slots are used, as memory for their table allows; 0: none. */
uint64_t swap_add_store(struct store *s);
/* Is there somewhere to write to? No longer when the store is gone. */
bool swap_has_store(void);
/* For tests: nothing is in flight, no p2m is left. */
void swap_fini(void);

/* ---- Taking ---- */

struct swap_how {
    bool compress;    /* Mem.MemZipEnable */
    unsigned zip_pct; /* Mem.MemZipMaxPct: the cache's frames, of the VM's pages */
    bool share;       /* victims are offered to page sharing first */
    bool urgent;      /* do not stand back for reads */
};
struct swap_step {
    uint64_t freed;   /* frames that became free */
    uint64_t started; /* pages on their way to the store */
};
/*
 * Take up to one batch (SWAP_BATCH pages, at most `most`) from p. HV_OK: *out says what happened, and
 * there may be more. HV_EAGAIN: all batches are under way, or all of a full cache is in them; come back after
 * `wake`. HV_ENOENT: nothing of p can be taken now. Long, no lock held; the caller keeps p alive.
 */
#define SWAP_BATCH 32u
enum hv_err swap_out(struct p2m *p, uint64_t most, const struct swap_how *how,
                     struct swap_step *out) __must_check;
/* Does p take part at all? */
bool swap_possible(const struct p2m *p);
/* Finish what the store has done: written pages leave their frames, read ones arrive. Returns frames
 * that became free. No lock held. */
uint64_t swap_reap(void);
/* Wait until no request names p; none will come. No lock held. */
void swap_leave(struct p2m *p);

/* ---- Bringing back ---- */

/* Resolve the swapped or incoming gfn that `e` describes. HV_EBUSY: look again. HV_EAGAIN: wait for
 * `wake`; on the fast path: leave it. HV_ENOMEM. HV_EIO: the last attempt failed. */
enum hv_err swap_in(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e) __must_check;
/* May a thread that got HV_EAGAIN for gfn go on? */
bool swap_may_retry(struct p2m *p, gfn_t gfn);
struct swap_failure {
    const char *store, *why;
    uint64_t slot;
};
/* Why gfn, which just gave HV_EIO, could not be read back. False: it has been since, for somebody else who wanted
 * it tried again. */
bool swap_error(struct p2m *p, gfn_t gfn, struct swap_failure *out) __must_check;
/* Is the page compressed or swapped (and not on its way back)? Looks only. */
bool swap_is_away(struct p2m *p, gfn_t gfn);
/*
 * The page will be written as a whole: `fill` writes it into a fresh frame, which takes the place of what
 * is away. HV_EBUSY: it is not away, or no longer; HV_ENOMEM; what `fill` returns. Not on the fast path,
 * no lock held: `fill` may sleep.
 */
enum hv_err swap_overwrite(struct p2m *p, gfn_t gfn, enum hv_err (*fill)(void *arg, void *page),
                           void *arg) __must_check;
/* Forget what is behind the compressed or swapped page that `e` describes: untouched afterwards, for a
 * page whose contents do not matter any more. p locked, the word unchanged. */
void swap_forget(struct p2m *p, struct p2m_entry *e);

/* ---- Numbers ---- */

struct swap_stats {
    const char *store;             /* its name, NULL: none */
    bool gone;                     /* it is, with what its slots hold */
    uint64_t slots, used, bad;     /* slots; used, retired */
    uint64_t written, read, along; /* pages; `along`: of those read, without being asked for */
    uint64_t spared;               /* pages that were overwritten as a whole, and never read */
    uint64_t write_errors, read_errors, mismatches;
    uint64_t writes, reads; /* requests in flight */
};
/* Numbers that move on while they are read. */
void swap_stats(struct swap_stats *out);
/* The slot that a word in state swapped or incoming names (words: p2m_internal.h). */
#define SWAP_FAILED BIT(35) /* in its place: the last attempt to read it failed */
#define SWAP_SLOT_MASK (SWAP_FAILED - 1)
