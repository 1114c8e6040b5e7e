/* SPDX-License-Identifier: BSD-2-Clause */
/* Adds to the tables of entry.asm from a small static pool; nothing is ever removed. */
#include "guests/lib/paging.h"

#include <stddef.h>

#include "guests/lib/arch.h"

#define ENTRIES 512
#define POOL_TABLES 40 /* enough for 32 GiB above 4 GiB and a few windows */
#define PAGE_LARGE 0x80UL
#define ADDR_MASK 0x000ffffffffff000UL
#define SIZE_2M (2UL << 20)

typedef uint64_t table_t[ENTRIES];

extern table_t entry_pml4;

static table_t pool[POOL_TABLES] __attribute__((aligned(4096)));
static size_t pool_used;

/* The table behind *entry, made when absent. */
static uint64_t *next_table(uint64_t *entry)
{
    if (!(*entry & PAGING_PRESENT)) {
        if (pool_used == POOL_TABLES) {
            return NULL;
        }
        *entry = (uint64_t)pool[pool_used++] | PAGING_RW;
    }
    return (uint64_t *)(*entry & ADDR_MASK);
}

bool paging_identity(uint64_t base, uint64_t size_bytes)
{
    for (uint64_t a = base & ~(SIZE_2M - 1); a < base + size_bytes; a += SIZE_2M) {
        uint64_t *pdpt = next_table(&entry_pml4[(a >> 39) % ENTRIES]);
        uint64_t *pd = pdpt ? next_table(&pdpt[(a >> 30) % ENTRIES]) : NULL;
        if (!pd) {
            return false;
        }
        pd[(a >> 21) % ENTRIES] = a | PAGE_LARGE | PAGING_RW;
    }
    write_cr3(read_cr3());
    return true;
}

volatile uint64_t *paging_window(unsigned int slot)
{
    uint64_t *pdpt = next_table(&entry_pml4[slot % ENTRIES]);
    uint64_t *pd = pdpt ? next_table(&pdpt[0]) : NULL;
    return pd ? next_table(&pd[0]) : NULL;
}
