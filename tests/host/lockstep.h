/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Several actors, of which one runs at a time; who goes on is drawn from a seed wherever one of them
 * calls lockstep_turn. So concurrency repeats exactly, and every interleaving of those points can
 * come up.
 */
#pragma once

#include "kernel/lib/rng.h"

#define LOCKSTEP_ACTORS 16u

/* Run fn(0) .. fn(nr - 1) side by side until all have returned. */
void lockstep_run(unsigned nr, void (*fn)(unsigned actor), struct rng *rng);
/* Let anybody go on. */
void lockstep_turn(void);
/* Which actor is this? */
unsigned lockstep_self(void);
