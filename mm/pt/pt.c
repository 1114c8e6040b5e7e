/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The page-table engine; rules and drawing in pt.h. Range operations recurse over the levels, at
 * most PT_MAX_LEVELS deep. Addresses are compared by their last byte, so that a range may end where
 * the address space does.
 */
#include "mm/pt/pt.h"

#include "kernel/lib/mutant.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/pt/pt_internal.h"

#define NO_VA UINT64_MAX

/* ---- Leaves ---- */

static uint64_t perm_bits(const struct pt_format *fmt, uint32_t perm)
{
    uint64_t bits = 0;

    for (unsigned i = 0; i < PT_NR_PERMS; i++) {
        bool allowed = (perm >> i & 1) != 0;
        bool inverted = (fmt->perm[i] & fmt->perm_inverted) != 0;

        bits |= allowed != inverted ? fmt->perm[i] : 0;
    }
    return bits;
}

static uint64_t perm_mask(const struct pt_format *fmt)
{
    return fmt->perm[0] | fmt->perm[1] | fmt->perm[2] | fmt->perm[3];
}

static uint32_t perm_decode(const struct pt_format *fmt, uint64_t entry)
{
    uint32_t perm = 0;

    for (unsigned i = 0; i < PT_NR_PERMS; i++) {
        if (((entry ^ fmt->perm_inverted) & fmt->perm[i]) != 0) {
            perm |= 1u << i;
        }
    }
    return perm;
}

uint64_t pt_leaf_bits(const struct pt_format *fmt, unsigned order, struct pt_attr attr)
{
    unsigned large = order > 0;

    return fmt->leaf_bits | (large ? fmt->large_leaf_bits : 0) | perm_bits(fmt, attr.perm) |
           fmt->type[large][attr.type] | (attr.global ? fmt->global : 0);
}

static uint64_t leaf_pa(const struct pt *pt, uint64_t entry, unsigned level)
{
    return entry & pt->fmt->address & ~(level_span(level) - 1);
}

static struct pt_attr leaf_attr(const struct pt *pt, uint64_t entry, unsigned level)
{
    const struct pt_format *fmt = pt->fmt;
    unsigned large = level > 0;
    struct pt_attr attr = {
        .perm = perm_decode(fmt, entry), .type = PT_WB, .global = (entry & fmt->global) != 0};

    for (unsigned type = 0; type < PT_NR_TYPES; type++) {
        if ((entry & fmt->type_mask[large]) == fmt->type[large][type]) {
            attr.type = (enum pt_type)type;
            break;
        }
    }
    return attr;
}

struct pt_leaf pt_describe(const struct pt *pt, uint64_t entry, unsigned level, uint64_t va)
{
    return (struct pt_leaf){
        .order = LEVEL_ORDER * level,
        .va = ALIGN_DOWN(va, level_span(level)),
        .pa = HPA(leaf_pa(pt, entry, level)),
        .entry = entry,
        .attr = leaf_attr(pt, entry, level),
    };
}

/* Note that the leaf `was` no longer stands there as it did. */
static void note_change(struct flush_batch *batch)
{
    if (batch != NULL) {
        flush_batch_touch(batch);
    }
}

/* ---- Tables ---- */

static enum hv_err table_alloc(const struct pt *pt, mfn_t *out)
{
    if (!env_may_allocate("pt.table")) {
        return HV_ENOMEM;
    }
    return buddy_alloc(0, pt->use, pt->owner, BUDDY_ZERO, out);
}

/* Take a table and all below it out of the count; free it after the flush. */
static void table_discard(struct pt *pt, mfn_t table, unsigned level, struct flush_batch *batch)
{
    const uint64_t *entries = env_frame_ptr(table);

    for (unsigned i = 0; i < PT_ENTRIES; i++) {
        if (!is_present(pt, entries[i])) {
            continue;
        }
        if (is_table(pt, entries[i], level)) {
            table_discard(pt, entry_table(pt, entries[i]), level - 1, batch);
        } else {
            pt->leaves[level]--;
        }
    }
    pt->tables--;
    pt->last_va = NO_VA;
    if (batch != NULL && !MUTANT(table_freed_at_once)) {
        flush_batch_free(batch, table, 0);
    } else {
        buddy_free(table, 0);
    }
}

enum hv_err pt_create(struct pt *pt, const struct pt_format *fmt, unsigned max_order,
                      enum frame_use use, uint32_t owner)
{
    *pt = (struct pt){.fmt = fmt,
                      .max_level = max_order / LEVEL_ORDER,
                      .use = use,
                      .owner = owner,
                      .tables = 1,
                      .last_va = NO_VA};
    enum hv_err err = table_alloc(pt, &pt->root);

    if (err == HV_OK) {
        pt->root_table = env_frame_ptr(pt->root);
    }
    return err;
}

