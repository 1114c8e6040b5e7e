/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What page sharing costs, measured on the machine itself: `bench=share` on the host command line.
 */
#pragma once

#include "kernel/lib/types.h"

#define BENCH_SAMPLES 32u
/* Sort so many samples and print a row of them, less what `without` costs; returns the median. */
uint64_t bench_row(const char *name, uint64_t *samples, uint64_t without);

/* Obey `bench=` of the host command line; an unknown word is reported and ignored. A thread that may
 * sleep, with page sharing set up (sharing_init). */
void bench_run(const char *cmdline);
