/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested view: tables that translate guest-physical to machine addresses, walked by the
 * processor beneath the guest's own (NPT, EPT). A cache of the p2m: filled by faults, with leaves as
 * large as the p2m's words, and dropped at will.
 *
 * A fill takes what the p2m says first, then the view's lock, and enters the leaf only if the p2m
 * still says so; whoever changes the p2m changes the word first and drops from the view afterwards,
 * under the same lock: so no stale leaf stays. Callers: kernel/vm/fault, the p2m.
 *
 * Where code must not be in large leaves (env_large_code), they give no right to execute. A page that is
 * executed gets that right with a leaf of its own (a *piece*): the block around it is spelt out, and stays so
 * as long as a piece has the right.
 */
#include "mm/view.h"

#include "kernel/lib/mutant.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/pt/pt.h"
#include "mm/slab.h"

struct nested {
    struct view view;
    struct spinlock lock; /* everything below */
    struct pt pt;
    /* By level: of a leaf of write-back memory, with all rights that it may have. */
    uint64_t leaf_bits[3];
    uint64_t piece_bits; /* of a piece of such a leaf that nobody executes */
    bool typed;          /* there is other memory, and leaves must tell it apart */
    bool small_code;     /* nothing larger than 4 KiB may be executed */
    uint64_t read_bits;  /* of such a leaf of 4 KiB that may not be written */
    uint64_t fills;
};

static const struct pt_attr full_rights = {PT_R | PT_W | PT_X, PT_WB, false};
static const struct pt_attr data_rights = {PT_R | PT_W, PT_WB, false};
static const struct pt_attr read_rights = {PT_R | PT_X, PT_WB, false};

static struct nested *nested_of(struct view *v)
{
    return container_of(v, struct nested, view);
}

/* A leaf may be smaller than the p2m's block, where the processor maps no larger ones. */
static unsigned leaf_level(const struct nested *n, const struct p2m_entry *e)
{
    return MIN(e->order / ORDER_2M, n->pt.max_level);
}

/* The machine address of the leaf of that level around gfn. */
static uint64_t leaf_pa(const struct p2m_entry *e, unsigned level)
{
    return ALIGN_DOWN(e->mfn.n << PAGE_SHIFT, PAGE_SIZE << (ORDER_2M * level));
}

/* A page of a large leaf is executed that must not be: it gets a piece. */
static bool wants_piece(const struct nested *n, unsigned level, uint32_t access)
{
    return level != 0 && (access & P2M_EXEC) && n->small_code;
}

/* May a leaf of that level, entered for that access, be executed? */
static bool may_execute(const struct nested *n, const struct p2m_entry *e, unsigned level,
                        uint32_t access)
{
    return !n->small_code || leaf_level(n, e) == 0 || (level == 0 && (access & P2M_EXEC));
}

/* The rights that the p2m gives, and the memory type of the frames at pa. */
static struct pt_attr leaf_attr(const struct nested *n, const struct p2m_entry *e, uint64_t pa,
                                unsigned level, uint32_t access)
{
    struct pt_attr attr = !may_execute(n, e, level, access) ? data_rights
                          : e->writable                     ? full_rights
                                                            : read_rights;

    if (unlikely(n->typed)) {
        attr.type = (enum pt_type)env_memory_type(HPA(pa), PAGE_SIZE << (ORDER_2M * level));
    }
    return attr;
}

static uint64_t leaf_bits(const struct nested *n, const struct p2m_entry *e, uint64_t pa,
                          unsigned level)
{
    if (unlikely(n->typed)) {
        return pt_leaf_bits(n->pt.fmt, level * ORDER_2M, leaf_attr(n, e, pa, level, 0));
    }
    return likely(e->writable) ? n->leaf_bits[level] : n->read_bits;
}

