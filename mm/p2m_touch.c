/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * First touches: what is put behind an untouched gfn.
 *
 * A frame is taken and cleared with no lock held; then, under the p2m lock, the word is compared
 * with what was seen before, and only if it is the same the frame goes in. Whoever comes second
 * frees his frame and looks again.
 *
 * An untouched 2 MiB region gets one 2 MiB frame where the VM wants large pages and the machine has
 * one, cleared in slices off the fast path; otherwise a node of 4 KiB words. An untouched 1 GiB
 * region becomes a node of 2 MiB words; where the processor maps 1 GiB, a free 1 GiB block is set
 * aside for it (mm/buddy.h), from which every 2 MiB piece is taken at its own first touch. When all
 * 512 are there, the node is replaced by one word, and the view forgets the region, to be filled
 * again by one leaf. So 1 GiB is never cleared in one go, and what a guest did not touch stays free.
 */
#include "mm/p2m.h"

#include "mm/p2m_internal.h"
#include "mm/share/share.h"
#include "mm/view.h"

#define SLICE_PAGES 16u /* cleared between two looks at what else is to do: 64 KiB */

bool p2m_thrift;

void p2m_set_thrift(bool on)
{
    __atomic_store_n(&p2m_thrift, on, __ATOMIC_RELAXED);
}

/* Make the word of `order` that `e` describes private; p2m locked, the word unchanged. */
static inline void set_private(struct p2m *p, gfn_t gfn, mfn_t block, unsigned order,
                               struct p2m_entry *e)
{
    uint64_t value = word_next(e->seq, P2M_PRIVATE, block);

    frame_of(block)->gfn = ALIGN_DOWN(gfn.n, BIT(order));
    word_store((uint64_t *)e->word, value);
    p->count.granted += BIT(order);
    p->count.consumed += BIT(order);
    e->seq = value;
    e->state = P2M_PRIVATE;
    e->writable = true;
    e->mfn = mfn_add(block, gfn.n & (BIT(order) - 1));
}

static enum hv_err touch_4k(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    enum hv_err err = HV_ENOMEM;
    mfn_t mfn;

    if (env_may_allocate("p2m.frame")) {
        err = buddy_alloc(0, FRAME_GUEST, p->owner, access & P2M_FAST ? BUDDY_FAST : 0, &mfn);
    }
    if (err != HV_OK) {
        return err;
    }
    env_clear_page(env_frame_ptr(mfn));
    if (p2m_lock_for(p, access)) {
        if (likely(p2m_same(e))) {
            set_private(p, gfn, mfn, ORDER_4K, e);
            p->count.faults_4k++;
            spin_unlock(&p->lock);
            return HV_OK;
        }
        spin_unlock(&p->lock);
        err = HV_EBUSY;
    } else {
        err = HV_EAGAIN;
    }
    buddy_free(mfn, 0);
    return err;
}

/* The zero frame behind an untouched page that is only read. */
static enum hv_err touch_zero(struct p2m *p, uint32_t access, struct p2m_entry *e)
{
    enum hv_err err = HV_EBUSY;

    if (!p2m_lock_for(p, access)) {
        return HV_EAGAIN;
    }
    if (p2m_same(e)) {
        p2m_change(e, word_next(e->seq, P2M_ZERO, share_zero_frame));
        e->mfn = share_zero_frame;
        p->count.granted++;
        p->count.zero++;
        err = HV_OK;
    }
    spin_unlock(&p->lock);
    return err;
}

enum hv_err p2m_divide(struct p2m *p, struct p2m_entry *e)
{
    mfn_t aside = MFN_NONE;
    mfn_t node;
    bool same;
    enum hv_err err = p2m_node_alloc(p, e->state, &node);

    if (err != HV_OK) {
        return err;
    }
    if (p->large_pages && p->max_order >= ORDER_1G && e->order == ORDER_1G &&
        buddy_set_aside(&aside) == HV_OK) {
        frame_of(node)->gfn = aside.n;
    }
    spin_lock(&p->lock);
    same = p2m_same(e);
    if (same) {
        word_store((uint64_t *)e->word, word_next(e->seq, KIND_NODE, node));
        p->count.overhead++;
    }
    spin_unlock(&p->lock);
    if (!same) {
        if (mfn_valid(aside)) {
            buddy_end_aside(aside);
        }
        buddy_free(node, 0);
    }
    return HV_EBUSY;
}

