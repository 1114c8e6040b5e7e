/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are born shared; see born.h. A frame is prepared with the contents first, which also
 * aligns them; if a shared one has the same, the prepared frame goes back. Caller: kernel/vm's loader.
 */
#include "mm/share/born.h"

#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share.h"

/* An untouched 4 KiB word behind gfn. */
static enum hv_err find_untouched(struct p2m *p, gfn_t gfn, struct p2m_entry *e)
{
    for (;;) {
        enum hv_err err;

        p2m_query(p, gfn, e);
        if (e->state != P2M_UNTOUCHED) {
            return e->state == P2M_HOLE ? HV_ENOENT : HV_EBUSY;
        }
        if (e->order == ORDER_4K) {
            return HV_OK;
        }
        err = p2m_divide(p, e);
        if (err != HV_EBUSY) {
            return err;
        }
    }
}

/* A shared frame with the prepared contents and a reference for us: an old one, or the prepared. */
static enum hv_err find_frame(struct p2m *p, gfn_t gfn, mfn_t prepared, mfn_t *out)
{
    const void *page = env_frame_ptr(prepared);
    uint64_t key = index_key(hash_page(page), p->salt);
    const struct index_page self = {p->member, gfn};
    struct index_hit hit;

    index_find(key, p->salt, &self, &hit);
    if (hit.found == INDEX_SHARED) {
        if (hash_same(env_frame_ptr(hit.mfn), page)) {
            *out = hit.mfn;
            return HV_OK;
        }
        index_put(hit.mfn);
    }
    index_make_room(1);
    *out = prepared;
    return index_add(key, p->salt, prepared, 1);
}

/* Let the page stand on frame `with`. False: somebody has touched it. */
static bool enter(struct p2m *p, struct p2m_entry *e, mfn_t with)
{
    bool is_zero = with.n == share_zero_frame.n;
    bool same;

    spin_lock(&p->lock);
    same = p2m_same(e);
    if (same) {
        p2m_change(e, word_next(e->seq, is_zero ? P2M_ZERO : P2M_SHARED, with));
        p->count.granted++;
        if (is_zero) {
            p->count.zero++;
        } else {
            p->count.shared++;
            p->changes++;
        }
    }
    spin_unlock(&p->lock);
    return same;
}

enum hv_err born_page(struct p2m *p, gfn_t gfn, const void *data)
{
    struct p2m_entry e;
    mfn_t prepared;
    mfn_t with = share_zero_frame;
    enum hv_err err = p->member != 0 ? find_untouched(p, gfn, &e) : HV_ENOTSUP;

    if (err == HV_OK) {
        err = env_may_allocate("born.frame")
                  ? buddy_alloc(0, FRAME_SHARED, OWNER_HOST, 0, &prepared)
                  : HV_ENOMEM;
    }
    if (err != HV_OK) {
        return err;
    }
    memcpy(env_frame_ptr(prepared), data, PAGE_SIZE);
    spin_lock(&p->lock);
    p2m_let_go(p, 1, NULL); /* what find_frame holds */
    spin_unlock(&p->lock);
    if (!hash_is_zero(env_frame_ptr(prepared))) {
        err = find_frame(p, gfn, prepared, &with);
    }
    if (err == HV_OK && !enter(p, &e, with)) {
        err = HV_EBUSY;
        if (with.n != share_zero_frame.n) {
            index_put(with);
        }
    }
    p2m_dropped(p, 1);
    if (err == HV_OK && with.n == prepared.n) {
        return HV_OK;
    }
    if (with.n != prepared.n || err == HV_ENOMEM) {
        buddy_free(prepared, 0);
    }
    return err;
}