/* What a piece may be used for: what it is now, and what it is wanted for. */
static uint64_t piece_bits(const struct nested *n, const struct p2m_entry *e, uint64_t pa,
                           uint64_t was, uint32_t access)
{
    bool code = was != 0 && ((was ^ n->piece_bits) & (n->leaf_bits[0] ^ n->piece_bits)) != 0;
    uint32_t wanted = access | (code ? P2M_EXEC : 0);

    if (unlikely(n->typed)) {
        return pt_leaf_bits(n->pt.fmt, ORDER_4K, leaf_attr(n, e, pa, 0, wanted));
    }
    return wanted & P2M_EXEC ? n->leaf_bits[0] : n->piece_bits;
}

/* Enter one page of a large one that is spelt out. HV_EAGAIN: it is not. */
static enum hv_err fill_piece(struct nested *n, gfn_t gfn, const struct p2m_entry *e,
                              uint32_t access)
{
    uint64_t *slot = pt_slot(&n->pt, gfn_gpa(gfn).a, 0);
    uint64_t pa = e->mfn.n << PAGE_SHIFT;

    if (slot == NULL || (*slot != 0 && ((*slot ^ pa) & n->pt.fmt->address) != 0)) {
        return HV_EAGAIN;
    }
    pt_fill(&n->pt, slot, 0, pa | piece_bits(n, e, pa, *slot, access));
    n->fills++;
    return HV_OK;
}

/* Enter the leaf where its table exists. HV_EAGAIN: it does not, or another frame or a table is
 * there, whose removal takes a flush. */
static enum hv_err fill_slot(struct nested *n, gfn_t gfn, const struct p2m_entry *e,
                             uint32_t access)
{
    unsigned level = likely(e->order == ORDER_4K) ? 0 : leaf_level(n, e);

    if (wants_piece(n, level, access)) {
        return fill_piece(n, gfn, e, access);
    }
    uint64_t pa = leaf_pa(e, level), leaf = pa | leaf_bits(n, e, pa, level);
    uint64_t *slot = pt_slot(&n->pt, gfn_gpa(gfn).a, level);

    if (slot == NULL || (*slot != 0 && ((*slot ^ leaf) & n->pt.fmt->address) != 0)) {
        return level == 0 ? HV_EAGAIN : fill_piece(n, gfn, e, access);
    }
    /* What is there already may have more rights, and is about to lose them by nested_protect. */
    if (likely(e->writable) || *slot == 0) {
        pt_fill(&n->pt, slot, level, leaf);
    }
    n->fills++;
    return HV_OK;
}

/* Enter a leaf of that level with whatever tables it takes, and the rights of leaf_attr. */
static enum hv_err map_leaf(struct nested *n, gfn_t gfn, const struct p2m_entry *e, unsigned level,
                            uint32_t access, struct flush_batch *batch)
{
    uint64_t size = PAGE_SIZE << (ORDER_2M * level), pa = leaf_pa(e, level);

    return pt_map(&n->pt, ALIGN_DOWN(gfn_gpa(gfn).a, size), HPA(pa), size,
                  leaf_attr(n, e, pa, level, access), batch);
}

/* Enter the leaf with whatever tables that takes. */
static enum hv_err fill_tables(struct nested *n, gfn_t gfn, const struct p2m_entry *e,
                               uint32_t access, struct flush_batch *batch)
{
    unsigned level = leaf_level(n, e);
    enum hv_err err = HV_OK;

    if (wants_piece(n, level, access)) {
        const uint64_t *slot = pt_slot(&n->pt, gfn_gpa(gfn).a, level);

        /* What is around the piece needs no faults of its own. */
        if (slot == NULL || *slot == 0) {
            err = map_leaf(n, gfn, e, level, 0, batch);
        }
        level = 0;
    }
    if (err == HV_OK) {
        err = map_leaf(n, gfn, e, level, access, batch);
    }
    n->fills += err == HV_OK;
    return err;
}

static enum hv_err fault_slow(struct nested *n, gfn_t gfn, uint32_t access)
{
    struct flush_batch batch;
    struct p2m_entry e;
    enum hv_err err = p2m_populate(n->view.p2m, gfn, access, &e);

