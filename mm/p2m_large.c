/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Splitting, joining and ageing of large pages; see p2m_large.h.
 *
 * Splitting changes one word of the tree into a node whose words name the same frames, and the
 * frames' records from one block to 512. Joining copies: all 512 pages are nominated, flushed once,
 * copied while their guest runs on, and changed over if none of their words changed meanwhile. The
 * node that leaves the tree is kept for the next split of the same region, because a lockless walk
 * may stand in it at any time.
 */
#include "mm/p2m_large.h"

#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/cow.h"
#include "mm/share/index.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

#define REGION_PAGES BIT(ORDER_2M)
#define SLICE_PAGES 8u     /* copied between two looks at what else is to do */
#define SLICE_REGIONS 128u /* looked at likewise */

/* ---- Splitting ---- */

/* Records of a block of 2^(order + 9) frames become those of 512 blocks, from the end, so that
 * frame_head never meets a stale one. */
static void split_records(const struct p2m *p, mfn_t base, unsigned order, uint64_t gfn)
{
    for (uint64_t i = NODE_WORDS; i-- > 0;) {
        mfn_t piece = mfn_add(base, i << order);

        frame_of(piece)->gfn = gfn + (i << order);
        frame_set(piece, FRAME_GUEST, order, p->owner);
    }
}

/* p2m locked, the word unchanged. */
static void split_word(struct p2m *p, gfn_t first, struct p2m_entry *e, mfn_t node)
{
    unsigned order = e->order - NODE_SHIFT;
    mfn_t base = word_mfn(e->seq);
    uint64_t *words = env_frame_ptr(node);

    split_records(p, base, order, first.n);
    for (uint64_t i = 0; i < NODE_WORDS; i++) {
        word_store(&words[i],
                   word_next(words[i], P2M_PRIVATE, mfn_add(base, i << order)) & ~HEAT_MASK);
    }
    frame_of(node)->gfn = FRAME_GFN_NONE;
    frame_of(node)->refs = order == ORDER_2M ? NODE_WORDS : 0;
    if (order == ORDER_2M) {
        p->count.large_1g--;
        p->count.large_2m += NODE_WORDS;
    } else {
        p->count.large_2m--;
        frame_of(node_of(e->word))->refs--;
    }
    word_store((uint64_t *)e->word, word_next(e->seq, KIND_NODE, node) & ~HEAT_MASK);
}

/* A fresh node, of which nobody has heard, is not needed after all. */
static void put_node_back(mfn_t node, mfn_t *spare)
{
    if (spare == NULL) {
        buddy_free(node, 0);
        return;
    }
    buddy_retype(node, FRAME_HOST, OWNER_HOST);
    *spare = node;
}

enum hv_err p2m_large_split(struct p2m *p, gfn_t gfn, mfn_t *spare)
{
    struct flush_batch batch;
    struct p2m_entry e;
    bool fresh = false;
    enum hv_err err;
    mfn_t node;
    gfn_t first;

    p2m_query(p, gfn, &e);
    if (e.state != P2M_PRIVATE || e.order == ORDER_4K) {
        return HV_ENOENT;
    }
    first = GFN(ALIGN_DOWN(gfn.n, BIT(e.order)));
    err = p2m_node_take(p, first, e.order, spare, &node, &fresh);
    if (err != HV_OK) {
        return err;
    }
    flush_batch_init(&batch, &p->domain);
    spin_lock(&p->lock);
    err = p2m_same(&e) && p2m_pin_record(&e)->refs == 0 ? HV_OK : HV_EBUSY;
    if (err == HV_OK) {
        p->count.overhead += fresh;
        split_word(p, first, &e, node);
        reclaim_note_pages(p->owner, first, ORDER_2M, PAGE_SPLIT, 0);
        if (p->view != NULL) {
            p->view->ops->drop(p->view, first, BIT(e.order), &batch);
        }
    } else if (!fresh) {
        p2m_node_retire(p, first, e.order, node);
    }
    spin_unlock(&p->lock);
    if (err != HV_OK && fresh) {
        put_node_back(node, spare);
    }
    flush_batch_commit(&batch);
    return err;
}

/* ---- Joining ---- */

