/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flush batches: what was removed waits in a chain through the frame records until every processor
 * has dropped its translations. Callers: the views, the page-table engine, the p2m.
 *
 * Each waiting block is stamped with its domain's epoch; debug builds and host tests panic when it
 * would be freed before that epoch has passed.
 */
#include "mm/flush.h"

#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"

void flush_domain_init(struct flush_domain *d, void *owner)
{
    /* Not zero: an entry that never compared must not match. */
    *d = (struct flush_domain){.epoch = 1, .completed = 1, .owner = owner};
}

static void complete(struct flush_domain *d, uint64_t epoch)
{
    uint64_t was = __atomic_load_n(&d->completed, __ATOMIC_RELAXED);

    while (was < epoch && !__atomic_compare_exchange_n(&d->completed, &was, epoch, true,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {}
}

void flush_now(struct flush_domain *d)
{
    uint64_t epoch = __atomic_load_n(&d->epoch, __ATOMIC_SEQ_CST) + 1;

    env_flush_guest(d);
    complete(d, epoch);
}

void flush_local(struct flush_domain *d)
{
    uint64_t epoch = __atomic_load_n(&d->epoch, __ATOMIC_SEQ_CST) + 1;

    env_flush_local(d);
    complete(d, epoch);
}

void flush_batch_init(struct flush_batch *b, struct flush_domain *d)
{
    *b = (struct flush_batch){.domain = d, .head = MFN_NONE};
}

void flush_batch_touch(struct flush_batch *b)
{
    if (!b->pending && b->domain != NULL) {
        __atomic_fetch_add(&b->domain->pending, 1, __ATOMIC_SEQ_CST);
    }
    b->dirty = b->pending = true;
}

void flush_batch_age(struct flush_batch *b)
{
    b->dirty = true;
}

void flush_batch_join(struct flush_batch *b)
{
    if (!b->pending && b->domain != NULL && !MUTANT(no_join) &&
        __atomic_load_n(&b->domain->pending, __ATOMIC_SEQ_CST) != 0) {
        flush_batch_touch(b);
    }
}

void flush_batch_free(struct flush_batch *b, mfn_t mfn, unsigned order)
{
    frame_carve(mfn, order);
    flush_batch_free_block(b, mfn, order);
}

void flush_batch_free_block(struct flush_batch *b, mfn_t mfn, unsigned order)
{
    struct frame *f = frame_of(mfn);

    /* frame_head may look at any time. */
    __atomic_store_n(&f->order, (uint8_t)(order | FRAME_PENDING), __ATOMIC_RELAXED);
    f->refs = 0;
    if (b->domain != NULL) {
        f->refs = (uint32_t)__atomic_load_n(&b->domain->epoch, __ATOMIC_RELAXED);
    }
    f->gfn = b->head.n;
    b->head = mfn;
    b->nr++;
    flush_batch_touch(b);
}

/* The block's epoch has passed: no processor can hold a translation to it. */
static void check_epoch(const struct flush_batch *b, const struct frame *f)
{
#if defined(BALLAST_DEBUG) || defined(BALLAST_HOST)
    if (b->domain != NULL &&
        (uint32_t)__atomic_load_n(&b->domain->epoch, __ATOMIC_ACQUIRE) == f->refs) {
        env_panic("flush: frame %#llx freed before its epoch %u passed",
                  (unsigned long long)frame_mfn(f).n, f->refs);
    }
#else
    (void)b;
    (void)f;
#endif
}

void flush_batch_commit(struct flush_batch *b)
{
    if (b->dirty && b->domain != NULL) {
        if (!MUTANT(free_without_flush)) {
            flush_now(b->domain);
        }
        if (b->pending) {
            __atomic_fetch_sub(&b->domain->pending, 1, __ATOMIC_SEQ_CST);
        }
    }
    while (mfn_valid(b->head)) {
        mfn_t mfn = b->head;
        struct frame *f = frame_of(mfn);
        unsigned order = frame_order(f);

        check_epoch(b, f);
        b->head = MFN(f->gfn);
        __atomic_store_n(&f->order, (uint8_t)order, __ATOMIC_RELAXED);
        f->refs = 0;
        buddy_free_block(mfn, order);
    }
    b->nr = 0;
    b->dirty = b->pending = false;
}
