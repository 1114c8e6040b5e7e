/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A naive walker of AMD64 page tables, written from the manual and sharing nothing with mm/pt: what
 * the processor would see.
 */
#pragma once

#include "kernel/lib/types.h"

struct ref_mapping {
    uint64_t pa; /* of the very address */
    unsigned order;
    bool writable, executable, user, global;
    unsigned pat; /* index into the PAT */
};

/* The translation of va, or false if there is none. Sets accessed bits, as the processor does. */
bool ref_walk(uint64_t root_pa, uint64_t va, struct ref_mapping *out);
