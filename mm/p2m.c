/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The p2m: creation, queries, pins, destruction. First touches are in p2m_touch.c, the audit in
 * p2m_audit.c, the layout of the tree in p2m_internal.h. Callers: the views, kernel/vm, devices,
 * loaders, the shell.
 */
#include "mm/p2m.h"

#include "kernel/lib/mutant.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/slots.h"
#include "mm/reclaim/swap.h"
#include "mm/share/cow.h"
#include "mm/share/index.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

static void fill_node(mfn_t node, enum p2m_state state)
{
    uint64_t *words = env_frame_ptr(node);

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        words[i] = state;
    }
}

enum hv_err p2m_node_alloc(const struct p2m *p, enum p2m_state state, mfn_t *out)
{
    enum hv_err err = HV_ENOMEM;

    if (env_may_allocate("p2m.node")) {
        err = buddy_alloc(0, FRAME_P2M, p->owner, 0, out);
    }
    if (err == HV_OK) {
        fill_node(*out, state);
    }
    return err;
}

/* What the record of a retired node says of the region: its first gfn and its size. */
static uint32_t region_tag(gfn_t first, unsigned order)
{
    return (uint32_t)(first.n >> ORDER_2M) | (uint32_t)(order / NODE_SHIFT) << 28;
}

static mfn_t take_retired(struct p2m *p, uint32_t tag)
{
    mfn_t found = MFN_NONE;

    spin_lock(&p->lock);
    for (uint32_t *link = &p->retired; *link != FRAME_LINK_NONE; link = &frame_table[*link].next) {
        if (frame_table[*link].prev == tag) {
            found = MFN(*link);
            *link = frame_table[*link].next;
            break;
        }
    }
    spin_unlock(&p->lock);
    return found;
}

enum hv_err p2m_node_take(struct p2m *p, gfn_t first, unsigned order, mfn_t *spare, mfn_t *out,
                          bool *fresh)
{
    *out = take_retired(p, region_tag(first, order));
    *fresh = !mfn_valid(*out);
    if (!*fresh) {
        return HV_OK;
    }
    if (spare == NULL) {
        return p2m_node_alloc(p, P2M_UNTOUCHED, out);
    }
    if (!mfn_valid(*spare)) {
        return HV_ENOMEM;
    }
    *out = *spare;
    *spare = MFN_NONE;
    buddy_retype(*out, FRAME_P2M, p->owner);
    fill_node(*out, P2M_UNTOUCHED);
    return HV_OK;
}

void p2m_node_retire(struct p2m *p, gfn_t first, unsigned order, mfn_t node)
{
    uint64_t *words = env_frame_ptr(node);
    struct frame *f = frame_of(node);

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        word_store(&words[i], word_next(words[i], KIND_RETIRED, MFN(0)));
    }
    f->refs = 0;
    f->next = p->retired;
    f->prev = region_tag(first, order);
    p->retired = (uint32_t)node.n;
}

enum hv_err p2m_create(const struct p2m_config *cfg, struct p2m **out)
{
    struct p2m *p;
    mfn_t root;
    mfn_t low;
    enum hv_err err;

    if (cfg->owner == OWNER_HOST || cfg->owner > OWNER_MAX) {
        return HV_EINVAL;
    }
    p = kmalloc(sizeof(*p), cfg->owner);
    if (p == NULL) {
        return HV_ENOMEM;
    }
    spin_init(&p->lock, RANK_P2M, "p2m");
    flush_domain_init(&p->domain, cfg->vm);
    p->owner = cfg->owner;
    p->large_pages = cfg->large_pages;
    p->max_order = MIN(cfg->max_order, ORDER_1G);
    p->retired = FRAME_LINK_NONE;
    p->salt = cfg->salt;
    p->no_paging = cfg->no_paging;
    zip_init(p);
    err = p2m_node_alloc(p, P2M_HOLE, &root);
    if (err == HV_OK) {
        err = p2m_node_alloc(p, P2M_HOLE, &low);
        if (err != HV_OK) {
            buddy_free(root, 0);
        }
    }
    if (err != HV_OK) {
        kfree(p);
        return err;
    }
    p->root = env_frame_ptr(root);
    p->low = env_frame_ptr(low);
    p->root[0] = word_next(p->root[0], KIND_NODE, low);
    p->count.overhead = 2;
    *out = p;
    return HV_OK;
}

