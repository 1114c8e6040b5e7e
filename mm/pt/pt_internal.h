/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the page-table engine share: entries and tables by format. Nobody else includes
 * this.
 */
#pragma once

#include "mm/env.h"
#include "mm/pt/pt.h"

#define LEVEL_ORDER 9u

static inline uint64_t level_span(unsigned level)
{
    return PAGE_SIZE << (LEVEL_ORDER * level);
}

static inline unsigned level_index(uint64_t va, unsigned level)
{
    return (unsigned)(va >> (PAGE_SHIFT + LEVEL_ORDER * level)) & (PT_ENTRIES - 1);
}

static inline uint64_t entry_load(const uint64_t *slot)
{
    return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

static inline void entry_store(uint64_t *slot, uint64_t entry)
{
    __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

static inline bool is_present(const struct pt *pt, uint64_t entry)
{
    return (entry & pt->fmt->present) != 0;
}

/* Of any entry at any level: ours refer to tables with all table bits, and leaves are marked. */
static inline bool is_table(const struct pt *pt, uint64_t entry, unsigned level)
{
    const struct pt_format *fmt = pt->fmt;

    return level > 0 && (entry & (fmt->table_bits | fmt->large_leaf_bits)) == fmt->table_bits;
}

static inline bool may_be_leaf(const struct pt *pt, unsigned level)
{
    return level <= pt->max_level && (pt->fmt->leaf_levels >> level & 1);
}

static inline mfn_t entry_table(const struct pt *pt, uint64_t entry)
{
    return hpa_mfn(HPA(entry & pt->fmt->address));
}

static inline uint64_t *entry_child(const struct pt *pt, uint64_t entry)
{
    return env_frame_ptr(entry_table(pt, entry));
}

static inline uint64_t *root_table(const struct pt *pt)
{
    return pt->root_table;
}

/* A present leaf entry of `level`, somewhere inside whose range va lies. */
struct pt_leaf pt_describe(const struct pt *pt, uint64_t entry, unsigned level, uint64_t va);
