/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scripts of memory accesses, run in a paging mode of one's choice with no step of anybody else's in
 * between: what the processor remembers of the tables is the script's doing alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NO_FAULT 0xffffffffU
#define FAULT(vector, error) ((uint32_t)(vector) << 16 | (error))

/* In the order of script_do (steps.inc). Accesses are of 32 bits; EXEC calls a function without arguments. */
enum step_kind {
    STEP_END,
    STEP_LOAD,
    STEP_STORE,
    STEP_ADD,
    STEP_EXEC,
    STEP_INVLPG,
    STEP_CR3,
    STEP_CR0,
    STEP_CR4,
    STEP_STAC, /* until CLAC, the next step of the user's, or the end */
    STEP_CLAC,
};

/* One step. The offsets are known to modes.asm. */
struct step {
    uint32_t kind;
    uint32_t user; /* by code at privilege 3 */
    uint64_t addr;
    uint64_t value;
    uint64_t got; /* what LOAD and EXEC found */
    uint64_t cr2;
    uint32_t fault; /* NO_FAULT or FAULT() */
    uint32_t want_fault;
    uint32_t want; /* LOAD, EXEC */
    uint32_t or_want;
    uint32_t line;     /* of the source, for what is said of it */
    uint32_t or_fault; /* as good as want_fault */
};
_Static_assert(sizeof(struct step) == 64 && offsetof(struct step, fault) == 40,
               "known to modes.asm");

/* The processor's registers for a run. */
struct setting {
    uint64_t cr0, cr3, cr4, efer;
};

/* Builds descriptor tables; once, before the first run. */
void run_init(void);

/* Runs a script with 32-bit code outside long mode, or in long mode, and comes back. */
void run_script(struct step *script, const struct setting *set, bool long_mode);
