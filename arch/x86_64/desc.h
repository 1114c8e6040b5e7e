/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Descriptor tables. Each processor has its own GDT and TSS; two interrupt descriptor tables are
 * shared by all. The full one puts NMI, double fault and machine check on stacks of their own. The
 * other has no interrupt-stack-table entries: it is in force while SVM's fast path runs with the
 * guest's TR loaded, where an IST vector would take its stack from guest memory.
 */
#pragma once

#include "kernel/lib/err.h"

#define SEL_CODE 0x08u
#define SEL_DATA 0x10u
#define SEL_TSS 0x18u

/* IST numbers of the full table; struct cpu's ist_stack[] is indexed by number - 1. */
#define IST_NMI 1u
#define IST_DF 2u
#define IST_MC 3u
#define NR_IST 3u

struct desc_ptr {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct cpu;

/* Build both IDTs. Boot processor, once, before desc_load. */
void desc_init(void);
/* Give `cpu` its GDT and TSS with the IST stacks of cpu->ist_stack[], whose anchors are written.
 * The boot processor uses built-in tables; others get memory (HV_ENOMEM). */
enum hv_err desc_init_cpu(struct cpu *cpu) __must_check;
/* Load GDT, TR, segment registers and the full IDT of `cpu` on this processor. */
void desc_load(struct cpu *cpu);
/* cpu->ist_stack[] changed: update its TSS and the new stacks' anchors. That processor only. */
void desc_set_ist(struct cpu *cpu);

/* For LIDT around the SVM fast path, and for VMX host state. */
const struct desc_ptr *desc_idt_full(void);
const struct desc_ptr *desc_idt_noist(void);
/* This processor's bases, for VMX host state. */
uint64_t desc_gdt_base(const struct cpu *cpu);
uint64_t desc_tss_base(const struct cpu *cpu);
