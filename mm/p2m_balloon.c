/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state `ballooned` of the p2m, and discarding; see p2m_balloon.h. Words of 4 KiB and 2 MiB are ballooned. Giving up
 * changes the word, drops its translations, and leaves the frame to a flush batch; the reference to a
 * shared frame is dropped after the flush only, as when a shared page is broken (mm/share/cow.c).
 * Callers: mm/reclaim/balloon.c; the p2m itself pops.
 */
#include "mm/p2m_balloon.h"

#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/p2m_large.h"
#include "mm/reclaim/reclaim.h"
#include "mm/reclaim/swap.h"
#include "mm/share/index.h"
#include "mm/view.h"

#define REGION_PAGES BIT(ORDER_2M)

/* ---- Giving up ---- */

void p2m_balloon_begin(struct p2m_balloon_batch *b, struct p2m *p)
{
    b->p2m = p;
    b->nr_shared = 0;
    flush_batch_init(&b->flush, &p->domain);
}

static void put_shared(struct p2m_balloon_batch *b)
{
    while (b->nr_shared != 0) {
        (void)p2m_drop(b->p2m, b->shared[--b->nr_shared]);
    }
}

void p2m_balloon_end(struct p2m_balloon_batch *b)
{
    if (MUTANT(balloon_put_before_flush)) {
        put_shared(b);
    }
    flush_batch_commit(&b->flush);
    put_shared(b);
}

/* Count off what stood behind the word. p2m locked. */
static void count_given(struct p2m_balloon_batch *b, const struct p2m_entry *e, enum p2m_state to)
{
    struct p2m *p = b->p2m;
    uint64_t nr = BIT(e->order);

    p->count.ballooned += to == P2M_BALLOONED ? nr : 0;
    if (e->state == P2M_UNTOUCHED) {
        return;
    }
    p->count.granted -= nr;
    if (e->state == P2M_SHARED) {
        p->count.shared--;
        p2m_let_go(p, 1, &b->flush);
    } else if (e->state == P2M_ZERO) {
        p->count.zero--;
    } else {
        p->count.consumed -= nr;
        if (e->order == ORDER_2M) {
            p->count.large_2m--;
            frame_of(node_of(e->word))->refs--;
        }
    }
}

/* From now on the word says `to`. p2m locked, the word unchanged; it describes all of the page and is no
 * larger. */
static enum hv_err give_word(struct p2m_balloon_batch *b, gfn_t gfn, struct p2m_entry *e,
                             enum p2m_state to)
{
    struct p2m *p = b->p2m;

    if (e->state == P2M_INCOMING) {
        return HV_EBUSY;
    }
    if (PAGED_KINDS >> e->state & 1) {
        swap_forget(p, e);
    }

    if (e->state == P2M_PRIVATE && p2m_pin_record(e)->refs != 0) {
        return HV_EBUSY;
    }
    count_given(b, e, to);
    word_store((uint64_t *)e->word, word_next(e->seq, to, MFN(0)) & ~HEAT_MASK);
    if (e->state == P2M_UNTOUCHED) {
        return HV_OK;
    }
    if (p->view != NULL && !MUTANT(balloon_without_drop)) {
        p->view->ops->drop(p->view, gfn, BIT(e->order), &b->flush);
    }
    if (e->state == P2M_PRIVATE) {
        flush_batch_free_block(&b->flush, e->mfn, e->order);
    } else if (e->state == P2M_SHARED) {
        b->shared[b->nr_shared++] = e->mfn;
    }
    return HV_OK;
}

/* Make the word around gfn, which is larger than the page, one of the next smaller size. HV_EAGAIN:
 * done, or something changed; look again. */
static enum hv_err split_around(struct p2m *p, gfn_t gfn, struct p2m_entry *e)
{
    enum hv_err err;

    if (e->state != P2M_PRIVATE) {
        err = p2m_divide(p, e);
        return err == HV_EBUSY ? HV_EAGAIN : err;
    }
    err = p2m_large_split(p, gfn, NULL);
    if (err == HV_EBUSY && p2m_same(e)) {
        return HV_EBUSY;
    }
    return err == HV_ENOMEM ? err : HV_EAGAIN;
}

