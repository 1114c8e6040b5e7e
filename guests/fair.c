/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Uses its processor and nothing else, to show how the scheduler divides time. Prints a line per
 * step. Command line: name=, steps=N (10; 0 is for ever), millions=N (loop iterations per step, 20),
 * deaf=yes (interrupts stay off).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"

static void spin(uint64_t iterations)
{
    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(iterations) : : "cc");
}

void guest_main(void)
{
    const char *name = boot_name("fair");
    uint64_t steps = boot_option_u64("steps", 10);
    uint64_t iterations = boot_option_u64("millions", 20) * 1000000UL;
    uint64_t start = rdtsc();
    if (boot_option_is("deaf", "yes")) {
        irq_disable();
    }
    for (uint64_t i = 1; steps == 0 || i <= steps; i++) {
        spin(iterations ? iterations : 1);
        console_printf("fair: %s step %lu tsc %lu\n", name, i, rdtsc() - start);
    }
    report_check(true, "fair", "");
    report_summary();
}
