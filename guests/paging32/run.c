/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptor tables for modes.asm. */
#include "guests/paging32/run.h"

#include "guests/lib/trap.h"

#define SEL_CODE64 0x08U
#define SEL_CODE32 0x18U
#define SEL_DATA 0x10U
#define GATE_SYSTEM 0x8eU
#define GATE_USER 0xeeU
#define NR_GATES 0x81U
#define USER_DONE 0x80U
#define TSS_BYTES 104U
#define TSS_LIMIT (TSS_BYTES - 1U)
#define STACK_BYTES 4096U

/* Entries of modes.asm, for either width. */
#define ENTRIES(width)                                                             \
    extern char paging_user_done##width[], paging_ud##width[], paging_df##width[], \
        paging_gp##width[], paging_pf##width[]
ENTRIES(32);
ENTRIES(64);
void paging_run32(struct step *script, const struct setting *set);
void paging_run64(struct step *script, const struct setting *set);

uint64_t paging_gdt[10] = {
    0,
    0x00af9b000000ffff, /* 64-bit code */
    0x00cf93000000ffff, /* data */
    0x00cf9b000000ffff, /* 32-bit code */
    0x00cffb000000ffff, /* the user's 32-bit code */
    0x00cff3000000ffff, /* the user's data */
    0x00affb000000ffff, /* the user's 64-bit code */
};
#define GDT_TSS32 7U
#define GDT_TSS64 8U

uint64_t paging_idt32[NR_GATES], paging_idt64[NR_GATES][2];

/* Where a step begins: faults and the user's end come back here. */
uint64_t paging_sp;

static uint32_t tss32[TSS_BYTES / 4], tss64[TSS_BYTES / 4];
static char stack[STACK_BYTES] __attribute__((aligned(16)));

/* The first eight bytes of a gate, which are all that 32-bit code has. */
static uint64_t gate(const char *entry, uint32_t selector, uint32_t type)
{
    uint64_t at = (uint64_t)entry;

    return (at & 0xffff) | (uint64_t)selector << 16 | (uint64_t)type << 40 |
           (at >> 16 & 0xffff) << 48;
}

static void set_gates(unsigned vector, const char *entry32, const char *entry64)
{
    uint32_t type = vector == USER_DONE ? GATE_USER : GATE_SYSTEM;

    paging_idt32[vector] = gate(entry32, SEL_CODE32, type);
    paging_idt64[vector][0] = gate(entry64, SEL_CODE64, type);
}

static uint64_t tss_descriptor(const uint32_t *tss)
{
    uint64_t at = (uint64_t)tss;

    return TSS_LIMIT | (at & 0xffffff) << 16 | 0x89UL << 40 | (at >> 24 & 0xff) << 56;
}

void run_init(void)
{
    uint32_t top = (uint32_t)(uint64_t)(stack + STACK_BYTES);

    tss32[1] = top;
    tss32[2] = SEL_DATA;
    tss64[1] = top;
    paging_gdt[GDT_TSS32] = tss_descriptor(tss32);
    paging_gdt[GDT_TSS64] = tss_descriptor(tss64);
    set_gates(TRAP_UD, paging_ud32, paging_ud64);
    set_gates(8, paging_df32, paging_df64);
    set_gates(TRAP_GP, paging_gp32, paging_gp64);
    set_gates(TRAP_PF, paging_pf32, paging_pf64);
    set_gates(USER_DONE, paging_user_done32, paging_user_done64);
}

void run_script(struct step *script, const struct setting *set, bool long_mode)
{
    if (long_mode) {
        paging_run64(script, set);
    } else {
        paging_run32(script, set);
    }
    trap_load();
}
