/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One struct cpu per processor, found through the stack pointer: every stack is 16 KiB, size-aligned,
 * and carries at its lowest address an anchor that names the processor it runs on. The switcher
 * rewrites the anchor before it changes RSP. GS is never used: on SVM the guest's GS stays loaded on
 * the fast path.
 */
#pragma once

#include "kernel/lib/types.h"

#define STACK_SIZE 0x4000ULL
#define MAX_CPUS 256

struct thread;
struct vcpu;

struct cpu {
    unsigned id; /* 0 .. nr_cpus()-1, dense; 0 is the boot processor */
    uint32_t apic_id;
    uint32_t acpi_uid;
    bool online;           /* written once by the processor itself (release) */
    uint64_t ist_stack[3]; /* tops of the NMI, double-fault and machine-check stacks */

    /* sched */
    struct thread *current; /* owned by this processor */
    struct thread *idle;
    bool need_resched;  /* set by interrupts here and by other processors (atomic) */
    unsigned irq_depth; /* > 0 inside an interrupt handler */

    /* vm */
    struct vcpu *loaded_vcpu; /* whose hardware state is on this processor, or NULL */
    void *vendor;             /* the vendor's per-processor data */
    uint64_t tag_generation;  /* kernel/vm/tag.c; this processor only */
    uint32_t tag_next;

    uint32_t lock_ranks; /* kernel/lib/lockrank.c (debug builds) */
    void *tables;        /* GDT, TSS, IDTs: arch/x86_64/desc.c */
    uint64_t nr_irqs, nr_nmis, nr_kicks;
};

/* This processor. Not `pure`: re-read after anything that may sleep, for the thread may have moved. */
#ifdef BALLAST_HOST
struct cpu *this_cpu(void); /* host tests have processors of their own */
#else
static inline struct cpu *this_cpu(void)
{
    uint64_t rsp;
    __asm__ volatile("mov %%rsp, %0" : "=r"(rsp));
    return *(struct cpu **)(rsp & ~(STACK_SIZE - 1));
}
#endif

/* Write the anchor of the stack that contains `sp_inside`. */
static inline void stack_set_anchor(uint64_t sp_inside, struct cpu *cpu)
{
    *(struct cpu **)(sp_inside & ~(STACK_SIZE - 1)) = cpu;
}

/* Count `cpu`, whose number is nr_cpus(), as online. Boot processor. */
void percpu_add(struct cpu *cpu);
unsigned nr_cpus(void);             /* processors online; constant after smp_start */
struct cpu *cpu_by_id(unsigned id); /* id < nr_cpus(); 0 from the very start */
