/* SPDX-License-Identifier: BSD-2-Clause */
/* Misbehaviour in the flow of control: shutdown, deaf loops, wild jumps, interrupt storms. */
#include "guests/bad/bad.h"
#include "guests/lib/arch.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/trap.h"

#define STORM_VECTOR 0x51
#define STORM_COUNT 20000U

static volatile uint32_t storm_seen;

static void load_idt_limit(uint16_t limit)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idtr = {limit, 0};
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void bad_triple(void)
{
    console_printf("badguest: triple fault now\n");
    console_drain();
    load_idt_limit(0);
    __asm__ volatile("ud2");
}

void bad_cli(void)
{
    console_printf("badguest: deaf from now on\n");
    irq_disable();
    for (;;) {
        __asm__ volatile("" : : : "memory");
    }
}

void bad_clihlt(void)
{
    console_printf("badguest: asleep for ever\n");
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

static void jump_to(uint64_t addr)
{
    __asm__ volatile(TRAP_GUARDED("call *%0")
                     :
                     : "r"(addr)
                     : "r10", "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r11", "cc", "memory");
    console_printf("badguest: jump to 0x%lx gave vector %d\n", addr, trap_vector());
    report_check(trap_vector() >= 0, "wild", "a jump into nothing returned");
}

void bad_wild(void)
{
    jump_to(0x8000000000UL);   /* not mapped: #PF */
    jump_to(0x800000000000UL); /* not canonical: #GP */
    console_printf("badguest: now to where no RAM is; this may end the VM\n");
    console_drain();
    jump_to(0xf0000000UL);
}

static void on_storm(struct trap_frame *frame)
{
    (void)frame;
    storm_seen++;
    lapic_eoi();
}

void bad_idt(void)
{
    trap_set(STORM_VECTOR, on_storm);
    lapic_enable(false);
    irq_enable();
    for (uint32_t i = 0; i < STORM_COUNT; i++) {
        lapic_ipi(0, LAPIC_ICR_SELF | LAPIC_ICR_ASSERT | STORM_VECTOR);
    }
    irq_disable();
    console_printf("badguest: storm of %u, %u seen\n", STORM_COUNT, storm_seen);
    report_check(storm_seen > 0, "idt-storm", "no interrupt came");
    console_printf("badguest: the same without an IDT: triple fault now\n");
    console_drain();
    load_idt_limit(0);
    irq_enable();
    lapic_ipi(0, LAPIC_ICR_SELF | LAPIC_ICR_ASSERT | STORM_VECTOR);
    for (;;) {
        cpu_pause();
    }
}
