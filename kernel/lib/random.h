/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's randomness: one seed, and from it a generator for each purpose. A stream depends on the
 * seed and its own name alone, not on what others drew before, so that under one seed a run repeats
 * whatever the order of events on several processors. Who sees a stream can work out the seed: not for
 * secrets, but for random_secret. Callers: kernel/startup.c (the seed), whoever needs random numbers (streams).
 */
#pragma once

#include "kernel/lib/rng.h"

/* Set the seed of all streams that are begun later. Boot, before the first VM is built. */
void random_set_seed(uint64_t seed);
/* Begin the stream of `purpose` ("uuid") for `name` (a VM's; "": the host's). No locks: the seed is
 * constant, and *out is the caller's. */
void random_stream(struct rng *out, const char *purpose, const char *name);

/* Nobody gave a seed, so no run needs to repeat: secrets take in what `source` draws. As random_set_seed. */
void random_add_entropy(uint64_t (*source)(void));
/* The next word of a stream whose words others must not guess; without entropy they can. The caller's lock. */
uint64_t random_secret(struct rng *stream);
