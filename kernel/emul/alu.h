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
