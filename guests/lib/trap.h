/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exceptions and interrupts of a guest: one IDT shared by all its processors, C handlers per
 * vector, and guarded instructions that survive an exception. Guarding is for the boot processor only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    TRAP_NMI = 2,
    TRAP_UD = 6,
    TRAP_GP = 13,
    TRAP_PF = 14,
};

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

typedef void (*trap_fn)(struct trap_frame *frame);

/* Builds and loads the IDT: every vector prints and stops the guest unless told otherwise. */
void trap_init(void);

/* Loads the IDT on this processor (application processors call it once). */
void trap_load(void);

/* Sets the handler of a vector; NULL restores the default. */
void trap_set(uint8_t vector, trap_fn fn);

/* Puts the address of code with its own IRET straight into the IDT, without the common path. */
void trap_set_raw(uint8_t vector, uint64_t entry);

/* Set by TRAP_GUARDED; read by the dispatcher. */
extern volatile uint64_t trap_fixup_rip, trap_fixup_rsp;
extern volatile int trap_taken;

/*
 * Assembler text around one guarded instruction: an exception inside it continues behind it with
 * the stack pointer as it was. R10 must be in the clobber list. trap_taken then holds the vector,
 * or -1.
 */
#define TRAP_GUARDED(insn)                            \
    "movl $-1, trap_taken(%%rip)\n\t"                 \
    "movq %%rsp, trap_fixup_rsp(%%rip)\n\t"           \
    "leaq 77f(%%rip), %%r10\n\t"                      \
    "movq %%r10, trap_fixup_rip(%%rip)\n\t" insn "\n" \
    "77:\tmovq $0, trap_fixup_rip(%%rip)\n\t"

/* Vector that the last guarded instruction raised, or -1. */
static inline int trap_vector(void)
{
    return trap_taken;
}

/* Guarded RDMSR and WRMSR: true when no exception came; the value is 0 after one. */
bool trap_rdmsr(uint32_t msr, uint64_t *value);
bool trap_wrmsr(uint32_t msr, uint64_t value);
