/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * GDT, TSS and the two IDTs. Formats: "Interrupt Descriptor Table", "64-Bit Task State Segment".
 * A processor's tables are written by itself before it takes traps (desc_set_ist: with interrupts
 * off); the IDTs are constant after desc_init.
 */
#include "arch/x86_64/desc.h"

#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define NR_VECTORS 256u
#define GATE_INTERRUPT 0x8e00u /* present, DPL 0, 64-bit interrupt gate */
#define GDT_ENTRIES 5u         /* null, code, data, and the two halves of the TSS descriptor */

struct idt_gate {
    uint16_t offset_low;
    uint16_t selector;
    uint16_t type_ist;
    uint16_t offset_mid;
    uint32_t offset_high;
    uint32_t reserved;
};
_Static_assert(sizeof(struct idt_gate) == 16, "gate size");

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t iomap_base;
} __packed;
_Static_assert(sizeof(struct tss) == 104, "TSS size");
_Static_assert(offsetof(struct tss, ist) == 36, "TSS IST offset");

/* What struct cpu's `tables` points to. */
struct cpu_tables {
    uint64_t gdt[GDT_ENTRIES];
    struct tss tss;
};

extern const uint64_t trap_stubs[NR_VECTORS]; /* trap.asm */

static struct idt_gate idt_full[NR_VECTORS] __aligned(4096);
static struct idt_gate idt_noist[NR_VECTORS] __aligned(4096);
static struct desc_ptr ptr_full, ptr_noist;
static struct cpu_tables boot_tables_of_cpu __aligned(64);

static void set_gate(struct idt_gate *g, uint64_t entry, unsigned ist)
{
    *g = (struct idt_gate){
        .offset_low = (uint16_t)entry,
        .selector = SEL_CODE,
        .type_ist = (uint16_t)(GATE_INTERRUPT | ist),
        .offset_mid = (uint16_t)(entry >> 16),
        .offset_high = (uint32_t)(entry >> 32),
    };
}

void desc_init(void)
{
    for (unsigned v = 0; v < NR_VECTORS; v++) {
        set_gate(&idt_full[v], trap_stubs[v], 0);
        set_gate(&idt_noist[v], trap_stubs[v], 0);
    }
    set_gate(&idt_full[EXC_NMI], trap_stubs[EXC_NMI], IST_NMI);
    set_gate(&idt_full[EXC_DF], trap_stubs[EXC_DF], IST_DF);
    set_gate(&idt_full[EXC_MC], trap_stubs[EXC_MC], IST_MC);
    ptr_full = (struct desc_ptr){sizeof(idt_full) - 1, (uint64_t)idt_full};
    ptr_noist = (struct desc_ptr){sizeof(idt_noist) - 1, (uint64_t)idt_noist};
}

static void set_tss_descriptor(uint64_t *slot, uint64_t base)
{
    const uint64_t available_tss = 0x89;

    slot[0] = (sizeof(struct tss) - 1) | (base & 0xffffff) << 16 | available_tss << 40 |
              ((base >> 24) & 0xff) << 56;
    slot[1] = base >> 32;
}

void desc_set_ist(struct cpu *cpu)
{
    struct cpu_tables *t = cpu->tables;

    for (unsigned i = 0; i < NR_IST; i++) {
        if (cpu->ist_stack[i] != 0) {
            stack_set_anchor(cpu->ist_stack[i] - 1, cpu);
        }
        t->tss.ist[i] = cpu->ist_stack[i];
    }
}

enum hv_err desc_init_cpu(struct cpu *cpu)
{
    struct cpu_tables *t =
        cpu->id == 0 ? &boot_tables_of_cpu : kmalloc(sizeof(struct cpu_tables), OWNER_HOST);

    if (t == NULL) {
        return HV_ENOMEM;
    }
    memset(t, 0, sizeof(*t));
    t->gdt[SEL_CODE / 8] = 0x00af9b000000ffff; /* 64-bit code, accessed */
    t->gdt[SEL_DATA / 8] = 0x00cf93000000ffff; /* writable data, accessed */
    set_tss_descriptor(&t->gdt[SEL_TSS / 8], (uint64_t)&t->tss);
    t->tss.iomap_base = sizeof(struct tss); /* no I/O bitmap */
    cpu->tables = t;
    desc_set_ist(cpu);
    return HV_OK;
}

void desc_load(struct cpu *cpu)
{
    struct cpu_tables *t = cpu->tables;
    struct desc_ptr gdt = {sizeof(t->gdt) - 1, (uint64_t)t->gdt};
    uint64_t scratch;

    __asm__ volatile("lgdt %1\n"
                     "pushq %2\n"
                     "leaq 1f(%%rip), %0\n"
                     "pushq %0\n"
                     "lretq\n"
                     "1: movl %3, %%ds\n"
                     "movl %3, %%es\n"
                     "movl %3, %%ss\n"
                     "movl %4, %%fs\n"
                     "movl %4, %%gs\n"
                     "lldt %w4\n"
                     : "=&r"(scratch)
                     : "m"(gdt), "i"(SEL_CODE), "r"(SEL_DATA), "r"(0)
                     : "memory");
    /* A reload after INIT or a warm start finds the descriptor busy. */
    set_tss_descriptor(&t->gdt[SEL_TSS / 8], (uint64_t)&t->tss);
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
    __asm__ volatile("lidt %0" ::"m"(ptr_full) : "memory");
}

const struct desc_ptr *desc_idt_full(void)
{
    return &ptr_full;
}

const struct desc_ptr *desc_idt_noist(void)
{
    return &ptr_noist;
}

uint64_t desc_gdt_base(const struct cpu *cpu)
{
    return (uint64_t)((const struct cpu_tables *)cpu->tables)->gdt;
}

uint64_t desc_tss_base(const struct cpu *cpu)
{
    return (uint64_t) & ((const struct cpu_tables *)cpu->tables)->tss;
}
