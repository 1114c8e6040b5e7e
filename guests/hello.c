/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest guest: says who and where it is and what was loaded with it, and ends. Command line: name=, end= (power.h).
 * Touches about twenty pages, so that hundreds fit anywhere.
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"

#define CPUID_1_ECX_HYPERVISOR (1U << 31)

static void signature(char out[13], uint32_t a, uint32_t b, uint32_t c)
{
    memcpy(out, &a, 4);
    memcpy(out + 4, &b, 4);
    memcpy(out + 8, &c, 4);
    out[12] = 0;
}

static void show_modules(void)
{
    for (size_t i = 0; i < boot_nr_modules; i++) {
        const uint8_t *data = (const uint8_t *)boot_modules[i].base;
        unsigned int sum = 0;
        for (uint64_t at = 0; at < boot_modules[i].size_bytes; at++) {
            sum += data[at];
        }
        console_printf("module '%s': %lu bytes, sum %u\n", boot_modules[i].text,
                       boot_modules[i].size_bytes, sum);
    }
}

void guest_main(void)
{
    char vendor[13], host[13] = "none";
    struct cpuid_regs r = cpuid(0, 0);
    signature(vendor, r.ebx, r.edx, r.ecx);
    if (cpuid(1, 0).ecx & CPUID_1_ECX_HYPERVISOR) {
        r = cpuid(0x40000000, 0);
        signature(host, r.ebx, r.ecx, r.edx);
    }
    console_printf("hello from %s: %lu KiB of RAM, processor %s, hypervisor %s\n",
                   boot_name("hello"), boot_ram_bytes() / 1024, vendor, host);
    console_printf("booted by %s\n", boot_protocol);
    show_modules();
    report_check(boot_nr_ram > 0, "hello", "no memory map");
    report_summary();
}