    if (err != HV_OK) {
        return err;
    }
    if (e.writable && !MUTANT(fill_before_flush)) {
        p2m_settle(n->view.p2m);
    }
    flush_batch_init(&batch, p2m_flush_domain(n->view.p2m));
    spin_lock(&n->lock);
    /* If the p2m changed meanwhile, the guest's next access faults and asks again. */
    if (p2m_same(&e) || MUTANT(fill_without_recheck)) {
        err = fill_slot(n, gfn, &e, access);
        if (err == HV_EAGAIN) {
            err = fill_tables(n, gfn, &e, access, &batch);
        }
    }
    spin_unlock(&n->lock);
    flush_batch_commit(&batch);
    return err;
}

static enum hv_err nested_fault(struct view *v, gpa_t gpa, uint32_t access)
{
    struct nested *n = nested_of(v);
    struct p2m_entry e;

    if (!(access & P2M_FAST)) {
        return fault_slow(n, gpa_gfn(gpa), access);
    }
    enum hv_err err = p2m_populate(v->p2m, gpa_gfn(gpa), access, &e);

    if (err != HV_OK) {
        return err;
    }
    if (!spin_trylock(&n->lock)) {
        return HV_EAGAIN;
    }
    /*
     * Instead of p2m_settled, which says no whenever somebody holds the p2m's lock. Who puts another frame
     * behind a page changes the word and then drops the page under the view's lock, which is ours now. If it
     * has dropped, its batch is pending until the flush is done, and shows here. If it has not, the old leaf
     * is in its slot, where fill_slot meets another frame and enters nothing. If the slot is empty, who took
     * the leaf out before counts as pending, or has flushed. Of a large leaf that is true page by page: it
     * is entered only into an empty slot, beneath which none of its pages has a leaf. What try_drop took
     * counts nowhere: that was the VM's only vCPU, which flushes before it runs on.
     */
    bool due = e.writable && flush_is_due(p2m_flush_domain(v->p2m)) && !MUTANT(fill_before_flush);

    err = (likely(p2m_same(&e)) && !due) || MUTANT(fast_fill_without_recheck)
              ? fill_slot(n, gpa_gfn(gpa), &e, access)
              : HV_EAGAIN;
    spin_unlock(&n->lock);
    return err;
}

static void nested_drop(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b)
{
    struct nested *n = nested_of(v);
    uint64_t *slot;

    spin_lock(&n->lock);
    slot = nr == 1 ? pt_slot(&n->pt, gfn_gpa(first).a, 0) : NULL;
    if (slot != NULL) {
        pt_unmap_slot(&n->pt, slot, b);
    } else {
        pt_unmap(&n->pt, gfn_gpa(first).a, nr << PAGE_SHIFT, b);
    }
    flush_batch_join(b);
    spin_unlock(&n->lock);
}

static bool nested_try_drop(struct view *v, gfn_t gfn)
{
    struct nested *n = nested_of(v);
    uint64_t *slot;

    if (!spin_trylock(&n->lock)) {
        return false;
    }
    slot = pt_slot(&n->pt, gfn_gpa(gfn).a, 0);
    if (slot != NULL) {
        pt_clear(&n->pt, slot);
    }
    spin_unlock(&n->lock);
    return slot != NULL;
}

static void nested_protect(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b)
{
    struct nested *n = nested_of(v);
    uint64_t *slot;

    spin_lock(&n->lock);
    slot = nr == 1 ? pt_slot(&n->pt, gfn_gpa(first).a, 0) : NULL;
    if (slot != NULL) {
        pt_protect_slot(&n->pt, slot, PT_R | PT_X, b);
    } else {
        pt_protect(&n->pt, gfn_gpa(first).a, nr << PAGE_SHIFT, PT_R | PT_X, b);
    }
    flush_batch_join(b);
    spin_unlock(&n->lock);
}

