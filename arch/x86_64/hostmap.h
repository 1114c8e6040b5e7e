/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hypervisor's own address space: image (text RX, rodata R, data RW, never both W and X),
 * physmap of all RAM (RW NX, the image's text and rodata read-only there too), stacks with guard
 * pages, device mappings. Built with mm/pt.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct boot_info;

#define PHYSMAP_BASE 0xffff800000000000ULL
#define PHYSMAP_SIZE 0x400000000000ULL /* 64 TiB */
#define STACKS_BASE 0xffffc00000000000ULL
#define DEVMAP_BASE 0xffffd00000000000ULL
#define IMAGE_BASE 0xffffffff80000000ULL

extern uint64_t kernel_phys_base; /* machine address behind __image_start; boot/entry.asm */

static inline void *phys_ptr(hpa_t pa)
{
    return (void *)(PHYSMAP_BASE + pa.a);
}
static inline void *mfn_ptr(mfn_t mfn)
{
    return (void *)(PHYSMAP_BASE + (mfn.n << PAGE_SHIFT));
}

/* Machine address behind any pointer of ours (physmap, image or stack). */
hpa_t virt_to_phys(const void *ptr);

/* Build the final tables and switch to them. Boot processor, after buddy has memory. */
enum hv_err hostmap_init(const struct boot_info *info) __must_check;
/* Load the final tables on an application processor. */
void hostmap_load(void);

/* True if the physmap covers all of the range: RAM, ACPI tables, the first MiB. */
bool hostmap_is_ram(hpa_t pa, uint64_t size);

/* Uncached (or write-combining) mapping of device registers. Kept for ever. NULL: no room. */
void *hostmap_device(hpa_t pa, uint64_t size, bool write_combining);

/* A guarded, size-aligned 16 KiB stack charged to `owner`; returns its top (16-byte aligned),
 * or 0 when memory is short. The anchor is set by whoever runs on it. */
uint64_t hostmap_stack_alloc(uint32_t owner);
void hostmap_stack_free(uint64_t top);
/* True if `addr` lies in a guard page; for the fault reporter. */
bool hostmap_is_guard(uint64_t addr);
