/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paging modes and address spaces in them. All have the same parts: the first 16 MiB one to one for
 * the supervisor, where script, tables and pages are; behind them the same for the user, whose code and
 * stack are used there (SMEP and SMAP part the two); and at `base` what is tested: a *parent* entry in a
 * *directory* leads to a leaf *table*, or is a large page itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "guests/paging32/run.h"

#define PAGE 4096UL

#define PTE_P 0x1UL
#define PTE_W 0x2UL
#define PTE_U 0x4UL
#define PTE_A 0x20UL
#define PTE_D 0x40UL
#define PTE_PS 0x80UL
#define PTE_G 0x100UL
#define PTE_NX (1UL << 63)
#define PTE_ALL (PTE_P | PTE_W | PTE_U)

#define CR0_WP (1UL << 16)
#define CR4_PSE 0x10UL
#define CR4_PAE 0x20UL
#define CR4_PGE 0x80UL
#define CR4_LA57 (1UL << 12)
#define CR4_SMEP (1UL << 20)
#define CR4_SMAP (1UL << 21)

struct mode {
    const char *name;
    bool wide;  /* entries of eight bytes */
    bool large; /* there are large pages */
    bool nx;    /* EFER.NXE */
    bool long_mode;
    unsigned levels;
    uint64_t cr4;
    uint64_t base; /* of what is tested */
    unsigned
        self; /* the directory's entry that a mapping of itself has: in the same table as the parent's */
};

struct space {
    const struct mode *mode;
    uint64_t root;     /* for CR3 */
    uint64_t above[2]; /* entries on the way to the directory, topmost first */
    unsigned nr_above;
    uint64_t directory; /* the table that has the parent */
    uint64_t parent;    /* address of the entry */
    uint64_t table;     /* the leaf table that it leads to */
};

/* Frees all tables. */
void space_reset(void);

/* A zeroed page, until space_reset(). */
uint64_t space_page(void);

/* Makes an address space whose tested part is a table without entries. */
void space_make(struct space *s, const struct mode *mode);

/* Address of a table's entry, and its value, read and written from outside. */
uint64_t entry_at(const struct mode *mode, uint64_t table, unsigned index);
uint64_t entry_get(const struct mode *mode, uint64_t entry);
void entry_put(const struct mode *mode, uint64_t entry, uint64_t value);

/* Bytes that a parent's entry maps. */
uint64_t space_large_bytes(const struct mode *mode);

/* Where entry `index` of the directory's table `of` appears when entry `self` leads to the directory. */
uint64_t space_window(const struct space *s, unsigned self, unsigned of, unsigned index);

/* The parent's index in the directory. */
unsigned space_parent_index(const struct mode *mode);