void pt_destroy(struct pt *pt, struct flush_batch *batch)
{
    table_discard(pt, pt->root, pt->fmt->levels - 1, batch);
    pt->root = MFN_NONE;
}

/* Replace what stands in a slot by a leaf, or by nothing (0). */
static void slot_replace(struct pt *pt, uint64_t *slot, unsigned level, uint64_t entry,
                         struct flush_batch *batch)
{
    uint64_t was = __atomic_exchange_n(slot, entry, __ATOMIC_ACQ_REL);

    if (is_present(pt, entry)) {
        pt->leaves[level]++;
    }
    if (!is_present(pt, was)) {
        return;
    }
    if (!MUTANT(drop_without_flush)) {
        note_change(batch);
    }
    if (is_table(pt, was, level)) {
        table_discard(pt, entry_table(pt, was), level - 1, batch);
    } else {
        pt->leaves[level]--;
    }
}

/* Put the empty table `mfn` into a slot that is empty or holds a leaf, which it then spells out. */
static void slot_spread(struct pt *pt, uint64_t *slot, unsigned level, mfn_t mfn,
                        struct flush_batch *batch)
{
    uint64_t was = entry_load(slot);
    uint64_t *table = env_frame_ptr(mfn);

    if (is_present(pt, was)) {
        const struct pt_format *fmt = pt->fmt;
        uint64_t bits = pt_leaf_bits(fmt, LEVEL_ORDER * (level - 1), leaf_attr(pt, was, level));
        uint64_t used = was & (fmt->accessed | fmt->dirty);

        bits = (bits & ~(fmt->accessed | fmt->dirty)) | used;
        for (unsigned i = 0; i < PT_ENTRIES; i++) {
            table[i] = (leaf_pa(pt, was, level) + i * level_span(level - 1)) | bits;
        }
        pt->leaves[level]--;
        pt->leaves[level - 1] += PT_ENTRIES;
        note_change(batch);
    }
    pt->tables++;
    entry_store(slot, mfn_hpa(mfn).a | pt->fmt->table_bits);
}

/* ---- Looking ---- */

/* The slot where the walk for va ends at `stop` or above: a leaf, nothing, or the table there. */
static uint64_t *walk(const struct pt *pt, uint64_t va, unsigned stop, unsigned *level_out)
{
    uint64_t *table = root_table(pt);
    unsigned level = pt->fmt->levels - 1;

    for (;; level--) {
        uint64_t *slot = &table[level_index(va, level)];
        uint64_t entry = entry_load(slot);

        if (level == stop || !is_present(pt, entry) || !is_table(pt, entry, level)) {
            *level_out = level;
            return slot;
        }
        table = entry_child(pt, entry);
    }
}

uint64_t *pt_slot(struct pt *pt, uint64_t va, unsigned level)
{
    uint64_t *table = root_table(pt);

    if (level == 0 && ALIGN_DOWN(va, level_span(1)) == pt->last_va) {
        return &pt->last_table[level_index(va, 0)];
    }
    for (unsigned at = pt->fmt->levels - 1; at > level; at--) {
        uint64_t entry = entry_load(&table[level_index(va, at)]);

        if (!is_table(pt, entry, at)) {
            return NULL;
        }
        table = entry_child(pt, entry);
    }
    if (level == 0) {
        pt->last_va = ALIGN_DOWN(va, level_span(1));
        pt->last_table = table;
    }
    return &table[level_index(va, level)];
}

void pt_fill(struct pt *pt, uint64_t *slot, unsigned level, uint64_t entry)
{
    if (!is_present(pt, entry_load(slot))) {
        pt->leaves[level]++;
    }
    entry_store(slot, entry);
}

void pt_clear(struct pt *pt, uint64_t *slot)
{
    if (is_present(pt, __atomic_exchange_n(slot, 0, __ATOMIC_ACQ_REL))) {
        pt->leaves[0]--;
    }
}

bool pt_lookup(const struct pt *pt, uint64_t va, struct pt_leaf *out)
{
    unsigned level;
    uint64_t entry = entry_load(walk(pt, va, 0, &level));

    if (!is_present(pt, entry)) {
        return false;
    }
    *out = pt_describe(pt, entry, level, va);
    return true;
}

/* ---- Mapping ---- */

struct map_job {
    struct pt *pt;
    uint64_t offset; /* machine address minus virtual address */
    struct pt_attr attr;
    struct pt_spare *spare; /* NULL: only count the tables that are needed */
    struct flush_batch *batch;
    uint64_t needed;
};

static mfn_t spare_take(struct pt_spare *spare)
{
    mfn_t mfn = spare->head;

    if (spare->nr == 0) {
        env_panic("pt: commit of a range that was not prepared");
    }
    spare->head = MFN(frame_of(mfn)->gfn);
    spare->nr--;
    return mfn;
}

