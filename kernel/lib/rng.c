/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * xoshiro256** and its seeding by splitmix64.
 */
#include "kernel/lib/rng.h"

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static uint64_t rotl(uint64_t v, unsigned n)
{
    return (v << n) | (v >> (64 - n));
}

void rng_seed(struct rng *r, uint64_t seed)
{
    for (unsigned i = 0; i < ARRAY_SIZE(r->s); i++) {
        r->s[i] = splitmix64(&seed);
    }
}

uint64_t rng_next(struct rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *r, uint64_t limit)
{
    /* High half of a 64x64 multiplication; the few low products that would favour some results are
     * drawn again. */
    uint64_t floor = (0 - limit) % limit;

    for (;;) {
        unsigned __int128 product = (unsigned __int128)rng_next(r) * limit;

        if ((uint64_t)product >= floor) {
            return (uint64_t)(product >> 64);
        }
    }
}
