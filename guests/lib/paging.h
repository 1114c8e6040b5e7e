/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's address space beyond the identity map of the first 4 GiB that the entry code makes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PAGING_PRESENT 0x1UL
#define PAGING_WRITE 0x2UL
#define PAGING_USER 0x4UL
#define PAGING_RW (PAGING_PRESENT | PAGING_WRITE | PAGING_USER)

/* Identity-maps [base, base + size) above 4 GiB with 2 MiB pages; false when the tables run out. */
bool paging_identity(uint64_t base, uint64_t size_bytes);

/*
 * Makes an empty 4 KiB page table behind PML4 slot `slot` (1..511) and returns it; its 512 entries
 * map the 2 MiB at PAGING_WINDOW(slot). NULL when the tables run out.
 */
volatile uint64_t *paging_window(unsigned int slot);

#define PAGING_WINDOW(slot) \
    (((uint64_t)(slot) << 39) | ((slot) >= 256 ? 0xffff000000000000UL : 0UL))
