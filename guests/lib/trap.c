/* SPDX-License-Identifier: BSD-2-Clause */
/* The IDT and its dispatcher. */
#include "guests/lib/trap.h"

#include <stddef.h>

#include "guests/lib/arch.h"
#include "guests/lib/console.h"
#include "guests/lib/power.h"

#define STUB_BYTES 16
#define NR_VECTORS 256
#define GATE_INTERRUPT 0x8e
#define SEL_CODE 0x08
#define PIC_MASTER_MASK 0x21
#define PIC_SLAVE_MASK 0xa1

struct gate {
    uint16_t offset0, selector;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, reserved;
};
_Static_assert(sizeof(struct gate) == 16, "a long-mode gate has 16 bytes");

struct idtr {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

extern char entry_trap_stubs[];

static struct gate idt[NR_VECTORS] __attribute__((aligned(16)));
static trap_fn handlers[NR_VECTORS];

volatile uint64_t trap_fixup_rip, trap_fixup_rsp;
volatile int trap_taken;

void trap_dispatch(struct trap_frame *frame);

static void set_gate(uint8_t vector, uint64_t entry)
{
    idt[vector] = (struct gate){
        .offset0 = (uint16_t)entry,
        .selector = SEL_CODE,
        .type = GATE_INTERRUPT,
        .offset1 = (uint16_t)(entry >> 16),
        .offset2 = (uint32_t)(entry >> 32),
    };
}

void trap_load(void)
{
    struct idtr r = {.limit = sizeof idt - 1, .base = (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(r));
}

void trap_init(void)
{
    /* A PC's firmware leaves the tick on vector 8: nobody here wants the 8259 pair. */
    outb(PIC_MASTER_MASK, 0xff);
    outb(PIC_SLAVE_MASK, 0xff);
    for (unsigned int v = 0; v < NR_VECTORS; v++) {
        set_gate((uint8_t)v, (uint64_t)entry_trap_stubs + (uint64_t)v * STUB_BYTES);
    }
    trap_load();
}

void trap_set(uint8_t vector, trap_fn fn)
{
    handlers[vector] = fn;
    set_gate(vector, (uint64_t)entry_trap_stubs + (uint64_t)vector * STUB_BYTES);
}

void trap_set_raw(uint8_t vector, uint64_t entry)
{
    set_gate(vector, entry);
}

void trap_dispatch(struct trap_frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (trap_fixup_rip && frame->vector < 32) {
        trap_taken = (int)frame->vector;
        frame->rip = trap_fixup_rip;
        frame->rsp = trap_fixup_rsp;
        return;
    }
    uint64_t cr2;
    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    console_printf("FAIL unexpected trap %lu error 0x%lx rip 0x%lx rsp 0x%lx cr2 0x%lx\n",
                   frame->vector, frame->error, frame->rip, frame->rsp, cr2);
    power_exit(3);
}

bool trap_rdmsr(uint32_t msr, uint64_t *value)
{
    uint32_t lo = 0, hi = 0;
    __asm__ volatile(TRAP_GUARDED("rdmsr") : "+a"(lo), "+d"(hi) : "c"(msr) : "r10", "memory");
    bool ok = trap_vector() < 0;
    *value = ok ? ((uint64_t)hi << 32) | lo : 0;
    return ok;
}

bool trap_wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile(TRAP_GUARDED("wrmsr")
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "r10", "memory");
    return trap_vector() < 0;
}
