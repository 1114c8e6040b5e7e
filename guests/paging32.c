/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paging in every mode that a guest may use: 32-bit tables, with 4 MiB pages, PAE without and with NX,
 * long mode. Each runs the same scenarios. What a processor may do one way or the other is accepted
 * both ways, and nothing else is. SMEP, SMAP and pages of 1 GiB as CPUID offers them. Needs 16 MiB. Command
 * line: quirks=tcg (QEMU's TCG: what reads and writes asks to read first, so that the fault may be a read's) or
 * tcg-nested (that, and its own walk of these tables, where a fault of reserved bits may not say that the page
 * is present, and its own loads of CR4, which accept any bit outside 64-bit code).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"
#include "guests/paging32/scenarios.h"

#define NAME_BYTES 32U
#define CPUID_NX (1U << 20) /* 0x80000001, EDX */
#define CPUID_PAGE1GB (1U << 26)
#define CPUID_SMEP (1U << 7) /* 7, EBX */
#define CPUID_SMAP (1U << 20)
#define CPUID_LA57 (1U << 16) /* 7, ECX */

static const struct mode modes[] = {
    {.name = "legacy", .levels = 2, .base = 0xc0400000, .self = 0x300},
    {.name = "pse", .levels = 2, .large = true, .cr4 = CR4_PSE, .base = 0xc0400000, .self = 0x300},
    {.name = "pae",
     .levels = 3,
     .wide = true,
     .large = true,
     .cr4 = CR4_PAE,
     .base = 0x40a00000,
     .self = 9},
    {.name = "pae-nx",
     .levels = 3,
     .wide = true,
     .large = true,
     .nx = true,
     .cr4 = CR4_PAE,
     .base = 0x40a00000,
     .self = 9},
    {.name = "long",
     .levels = 4,
     .wide = true,
     .large = true,
     .nx = true,
     .long_mode = true,
     .cr4 = CR4_PAE,
     .base = 0xffffa0c041000000,
     .self = 9},
};

uint32_t lacks_rmw, lacks_reserved;
bool has_huge_pages;

uint32_t err_exec(void)
{
    return here.mode->nx || (registers.cr4 & CR4_SMEP) ? ERR_I : 0;
}

static bool takes_any_cr4;

static const struct scenario {
    const char *name;
    void (*run)(void);
    bool large, long_mode; /* only where the mode has it */
    bool refuses_cr4;      /* only where the processor does */
    uint32_t needs;        /* of CPUID leaf 7, EBX */
} scenarios[] = {
    {.name = "map", .run = paging_mapping},
    {.name = "remap", .run = paging_remapping},
    {.name = "write-protect", .run = paging_write_protection},
    {.name = "user", .run = paging_user_and_supervisor},
    {.name = "nx", .run = paging_no_execute},
    {.name = "reserved", .run = paging_reserved_bits},
    {.name = "accessed-dirty", .run = paging_accessed_and_dirty},
    {.name = "large", .run = paging_large_pages, .large = true},
    {.name = "huge", .run = paging_huge_pages, .long_mode = true},
    {.name = "smep", .run = paging_smep, .needs = CPUID_SMEP},
    {.name = "smap", .run = paging_smap, .needs = CPUID_SMAP},
    {.name = "smap-unprotected", .run = paging_smap_unprotected, .needs = CPUID_SMAP},
    {.name = "five-levels", .run = paging_five_levels, .refuses_cr4 = true},
    {.name = "spaces", .run = paging_address_spaces},
    {.name = "self-map", .run = paging_self_maps},
    {.name = "churn", .run = paging_churn},
};

/* MODE-SCENARIO */
static void name_check(char *out, const char *mode, const char *scenario)
{
    size_t n = strlen(mode);

    memcpy(out, mode, n);
    out[n] = '-';
    memcpy(out + n + 1, scenario, strlen(scenario) + 1);
}

static bool is_for(const struct scenario *s, const struct mode *mode)
{
    return (mode->large || !s->large) && (mode->long_mode || !s->long_mode) &&
           (mode->long_mode || !s->refuses_cr4 || !takes_any_cr4) && !(s->needs & ~cpuid(7, 0).ebx);
}

static void run_mode(const struct mode *mode)
{
    char name[NAME_BYTES];

    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (!is_for(&scenarios[i], mode)) {
            continue;
        }
        script_start(mode);
        scenarios[i].run();
        name_check(name, mode->name, scenarios[i].name);
        report_check(script_good(), name, "not as a processor does");
    }
}

void guest_main(void)
{
    const uint32_t extended = cpuid(0x80000001, 0).edx;

    has_huge_pages = (extended & CPUID_PAGE1GB) != 0;
    if (boot_option_is("quirks", "tcg-nested")) {
        lacks_reserved = ERR_P;
        takes_any_cr4 = true;
    }
    if (lacks_reserved != 0 || boot_option_is("quirks", "tcg")) {
        lacks_rmw = ERR_W;
    }
    report_check(!(cpuid(7, 0).ecx & CPUID_LA57), "no-la57", "five-level paging is offered");
    run_init();
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!modes[i].nx || (extended & CPUID_NX)) {
            run_mode(&modes[i]);
        }
    }
    report_summary();
}
