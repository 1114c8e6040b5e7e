/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Streams: the host's seed, mixed with an FNV-1a hash of purpose and name, seeds a generator.
 */
#include "kernel/lib/random.h"

#define FNV_OFFSET 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

static uint64_t host_seed; /* these are written at boot only */
static uint64_t (*entropy)(void);

/* The terminating NUL counts: "ab", "c" is not "a", "bc". */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    do {
        hash = (hash ^ (uint8_t)*text) * FNV_PRIME;
    } while (*text++ != '\0');
    return hash;
}

void random_set_seed(uint64_t seed)
{
    host_seed = seed;
}

void random_stream(struct rng *out, const char *purpose, const char *name)
{
    struct rng mixed;

    /* The seed is spread first: neighbouring seeds must not give neighbouring streams. */
    rng_seed(&mixed, host_seed);
    rng_seed(out, rng_next(&mixed) ^ hash_text(hash_text(FNV_OFFSET, purpose), name));
}

void random_add_entropy(uint64_t (*source)(void))
{
    entropy = source;
}

uint64_t random_secret(struct rng *stream)
{
    return rng_next(stream) ^ (entropy != NULL ? entropy() : 0);
}
