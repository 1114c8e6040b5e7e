/* SPDX-License-Identifier: BSD-2-Clause */
/* The scenarios of paging32, each for an address space that script_start() has made. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "guests/paging32/script.h"

/* Bits that error codes may lack: of what reads and writes, where reading is forbidden; of reserved
   bits that are set. Set before the first scenario (paging32.c). */
extern uint32_t lacks_rmw, lacks_reserved;

/* CPUID offers pages of 1 GiB. */
extern bool has_huge_pages;

/* The bit of fetches, if they have one. */
uint32_t err_exec(void);

/* Absent, present, over the edge of a page; accessed bits of what was used. */
void paging_mapping(void);
/* Entries that change, seen behind INVLPG and CR3. */
void paging_remapping(void);
/* Read-only pages and tables, with CR0.WP and without. */
void paging_write_protection(void);
/* The supervisor's pages and tables. */
void paging_user_and_supervisor(void);
/* Code that may not run; where NX is off, its bit must be clear. */
void paging_no_execute(void);
/* Bits that must be clear. */
void paging_reserved_bits(void);
/* Accessed and dirty bits: set when they must be, and only then. */
void paging_accessed_and_dirty(void);
/* Large pages: remapped, restricted, split and joined. */
void paging_large_pages(void);
/* Pages of 1 GiB, or the reserved bit that asks for one where there are none. */
void paging_huge_pages(void);
/* The user's code, which the supervisor may not run; and its data, which it may use only while it says so: also
   with CR0.WP clear. */
void paging_smep(void);
void paging_smap(void);
void paging_smap_unprotected(void);
/* Five-level paging is not offered, and refused. */
void paging_five_levels(void);
/* Two address spaces, global pages in them, and what lies above a directory. */
void paging_address_spaces(void);
/* Tables edited through mappings of themselves. */
void paging_self_maps(void);
/* Again and again: switch, edit, access; and a table that is used as memory in between. */
void paging_churn(void);
