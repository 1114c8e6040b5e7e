/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory type that given MTRR values mean for an address; see mtrr.h. A piece is looked up page
 * by page only where some boundary runs through it: ranges are powers of two, so a piece that no
 * boundary cuts is uniform. Pure.
 */
#include "arch/x86_64/mtrr.h"

#define FIXED_END 0x100000ULL

static enum mtrr_type fixed_type(const struct mtrr_state *s, uint64_t pa)
{
    if (pa < 0x80000) {
        return s->fixed[pa >> 16];
    }
    if (pa < 0xc0000) {
        return s->fixed[8 + ((pa - 0x80000) >> 14)];
    }
    return s->fixed[24 + ((pa - 0xc0000) >> 12)];
}

/* "MTRR Precedences": UC wins, WT over WB; other pairs are undefined, hence UC. */
static enum mtrr_type combine(enum mtrr_type a, enum mtrr_type b)
{
    if (a == b) {
        return a;
    }
    if ((a == MTRR_WT && b == MTRR_WB) || (a == MTRR_WB && b == MTRR_WT)) {
        return MTRR_WT;
    }
    return MTRR_UC;
}

static enum mtrr_type page_type(const struct mtrr_state *s, uint64_t pa)
{
    bool found = false;
    enum mtrr_type type = s->default_type;

    if (!s->enabled) {
        return MTRR_UC;
    }
    if (s->fixed_enabled && pa < FIXED_END) {
        return fixed_type(s, pa);
    }
    for (unsigned i = 0; i < s->nr_ranges; i++) {
        if ((pa & s->range[i].mask) == (s->range[i].base & s->range[i].mask)) {
            type = found ? combine(type, s->range[i].type) : s->range[i].type;
            found = true;
        }
    }
    return type;
}

/* Some range begins or ends inside the piece, or the fixed ranges reach into it. */
static bool is_cut(const struct mtrr_state *s, uint64_t pa, uint64_t size)
{
    if (s->fixed_enabled && pa < FIXED_END) {
        return true;
    }
    for (unsigned i = 0; i < s->nr_ranges; i++) {
        if ((s->range[i].mask & (size - 1)) != 0) {
            uint64_t mask = s->range[i].mask & ~(size - 1);

            if ((pa & mask) == (s->range[i].base & mask)) {
                return true;
            }
        }
    }
    return false;
}

enum mtrr_type mtrr_state_type(const struct mtrr_state *s, uint64_t pa, uint64_t size)
{
    enum mtrr_type type = page_type(s, pa);

    if (size > PAGE_SIZE && s->enabled && is_cut(s, pa, size)) {
        for (uint64_t at = PAGE_SIZE; at < size; at += PAGE_SIZE) {
            if (page_type(s, pa + at) != type) {
                return MTRR_UC;
            }
        }
    }
    return type;
}
