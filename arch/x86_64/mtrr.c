/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading the MTRRs; see mtrr.h. What they mean is in mtrr_type.c.
 */
#include "arch/x86_64/mtrr.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "boot/bootinfo.h"
#include "kernel/log.h"

#define CAP_COUNT 0xffu
#define CAP_FIXED BIT(8)
#define DEF_TYPE 0xffu
#define DEF_FIXED_ENABLE BIT(10)
#define DEF_ENABLE BIT(11)
#define MASK_VALID BIT(11)

/* Written by mtrr_init only. */
static struct mtrr_state state;
static bool ram_is_wb;

static void read_fixed(struct mtrr_state *s)
{
    static const uint32_t regs[] = {
        MSR_MTRR_FIX64K,          MSR_MTRR_FIX16K_80000,    MSR_MTRR_FIX16K_A0000,
        MSR_MTRR_FIX4K_C0000,     MSR_MTRR_FIX4K_C0000 + 1, MSR_MTRR_FIX4K_C0000 + 2,
        MSR_MTRR_FIX4K_C0000 + 3, MSR_MTRR_FIX4K_C0000 + 4, MSR_MTRR_FIX4K_C0000 + 5,
        MSR_MTRR_FIX4K_C0000 + 6, MSR_MTRR_FIX4K_C0000 + 7,
    };
    _Static_assert(ARRAY_SIZE(regs) * 8 == MTRR_FIXED_BYTES, "fixed-range registers");

    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        uint64_t v = rdmsr(regs[i]);

        for (unsigned byte = 0; byte < 8; byte++) {
            s->fixed[i * 8 + byte] = (uint8_t)(v >> (8 * byte));
        }
    }
}

static void read_state(struct mtrr_state *s)
{
    uint64_t cap = rdmsr(MSR_MTRRCAP), def = rdmsr(MSR_MTRR_DEF_TYPE);
    s->enabled = (def & DEF_ENABLE) != 0;
    s->default_type = def & DEF_TYPE;
    s->fixed_enabled = (cap & CAP_FIXED) && (def & DEF_FIXED_ENABLE);
    if (s->fixed_enabled) {
        read_fixed(s);
    }
    for (unsigned i = 0; i < (cap & CAP_COUNT); i++) {
        uint64_t base = rdmsr(MSR_MTRR_PHYSBASE(i)), mask = rdmsr(MSR_MTRR_PHYSMASK(i));

        if ((mask & MASK_VALID) && s->nr_ranges < MTRR_MAX_RANGES) {
            s->range[s->nr_ranges].base = base & PAGE_MASK;
            s->range[s->nr_ranges].mask = mask & PAGE_MASK;
            s->range[s->nr_ranges].type = base & DEF_TYPE;
            s->nr_ranges++;
        }
    }
}

enum mtrr_type mtrr_type(hpa_t pa, uint64_t size)
{
    return mtrr_state_type(&state, pa.a, size);
}

/* In the largest pieces that alignment allows. */
static bool range_is_wb(const struct mtrr_state *s, uint64_t base, uint64_t end)
{
    uint64_t at = ALIGN_UP(base, PAGE_SIZE);

    while (at + PAGE_SIZE <= end) {
        uint64_t size = PAGE_SIZE;

        while (IS_ALIGNED(at, 2 * size) && at + 2 * size <= end && size < GIB(1)) {
            size *= 2;
        }
        if (mtrr_state_type(s, at, size) != MTRR_WB) {
            return false;
        }
        at += size;
    }
    return true;
}

void mtrr_init(const struct boot_info *info)
{
    if (!cpu_features.mtrr) {
        ram_is_wb = true; /* by the page tables alone */
        return;
    }
    read_state(&state);
    ram_is_wb = true;
    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        const struct boot_range *r = &info->ranges[i];

        if (r->type == BOOT_RANGE_USABLE && !range_is_wb(&state, r->base, r->base + r->size)) {
            log_warn("memory at 0x%llx, %llu KiB: not all of it is write-back (MTRRs): slow",
                     (unsigned long long)r->base, (unsigned long long)(r->size / KIB(1)));
            ram_is_wb = false;
        }
    }
}

bool mtrr_ram_is_wb(void)
{
    return ram_is_wb;
}