/* The part [va, last] of the range, within one table; table NULL: it does not exist yet. */
static void map_range(struct map_job *job, uint64_t *table, unsigned level, uint64_t va,
                      uint64_t last)
{
    struct pt *pt = job->pt;
    uint64_t span = level_span(level);

    for (;;) {
        uint64_t slot_last = MIN(last, va | (span - 1));
        uint64_t *slot = table != NULL ? &table[level_index(va, level)] : NULL;
        uint64_t entry = slot != NULL ? entry_load(slot) : 0;
        uint64_t pa = va + job->offset;

        if (may_be_leaf(pt, level) && slot_last - va == span - 1 && IS_ALIGNED(pa, span)) {
            if (job->spare != NULL) {
                slot_replace(pt, slot, level,
                             pa | pt_leaf_bits(pt->fmt, LEVEL_ORDER * level, job->attr),
                             job->batch);
            }
        } else {
            uint64_t *child = NULL;

            if (is_present(pt, entry) && is_table(pt, entry, level)) {
                child = entry_child(pt, entry);
            } else if (job->spare != NULL) {
                slot_spread(pt, slot, level, spare_take(job->spare), job->batch);
                child = entry_child(pt, entry_load(slot));
            } else {
                job->needed++;
            }
            map_range(job, child, level - 1, va, slot_last);
        }
        if (slot_last == last) {
            return;
        }
        va = slot_last + 1;
    }
}

enum hv_err pt_prepare(const struct pt *pt, uint64_t va, hpa_t pa, uint64_t size,
                       struct pt_spare *spare)
{
    struct pt copy = *pt; /* counting changes nothing */
    struct map_job job = {.pt = &copy, .offset = pa.a - va};

    *spare = (struct pt_spare){MFN_NONE, 0};
    if (size == 0 || !IS_ALIGNED(va | pa.a | size, PAGE_SIZE)) {
        return HV_EINVAL;
    }
    map_range(&job, root_table(pt), pt->fmt->levels - 1, va, va + size - 1);
    while (spare->nr < job.needed) {
        mfn_t mfn;

        if (table_alloc(pt, &mfn) != HV_OK) {
            pt_spare_free(spare);
            return HV_ENOMEM;
        }
        frame_of(mfn)->gfn = spare->head.n;
        spare->head = mfn;
        spare->nr++;
    }
    return HV_OK;
}

void pt_commit(struct pt *pt, uint64_t va, hpa_t pa, uint64_t size, struct pt_attr attr,
               struct pt_spare *spare, struct flush_batch *batch)
{
    struct map_job job = {
        .pt = pt, .offset = pa.a - va, .attr = attr, .spare = spare, .batch = batch};

    map_range(&job, root_table(pt), pt->fmt->levels - 1, va, va + size - 1);
}

void pt_spare_free(struct pt_spare *spare)
{
    while (spare->nr != 0) {
        buddy_free(spare_take(spare), 0);
    }
}

enum hv_err pt_map(struct pt *pt, uint64_t va, hpa_t pa, uint64_t size, struct pt_attr attr,
                   struct flush_batch *batch)
{
    struct pt_spare spare;
    enum hv_err err = pt_prepare(pt, va, pa, size, &spare);

    if (err == HV_OK) {
        pt_commit(pt, va, pa, size, attr, &spare, batch);
        pt_spare_free(&spare);
    }
    return err;
}

/* ---- Splitting and merging ---- */

enum hv_err pt_split(struct pt *pt, uint64_t va, unsigned order, struct flush_batch *batch)
{
    for (;;) {
        unsigned level;
        uint64_t *slot = walk(pt, va, 0, &level);
        mfn_t table;
        enum hv_err err;

        if (!is_present(pt, entry_load(slot))) {
            return HV_ENOENT;
        }
        if (LEVEL_ORDER * level <= order) {
            return HV_OK;
        }
        err = table_alloc(pt, &table);
        if (err != HV_OK) {
            return err;
        }
        slot_spread(pt, slot, level, table, batch);
    }
}

