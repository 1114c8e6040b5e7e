/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the loader's memory map to the frame allocator: finds room for the frame table, keeps what is
 * in use (image, modules, first MiB) out of the free lists, and hands over the rest in two steps,
 * because the early page tables reach only 4 GiB. Caller: kernel/main.c.
 */
#pragma once

#include "kernel/lib/err.h"

struct boot_info;

/* Lay out the frame table and free the RAM below 4 GiB. HV_ENOMEM: the machine has too little;
 * already logged. */
enum hv_err memory_init_low(const struct boot_info *info) __must_check;
/* Free the rest. After hostmap_init. */
void memory_init_high(const struct boot_info *info);

struct memory_summary {
    uint64_t usable_bytes;   /* RAM that the loader reports as usable */
    uint64_t above_4g_bytes; /* of it */
    uint64_t unused_bytes;   /* RAM that the frame table could not describe */
    unsigned nr_ranges;
};
/* For the start screen; any time after memory_init_low. */
void memory_summary(const struct boot_info *info, struct memory_summary *out);
