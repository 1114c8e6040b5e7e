/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Paging in every mode that a guest may use: 32-bit tables, with 4 MiB pages, PAE without and with NX,
 * long mode. Each runs the same scenarios. What a processor may do one way or the other is accepted
 * both ways, and nothing else is. Needs 16 MiB. Command line: quirks=tcg (QEMU's TCG: what reads and
 * writes asks to read first, so that the fault may be a read's) or tcg-nested (that, and its own walk of
 * these tables: a fault of reserved bits may not say that the page is present).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"
#include "guests/paging32/scenarios.h"

#define NAME_BYTES 32U
#define CPUID_NX (1U << 20)

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

uint32_t err_exec(void)
{
    return here.mode->nx ? ERR_I : 0;
}

static const struct {
    const char *name;
    void (*run)(void);
    bool large;
} scenarios[] = {
    {"map", paging_mapping, false},
    {"remap", paging_remapping, false},
    {"write-protect", paging_write_protection, false},
    {"user", paging_user_and_supervisor, false},
    {"nx", paging_no_execute, false},
    {"reserved", paging_reserved_bits, false},
    {"accessed-dirty", paging_accessed_and_dirty, false},
    {"large", paging_large_pages, true},
    {"spaces", paging_address_spaces, false},
    {"self-map", paging_self_maps, false},
    {"churn", paging_churn, false},
};

/* MODE-SCENARIO */
static void name_check(char *out, const char *mode, const char *scenario)
{
    size_t n = strlen(mode);

    memcpy(out, mode, n);
    out[n] = '-';
    memcpy(out + n + 1, scenario, strlen(scenario) + 1);
}

static void run_mode(const struct mode *mode)
{
    char name[NAME_BYTES];

    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (scenarios[i].large && !mode->large) {
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
    bool nx = (cpuid(0x80000001, 0).edx & CPUID_NX) != 0;

    if (boot_option_is("quirks", "tcg-nested")) {
        lacks_reserved = ERR_P;
    }
    if (lacks_reserved != 0 || boot_option_is("quirks", "tcg")) {
        lacks_rmw = ERR_W;
    }
    run_init();
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (!modes[i].nx || nx) {
            run_mode(&modes[i]);
        }
    }
    report_summary();
}