/* Free what the words of a node describe, and the node. */
static void node_destroy(struct p2m *p, mfn_t mfn, unsigned level)
{
    const uint64_t *words = env_frame_ptr(mfn);
    uint64_t aside = level == 1 ? frame_of(mfn)->gfn : FRAME_GFN_NONE;

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        switch (word_kind(words[i])) {
        case KIND_NODE:
            node_destroy(p, word_mfn(words[i]), level - 1);
            break;
        case P2M_PRIVATE:
        case KIND_NOMINATED:
            frame_of(word_mfn(words[i]))->refs = 0;
            buddy_free(word_mfn(words[i]), NODE_SHIFT * level);
            break;
        case P2M_SHARED:
            index_put(word_mfn(words[i]));
            break;
        case P2M_SWAPPED:
            slots_free(word_place(words[i]) & SWAP_SLOT_MASK);
            break;
        default:
            break;
        }
    }
    if (aside != FRAME_GFN_NONE) {
        buddy_end_aside(MFN(aside));
    }
    frame_of(mfn)->refs = 0;
    buddy_free(mfn, 0);
    env_relax();
}

void p2m_destroy(struct p2m *p)
{
    if (p == NULL) {
        return;
    }
    share_leave(p);
    swap_leave(p);
    if (p->count.pinned != 0) {
        env_panic("p2m: VM %u destroyed with %llu pages pinned", p->owner,
                  (unsigned long long)p->count.pinned);
    }
    if (p->view != NULL) {
        p->view->ops->destroy(p->view);
    }
    flush_now(&p->domain);
    node_destroy(p, env_ptr_frame(p->root), ROOT_LEVEL);
    zip_fini(p);
    while (p->retired != FRAME_LINK_NONE) {
        mfn_t mfn = MFN(p->retired);

        p->retired = frame_of(mfn)->next;
        buddy_free(mfn, 0);
    }
    share_gone(p);
    kfree(p);
}

/* ---- Layout ---- */

enum ram_pass {
    RAM_CHECK,  /* nothing there yet? */
    RAM_DIVIDE, /* nodes where a word is covered in part */
    RAM_SET
};

/* One pass over the part [first, last] of the range that lies in one node. */
static enum hv_err ram_range(struct p2m *p, uint64_t *node, unsigned level, uint64_t first,
                             uint64_t last, enum ram_pass pass)
{
    uint64_t span = level_frames(level);

    for (uint64_t at = first;; at = (at | (span - 1)) + 1) {
        uint64_t word_last = MIN(last, at | (span - 1));
        uint64_t *word = &node[word_index(GFN(at), level)];
        unsigned kind = word_kind(*word);
        bool whole = word_last - at == span - 1 && level <= RAM_LEVEL;
        enum hv_err err = HV_OK;

        if (kind != P2M_HOLE && kind != KIND_NODE) {
            return HV_EEXIST;
        }
        if (kind == P2M_HOLE && !whole && pass == RAM_DIVIDE) {
            mfn_t mfn;

            err = p2m_node_alloc(p, P2M_HOLE, &mfn);
            if (err != HV_OK) {
                return err;
            }
            word_store(word, word_next(*word, KIND_NODE, mfn));
            p->count.overhead++;
            kind = KIND_NODE;
        }
        if (kind == KIND_NODE) {
            err = ram_range(p, word_node(*word), level - 1, at, word_last, pass);
        } else if (pass == RAM_SET) {
            word_store(word, word_next(*word, P2M_UNTOUCHED, MFN(0)));
        }
        if (err != HV_OK || word_last == last) {
            return err;
        }
    }
}

/* Note where RAM is, for the scan. False: too many ranges. */
static bool note_range(struct p2m *p, gfn_t first, uint64_t nr)
{
    if (p->nr_ram != 0) {
        struct p2m_range *last = &p->ram[p->nr_ram - 1];

        if (last->first.n + last->nr == first.n) {
            last->nr += nr;
            return true;
        }
    }
    if (p->nr_ram == P2M_MAX_RANGES) {
        return false;
    }
    p->ram[p->nr_ram++] = (struct p2m_range){first, nr};
    return true;
}

