/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM's memory as a map: one character for each 2 MiB of its guest-physical addresses.
 *
 *     0-9    one large page; the seconds since it was used, 9: nine or more
 *     P p    4 KiB pages of its own        S s   on shared frames     Z z   on the zero frame
 *     B b    given up by the balloon       C c   compressed           D d   on disk
 *     .      untouched                     blank no memory
 *
 * Capitals: at least three quarters of the 2 MiB; small letters: more than of anything else, untouched
 * memory aside. Callers: the shell's `map`, telemetry.
 */
#pragma once

#include "mm/types.h"

struct vm;

#define MEMMAP_CELL_BYTES MIB(2)

struct memmap_part {
    gpa_t first; /* where the first character belongs */
    unsigned nr; /* characters */
};

/*
 * The map from *at on, up to `most` characters into `out` (no NUL); ends where memory does, and for a gap
 * that is longer than a few cells. *at is where to go on. False: there is nothing more. Any thread that
 * may sleep, no lock held.
 */
bool memmap_read(struct vm *vm, gpa_t *at, char *out, unsigned most, struct memmap_part *part);