/* One page that a single word can describe. HV_EAGAIN: its 512 words are to be looked at. */
static enum hv_err give_page(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order)
{
    struct p2m *p = b->p2m;

    for (;;) {
        struct p2m_entry e;
        enum hv_err err = HV_EAGAIN;

        p2m_query(p, gfn, &e);
        if (e.state == P2M_HOLE || e.state == P2M_BALLOONED) {
            return e.state == P2M_HOLE ? HV_ENOENT : HV_EEXIST;
        }
        if (e.order < order) {
            return HV_EAGAIN;
        }
        if (e.order > order) {
            err = split_around(p, gfn, &e);
        } else {
            spin_lock(&p->lock);
            if (p2m_same(&e)) {
                err = give_word(b, gfn, &e, P2M_BALLOONED);
            }
            spin_unlock(&p->lock);
        }
        if (err != HV_EAGAIN) {
            return err;
        }
    }
}

/* May each of the 512 pages be given up? So that a refusal finds out before anything is gone. */
static enum hv_err look_at_region(struct p2m *p, gfn_t first)
{
    for (uint64_t i = 0; i < REGION_PAGES; i++) {
        struct p2m_entry e;

        p2m_query(p, gfn_add(first, i), &e);
        if (e.state == P2M_HOLE || e.state == P2M_BALLOONED) {
            return e.state == P2M_HOLE ? HV_ENOENT : HV_EEXIST;
        }
        /* Looked at without the lock: give_word decides. */
        if (e.state == P2M_PRIVATE &&
            frame_look(MFN(ALIGN_DOWN(e.mfn.n, BIT(e.order)))).refs != 0) {
            return HV_EBUSY;
        }
    }
    return HV_OK;
}

/* The first nr 4 KiB pages of a region of small words are the guest's again. */
static void take_small(struct p2m *p, gfn_t first, uint64_t nr)
{
    for (uint64_t i = 0; i < nr; i++) {
        /* HV_EEXIST: somebody popped it meanwhile, which is as good. */
        if (p2m_unballoon(p, gfn_add(first, i), ORDER_4K) == HV_ENOENT) {
            env_panic("p2m: ballooned gfn %#llx of VM %u is no RAM",
                      (unsigned long long)(first.n + i), p->owner);
        }
    }
}

static enum hv_err give_region(struct p2m_balloon_batch *b, gfn_t first)
{
    enum hv_err err = look_at_region(b->p2m, first);
    uint64_t done = 0;

    while (err == HV_OK && done < REGION_PAGES) {
        err = p2m_balloon(b, gfn_add(first, done), ORDER_4K);
        done += err == HV_OK;
    }
    if (err != HV_OK) {
        take_small(b->p2m, first, done);
    }
    return err;
}

enum hv_err p2m_balloon(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order)
{
    enum hv_err err;

    if ((gfn.n & (BIT(order) - 1)) != 0) {
        return HV_ENOENT;
    }
    if (b->nr_shared == P2M_BALLOON_SHARED) {
        p2m_balloon_end(b);
    }
    err = give_page(b, gfn, order);
    if (err == HV_EAGAIN) {
        err = give_region(b, gfn);
    }
    if (err == HV_OK) {
        reclaim_note_pages(b->p2m->owner, gfn, order, PAGE_BALLOONED, 0);
    }
    return err;
}

/* ---- Discarding ---- */

/* One word of gfn's, which is made as small as `order`; *size: its pages. HV_EAGAIN: look again. */
static enum hv_err discard_word(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order,
                                uint64_t *size, uint64_t *nr)
{
    struct p2m *p = b->p2m;
    struct p2m_entry e;
    enum hv_err err;

    p2m_query(p, gfn, &e);
    *size = BIT(MIN(e.order, order));
    if (e.state == P2M_HOLE) {
        return HV_ENOENT;
    }
    if (e.state == P2M_UNTOUCHED || e.state == P2M_BALLOONED) {
        return HV_OK;
    }
    if (e.order > order) {
        err = split_around(p, gfn, &e);
        return err == HV_EAGAIN ? err : HV_OK;
    }
    if (b->nr_shared == P2M_BALLOON_SHARED) {
        p2m_balloon_end(b);
    }
    spin_lock(&p->lock);
    err = p2m_same(&e) ? give_word(b, gfn, &e, P2M_UNTOUCHED) : HV_EAGAIN;
    spin_unlock(&p->lock);
    *nr += err == HV_OK ? *size : 0;
    return err == HV_EAGAIN ? err : HV_OK;
}

