/* SPDX-License-Identifier: BSD-2-Clause */
/* See alu.h. Carries and overflows are read off the operands and the result, bit by bit. */
#include "kernel/emul/alu.h"

#include "arch/x86_64/regs.h"

#define ARITHMETIC_FLAGS (RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

static uint64_t mask_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(8 * size) - 1;
}

static uint64_t result_flags(uint64_t result, unsigned size)
{
    uint64_t flags = 0;

    if (!__builtin_parity((unsigned)result & 0xff)) {
        flags |= RFLAGS_PF;
    }
    if (!(result & mask_of(size))) {
        flags |= RFLAGS_ZF;
    }
    if (result & BIT(8 * size - 1)) {
        flags |= RFLAGS_SF;
    }
    return flags;
}

/* `carry` and `overflow` have the sign bit of the operand size as their answer. */
static uint64_t carry_flags(uint64_t carries, uint64_t overflow, unsigned size)
{
    uint64_t sign = BIT(8 * size - 1);

    return (carries & sign ? RFLAGS_CF : 0) | (carries & 8 ? RFLAGS_AF : 0) |
           (overflow & sign ? RFLAGS_OF : 0);
}

uint64_t alu(enum alu_op op, unsigned size, uint64_t dst, uint64_t src, uint64_t *rflags)
{
    uint64_t carry_in = *rflags & RFLAGS_CF ? 1 : 0;
    uint64_t result, carries = 0, overflow = 0;

    dst &= mask_of(size);
    src &= mask_of(size);
    switch (op) {
    case ALU_ADD:
    case ALU_ADC:
        result = dst + src + (op == ALU_ADC ? carry_in : 0);
        carries = (dst & src) | ((dst | src) & ~result);
        overflow = (dst ^ result) & (src ^ result);
        break;
    case ALU_OR:
        result = dst | src;
        break;
    case ALU_AND:
        result = dst & src;
        break;
    case ALU_XOR:
        result = dst ^ src;
        break;
    default: /* SUB, SBB, CMP */
        result = dst - src - (op == ALU_SBB ? carry_in : 0);
        carries = (~dst & src) | ((~dst | src) & result);
        overflow = (dst ^ src) & (dst ^ result);
        break;
    }
    result &= mask_of(size);
    *rflags = (*rflags & ~ARITHMETIC_FLAGS) | result_flags(result, size) |
              carry_flags(carries, overflow, size);
    return result;
}

uint64_t alu_inc(unsigned size, uint64_t dst, bool dec, uint64_t *rflags)
{
    uint64_t carry = *rflags & RFLAGS_CF;
    uint64_t result = alu(dec ? ALU_SUB : ALU_ADD, size, dst, 1, rflags);

    *rflags = (*rflags & ~RFLAGS_CF) | carry;
    return result;
}

uint64_t alu_neg(unsigned size, uint64_t dst, uint64_t *rflags)
{
    return alu(ALU_SUB, size, 0, dst, rflags);
}
