/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nominate, merge, break; see cow.h.
 *
 * A merged page's translations are dropped, and flushed before its old frame is freed. A broken page
 * likewise: other processors of the guest must not go on reading the shared frame, and the page's
 * reference to it is dropped after the flush only, because the last page on a frame may write to it
 * without asking. On the fast path a break is possible if the vCPU is the only one of its VM: then
 * nobody has to be waited for.
 */
#include "mm/share/cow.h"

#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share.h"
#include "mm/view.h"

#define HEAT_BREAK 4u /* passes of the scan that leave a page alone after it was written */

/* ---- Breaking ---- */

/* The word of a page that was written: private, and hotter. */
static uint64_t written_word(const struct p2m_entry *e, mfn_t mfn, uint32_t access)
{
    uint64_t heat = MIN(word_heat(e->seq) + HEAT_BREAK, HEAT_MAX);

    if (access & P2M_WALK) {
        heat = HEAT_MAX;
    }
    return (word_next(e->seq, P2M_PRIVATE, mfn) & ~HEAT_MASK) | heat << HEAT_SHIFT;
}

/* Account for a page that is shared or zero no more; p2m locked. */
static void count_broken(struct p2m *p, const struct p2m_entry *e)
{
    p->count.broken++;
    p->count.consumed++;
    if (e->state == P2M_SHARED) {
        p->count.shared--;
    } else {
        p->count.zero--;
    }
}

/* The last page on a shared frame keeps it: the translations it has stay true, with fewer rights than
 * they may have now. */
static enum hv_err keep_frame(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    mfn_t mfn = e->mfn;
    bool ok;

    if (access & P2M_FAST) {
        return HV_EAGAIN;
    }
    spin_lock(&p->lock);
    ok = p2m_same(e) && index_claim(mfn);
    if (ok) {
        count_broken(p, e);
        p->changes++;
        buddy_retype(mfn, FRAME_GUEST, p->owner);
        frame_of(mfn)->gfn = gfn.n;
        p2m_change(e, written_word(e, mfn, access));
    }
    spin_unlock(&p->lock);
    return ok ? HV_OK : HV_EBUSY;
}

static enum hv_err alloc_copy(struct p2m *p, uint32_t access, const struct p2m_entry *e, mfn_t *out)
{
    /* The reserve is for pages that had a frame before they were merged; one of zeros had none. */
    uint32_t flags = access & P2M_FAST ? BUDDY_FAST : e->state == P2M_SHARED ? BUDDY_RESERVE : 0;
    enum hv_err err = HV_ENOMEM;

    if (env_may_allocate("cow.frame")) {
        err = buddy_alloc(0, FRAME_GUEST, p->owner, flags, out);
    }
    if (err != HV_OK) {
        return err;
    }
    if (e->state == P2M_ZERO) {
        env_clear_page(env_frame_ptr(*out));
    } else {
        env_copy_page(env_frame_ptr(*out), env_frame_ptr(e->mfn));
    }
    return HV_OK;
}

/* Put the copy behind gfn and drop what the view knows; p2m locked. False: the view was busy, and
 * nothing has changed but a sequence number. */
static bool enter_copy(struct p2m *p, gfn_t gfn, mfn_t copy, uint32_t access, struct p2m_entry *e,
                       struct flush_batch *b)
{
    struct p2m_entry was = *e;

    frame_of(copy)->gfn = gfn.n;
    p2m_change(e, written_word(e, copy, access));
    if (p->view != NULL) {
        if (!(access & P2M_FAST)) {
            p->view->ops->drop(p->view, gfn, 1, b);
        } else if (!p->view->ops->try_drop(p->view, gfn)) {
            p2m_change(e, word_next(e->seq, was.state, was.mfn));
            return false;
        }
    }
    e->mfn = copy;
    count_broken(p, &was);
    if (was.state == P2M_SHARED) {
        p2m_let_go(p, 1, access & P2M_FAST ? NULL : b); /* break_copy flushes by itself */
    }
    return true;
}

static enum hv_err break_copy(struct p2m *p, gfn_t gfn, mfn_t copy, uint32_t access,
                              struct p2m_entry *e)
{
    mfn_t old = e->state == P2M_SHARED ? e->mfn : MFN_NONE;
    bool fast = (access & P2M_FAST) != 0;
    enum hv_err err = HV_EBUSY;
    struct flush_batch batch;

    if (!p2m_lock_for(p, access)) {
        return HV_EAGAIN;
    }
    flush_batch_init(&batch, &p->domain);
    if (p2m_same(e)) {
        err = enter_copy(p, gfn, copy, access, e, &batch) ? HV_OK : HV_EAGAIN;
    }
    spin_unlock(&p->lock);
    if (err != HV_OK) {
        return err;
    }
    if (fast) {
        if (!MUTANT(local_break_without_flush)) {
            flush_local(&p->domain);
        }
        if (mfn_valid(old)) {
            index_put_fast(old);
            p2m_dropped(p, 1);
        }
    } else {
        if (!MUTANT(break_without_flush)) {
            flush_batch_commit(&batch);
        }
        if (mfn_valid(old)) {
            (void)p2m_drop(p, old);
        }
    }
    return HV_OK;
}

