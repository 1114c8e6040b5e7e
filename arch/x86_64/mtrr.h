/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory types by machine address, as the firmware has set them up ("Memory Type Range Registers
 * (MTRRs)"). Read once; all processors are set alike, as the manual asks.
 */
#pragma once

#include "mm/types.h"

enum mtrr_type { MTRR_UC = 0, MTRR_WC = 1, MTRR_WT = 4, MTRR_WP = 5, MTRR_WB = 6 };

#define MTRR_MAX_RANGES 32u
#define MTRR_FIXED_BYTES 88u

/* The registers, as values. */
struct mtrr_state {
    bool enabled, fixed_enabled;
    uint8_t default_type;
    uint8_t fixed[MTRR_FIXED_BYTES]; /* 64 KiB, then 16 KiB, then 4 KiB pieces of the first MiB */
    unsigned nr_ranges;              /* valid ones */
    struct {
        uint64_t base, mask;
        uint8_t type;
    } range[MTRR_MAX_RANGES];
};

struct boot_info;

/* Read this processor's. Boot processor, once `info` is there. */
void mtrr_init(const struct boot_info *info);
/* All of the machine's RAM is write-back. */
bool mtrr_ram_is_wb(void);
/* The type of [pa, pa + size), UC if it has several; pa is a multiple of size, a power of two. The
 * first form is pure. */
enum mtrr_type mtrr_state_type(const struct mtrr_state *s, uint64_t pa, uint64_t size);
enum mtrr_type mtrr_type(hpa_t pa, uint64_t size);