enum hv_err p2m_add_ram(struct p2m *p, gfn_t first, uint64_t nr)
{
    static const enum ram_pass passes[] = {RAM_CHECK, RAM_DIVIDE, RAM_SET};
    enum hv_err err = HV_OK;

    if (nr == 0 || nr > BIT(GFN_BITS) || first.n > BIT(GFN_BITS) - nr) {
        return HV_ERANGE;
    }
    spin_lock(&p->lock);
    for (unsigned i = 0; i < ARRAY_SIZE(passes) && err == HV_OK; i++) {
        if (passes[i] == RAM_SET && !note_range(p, first, nr)) {
            err = HV_ENOMEM;
            break;
        }
        err = ram_range(p, p->root, ROOT_LEVEL, first.n, first.n + nr - 1, passes[i]);
    }
    if (err == HV_OK) {
        p->count.ram += nr;
    }
    spin_unlock(&p->lock);
    return err;
}

/* ---- Looking ---- */

static const uint64_t beyond = P2M_HOLE; /* stands for every gfn above the tree */

static inline bool has_frame(uint64_t word)
{
    return (FRAME_KINDS >> word_kind(word) & 1) != 0;
}

/* All but the word's place. */
static inline void describe(gfn_t gfn, uint64_t value, unsigned level, struct p2m_entry *out)
{
    out->seq = value;
    out->order = NODE_SHIFT * level;
    out->writable = word_kind(value) == P2M_PRIVATE;
    out->state =
        likely(word_kind(value) != KIND_NOMINATED) ? (enum p2m_state)word_kind(value) : P2M_PRIVATE;
    out->mfn =
        has_frame(value) ? mfn_add(word_mfn(value), gfn.n & (level_frames(level) - 1)) : MFN_NONE;
}

void p2m_query(struct p2m *p, gfn_t gfn, struct p2m_entry *out)
{
    uint64_t value;
    unsigned level;

    if (unlikely(gfn.n >> GFN_BITS)) {
        *out =
            (struct p2m_entry){.state = P2M_HOLE, .mfn = MFN_NONE, .seq = beyond, .word = &beyond};
        return;
    }
    out->word = p2m_find(p, gfn, &value, &level);
    describe(gfn, value, level, out);
}

void p2m_query_next(struct p2m *p, gfn_t gfn, struct p2m_entry *e)
{
    if (likely(e->order == ORDER_4K && word_index(gfn, 0) != 0 && gfn.n >> GFN_BITS == 0)) {
        uint64_t value = word_load(e->word + 1);

        if (likely(word_kind(value) != KIND_RETIRED)) {
            e->word++;
            describe(gfn, value, 0, e);
            return;
        }
    }
    p2m_query(p, gfn, e);
}

uint64_t p2m_place(const struct p2m_entry *e)
{
    return mfn_valid(e->mfn) ? e->mfn.n : word_place(e->seq);
}

const void *p2m_peek(struct p2m *p, gfn_t gfn)
{
    uint64_t value;
    unsigned level;

    if (unlikely(gfn.n >> GFN_BITS)) {
        return NULL;
    }
    (void)p2m_find(p, gfn, &value, &level);
    if (!has_frame(value)) {
        return NULL;
    }
    return env_frame_ptr(mfn_add(word_mfn(value), gfn.n & (level_frames(level) - 1)));
}

/* ---- Resolving ---- */

/* A page that `access` will take a frame for. */
static bool wants_frame(const struct p2m_entry *e, uint32_t access)
{
    switch (e->state) {
    case P2M_UNTOUCHED:
    case P2M_COMPRESSED:
    case P2M_SWAPPED:
        return true;
    case P2M_SHARED:
        return (access & P2M_WRITE) && index_refs(e->mfn) > 1;
    case P2M_ZERO:
        return (access & P2M_WRITE) != 0;
    default:
        return false;
    }
}

/* Devices' threads do not wait for their VM's being blocked: others' vCPUs may be behind them. */
static inline bool may_have_to_wait(const struct p2m *p, uint32_t access)
{
    bool blocked = __atomic_load_n(&p->blocked, __ATOMIC_RELAXED);

    return (access & P2M_LINE) || (blocked && (access & (P2M_FAST | P2M_VCPU)));
}

/* Who may have to. Copies of shared pages do not queue up: they have a reserve, without which a guest that is
 * asked for memory might not get so far as to give it. */
