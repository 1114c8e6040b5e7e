/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bitmaps in arrays of 64-bit words. Plain forms for data under a lock, atomic forms for data shared
 * between processors. Pure.
 */
#pragma once

#include "kernel/lib/types.h"

static inline bool bitmap_test(const uint64_t *map, unsigned bit)
{
    return (__atomic_load_n(&map[bit / 64], __ATOMIC_RELAXED) >> (bit % 64)) & 1;
}

static inline void bitmap_set(uint64_t *map, unsigned bit)
{
    map[bit / 64] |= BIT(bit % 64);
}

static inline void bitmap_clear(uint64_t *map, unsigned bit)
{
    map[bit / 64] &= ~BIT(bit % 64);
}

/* Set (clear) one bit with a full barrier; returns whether it was set before. */
static inline bool bitmap_set_atomic(uint64_t *map, unsigned bit)
{
    uint64_t mask = BIT(bit % 64);

    return (__atomic_fetch_or(&map[bit / 64], mask, __ATOMIC_SEQ_CST) & mask) != 0;
}

static inline bool bitmap_clear_atomic(uint64_t *map, unsigned bit)
{
    uint64_t mask = BIT(bit % 64);

    return (__atomic_fetch_and(&map[bit / 64], ~mask, __ATOMIC_SEQ_CST) & mask) != 0;
}