bool pt_merge(struct pt *pt, uint64_t va, unsigned order, struct flush_batch *batch)
{
    unsigned level = order / LEVEL_ORDER;
    uint64_t used = pt->fmt->accessed | pt->fmt->dirty;
    uint64_t *slot = pt_slot(pt, va, level);
    uint64_t seen = 0;
    const uint64_t *table;
    uint64_t first;

    if (slot == NULL || level == 0 || !may_be_leaf(pt, level) ||
        !is_present(pt, entry_load(slot)) || !is_table(pt, entry_load(slot), level)) {
        return false;
    }
    table = entry_child(pt, entry_load(slot));
    first = entry_load(&table[0]);
    if (!is_present(pt, first) || is_table(pt, first, level - 1) ||
        !IS_ALIGNED(leaf_pa(pt, first, level - 1), level_span(level))) {
        return false;
    }
    for (unsigned i = 0; i < PT_ENTRIES; i++) {
        uint64_t entry = entry_load(&table[i]);

        if ((entry & ~used) != (first & ~used) + i * level_span(level - 1)) {
            return false;
        }
        seen |= entry & used;
    }
    slot_replace(pt, slot, level,
                 leaf_pa(pt, first, level - 1) | seen |
                     (pt_leaf_bits(pt->fmt, order, leaf_attr(pt, first, level - 1)) & ~used),
                 batch);
    return true;
}

/* ---- Removing and weakening ---- */

/* perm UINT32_MAX: remove. */
static void change_leaf(struct pt *pt, uint64_t *slot, unsigned level, uint32_t perm,
                        struct flush_batch *batch)
{
    const struct pt_format *fmt = pt->fmt;
    uint64_t was = entry_load(slot);
    uint64_t now;

    if (perm == UINT32_MAX) {
        slot_replace(pt, slot, level, 0, batch);
        return;
    }
    /* The processor may set accessed and dirty meanwhile. */
    do {
        now = (was & ~perm_mask(fmt)) | perm_bits(fmt, perm_decode(fmt, was) & perm);
    } while (
        !__atomic_compare_exchange_n(slot, &was, now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    if (!is_present(pt, now)) {
        pt->leaves[level]--;
    }
    if ((perm_decode(fmt, was) & ~perm) != 0 && !MUTANT(protect_without_flush)) {
        note_change(batch);
    }
}

void pt_unmap_slot(struct pt *pt, uint64_t *slot, struct flush_batch *batch)
{
    slot_replace(pt, slot, 0, 0, batch);
}

void pt_protect_slot(struct pt *pt, uint64_t *slot, uint32_t perm, struct flush_batch *batch)
{
    if (is_present(pt, entry_load(slot))) {
        change_leaf(pt, slot, 0, perm, batch);
    }
}

static void change_range(struct pt *pt, uint64_t *table, unsigned level, uint64_t va, uint64_t last,
                         uint32_t perm, struct flush_batch *batch)
{
    uint64_t span = level_span(level);

    for (;;) {
        uint64_t slot_last = MIN(last, va | (span - 1));
        uint64_t *slot = &table[level_index(va, level)];
        uint64_t entry = entry_load(slot);

        if (is_present(pt, entry)) {
            bool whole = slot_last - va == span - 1;

            if (!is_table(pt, entry, level) || (whole && perm == UINT32_MAX)) {
                change_leaf(pt, slot, level, perm, batch);
            } else {
                change_range(pt, entry_child(pt, entry), level - 1, va, slot_last, perm, batch);
            }
        }
        if (slot_last == last) {
            return;
        }
        va = slot_last + 1;
    }
}

void pt_unmap(struct pt *pt, uint64_t va, uint64_t size, struct flush_batch *batch)
{
    change_range(pt, root_table(pt), pt->fmt->levels - 1, va, va + size - 1, UINT32_MAX, batch);
}

void pt_protect(struct pt *pt, uint64_t va, uint64_t size, uint32_t perm, struct flush_batch *batch)
{
    change_range(pt, root_table(pt), pt->fmt->levels - 1, va, va + size - 1, perm, batch);
}

/* Test and clear the accessed bits of a leaf, or of all leaves below a table. */
static bool age_entry(struct pt *pt, uint64_t *slot, unsigned level)
{
    uint64_t entry = entry_load(slot);
    bool used = false;

    if (is_present(pt, entry) && is_table(pt, entry, level)) {
        uint64_t *table = entry_child(pt, entry);

        for (unsigned i = 0; i < PT_ENTRIES; i++) {
            used |= age_entry(pt, &table[i], level - 1);
        }
        return used;
    }
    return is_present(pt, entry) && (entry & pt->fmt->accessed) != 0 &&
           (__atomic_fetch_and(slot, ~pt->fmt->accessed, __ATOMIC_ACQ_REL) & pt->fmt->accessed);
}

bool pt_age(struct pt *pt, uint64_t va, unsigned order, struct flush_batch *batch)
{
    unsigned level;
    uint64_t *slot = walk(pt, va, order / LEVEL_ORDER, &level);

    if (!is_present(pt, entry_load(slot))) {
        return false;
    }
    if (pt->fmt->accessed == 0) {
        slot_replace(pt, slot, level, 0, batch);
        return true;
    }
    if (!age_entry(pt, slot, level)) {
        return false;
    }
    if (batch != NULL && !MUTANT(age_without_flush)) {
        flush_batch_age(batch);
    }
    return true;
}
