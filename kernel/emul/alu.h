/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Integer arithmetic with the processor's flags. Pure. Manual: Intel SDM volume 1, "Status Flags".
 */
#pragma once

#include "kernel/lib/types.h"

/* In the order of the opcodes. */
enum alu_op { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };

/* dst OP src of `size` bytes; returns the result (for CMP that of SUB) and sets CF, PF, AF, ZF, SF, OF
 * in *rflags (AF of logical operations: cleared). */
uint64_t alu(enum alu_op op, unsigned size, uint64_t dst, uint64_t src, uint64_t *rflags);
/* INC and DEC leave CF alone. */
uint64_t alu_inc(unsigned size, uint64_t dst, bool dec, uint64_t *rflags);
uint64_t alu_neg(unsigned size, uint64_t dst, uint64_t *rflags);
/* Rotate or shift by `count`, masked as the processor masks it. Flags that the manual leaves open (OF of
 * counts above 1) are as those of a count of 1. */
enum alu_shift { ALU_ROL, ALU_ROR, ALU_RCL, ALU_RCR, ALU_SHL, ALU_SHR, ALU_SAL, ALU_SAR };
uint64_t alu_shift(enum alu_shift op, unsigned size, uint64_t dst, unsigned count,
                   uint64_t *rflags);
/* SHLD, SHRD: `fill` is what comes in. */
uint64_t alu_shift_double(bool right, unsigned size, uint64_t dst, uint64_t fill, unsigned count,
                          uint64_t *rflags);
/* The condition of Jcc, SETcc, CMOVcc with that number. */
bool alu_condition(unsigned number, uint64_t rflags);