static bool nested_age(struct view *v, gfn_t gfn, struct flush_batch *b)
{
    struct nested *n = nested_of(v);
    struct p2m_entry e;
    bool used;

    p2m_query(v->p2m, gfn, &e);
    spin_lock(&n->lock);
    used = pt_age(&n->pt, gfn_gpa(gfn).a, ORDER_2M * leaf_level(n, &e), b);
    spin_unlock(&n->lock);
    return used;
}

/* ---- Watching single pages ---- */

static enum hv_err nested_watch(struct view *v, gfn_t gfn, bool by_bit, struct flush_batch *b,
                                enum view_watch *how)
{
    struct nested *n = nested_of(v);
    uint64_t va = gfn_gpa(gfn).a;
    struct p2m_entry e;
    enum hv_err err;

    p2m_query(v->p2m, gfn, &e);
    *how = e.order != ORDER_4K                  ? WATCH_PIECE
           : by_bit && n->pt.fmt->accessed != 0 ? WATCH_BIT
                                                : WATCH_GONE;
    spin_lock(&n->lock);
    err = pt_split(&n->pt, va, ORDER_4K, b);
    if (err == HV_OK && *how == WATCH_BIT) {
        (void)pt_age(&n->pt, va, ORDER_4K, b);
    } else if (err == HV_OK) {
        pt_unmap_slot(&n->pt, pt_slot(&n->pt, va, 0), b);
    }
    spin_unlock(&n->lock);
    if (err == HV_ENOENT) {
        /* Nothing is mapped there: the next use shows all the same. */
        *how = WATCH_GONE;
        return HV_OK;
    }
    return err;
}

static enum view_use nested_watched(struct view *v, gfn_t gfn, enum view_watch how)
{
    struct nested *n = nested_of(v);
    enum view_use use = USE_NONE;
    struct pt_leaf leaf;

    spin_lock(&n->lock);
    if (pt_lookup(&n->pt, gfn_gpa(gfn).a, &leaf)) {
        if (leaf.order != ORDER_4K) {
            use = USE_UNKNOWN;
        } else if (how != WATCH_BIT || (leaf.entry & n->pt.fmt->accessed) != 0) {
            use = USE_SEEN;
        }
    } else if (how == WATCH_PIECE && pt_slot(&n->pt, gfn_gpa(gfn).a, 0) == NULL) {
        use = USE_UNKNOWN;
    }
    spin_unlock(&n->lock);
    return use;
}

/* The piece may go back into a larger leaf: that may be executed, or it is not. */
static bool may_grow(const struct nested *n, gfn_t gfn)
{
    struct pt_leaf leaf;

    return !n->small_code || !pt_lookup(&n->pt, gfn_gpa(gfn).a, &leaf) || !(leaf.attr.perm & PT_X);
}

static void nested_unwatch(struct view *v, gfn_t gfn, struct flush_batch *b)
{
    struct nested *n = nested_of(v);
    struct pt_leaf leaf;
    struct p2m_entry e;

    p2m_query(v->p2m, gfn, &e);
    if (e.order == ORDER_4K || !mfn_valid(e.mfn)) {
        return;
    }
    spin_lock(&n->lock);
    if (p2m_same(&e)) {
        bool unused = !pt_lookup(&n->pt, gfn_gpa(gfn).a, &leaf);

        if (fill_piece(n, gfn, &e, 0) == HV_OK && unused && n->pt.fmt->accessed != 0) {
            (void)pt_age(&n->pt, gfn_gpa(gfn).a, ORDER_4K, b);
        }
        unsigned top = may_grow(n, gfn) ? leaf_level(n, &e) : 0;
        for (unsigned level = 1; level <= top; level++) {
            if (!pt_merge(&n->pt, gfn_gpa(gfn).a, level * ORDER_2M, b)) {
                break;
            }
        }
    }
    spin_unlock(&n->lock);
}

static enum hv_err nested_root(struct view *v, hpa_t *out)
{
    *out = mfn_hpa(nested_of(v)->pt.root);
    return HV_OK;
}

