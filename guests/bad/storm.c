/* SPDX-License-Identifier: BSD-2-Clause */
/* Storms: timers without a pause, messages to its own processors, text without end. */
#include "guests/bad/bad.h"
#include "guests/lib/arch.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"
#include "guests/lib/trap.h"

#define TICK_VECTOR 0x52
#define IPI_VECTOR 0x53
#define SPAN_TICKS 3000000UL
#define MSR_TSC_ADJUST 0x3bU
#define MSR_TSC_DEADLINE 0x6e0U
#define TIMER_DEADLINE (1U << 18)
#define FLOOD_ROUNDS 300U
#define ICR_NMI 0x400U
#define ICR_ALL 0x80000U

static volatile uint32_t ticks;
static volatile uint64_t rearm_until; /* the handler asks for the next tick itself until then */

static void on_tick(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    if (rdtsc() < rearm_until) {
        lapic_write(LAPIC_TIMER_INITIAL, 1);
    }
    lapic_eoi();
}

static void listen(void)
{
    uint64_t start = rdtsc();
    irq_enable();
    while (rdtsc() - start < SPAN_TICKS) {
        cpu_pause();
    }
    irq_disable();
}

static void shortest_periods(void)
{
    for (uint32_t divide = 0; divide < 16; divide += 5) {
        for (uint32_t count = 0; count < 4; count++) {
            lapic_write(LAPIC_TIMER_DIVIDE, divide);
            lapic_write(LAPIC_LVT_TIMER, LAPIC_TIMER_PERIODIC | TICK_VECTOR);
            lapic_write(LAPIC_TIMER_INITIAL, count);
            listen();
        }
    }
    lapic_write(LAPIC_LVT_TIMER, TICK_VECTOR);
    /* A tick that is due before its handler returns lets nothing else run: it has to end there. */
    rearm_until = rdtsc() + SPAN_TICKS;
    lapic_write(LAPIC_TIMER_INITIAL, 1);
    listen();
    lapic_write(LAPIC_TIMER_INITIAL, ~0U);
    lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
    (void)lapic_read(LAPIC_TIMER_CURRENT);
}

static void extreme_deadlines(void)
{
    lapic_write(LAPIC_LVT_TIMER, TIMER_DEADLINE | TICK_VECTOR);
    for (uint32_t i = 0; i < 2000; i++) {
        uint64_t now = rdtsc(), read;
        const uint64_t values[] = {0, 1, now - 1, now, now + 1, ~0UL, 1UL << 63, ~0UL - now};
        trap_wrmsr(MSR_TSC_DEADLINE, values[i % 8]);
        trap_rdmsr(MSR_TSC_DEADLINE, &read);
        irq_window();
        if (i % 16 == 15) {
            trap_wrmsr(i & 16 ? MSR_TSC : MSR_TSC_ADJUST, values[i / 16 % 8]);
        }
    }
    trap_wrmsr(MSR_TSC_DEADLINE, 0);
    trap_wrmsr(MSR_TSC_ADJUST, 0);
    lapic_write(LAPIC_LVT_TIMER, LAPIC_LVT_MASKED);
}

void bad_timer(void)
{
    trap_set(TICK_VECTOR, on_tick);
    lapic_enable(false);
    shortest_periods();
    extreme_deadlines();
    console_printf("badguest: %u ticks\n", ticks);
    report_check(ticks > 0, "timer-storm", "no tick came");
}

static void ignore(struct trap_frame *frame)
{
    (void)frame;
}

static void acknowledge(struct trap_frame *frame)
{
    (void)frame;
    lapic_eoi();
}

static void flood(uint32_t index)
{
    lapic_enable(false);
    irq_enable();
    for (;;) {
        lapic_ipi(index, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | ICR_NMI);
        lapic_ipi(0, ICR_ALL | LAPIC_ICR_ASSERT | IPI_VECTOR);
        lapic_ipi(index + 1, LAPIC_ICR_ASSERT | IPI_VECTOR);
    }
}

/* INIT, start-up messages, NMIs and interrupts to all processors, from all of them. */
void bad_flood(void)
{
    trap_set(TRAP_NMI, ignore);
    trap_set(IPI_VECTOR, acknowledge);
    lapic_enable(false);
    uint32_t found = smp_start(flood, 1, SPAN_TICKS * 100);
    irq_enable();
    for (uint32_t i = 0; i < FLOOD_ROUNDS; i++) {
        lapic_ipi(i % 4, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | LAPIC_ICR_INIT);
        lapic_ipi(0, ICR_ALL | LAPIC_ICR_ASSERT | ICR_NMI);
        lapic_ipi(i % 8, LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | 8);
        lapic_ipi(1 + i % 3, LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | (i & 0xff));
        lapic_ipi(1 + i % 3, LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | 8);
        lapic_ipi(0, ICR_ALL | LAPIC_ICR_ASSERT | IPI_VECTOR);
    }
    irq_disable();
    report_check(found > 0, "flood", "nobody else came up");
}

void bad_babble(void)
{
    for (uint64_t i = 0;; i++) {
        console_printf("badguest: line %lu of very many\n", i);
    }
}
