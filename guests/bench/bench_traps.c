/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bench guest's exception and interrupt handlers: entered straight from the IDT, so that their
 * own cost stays at a dozen instructions.
 */
#include <stddef.h>

#include "guests/bench/bench.h"
#include "guests/lib/trap.h"

#define MSR_X2APIC_EOI 0x80bU

struct interrupt_frame {
    uint64_t rip, cs, rflags, rsp, ss;
};

volatile uint64_t bench_irqs;
volatile uint64_t *volatile bench_pf_entry;
volatile uint64_t bench_pf_value;

__attribute__((interrupt)) static void on_pf(struct interrupt_frame *frame, uint64_t error)
{
    (void)error;
    if (bench_pf_entry) {
        *bench_pf_entry = bench_pf_value;
    } else {
        frame->rip += 2;
    }
}

__attribute__((interrupt)) static void on_ud2(struct interrupt_frame *frame)
{
    frame->rip += 2;
}

__attribute__((interrupt)) static void on_ud3(struct interrupt_frame *frame)
{
    frame->rip += 3;
}

/* RDMSR and WRMSR of what the host does not have: two bytes. */
__attribute__((interrupt)) static void on_gp(struct interrupt_frame *frame, uint64_t error)
{
    (void)error;
    frame->rip += 2;
}

__attribute__((interrupt)) static void on_irq(struct interrupt_frame *frame)
{
    (void)frame;
    bench_irqs++;
    BENCH_WRMSR(MSR_X2APIC_EOI, 0);
}

void bench_traps_init(void)
{
    trap_set_raw(TRAP_PF, (uint64_t)on_pf);
    trap_set_raw(TRAP_GP, (uint64_t)on_gp);
    trap_set_raw(BENCH_VECTOR, (uint64_t)on_irq);
    bench_traps_skip_ud(2);
}

void bench_traps_skip_ud(unsigned int bytes)
{
    trap_set_raw(TRAP_UD, bytes == 3 ? (uint64_t)on_ud3 : (uint64_t)on_ud2);
}