static bool must_wait(const struct p2m *p, const struct p2m_entry *e, uint32_t access)
{
    return wants_frame(e, access) &&
           (e->state != P2M_SHARED || __atomic_load_n(&p->blocked, __ATOMIC_RELAXED));
}

/* What is done about a page that cannot be used as it is: cow_break, zip_in, swap_in. */
typedef enum hv_err (*remedy_t)(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e);

/* Off the fast path a vCPU stands still meanwhile, which is counted. (First touches are no such stall: without
 * any pressure they take as long.) Apart, so that the fast path saves no registers for it. */
static __attribute__((noinline)) enum hv_err stalled(remedy_t remedy, struct p2m *p, gfn_t gfn,
                                                     uint32_t access, struct p2m_entry *e)
{
    uint64_t start = env_now_ns();
    enum hv_err err = remedy(p, gfn, access, e);

    spin_lock(&p->lock);
    p->count.stalled_ns += env_now_ns() - start;
    spin_unlock(&p->lock);
    return err;
}

static inline enum hv_err apply(remedy_t remedy, struct p2m *p, gfn_t gfn, uint32_t access,
                                struct p2m_entry *e)
{
    return unlikely(access & P2M_VCPU) ? stalled(remedy, p, gfn, access, e)
                                       : remedy(p, gfn, access, e);
}

enum hv_err p2m_populate(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *out)
{
    enum hv_err err;

    do {
        p2m_query(p, gfn, out);
        if (unlikely(may_have_to_wait(p, access)) && must_wait(p, out, access)) {
            return access & P2M_FAST ? HV_EAGAIN : HV_ENOMEM;
        }
        switch (out->state) {
        case P2M_PRIVATE:
            if (likely(out->writable || !(access & P2M_WRITE))) {
                return HV_OK;
            }
            err = cow_withdraw(p, access, out);
            break;
        case P2M_SHARED:
        case P2M_ZERO:
            if (!(access & P2M_WRITE)) {
                return HV_OK;
            }
            err = apply(cow_break, p, gfn, access, out);
            break;
        case P2M_UNTOUCHED:
            err = p2m_touch(p, gfn, access, out);
            break;
        case P2M_BALLOONED:
            err = access & P2M_FAST ? HV_EAGAIN : p2m_pop(p, gfn, out);
            break;
        case P2M_COMPRESSED:
            err = apply(zip_in, p, gfn, access, out);
            break;
        case P2M_SWAPPED:
        case P2M_INCOMING:
            err = apply(swap_in, p, gfn, access, out);
            break;
        default:
            return HV_ENOENT;
        }
    } while (err == HV_EBUSY);
    return err;
}

/* Whoever changes a word holds the lock until the page is dropped from the view; `pending` counts from there
 * to the flush. So who has seen the new word sees one or the other, in this order. */
bool p2m_settled(const struct p2m *p)
{
    return (!spin_is_locked(&p->lock) || MUTANT(settle_without_lock)) && !flush_is_due(&p->domain);
}

void p2m_settle(struct p2m *p)
{
    spin_lock(&p->lock);
    spin_unlock(&p->lock);
    if (flush_is_due(&p->domain)) {
        flush_now(&p->domain);
    }
}

/* False: the fast path found it unsettled. */
static bool settle_for(struct p2m *p, uint32_t access)
{
    if (MUTANT(pin_before_flush)) {
        return true;
    }
    if (access & P2M_FAST) {
        return p2m_settled(p);
    }
    p2m_settle(p);
    return true;
}

struct frame *p2m_pin_record(const struct p2m_entry *e)
{
    return frame_of(MFN(ALIGN_DOWN(e->mfn.n, BIT(e->order))));
}

/* p2m locked, the word unchanged. False: a shared frame has no room for another reference. */
static bool pin(struct p2m *p, const struct p2m_entry *e)
{
    if (e->state == P2M_PRIVATE) {
        p2m_pin_record(e)->refs++;
    } else if (e->state == P2M_SHARED) {
        if (!index_hold(e->mfn)) {
            return false;
        }
        p->shared_pins++;
        p->changes++;
    } else {
        p->shared_pins++;
    }
    p->count.pinned++;
    return true;
}

