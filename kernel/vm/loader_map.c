/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest-physical memory map. Callers: VM start, loaders, device models. */
#include "kernel/vm/loader.h"

#define E820_RAM 1u
#define E820_RESERVED 2u
#define E820_ACPI 3u

unsigned loader_memory_map(uint64_t memory_bytes, struct loader_range *out, unsigned max)
{
    const struct loader_range ranges[] = {
        {0, MIN(memory_bytes, GUEST_LOW_RAM_END), E820_RAM},
        {GUEST_LOW_RAM_END, GUEST_ACPI_BASE - GUEST_LOW_RAM_END, E820_RESERVED},
        {GUEST_ACPI_BASE, GUEST_ACPI_END - GUEST_ACPI_BASE, E820_ACPI},
        {MIB(1), memory_bytes > MIB(1) ? MIN(memory_bytes, GUEST_PCI_HOLE) - MIB(1) : 0, E820_RAM},
        {GIB(4), memory_bytes > GUEST_PCI_HOLE ? memory_bytes - GUEST_PCI_HOLE : 0, E820_RAM},
    };
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(ranges) && n < max; i++) {
        if (ranges[i].size) {
            out[n++] = ranges[i];
        }
    }
    return n;
}