static bool nested_stats(struct view *v, struct view_stats *out)
{
    struct nested *n = nested_of(v);

    if (!spin_trylock(&n->lock)) {
        return false;
    }
    *out = (struct view_stats){
        .tables = n->pt.tables,
        .leaves_4k = n->pt.leaves[0],
        .leaves_2m = n->pt.leaves[1],
        .leaves_1g = n->pt.leaves[2],
        .fills = n->fills,
    };
    spin_unlock(&n->lock);
    return true;
}

/* A leaf is true if the p2m has the same frame behind its first page, in a block at least as large, if it
 * lets nothing be written that the p2m does not, and nothing be executed where it is too large for that. */
static bool leaf_is_true(const struct pt_leaf *leaf, void *ctx)
{
    struct nested *n = ctx;
    struct p2m_entry e;

    p2m_query(n->view.p2m, gpa_gfn(GPA(leaf->va)), &e);
    if (mfn_valid(e.mfn) && e.order >= leaf->order && e.mfn.n == hpa_mfn(leaf->pa).n &&
        (e.writable || !(leaf->attr.perm & PT_W)) &&
        (!n->small_code || leaf->order == ORDER_4K || !(leaf->attr.perm & PT_X))) {
        return true;
    }
    env_log("audit: view maps gpa %#llx order %u rights %u to %#llx; p2m has state %u order %u "
            "frame %#llx",
            (unsigned long long)leaf->va, leaf->order, leaf->attr.perm,
            (unsigned long long)leaf->pa.a, e.state, e.order, (unsigned long long)e.mfn.n);
    return false;
}

static bool nested_audit(struct view *v)
{
    struct nested *n = nested_of(v);
    bool ok;

    /* What the p2m changes it drops before it lets go of its lock. */
    p2m_freeze(v->p2m);
    spin_lock(&n->lock);
    ok = pt_audit(&n->pt) && pt_visit(&n->pt, leaf_is_true, n);
    spin_unlock(&n->lock);
    p2m_thaw(v->p2m);
    return ok;
}

static void nested_destroy(struct view *v)
{
    struct nested *n = nested_of(v);
    struct flush_batch batch;

    p2m_set_view(v->p2m, NULL);
    flush_batch_init(&batch, p2m_flush_domain(v->p2m));
    pt_destroy(&n->pt, &batch);
    flush_batch_commit(&batch);
    kfree(n);
}

static const struct view_ops nested_ops = {
    .fault = nested_fault,
    .drop = nested_drop,
    .try_drop = nested_try_drop,
    .protect = nested_protect,
    .age = nested_age,
    .watch = nested_watch,
    .watched = nested_watched,
    .unwatch = nested_unwatch,
    .root = nested_root,
    .stats = nested_stats,
    .audit = nested_audit,
    .destroy = nested_destroy,
};

enum hv_err nested_create(struct p2m *p2m, const struct pt_format *fmt, uint32_t owner,
                          struct view **out)
{
    struct nested *n = kmalloc(sizeof(*n), owner);
    enum hv_err err;

    if (n == NULL) {
        return HV_ENOMEM;
    }
    err = pt_create(&n->pt, fmt, p2m_max_order(p2m), FRAME_VIEW, owner);
    if (err != HV_OK) {
        kfree(n);
        return err;
    }
    n->view = (struct view){&nested_ops, p2m};
    spin_init(&n->lock, RANK_VIEW, "nested view");
    n->typed = fmt->typed_by_leaf && !env_memory_is_wb();
    n->small_code = !env_large_code();
    for (unsigned i = 0; i < ARRAY_SIZE(n->leaf_bits); i++) {
        n->leaf_bits[i] =
            pt_leaf_bits(fmt, i * ORDER_2M, n->small_code && i > 0 ? data_rights : full_rights);
    }
    n->piece_bits = pt_leaf_bits(fmt, ORDER_4K, n->small_code ? data_rights : full_rights);
    n->read_bits = pt_leaf_bits(fmt, ORDER_4K, read_rights);
    p2m_set_view(p2m, &n->view);
    *out = &n->view;
    return HV_OK;
}
