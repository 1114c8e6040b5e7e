/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The only random numbers here: xoshiro256** (Blackman and Vigna), seeded through splitmix64. Where
 * seeds come from: kernel/lib/random.h. Not for secrets. Pure; the owner of a generator names its
 * lock.
 */
#pragma once

#include "kernel/lib/types.h"

struct rng {
    uint64_t s[4];
};

/* Equal seeds give equal sequences; every seed is valid, zero included. */
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, limit), without modulo bias; limit > 0. */
uint64_t rng_below(struct rng *r, uint64_t limit);