enum hv_err cow_break(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    enum hv_err err;
    mfn_t copy;

    if (e->state == P2M_SHARED && index_refs(e->mfn) == 1) {
        return keep_frame(p, gfn, access, e);
    }
    if (!(access & P2M_FAST)) {
        index_reap();
    } else if (!env_flush_is_local(&p->domain)) {
        return HV_EAGAIN;
    }
    err = alloc_copy(p, access, e, &copy);
    if (err != HV_OK) {
        return err;
    }
    err = break_copy(p, gfn, copy, access, e);
    if (err != HV_OK) {
        buddy_free(copy, 0);
    }
    return err;
}

/* ---- Merging ---- */

static void make_private(struct p2m_entry *e)
{
    p2m_change(e, word_next(e->seq, P2M_PRIVATE, word_mfn(e->seq)));
}

enum hv_err cow_withdraw(struct p2m *p, uint32_t access, struct p2m_entry *e)
{
    enum hv_err err = HV_EBUSY;

    if (!p2m_lock_for(p, access)) {
        return HV_EAGAIN;
    }
    if (p2m_same(e)) {
        make_private(e);
        err = HV_OK;
    }
    spin_unlock(&p->lock);
    return err;
}

bool cow_nominate(struct p2m *p, gfn_t gfn, struct p2m_entry *e, struct flush_batch *b)
{
    bool ok;

    spin_lock(&p->lock);
    ok = p2m_same(e) && e->writable && e->order == ORDER_4K && p2m_pin_record(e)->refs == 0;
    if (ok) {
        p2m_change(e, word_next(e->seq, KIND_NOMINATED, e->mfn));
        if (p->view != NULL && !MUTANT(nominate_without_protect)) {
            p->view->ops->protect(p->view, gfn, 1, b);
        }
    }
    spin_unlock(&p->lock);
    return ok;
}

bool cow_still_nominated(struct p2m_entry *e)
{
    /* Once private again, it may be written without a change of the word. */
    if (!p2m_same(e) || word_kind(e->seq) != KIND_NOMINATED) {
        return false;
    }
    if (p2m_pin_record(e)->refs != 0) {
        make_private(e);
        return false;
    }
    return true;
}

bool cow_merge(struct p2m *p, gfn_t gfn, struct p2m_entry *e, mfn_t with, struct flush_batch *b)
{
    bool is_zero = with.n == share_zero_frame.n;
    bool ok = false;
    mfn_t old = e->mfn;

    spin_lock(&p->lock);
    if (cow_still_nominated(e)) {
        ok = is_zero ? hash_is_zero(env_frame_ptr(old))
                     : hash_same(env_frame_ptr(old), env_frame_ptr(with));
        if (!ok) {
            make_private(e);
        }
    }
    if (ok) {
        p2m_change(e, word_next(e->seq, is_zero ? P2M_ZERO : P2M_SHARED, with));
        e->mfn = with;
        p->count.consumed--;
        p->count.merged++;
        reclaim_note_page(p->owner, gfn, PAGE_MERGED, is_zero ? 0 : index_refs(with));
        if (is_zero) {
            p->count.zero++;
        } else {
            p->count.shared++;
            p->changes++;
        }
        if (p->view != NULL) {
            p->view->ops->drop(p->view, gfn, 1, b);
        }
        flush_batch_free_block(b, old, ORDER_4K);
    }
    spin_unlock(&p->lock);
    return ok;
}

/* p2m locked, the page nominated, its contents those of `key`. */
static enum hv_err make_shared(struct p2m *p, struct p2m_entry *e, uint64_t key)
{
    mfn_t mfn = e->mfn;
    uint64_t gfn = frame_of(mfn)->gfn;
    enum hv_err err;

    buddy_retype(mfn, FRAME_SHARED, OWNER_HOST);
    err = index_add(key, p->salt, mfn, 2);
    if (err == HV_OK) {
        p2m_change(e, word_next(e->seq, P2M_SHARED, mfn));
        p->count.consumed--;
        p->count.shared++;
        p->changes++;
    } else {
        buddy_retype(mfn, FRAME_GUEST, p->owner);
        frame_of(mfn)->gfn = gfn;
    }
    return err;
}

enum hv_err cow_promote(struct p2m *p, struct p2m_entry *e, uint64_t key)
{
    enum hv_err err = HV_EBUSY;

    spin_lock(&p->lock);
    if (cow_still_nominated(e)) {
        err = HV_ENOENT;
        if (index_key(hash_page(env_frame_ptr(e->mfn)), p->salt) == key) {
            err = make_shared(p, e, key);
        }
        if (err != HV_OK) {
            make_private(e);
        }
    }
    spin_unlock(&p->lock);
    return err;
}

void cow_evict(struct p2m *p, gfn_t gfn, struct p2m_entry *e, enum p2m_state state, uint64_t place,
               struct flush_batch *b)
{
    bool shared = e->state == P2M_SHARED;
    mfn_t old = e->mfn;

    p2m_change(e, word_next(e->seq, state, MFN(place)));
    e->mfn = MFN_NONE;
    p->count.granted--;
    if (p->view != NULL) {
        p->view->ops->drop(p->view, gfn, 1, b);
    }
    if (shared) {
        p->count.shared--;
        p2m_let_go(p, 1, b);
    } else {
        p->count.consumed--;
        flush_batch_free_block(b, old, ORDER_4K);
    }
}
