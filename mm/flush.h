/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flush domains and batches. Every VM has one domain. Whoever removes or weakens translations puts
 * the frames and tables that became free into a batch, and commits it with no lock held: commit
 * makes env_flush_guest() end every use, then frees. See docs/world-switch.md, "Flush epochs": entry sets
 * in-guest, fences, then compares the epoch; a flush bumps the epoch, kicks, waits until each processor
 * has left or passed it. That wait also ends every lockless read on the fast path (p2m_peek).
 */
#pragma once

#include "mm/types.h"

struct flush_domain {
    uint64_t epoch;     /* bumped by every flush; read by each entry (atomic) */
    uint64_t completed; /* flushes up to this epoch have ended (atomic) */
    void *owner;        /* the VM, for env_flush_guest */
    uint64_t flushes;   /* statistics (atomic) */
    uint64_t pending; /* batches that removed or weakened translations, not flushed yet (atomic) */
};

struct flush_batch {
    struct flush_domain *domain; /* NULL: nobody to flush, the caller has seen to it */
    mfn_t head;                  /* chain of removed blocks through their frame records */
    uint64_t nr;                 /* blocks in the chain */
    bool dirty;                  /* there is something to flush */
    bool pending; /* a translation was removed or weakened, even if no frame became free */
};

/* Nothing is pending. */
void flush_domain_init(struct flush_domain *d, void *owner);
/* Empty; one thread's. d NULL: see struct flush_batch. */
void flush_batch_init(struct flush_batch *b, struct flush_domain *d);
/* Free mfn (2^order frames) once the batch has been committed. Any lock may be held. */
void flush_batch_free(struct flush_batch *b, mfn_t mfn, unsigned order);
/* The same of a whole block, whose head mfn is. */
void flush_batch_free_block(struct flush_batch *b, mfn_t mfn, unsigned order);
/* Note that some translation was removed or weakened. */
void flush_batch_touch(struct flush_batch *b);
/* Note that an accessed bit was taken away: it takes a flush, but nobody waits for that. */
void flush_batch_age(struct flush_batch *b);
/*
 * Somebody else may have made just the change that this batch is for, and not have flushed yet: what
 * is gone from the tables is still in TLBs then. If anything is pending, this batch flushes too. To be
 * called by who looked for translations to remove or weaken, under the lock of the tables.
 */
void flush_batch_join(struct flush_batch *b);
/*
 * Has somebody taken translations away and not flushed yet? A page may have a new frame by then, while other
 * processors still read its old one: before anybody may write to the new one, flush. For that, ask
 * p2m_settle (mm/p2m.h): a change that is just being made shows here only when the p2m's lock is free again,
 * or, to who holds the lock of the tables, when its translations are gone from there (mm/nested.c).
 */
static inline bool flush_is_due(const struct flush_domain *d)
{
    return unlikely(__atomic_load_n(&d->pending, __ATOMIC_SEQ_CST) != 0);
}

/* End every use of what was removed or weakened before (env_flush_guest). Conditions as for that. */
void flush_now(struct flush_domain *d);
/* The same where env_flush_is_local: on the fast path. */
void flush_local(struct flush_domain *d);
/*
 * Something was removed or weakened while the epoch was `epoch`, read after the change with a full fence
 * between. Has a flush ended since that began afterwards?
 */
static inline bool flush_has_passed(const struct flush_domain *d, uint64_t epoch)
{
    return __atomic_load_n(&d->completed, __ATOMIC_SEQ_CST) > epoch;
}

/* Flush if dirty, then free. No lock held, not on the fast path. Idempotent. */
void flush_batch_commit(struct flush_batch *b);
