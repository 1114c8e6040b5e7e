/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Real mode, by a second processor (guests/real/code.asm): interrupts and faults through the vector table,
 * big real mode, strings, far transfers, ways into protected mode and back, interrupts of the local APIC.
 * What it leaves is compared with what a processor does, so it says the same wherever such code runs.
 * Command line: limits=off (the processor knows no segment limits: QEMU's TCG).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"

#define REAL_BASE 0x9000UL
#define REAL_RESULTS 0xa000UL
#define REAL_TAKEN 0xa800UL
#define REAL_IRQ 0x61U
#define SEND_NOW 0x1e1e1e1eU
#define THE_END 0x454e440aU
#define WAIT_TICKS 4000000000UL

extern char real_code[], real_code_end[];

static const struct {
    const char *name;
    uint32_t want;
} results[] = {
    {"real-int", 0xbeef},
    {"real-divide", 7},
    {"real-undefined", 0x0d0e},
    {"real-limit", 0x6b},
    {"real-string", 0x48d000},
    {"real-far", 0x3105},
    {"real-exits", 0x5a0fee00},
    {"real-big", 0x600df00d},
    {"real-protected", ~0x600df00dU},
    {"real-irq", 3},
    {"real-arithmetic", 0},
    {"real-end", THE_END},
};
#define NR_RESULTS (sizeof(results) / sizeof(results[0]))
#define RESULT_LIMIT 3
#define RESULT_IRQ 9
#define RESULT_ARITHMETIC 10

/* The same computation, by the compiler. */
static uint32_t arithmetic(void)
{
    uint32_t eax = 0x45678123; /* 0x12345678 rotated by 12 */
    uint64_t product = (uint64_t)eax * 0x10001;
    uint32_t quotient = (uint32_t)(product / 0x12345), rest = (uint32_t)(product % 0x12345);

    eax = quotient ^ rest;
    uint32_t bl = eax & 0xff;
    uint32_t al = 0x14; /* 79 + 35 = 114 */
    eax = (eax & ~0xffffU) | (al / 10) << 8 | ((al % 10) ^ bl);
    uint32_t ecx = 31U - (uint32_t)__builtin_clz(eax);
    return eax << 7 | ecx >> 25;
}

static volatile uint32_t *low_word(uintptr_t at)
{
    __asm__("" : "+r"(at)); /* no object that the compiler knows */
    return (volatile uint32_t *)at;
}

static volatile uint32_t *result(size_t i)
{
    return low_word(REAL_RESULTS) + i;
}

static bool wait_for(const volatile uint32_t *word, uint32_t value)
{
    uint64_t start = rdtsc();

    while (*word != value && rdtsc() - start < WAIT_TICKS) {
        cpu_pause();
    }
    return *word == value;
}

static void wait_ticks(uint64_t ticks)
{
    uint64_t start = rdtsc();

    while (rdtsc() - start < ticks) {
        cpu_pause();
    }
}

static void start(void)
{
    const uint64_t settle = 1000000;
    void *base = (void *)REAL_BASE;

    __asm__("" : "+r"(base));
    memcpy(base, real_code, (size_t)(real_code_end - real_code));
    for (size_t i = 0; i < NR_RESULTS; i++) {
        *result(i) = 0;
    }
    lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | LAPIC_ICR_INIT);
    wait_ticks(settle);
    lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | REAL_BASE >> 12);
}

void guest_main(void)
{
    lapic_enable(false);
    /* Twice: the second time from wherever INIT finds it. */
    for (unsigned round = 0; round < 2; round++) {
        start();
        bool ready = wait_for(result(RESULT_IRQ), SEND_NOW);
        /* One after the other: two that are pending at once are one interrupt. */
        for (uint32_t i = 1; ready && i <= 3; i++) {
            lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | REAL_IRQ);
            ready = wait_for(low_word(REAL_TAKEN), i);
        }
        (void)wait_for(result(NR_RESULTS - 1), THE_END);
        for (size_t i = 0; i < NR_RESULTS; i++) {
            if (i == RESULT_LIMIT && boot_option_is("limits", "off")) {
                continue;
            }
            uint32_t want = i == RESULT_ARITHMETIC ? arithmetic() : results[i].want;

            if (*result(i) != want) {
                console_printf("%s: %x instead of %x\n", results[i].name, *result(i), want);
            }
            report_check(*result(i) == want, results[i].name, "another value");
        }
    }
    report_summary();
}
