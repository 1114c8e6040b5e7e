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

/* Bit `n` of value. */
static uint64_t bit_of(uint64_t value, unsigned n)
{
    return value >> n & 1;
}

static uint64_t set_shift_flags(uint64_t rflags, uint64_t result, unsigned size, bool carry,
                                bool overflow)
{
    return (rflags & ~ARITHMETIC_FLAGS) | result_flags(result, size) | (carry ? RFLAGS_CF : 0) |
           (overflow ? RFLAGS_OF : 0);
}

/* One place at a time: shifts by registers' counts are rare. */
static uint64_t rotate(enum alu_shift op, unsigned size, uint64_t dst, unsigned count,
                       uint64_t *rflags)
{
    unsigned top = 8 * size - 1;
    uint64_t carry = *rflags & RFLAGS_CF ? 1 : 0;

    for (unsigned i = 0; i < count; i++) {
        bool left = op == ALU_ROL || op == ALU_RCL;
        uint64_t out = bit_of(dst, left ? top : 0);
        uint64_t in = op == ALU_RCL || op == ALU_RCR ? carry : out;

        dst = left ? dst << 1 | in : dst >> 1 | in << top;
        dst &= mask_of(size);
        carry = out;
    }
    bool overflow = op == ALU_ROL || op == ALU_RCL ? (bit_of(dst, top) ^ carry) != 0
                                                   : (bit_of(dst, top) ^ bit_of(dst, top - 1)) != 0;
    *rflags =
        (*rflags & ~(RFLAGS_CF | RFLAGS_OF)) | (carry ? RFLAGS_CF : 0) | (overflow ? RFLAGS_OF : 0);
    return dst;
}

uint64_t alu_shift(enum alu_shift op, unsigned size, uint64_t dst, unsigned count, uint64_t *rflags)
{
    unsigned bits = 8 * size, top = bits - 1;
    bool carry, overflow;
    uint64_t result;

    dst &= mask_of(size);
    count &= size == 8 ? 63 : 31;
    if (count == 0) {
        return dst;
    }
    if (op <= ALU_RCR) {
        return rotate(op, size, dst, count, rflags);
    }
    if (op == ALU_SHR) {
        result = count < bits ? dst >> count : 0;
        carry = count <= bits && bit_of(dst, count - 1);
        overflow = bit_of(dst, top);
    } else if (op == ALU_SAR) {
        int64_t wide = (int64_t)(dst << (64 - bits)) >> (64 - bits);

        result = (uint64_t)(wide >> MIN(count, 63u)) & mask_of(size);
        carry = (wide >> MIN(count - 1, 63u)) & 1;
        overflow = false;
    } else {
        result = count < bits ? dst << count & mask_of(size) : 0;
        carry = count <= bits && bit_of(dst, bits - count);
        overflow = bit_of(result, top) != carry;
    }
    *rflags = set_shift_flags(*rflags, result, size, carry, overflow);
    return result;
}

uint64_t alu_shift_double(bool right, unsigned size, uint64_t dst, uint64_t fill, unsigned count,
                          uint64_t *rflags)
{
    unsigned bits = 8 * size;
    uint64_t result;
    bool carry;

    dst &= mask_of(size);
    fill &= mask_of(size);
    count &= size == 8 ? 63 : 31;
    if (count == 0 || count > bits) {
        return dst; /* beyond the size all is undefined */
    }
    if (right) {
        result = (count < bits ? dst >> count : 0) | fill << (bits - count);
        carry = bit_of(dst, count - 1);
    } else {
        result = (count < bits ? dst << count : 0) | fill >> (bits - count);
        carry = bit_of(dst, bits - count);
    }
    result &= mask_of(size);
    *rflags = set_shift_flags(*rflags, result, size, carry,
                              (bit_of(result, bits - 1) ^ bit_of(dst, bits - 1)) != 0);
    return result;
}

bool alu_condition(unsigned number, uint64_t rflags)
{
    bool less = ((rflags & RFLAGS_SF) != 0) != ((rflags & RFLAGS_OF) != 0);
    bool holds;

    switch (number >> 1 & 7) {
    case 0:
        holds = rflags & RFLAGS_OF;
        break;
    case 1:
        holds = rflags & RFLAGS_CF;
        break;
    case 2:
        holds = rflags & RFLAGS_ZF;
        break;
    case 3:
        holds = rflags & (RFLAGS_CF | RFLAGS_ZF);
        break;
    case 4:
        holds = rflags & RFLAGS_SF;
        break;
    case 5:
        holds = rflags & RFLAGS_PF;
        break;
    case 6:
        holds = less;
        break;
    default:
        holds = less || (rflags & RFLAGS_ZF);
        break;
    }
    return holds != ((number & 1) != 0);
}