enum hv_err p2m_get(struct p2m *p, gfn_t gfn, uint32_t access, void **ptr)
{
    for (;;) {
        struct p2m_entry e;
        enum hv_err err = p2m_populate(p, gfn, access, &e);
        bool same;

        if (err != HV_OK) {
            return err;
        }
        if ((access & P2M_WRITE) && !settle_for(p, access)) {
            return HV_EAGAIN;
        }
        if (!p2m_lock_for(p, access)) {
            return HV_EAGAIN;
        }
        same = p2m_same(&e);
        if (same && !pin(p, &e)) {
            /* A frame of its own has room. */
            same = false;
            access |= P2M_WRITE;
        }
        spin_unlock(&p->lock);
        if (same) {
            if ((access & P2M_WRITE) && p->view != NULL && p->view->ops->written != NULL) {
                p->view->ops->written(p->view, gfn);
            }
            *ptr = env_frame_ptr(e.mfn);
            return HV_OK;
        }
    }
}

bool p2m_pin_private(struct p2m *p, gfn_t gfn, struct p2m_entry *e, void **ptr)
{
    bool pinned;

    spin_lock(&p->lock);
    p2m_query(p, gfn, e);
    pinned = e->state == P2M_PRIVATE && pin(p, e);
    spin_unlock(&p->lock);
    if (pinned) {
        *ptr = env_frame_ptr(e->mfn);
    }
    return pinned;
}

void p2m_unpin_private(struct p2m *p, gfn_t gfn, const struct p2m_entry *e, void *ptr)
{
    /* Large pages may have grown meanwhile, and their pins with them. */
    if (unlikely(e->order != ORDER_4K)) {
        p2m_put(p, gfn, ptr);
        return;
    }
    spin_lock(&p->lock);
    p2m_pin_record(e)->refs--;
    p->count.pinned--;
    spin_unlock(&p->lock);
}

void p2m_let_go(struct p2m *p, uint64_t nr, struct flush_batch *b)
{
    p->changes++;
    __atomic_fetch_add(&p->loose, nr, __ATOMIC_RELAXED);
    if (b != NULL && nr != 0 && !MUTANT(let_go_without_flush)) {
        flush_batch_touch(b);
    }
}

void p2m_put(struct p2m *p, gfn_t gfn, void *ptr)
{
    mfn_t mfn = env_ptr_frame(ptr);
    bool shared = false;
    struct p2m_entry e;

    spin_lock(&p->lock);
    p2m_query(p, gfn, &e);
    if (e.state == P2M_PRIVATE && e.mfn.n == mfn.n && p2m_pin_record(&e)->refs != 0) {
        p2m_pin_record(&e)->refs--;
    } else if (p->shared_pins != 0) {
        shared = mfn.n != share_zero_frame.n;
        p->shared_pins--;
        if (shared) {
            p2m_let_go(p, 1, NULL);
        }
    } else {
        env_panic("p2m: gfn %#llx of VM %u is not pinned", (unsigned long long)gfn.n, p->owner);
    }
    p->count.pinned--;
    spin_unlock(&p->lock);
    if (shared) {
        (void)p2m_drop(p, mfn);
    }
}

/* ---- Small accessors ---- */

void p2m_counters(struct p2m *p, struct p2m_counters *out)
{
    spin_lock(&p->lock);
    *out = p->count;
    spin_unlock(&p->lock);
}

bool p2m_try_counters(struct p2m *p, struct p2m_counters *out)
{
    if (!spin_trylock(&p->lock)) {
        return false;
    }
    *out = p->count;
    spin_unlock(&p->lock);
    return true;
}

void p2m_freeze(struct p2m *p)
{
    spin_lock(&p->lock);
}

void p2m_thaw(struct p2m *p)
{
    spin_unlock(&p->lock);
}

struct flush_domain *p2m_flush_domain(struct p2m *p)
{
    return &p->domain;
}

void p2m_set_view(struct p2m *p, struct view *v)
{
    p->view = v;
}

struct view *p2m_view(struct p2m *p)
{
    return p->view;
}

uint32_t p2m_owner(const struct p2m *p)
{
    return p->owner;
}

bool p2m_wants_large(const struct p2m *p)
{
    return p->large_pages && p->max_order >= ORDER_2M;
}

unsigned p2m_max_order(const struct p2m *p)
{
    return p->max_order;
}