/* The words of the 2 MiB region, or NULL if it is no node of 4 KiB words; *parent is the word that
 * names the node. */
static uint64_t *region_words(struct p2m *p, gfn_t gfn, uint64_t **parent)
{
    uint64_t *node = p->root;

    for (unsigned level = ROOT_LEVEL; level > 0; level--) {
        uint64_t *word = &node[word_index(gfn, level)];

        if (word_kind(word_load(word)) != KIND_NODE) {
            return NULL;
        }
        *parent = word;
        node = word_node(word_load(word));
    }
    return node;
}

static bool is_away(unsigned kind)
{
    return kind == P2M_COMPRESSED || kind == P2M_SWAPPED || kind == P2M_INCOMING;
}

bool p2m_large_joinable(struct p2m *p, gfn_t gfn, unsigned max_shared, unsigned max_swapped,
                        struct p2m_region *out)
{
    uint64_t *parent;
    const uint64_t *words = region_words(p, gfn, &parent);

    *out = (struct p2m_region){0};
    for (unsigned i = 0; words != NULL && i < NODE_WORDS; i++) {
        unsigned kind = word_kind(word_load(&words[i]));

        if (kind == P2M_SHARED || kind == P2M_ZERO || kind == P2M_UNTOUCHED) {
            out->fresh++;
        } else if (is_away(kind)) {
            out->away++;
        } else if (kind != P2M_PRIVATE) {
            return false;
        }
    }
    return words != NULL && out->fresh <= max_shared && out->away <= max_swapped &&
           out->fresh + out->away < NODE_WORDS;
}

unsigned p2m_large_bring_back(struct p2m *p, gfn_t gfn)
{
    gfn_t first = GFN(ALIGN_DOWN(gfn.n, REGION_PAGES));
    unsigned away = 0;

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        struct p2m_entry e;

        p2m_query(p, gfn_add(first, i), &e);
        if (is_away(e.state) && p2m_populate(p, gfn_add(first, i), P2M_READ, &e) != HV_OK) {
            away++;
        }
    }
    return away;
}

/* Nominate all private pages of the region and note all words. p2m locked. */
static enum hv_err nominate_region(uint64_t *words, unsigned max_shared, uint64_t *seen)
{
    unsigned fresh = 0;

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        unsigned kind = word_kind(words[i]);

        if (kind == P2M_PRIVATE && frame_of(word_mfn(words[i]))->refs == 0) {
            continue;
        }
        fresh++;
        if (kind != P2M_SHARED && kind != P2M_ZERO && kind != P2M_UNTOUCHED) {
            return HV_EBUSY;
        }
    }
    if (fresh > max_shared) {
        return HV_EBUSY;
    }
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (word_kind(words[i]) == P2M_PRIVATE) {
            word_store(&words[i], word_next(words[i], KIND_NOMINATED, word_mfn(words[i])));
        }
        seen[i] = words[i];
    }
    return HV_OK;
}

static void copy_region(const uint64_t *seen, mfn_t block)
{
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        void *to = env_frame_ptr(mfn_add(block, i));
        unsigned kind = word_kind(seen[i]);

        if (kind == P2M_ZERO || kind == P2M_UNTOUCHED) {
            env_clear_page(to);
        } else {
            env_copy_page(to, env_frame_ptr(word_mfn(seen[i])));
        }
        if (i % SLICE_PAGES == 0) {
            env_relax();
        }
    }
}

/* Nothing has been written and nothing is pinned since the region was nominated. p2m locked. */
static bool region_unchanged(const uint64_t *words, const uint64_t *seen)
{
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (words[i] != seen[i] ||
            (word_kind(seen[i]) == KIND_NOMINATED && frame_of(word_mfn(seen[i]))->refs != 0)) {
            return false;
        }
    }
    return true;
}

/* The join is off: pages still nominated are plainly private again. p2m locked. */
static void withdraw_region(uint64_t *words, const uint64_t *seen)
{
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (words[i] == seen[i] && word_kind(seen[i]) == KIND_NOMINATED) {
            word_store(&words[i], word_next(seen[i], P2M_PRIVATE, word_mfn(seen[i])));
        }
    }
}

