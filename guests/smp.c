/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starts the VM's other processors by INIT and SIPI and counts them; each runs a share of a common
 * count to show that it makes progress. Command line: cpus=N (expected in all, 1), ticks=N (how long
 * to wait, in TSC ticks).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"

#define INCREMENTS 1000U

static volatile uint64_t total;

static void ap_main(uint32_t index)
{
    (void)index;
    for (unsigned int i = 0; i < INCREMENTS; i++) {
        __atomic_add_fetch(&total, 1, __ATOMIC_SEQ_CST);
    }
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void guest_main(void)
{
    uint32_t cpus = (uint32_t)boot_option_u64("cpus", 1);
    uint64_t ticks = boot_option_u64("ticks", 2000000000UL);
    lapic_enable(false);
    uint32_t found = 1 + smp_start(ap_main, cpus - 1, ticks);
    console_printf("smp: %u of %u processors answered\n", found, cpus);
    report_check(found == cpus, "smp-count", "wrong number of processors");
    uint64_t want = (uint64_t)(found - 1) * INCREMENTS;
    uint64_t start = rdtsc();
    while (total < want && rdtsc() - start < ticks) {
        cpu_pause();
    }
    report_check(total == want, "smp-progress", "a processor did not finish");
    report_summary();
}