enum hv_err p2m_discard(struct p2m_balloon_batch *b, gfn_t gfn, unsigned order, uint64_t *nr)
{
    gfn_t end = gfn_add(gfn, BIT(order));

    while (gfn.n < end.n) {
        uint64_t size;
        enum hv_err err = discard_word(b, gfn, order, &size, nr);

        if (err == HV_ENOENT) {
            return err;
        }
        gfn.n += err == HV_OK ? size : 0;
    }
    return HV_OK;
}

/* ---- Taking back ---- */

/* p2m locked. */
static void take_word(struct p2m *p, uint64_t *word, unsigned order)
{
    word_store(word, word_next(*word, P2M_UNTOUCHED, MFN(0)));
    p->count.ballooned -= BIT(order);
}

enum hv_err p2m_pop(struct p2m *p, gfn_t gfn, struct p2m_entry *e)
{
    if (e->order != ORDER_4K) {
        return p2m_divide(p, e);
    }
    spin_lock(&p->lock);
    if (p2m_same(e)) {
        take_word(p, (uint64_t *)e->word, ORDER_4K);
        p->count.popped++;
        reclaim_note_page(p->owner, gfn, PAGE_POPPED, 0);
    }
    spin_unlock(&p->lock);
    return HV_EBUSY;
}

static enum hv_err take_region(struct p2m *p, gfn_t first)
{
    for (uint64_t i = 0; i < REGION_PAGES; i++) {
        struct p2m_entry e;

        p2m_query(p, gfn_add(first, i), &e);
        if (e.state != P2M_BALLOONED) {
            return e.state == P2M_HOLE ? HV_ENOENT : HV_EEXIST;
        }
    }
    take_small(p, first, REGION_PAGES);
    return HV_OK;
}

enum hv_err p2m_unballoon(struct p2m *p, gfn_t gfn, unsigned order)
{
    if ((gfn.n & (BIT(order) - 1)) != 0) {
        return HV_ENOENT;
    }
    for (;;) {
        struct p2m_entry e;
        bool done;

        p2m_query(p, gfn, &e);
        if (e.order < order) {
            return take_region(p, gfn);
        }
        if (e.state != P2M_BALLOONED) {
            return e.state == P2M_HOLE ? HV_ENOENT : HV_EEXIST;
        }
        if (e.order > order) {
            if (p2m_divide(p, &e) == HV_ENOMEM) {
                return HV_ENOMEM;
            }
            continue;
        }
        spin_lock(&p->lock);
        done = p2m_same(&e);
        if (done) {
            take_word(p, (uint64_t *)e.word, order);
            reclaim_note_pages(p->owner, gfn, order, PAGE_UNBALLOONED, 0);
        }
        spin_unlock(&p->lock);
        if (done) {
            return HV_OK;
        }
    }
}

/* Only the balloon's own commands make words ballooned, and they come one after the other: a word that
 * this passes by stays as it is. */
static void forget_node(struct p2m *p, uint64_t *words, unsigned level)
{
    if (level < RAM_LEVEL) {
        spin_lock(&p->lock);
        for (unsigned i = 0; i < NODE_WORDS; i++) {
            if (word_kind(words[i]) == P2M_BALLOONED) {
                take_word(p, &words[i], level * NODE_SHIFT);
            }
        }
        spin_unlock(&p->lock);
        env_relax();
    }
    for (unsigned i = 0; level > 0 && i < NODE_WORDS; i++) {
        uint64_t word = word_load(&words[i]);

        if (word_kind(word) == KIND_NODE) {
            forget_node(p, word_node(word), level - 1);
        }
    }
}

void p2m_unballoon_all(struct p2m *p)
{
    struct p2m_counters count;

    p2m_counters(p, &count);
    if (count.ballooned != 0) {
        forget_node(p, p->root, ROOT_LEVEL);
    }
}
