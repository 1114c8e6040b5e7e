/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hashing and comparing pages; see hash.h. Loops are unrolled by hand: string instructions are slow
 * for comparing, and vector registers belong to the guests.
 */
#include "mm/share/hash.h"

#define XXH_INLINE_ALL
#define XXH_VECTOR 0
#define XXH_FORCE_MEMORY_ACCESS 1 /* loads: no calls of memcpy, which is no builtin here */
#include <xxhash.h>

#define WORDS (PAGE_SIZE / sizeof(uint64_t))
#define LINE 64u
#define PREFETCH_LINES 8u /* what follows the processor fetches ahead by itself */
#define ALIKE_STEP 31u    /* words; odd, so that no column of a table goes unseen */

#ifdef BALLAST_HOST
uint64_t hash_weaken = UINT64_MAX;
#endif

static uint64_t seed; /* constant once pages are hashed */

void hash_set_seed(uint64_t value)
{
    seed = value;
}

uint64_t hash_page(const void *page)
{
    uint64_t hash = XXH64(page, PAGE_SIZE, seed);

#ifdef BALLAST_HOST
    hash &= hash_weaken;
#endif
    return hash;
}

void hash_prefetch(const void *page)
{
    for (unsigned i = 0; i < PREFETCH_LINES; i++) {
        __builtin_prefetch((const char *)page + i * LINE);
    }
}

bool hash_is_zero(const void *page)
{
    const uint64_t *w = page;

    for (unsigned i = 0; i < WORDS; i += 8) {
        if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7]) !=
            0) {
            return false;
        }
    }
    return true;
}

bool hash_alike(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    uint64_t differ = 0;

    for (unsigned i = 0; i < WORDS; i += ALIKE_STEP) {
        differ |= x[i] ^ y[i];
    }
    return differ == 0;
}

bool hash_same(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;

    for (unsigned i = 0; i < WORDS; i += 8) {
        uint64_t differ = (x[i] ^ y[i]) | (x[i + 1] ^ y[i + 1]) | (x[i + 2] ^ y[i + 2]) |
                          (x[i + 3] ^ y[i + 3]) | (x[i + 4] ^ y[i + 4]) | (x[i + 5] ^ y[i + 5]) |
                          (x[i + 6] ^ y[i + 6]) | (x[i + 7] ^ y[i + 7]);

        if (differ != 0) {
            return false;
        }
    }
    return true;
}
