/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See mtrr.h. A piece is looked up by its pages' answer only where some boundary runs through it:
 * ranges are powers of two, so a piece that no boundary cuts is uniform.
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
#define FIXED_END 0x100000ULL

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

static enum mtrr_type fixed_type(const struct mtrr_state *s, uint64_t pa)
{
    if (pa < 0x80000) {
        return s->fixed[pa >> 16];
    }
    if (pa < 0xc0000) {
        return s->fixed[8 + ((pa - 0x80000) >> 14)];
    }
    return s->fixed[24 + ((pa - 0xc0000) >> 12)];
}

/* "MTRR Precedences": UC wins, WT over WB; other pairs are undefined, hence UC. */
static enum mtrr_type combine(enum mtrr_type a, enum mtrr_type b)
{
    if (a == b) {
        return a;
    }
    if ((a == MTRR_WT && b == MTRR_WB) || (a == MTRR_WB && b == MTRR_WT)) {
        return MTRR_WT;
    }
    return MTRR_UC;
}

static enum mtrr_type page_type(const struct mtrr_state *s, uint64_t pa)
{
    bool found = false;
    enum mtrr_type type = s->default_type;

    if (!s->enabled) {
        return MTRR_UC;
    }
    if (s->fixed_enabled && pa < FIXED_END) {
        return fixed_type(s, pa);
    }
    for (unsigned i = 0; i < s->nr_ranges; i++) {
        if ((pa & s->range[i].mask) == (s->range[i].base & s->range[i].mask)) {
            type = found ? combine(type, s->range[i].type) : s->range[i].type;
            found = true;
        }
    }
    return type;
}

/* Some range begins or ends inside the piece, or the fixed ranges reach into it. */
static bool is_cut(const struct mtrr_state *s, uint64_t pa, uint64_t size)
{
    if (s->fixed_enabled && pa < FIXED_END) {
        return true;
    }
    for (unsigned i = 0; i < s->nr_ranges; i++) {
        if ((s->range[i].mask & (size - 1)) != 0) {
            uint64_t mask = s->range[i].mask & ~(size - 1);

            if ((pa & mask) == (s->range[i].base & mask)) {
                return true;
            }
        }
    }
    return false;
}

enum mtrr_type mtrr_state_type(const struct mtrr_state *s, uint64_t pa, uint64_t size)
{
    enum mtrr_type type = page_type(s, pa);

    if (size > PAGE_SIZE && s->enabled && is_cut(s, pa, size)) {
        for (uint64_t at = PAGE_SIZE; at < size; at += PAGE_SIZE) {
            if (page_type(s, pa + at) != type) {
                return MTRR_UC;
            }
        }
    }
    return type;
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
