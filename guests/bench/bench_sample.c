/* SPDX-License-Identifier: BSD-2-Clause */
/* The row of sampling: touches of pages whose translations the host took away to see who uses them. */
#include "guests/bench/bench.h"
#include "guests/lib/lapic.h"

#define PAGE 4096UL
#define NR_PAGES 4096UL
#define MSR_X2APIC_LVT_TIMER 0x832U
#define MSR_TSC_DEADLINE 0x6e0U
#define LVT_TSC_DEADLINE 0x40000U
#define NAP_TICKS 100000000UL
#define NR_NAPS 600 /* the host watches other pages each second */
#define NR_FAULTS 192
#define HIT_TICKS 50 /* a touch without an exit takes less */

static void nap(void)
{
    uint64_t before = bench_irqs;

    wrmsr(MSR_TSC_DEADLINE, rdtsc() + NAP_TICKS);
    while (bench_irqs == before) {
        irq_wait();
    }
}

void bench_sample(void)
{
    unsigned int nr = 0;

    if (!lapic_has_x2apic()) {
        return;
    }
    lapic_enable(true);
    wrmsr(MSR_X2APIC_LVT_TIMER, LVT_TSC_DEADLINE | BENCH_VECTOR);
    for (unsigned int naps = 0; naps < NR_NAPS && nr < NR_FAULTS; naps++) {
        for (uint64_t i = 0; i < NR_PAGES && nr < NR_FAULTS; i++) {
            uint64_t start = rdtsc();
            bench_write(BENCH_4K_PRESENT + i * PAGE);
            uint64_t ticks = rdtsc() - start;

            if (naps != 0 && ticks > HIT_TICKS) {
                bench_samples[nr++] = ticks;
            }
        }
        nap();
    }
    if (nr != 0) {
        bench_record("sample: touch a watched page (soft fault)", nr);
    }
}
