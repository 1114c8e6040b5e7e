/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine for tests that execute guest code in software without paging: RAM from address 0, one
 * processor, no device behind an address and no local APIC. What a test observes of instruction
 * fetches, translation and ports it defines itself.
 */
#pragma once

#include "kernel/lib/types.h"

#define FLATMEM_MAX (2u << 20)

struct flatmem {
    uint8_t bytes[FLATMEM_MAX];
    uint32_t size; /* of RAM; a test sets it before anything runs */
    int pins;      /* pages that are pinned now */
};

extern struct flatmem flat;