/* Are the words of a full node one 1 GiB block? Sums the pins of its pieces. */
static bool is_contiguous(mfn_t node, uint32_t *pins)
{
    const uint64_t *words = env_frame_ptr(node);
    uint64_t base = frame_of(node)->gfn;

    *pins = 0;
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (word_kind(words[i]) != P2M_PRIVATE ||
            word_mfn(words[i]).n != base + i * BIT(ORDER_2M)) {
            return false;
        }
        *pins += frame_of(word_mfn(words[i]))->refs;
    }
    return true;
}

/* Replace a full, contiguous node of 2 MiB words by one word. P2m locked. */
static bool promote_1g(struct p2m *p, gfn_t gfn, mfn_t node)
{
    uint64_t *word = &p->root[word_index(gfn, ROOT_LEVEL)];
    mfn_t base = MFN(frame_of(node)->gfn);
    uint32_t pins;

    if (!is_contiguous(node, &pins)) {
        return false;
    }
    word = &word_node(*word)[word_index(gfn, RAM_LEVEL)];
    frame_set(base, FRAME_GUEST, ORDER_1G, p->owner);
    frame_of(base)->refs = pins;
    word_store(word, word_next(*word, P2M_PRIVATE, base));
    p2m_node_retire(p, GFN(ALIGN_DOWN(gfn.n, BIT(ORDER_1G))), ORDER_1G, node);
    p->count.large_2m -= NODE_WORDS;
    p->count.large_1g++;
    p->count.faults_1g++;
    return true;
}

/* Enter a cleared 2 MiB block. HV_EBUSY: the word has changed. */
static enum hv_err enter_2m(struct p2m *p, gfn_t gfn, mfn_t block, struct p2m_entry *e)
{
    mfn_t node = node_of(e->word);
    struct flush_batch batch;
    bool promoted = false;

    flush_batch_init(&batch, &p->domain);
    spin_lock(&p->lock);
    if (!p2m_same(e)) {
        spin_unlock(&p->lock);
        return HV_EBUSY;
    }
    set_private(p, gfn, block, ORDER_2M, e);
    p->count.large_2m++;
    p->count.faults_2m++;
    if (++frame_of(node)->refs == NODE_WORDS && frame_of(node)->gfn != FRAME_GFN_NONE) {
        promoted = promote_1g(p, gfn, node);
    }
    if (promoted && p->view != NULL) {
        p->view->ops->drop(p->view, GFN(ALIGN_DOWN(gfn.n, BIT(ORDER_1G))), BIT(ORDER_1G), &batch);
    }
    spin_unlock(&p->lock);
    flush_batch_commit(&batch);
    if (promoted) {
        p2m_query(p, gfn, e);
    }
    return HV_OK;
}

static enum hv_err alloc_2m(struct p2m *p, const struct p2m_entry *e, mfn_t *out)
{
    uint64_t aside = frame_of(node_of(e->word))->gfn;
    uint64_t index = ((uintptr_t)e->word & (PAGE_SIZE - 1)) / sizeof(*e->word);

    if (!env_may_allocate("p2m.large")) {
        return HV_ENOMEM;
    }
    if (aside != FRAME_GFN_NONE) {
        *out = MFN(aside + (index << ORDER_2M));
        if (buddy_alloc_at(*out, ORDER_2M, FRAME_GUEST, p->owner) == HV_OK) {
            return HV_OK;
        }
    }
    return buddy_alloc(ORDER_2M, FRAME_GUEST, p->owner, 0, out);
}

static enum hv_err touch_2m(struct p2m *p, gfn_t gfn, struct p2m_entry *e)
{
    mfn_t block;
    enum hv_err err = alloc_2m(p, e, &block);

    if (err != HV_OK) {
        return err;
    }
    for (uint64_t page = 0; page < BIT(ORDER_2M); page += SLICE_PAGES) {
        env_clear_pages(env_frame_ptr(mfn_add(block, page)), SLICE_PAGES);
        env_relax();
    }
    err = enter_2m(p, gfn, block, e);
    if (err != HV_OK) {
        buddy_free(block, ORDER_2M);
    }
    return err;
}

static bool is_thrifty(void)
{
    return __atomic_load_n(&p2m_thrift, __ATOMIC_RELAXED);
}

enum hv_err p2m_touch(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    if (likely(e->order == ORDER_4K)) {
        if (unlikely(!(access & P2M_WRITE)) && is_thrifty() && mfn_valid(share_zero_frame)) {
            return touch_zero(p, access, e);
        }
        return touch_4k(p, gfn, access, e);
    }
    if (access & P2M_FAST) {
        return HV_EAGAIN;
    }
    if (e->order == ORDER_2M && p->large_pages && p->max_order >= ORDER_2M && !is_thrifty()) {
        enum hv_err err = touch_2m(p, gfn, e);

        if (err != HV_ENOMEM) {
            return err;
        }
    }
    return p2m_divide(p, e);
}
