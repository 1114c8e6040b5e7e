/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deliberate defects. `make MUTANT=name` builds the one that MUTANT(name) guards: a flush, a
 * comparison or an ordering is left out there. Neither emulator shows a missing flush, so this shows
 * that the tests would: tests/boot/test_flush_proof.py builds each mutant and expects a failure. In
 * every other build MUTANT(name) is a constant 0.
 */
#pragma once

#ifndef BALLAST_MUTANT
#define BALLAST_MUTANT ""
#endif

#define MUTANT(name) (__builtin_strcmp(#name, BALLAST_MUTANT) == 0)