/* p2m locked. */
static void count_joined(struct p2m *p, const uint64_t *seen, struct flush_batch *b)
{
    uint64_t shared = 0;

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        switch (word_kind(seen[i])) {
        case P2M_SHARED:
            p->count.shared--;
            p->count.consumed++;
            shared++;
            break;
        case P2M_ZERO:
            p->count.zero--;
            p->count.consumed++;
            break;
        case P2M_UNTOUCHED:
            p->count.granted++;
            p->count.consumed++;
            break;
        default:
            break;
        }
    }
    p->count.large_2m++;
    p2m_let_go(p, shared, b);
}

/* One word for the node. p2m locked. */
static void change_over(struct p2m *p, gfn_t first, uint64_t *parent, uint64_t *words,
                        const uint64_t *seen, mfn_t block, struct flush_batch *b)
{
    mfn_t node = node_of(words);

    frame_of(block)->gfn = first.n;
    word_store(parent, word_next(*parent, P2M_PRIVATE, block) & ~HEAT_MASK);
    frame_of(node_of(parent))->refs++;
    count_joined(p, seen, b);
    reclaim_note_pages(p->owner, first, ORDER_2M, PAGE_JOINED, 0);
    p2m_node_retire(p, first, ORDER_2M, node);
    if (p->view != NULL) {
        p->view->ops->drop(p->view, first, REGION_PAGES, b);
    }
    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (word_kind(seen[i]) == KIND_NOMINATED) {
            flush_batch_free_block(b, word_mfn(seen[i]), ORDER_4K);
        }
    }
    /* Nothing of it was mapped maybe, but readers by p2m_peek may stand there. */
    flush_batch_touch(b);
}

static enum hv_err join(struct p2m *p, gfn_t first, unsigned max_shared, mfn_t block,
                        uint64_t *seen)
{
    struct flush_batch batch;
    uint64_t *parent;
    uint64_t *words;
    enum hv_err err = HV_ENOENT;

    flush_batch_init(&batch, &p->domain);
    spin_lock(&p->lock);
    words = region_words(p, first, &parent);
    if (words != NULL) {
        err = nominate_region(words, max_shared, seen);
        if (err == HV_OK && p->view != NULL) {
            p->view->ops->protect(p->view, first, REGION_PAGES, &batch);
        }
    }
    spin_unlock(&p->lock);
    if (!MUTANT(join_without_flush)) {
        flush_batch_commit(&batch);
    }
    if (err != HV_OK) {
        return err;
    }
    copy_region(seen, block);
    spin_lock(&p->lock);
    if (region_unchanged(words, seen)) {
        change_over(p, first, parent, words, seen, block, &batch);
    } else {
        withdraw_region(words, seen);
        err = HV_EBUSY;
    }
    spin_unlock(&p->lock);
    flush_batch_commit(&batch);
    for (unsigned i = 0; err == HV_OK && i < NODE_WORDS; i++) {
        if (word_kind(seen[i]) == P2M_SHARED) {
            (void)p2m_drop(p, word_mfn(seen[i]));
        }
    }
    return err;
}

enum hv_err p2m_large_join(struct p2m *p, gfn_t gfn, unsigned max_shared, mfn_t block)
{
    uint64_t *seen = kmalloc(PAGE_SIZE, p->owner);
    enum hv_err err = HV_ENOMEM;

    if (seen != NULL) {
        err = join(p, GFN(ALIGN_DOWN(gfn.n, REGION_PAGES)), max_shared, block, seen);
        kfree(seen);
    }
    return err;
}

/* ---- Coldness ---- */

bool p2m_large_next_region(struct p2m *p, gfn_t *gfn)
{
    for (unsigned i = 0; i < p->nr_ram; i++) {
        const struct p2m_range *r = &p->ram[i];
        uint64_t at = ALIGN_UP(MAX(gfn->n, r->first.n), REGION_PAGES);

        if (at + REGION_PAGES <= r->first.n + r->nr) {
            gfn->n = at;
            return true;
        }
    }
    return false;
}

