/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Executing one instruction on the processor that the test runs on, with all general registers and
 * flags given, in 64-bit mode or, through segments of the local descriptor table, in 32-bit protected
 * mode; faults are caught and told. Linux only. The instruction must not jump.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum native_mode { NATIVE_32, NATIVE_64 };

#define NATIVE_FIRST_DATA 1 /* entry; code is 0 */

struct native_regs {
    uint64_t gpr[16], flags;
    uint16_t seg[6]; /* selectors: ES, CS, SS, DS, FS, GS; CS and FS are not loaded */
    unsigned vector; /* of the fault, or NATIVE_NO_FAULT */
    uint32_t error;
    uint64_t cr2;
};
#define NATIVE_NO_FAULT 0xffu

/* `code` is an executable page below 4 GiB; the code segment begins there, of 64 KiB. False: there are no
 * such segments here, and only 64-bit mode works. */
bool native_init(uint8_t *code);
/* Take over the signals that faults become; before the first run, after whoever else wants them. */
void native_catch_faults(void);
/* A data segment, of attributes as in a descriptor (low and high byte); returns its selector. 0:
 * this kernel makes no such segments (16-bit ones). */
uint16_t native_segment(unsigned entry, uint32_t base, uint32_t limit, uint16_t attr);
/* Run; the result replaces *r. RIP does not move: instructions begin at native_rip. */
void native_run(enum native_mode mode, struct native_regs *r, const uint8_t *insn, unsigned len);
/* Where they begin, in the mode's terms. */
uint64_t native_rip(enum native_mode mode);
/* GS base of 64-bit code, until segment registers are loaded the next time. */
void native_gs_base(uint64_t base);