static void set_cold(struct p2m *p, struct p2m_entry *e, uint64_t cold)
{
    spin_lock(&p->lock);
    if (p2m_same(e) && cold != word_heat(e->seq)) {
        uint64_t value = word_next(e->seq, P2M_PRIVATE, word_mfn(e->seq));

        p2m_change(e, (value & ~HEAT_MASK) | cold << HEAT_SHIFT);
    }
    spin_unlock(&p->lock);
}

unsigned p2m_large_cold(const struct p2m_entry *e)
{
    return word_heat(e->seq);
}

/* Large VMs have many regions. */
static void relax_at(gfn_t gfn)
{
    if (gfn.n / REGION_PAGES % SLICE_REGIONS == 0) {
        env_relax();
    }
}

void p2m_large_age(struct p2m *p)
{
    struct flush_batch batch;
    gfn_t gfn = GFN(0);

    flush_batch_init(&batch, &p->domain);
    while (p2m_large_next_region(p, &gfn)) {
        struct p2m_entry e;

        p2m_query(p, gfn, &e);
        if (e.state == P2M_PRIVATE && e.order != ORDER_4K) {
            bool used = p->view != NULL && p->view->ops->age(p->view, gfn, &batch);

            set_cold(p, &e, used ? 0 : MIN(word_heat(e.seq) + 1, HEAT_MAX));
            gfn.n = ALIGN_DOWN(gfn.n, BIT(e.order)) + BIT(e.order);
        } else {
            gfn.n += REGION_PAGES;
        }
        relax_at(gfn);
    }
    flush_batch_commit(&batch);
}

uint64_t p2m_large_split_coldest(struct p2m *p, uint64_t nr,
                                 void (*split)(struct p2m *p, gfn_t gfn))
{
    uint64_t done = 0;

    for (unsigned cold = HEAT_MAX + 1; cold-- > 0 && done < nr;) {
        gfn_t gfn = GFN(0);

        while (done < nr && p2m_large_next_region(p, &gfn)) {
            struct p2m_entry e;

            p2m_query(p, gfn, &e);
            if (e.state == P2M_PRIVATE && e.order != ORDER_4K && word_heat(e.seq) >= cold &&
                p2m_large_split(p, gfn, NULL) == HV_OK) {
                done++;
                if (e.order == ORDER_2M) {
                    split(p, gfn);
                }
                env_relax();
            }
            gfn.n += REGION_PAGES;
            relax_at(gfn);
        }
    }
    return done;
}

/* ---- Moving ---- */

/* Copy the nominated page to frame `to` and let it stand there, if nobody wrote. */
static enum hv_err move_to(struct p2m *p, gfn_t gfn, struct p2m_entry *e, mfn_t to)
{
    struct flush_batch batch;
    mfn_t old = e->mfn;
    bool ok;

    env_copy_page(env_frame_ptr(to), env_frame_ptr(old));
    flush_batch_init(&batch, &p->domain);
    spin_lock(&p->lock);
    ok = p2m_same(e) && p2m_pin_record(e)->refs == 0;
    if (ok) {
        buddy_retype(to, FRAME_GUEST, p->owner);
        frame_of(to)->gfn = gfn.n;
        p2m_change(e, word_next(e->seq, P2M_PRIVATE, to));
        if (p->view != NULL) {
            p->view->ops->drop(p->view, gfn, 1, &batch);
        }
        flush_batch_free_block(&batch, old, ORDER_4K);
    } else if (p2m_same(e)) {
        p2m_change(e, word_next(e->seq, P2M_PRIVATE, old));
    }
    spin_unlock(&p->lock);
    flush_batch_commit(&batch);
    return ok ? HV_OK : HV_EBUSY;
}

enum hv_err p2m_large_move(struct p2m *p, gfn_t gfn, mfn_t from, mfn_t to)
{
    struct flush_batch batch;
    struct p2m_entry e;
    bool nominated;

    p2m_query(p, gfn, &e);
    if (e.state != P2M_PRIVATE || e.order != ORDER_4K || e.mfn.n != from.n) {
        return HV_EBUSY;
    }
    flush_batch_init(&batch, &p->domain);
    nominated = cow_nominate(p, gfn, &e, &batch);
    flush_batch_commit(&batch);
    return nominated ? move_to(p, gfn, &e, to) : HV_EBUSY;
}
