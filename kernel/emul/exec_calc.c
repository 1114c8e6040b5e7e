/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What computes on registers, for code that the processor cannot run (step.c). See exec.h: operands in
 * memory are devices' no more often than RAM's here. Flags that the manual leaves undefined stay as they
 * were. Manual: "Instruction Set Reference", by mnemonic.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/alu.h"
#include "kernel/emul/exec.h"
#include "kernel/vm/vm.h"

static uint64_t flags_get(const struct emul *e)
{
    return hv->get_reg(e->v, REG_RFLAGS);
}

static void flags_set(const struct emul *e, uint64_t flags)
{
    hv->set_reg(e->v, REG_RFLAGS, flags);
}

static uint64_t with_flag(uint64_t flags, uint64_t bit, bool on)
{
    return on ? flags | bit : flags & ~bit;
}

/* The register in the low bits of the opcode. */
static unsigned opcode_reg(const struct insn *in)
{
    return (in->opcode & 7u) | (in->rex & 1 ? 8 : 0);
}

static enum hv_err read_rm(const struct emul *e, unsigned size, uint64_t *value)
{
    struct operand o;
    enum hv_err err = operand_resolve_rm(e, 0, size, false, &o);

    if (!err) {
        err = operand_access(e, &o, false, value);
        operand_release(e, &o);
    }
    return err;
}

static enum hv_err write_rm(const struct emul *e, unsigned size, uint64_t value)
{
    struct operand o;
    enum hv_err err = operand_resolve_rm(e, 0, size, true, &o);

    if (!err) {
        value &= size_mask(size);
        err = operand_access(e, &o, true, &value);
        operand_release(e, &o);
    }
    return err;
}

static enum hv_err fault(const struct emul *e, uint8_t vector)
{
    vcpu_inject_exception(e->v, vector, false, 0);
    return HV_EFAULT;
}

/* --- multiplication and division --- */

/* The accumulator's upper half, or AH. */
static void set_pair(const struct emul *e, unsigned size, uint64_t low, uint64_t high)
{
    if (size == 1) {
        operand_reg_set(e, GPR_RAX, 2, (low & 0xff) | high << 8);
    } else {
        operand_reg_set(e, GPR_RAX, size, low);
        operand_reg_set(e, GPR_RDX, size, high);
    }
}

static unsigned __int128 get_pair(const struct emul *e, unsigned size)
{
    if (size == 1) {
        return operand_reg_get(e, GPR_RAX, 2);
    }
    return (unsigned __int128)operand_reg_get(e, GPR_RDX, size) << (8 * size) |
           operand_reg_get(e, GPR_RAX, size);
}

static __int128 product(uint64_t a, uint64_t b, unsigned size, bool is_signed)
{
    if (is_signed) {
        return (__int128)(int64_t)sign_extend(a, size) * (int64_t)sign_extend(b, size);
    }
    return (__int128)((unsigned __int128)a * b);
}

static bool fits(__int128 value, unsigned size, bool is_signed)
{
    uint64_t low = (uint64_t)value & size_mask(size);

    return is_signed ? value == (int64_t)sign_extend(low, size) : (unsigned __int128)value == low;
}

static enum hv_err multiply(const struct emul *e, unsigned size, bool is_signed)
{
    uint64_t src = 0, flags = flags_get(e);
    enum hv_err err = read_rm(e, size, &src);

    if (err) {
        return err;
    }
    __int128 result = product(operand_reg_get(e, GPR_RAX, size), src, size, is_signed);
    set_pair(e, size, (uint64_t)result & size_mask(size),
             (uint64_t)(result >> (8 * size)) & size_mask(size));
    flags_set(e, with_flag(flags, RFLAGS_CF | RFLAGS_OF, !fits(result, size, is_signed)));
    return HV_OK;
}

/* IMUL with a destination of its own. */
static enum hv_err multiply_into(const struct emul *e, bool immediate)
{
    unsigned size = e->in->operand_bytes;
    uint64_t src = 0, flags = flags_get(e);
    enum hv_err err = read_rm(e, size, &src);

    if (err) {
        return err;
    }
    uint64_t other =
        immediate ? (uint64_t)e->in->imm & size_mask(size) : operand_reg_get(e, e->in->reg, size);
    __int128 result = product(src, other, size, true);
    operand_reg_set(e, e->in->reg, size, (uint64_t)result);
    flags_set(e, with_flag(flags, RFLAGS_CF | RFLAGS_OF, !fits(result, size, true)));
    return HV_OK;
}

/* Quotients of 64 bits need a 128-bit division, which no 64-bit code that we execute asks for. */
static enum hv_err divide(const struct emul *e, unsigned size, bool is_signed)
{
    uint64_t src = 0;
    enum hv_err err = size > 4 ? HV_ENOTSUP : read_rm(e, size, &src);

    if (err) {
        return err;
    }
    uint64_t pair = (uint64_t)get_pair(e, size);
    if (src == 0) {
        return fault(e, EXC_DE);
    }
    if (!is_signed) {
        uint64_t quotient = pair / src;

        if (quotient > size_mask(size)) {
            return fault(e, EXC_DE);
        }
        set_pair(e, size, quotient, pair % src);
        return HV_OK;
    }
    int64_t dividend = (int64_t)sign_extend(pair, 2 * size),
            divisor = (int64_t)sign_extend(src, size);
    if (dividend == INT64_MIN && divisor == -1) {
        return fault(e, EXC_DE);
    }
    int64_t quotient = dividend / divisor;
    if (!fits(quotient, size, true)) {
        return fault(e, EXC_DE);
    }
    set_pair(e, size, (uint64_t)quotient & size_mask(size),
             (uint64_t)(dividend % divisor) & size_mask(size));
    return HV_OK;
}

/* --- decimal --- */

/* DAA, DAS. */
static void decimal_packed(const struct emul *e, bool subtract)
{
    uint64_t flags = flags_get(e), al = operand_reg_get(e, GPR_RAX, 1), result = al;
    bool carry = (flags & RFLAGS_CF) != 0, new_carry = false;
    bool low = (al & 0xf) > 9 || (flags & RFLAGS_AF);

    if (low) {
        result = subtract ? result - 6 : result + 6;
        new_carry = carry || (subtract ? al < 6 : al + 6 > 0xff);
    }
    if (al > 0x99 || carry) {
        result = subtract ? result - 0x60 : result + 0x60;
        new_carry = true;
    }
    operand_reg_set(e, GPR_RAX, 1, result);
    alu(ALU_OR, 1, result, 0, &flags);
    flags_set(e, with_flag(with_flag(flags, RFLAGS_CF, new_carry), RFLAGS_AF, low));
}

/* AAA, AAS. */
static void decimal_unpacked(const struct emul *e, bool subtract)
{
    const uint64_t both = RFLAGS_CF | RFLAGS_AF;
    uint64_t flags = flags_get(e), ax = operand_reg_get(e, GPR_RAX, 2);
    bool adjust = (ax & 0xf) > 9 || (flags & RFLAGS_AF);

    if (adjust) {
        ax = subtract ? ax - 0x106 : ax + 0x106;
    }
    operand_reg_set(e, GPR_RAX, 2, ax & 0xff0f);
    flags_set(e, with_flag(flags, both, adjust));
}

/* AAM, AAD. */
static enum hv_err decimal_scale(const struct emul *e, bool divide_it)
{
    uint64_t flags = flags_get(e), base = (uint64_t)e->in->imm & 0xff;
    uint64_t ax = operand_reg_get(e, GPR_RAX, 2), al = ax & 0xff, result;

    if (divide_it && base == 0) {
        return fault(e, EXC_DE);
    }
    result = divide_it ? (al / base) << 8 | al % base : (al + (ax >> 8) * base) & 0xff;
    operand_reg_set(e, GPR_RAX, 2, result);
    alu(ALU_OR, 1, result, 0, &flags);
    flags_set(e, flags);
    return HV_OK;
}

/* --- shifts, bits --- */

static enum hv_err shift(const struct emul *e, unsigned size, unsigned count)
{
    uint64_t value = 0, flags = flags_get(e);
    struct operand o;
    enum hv_err err = operand_resolve_rm(e, 0, size, true, &o);

    if (err) {
        return err;
    }
    err = operand_access(e, &o, false, &value);
    if (!err) {
        value = alu_shift((enum alu_shift)(e->in->reg & 7), size, value, count, &flags);
        err = operand_access(e, &o, true, &value);
    }
    operand_release(e, &o);
    if (!err) {
        flags_set(e, flags);
    }
    return err;
}

static enum hv_err shift_double(const struct emul *e, unsigned count)
{
    unsigned size = e->in->operand_bytes;
    uint64_t value = 0, flags = flags_get(e);
    struct operand o;
    enum hv_err err = operand_resolve_rm(e, 0, size, true, &o);

    if (err) {
        return err;
    }
    err = operand_access(e, &o, false, &value);
    if (!err) {
        value = alu_shift_double((e->in->opcode & 8) != 0, size, value,
                                 operand_reg_get(e, e->in->reg, size), count, &flags);
        err = operand_access(e, &o, true, &value);
    }
    operand_release(e, &o);
    if (!err) {
        flags_set(e, flags);
    }
    return err;
}

/* BSF, BSR; with F3 they are TZCNT and LZCNT, which CPUID decides. */
static enum hv_err scan(const struct emul *e, bool reverse)
{
    unsigned size = e->in->operand_bytes;
    uint64_t value = 0;
    enum hv_err err = e->in->rep == 0xf3 ? HV_ENOTSUP : read_rm(e, size, &value);

    if (err) {
        return err;
    }
    flags_set(e, with_flag(flags_get(e), RFLAGS_ZF, value == 0));
    if (value != 0) {
        operand_reg_set(e, e->in->reg, size,
                        reverse ? 63u - (unsigned)__builtin_clzll(value)
                                : (unsigned)__builtin_ctzll(value));
    }
    return HV_OK;
}

/* --- moves between registers --- */

static void widen_accumulator(const struct emul *e)
{
    unsigned size = e->in->operand_bytes;

    operand_reg_set(e, GPR_RAX, size, sign_extend(operand_reg_get(e, GPR_RAX, size / 2), size / 2));
}

static void widen_into_data(const struct emul *e)
{
    unsigned size = e->in->operand_bytes;
    bool negative = operand_reg_get(e, GPR_RAX, size) >> (8 * size - 1) & 1;

    operand_reg_set(e, GPR_RDX, size, negative ? UINT64_MAX : 0);
}

static void exchange_accumulator(const struct emul *e)
{
    unsigned size = e->in->operand_bytes, reg = opcode_reg(e->in);
    uint64_t value = operand_reg_get(e, reg, size);

    if (reg == GPR_RAX) {
        return; /* NOP */
    }
    operand_reg_set(e, reg, size, operand_reg_get(e, GPR_RAX, size));
    operand_reg_set(e, GPR_RAX, size, value);
}

static void accumulator_immediate(const struct emul *e)
{
    unsigned size = e->in->opcode & 1 ? e->in->operand_bytes : 1;
    enum alu_op op = (enum alu_op)(e->in->opcode >> 3);
    uint64_t flags = flags_get(e);
    uint64_t result =
        alu(op, size, operand_reg_get(e, GPR_RAX, size), (uint64_t)e->in->imm, &flags);

    if (op != ALU_CMP) {
        operand_reg_set(e, GPR_RAX, size, result);
    }
    flags_set(e, flags);
}

static void test_accumulator(const struct emul *e)
{
    unsigned size = e->in->opcode & 1 ? e->in->operand_bytes : 1;
    uint64_t flags = flags_get(e);

    alu(ALU_AND, size, operand_reg_get(e, GPR_RAX, size), (uint64_t)e->in->imm, &flags);
    flags_set(e, flags);
}

static void increment(const struct emul *e)
{
    unsigned size = e->in->operand_bytes, reg = e->in->opcode & 7;
    uint64_t flags = flags_get(e);

    operand_reg_set(e, reg, size,
                    alu_inc(size, operand_reg_get(e, reg, size), (e->in->opcode & 8) != 0, &flags));
    flags_set(e, flags);
}

static enum hv_err translate_byte(const struct emul *e)
{
    unsigned width = e->in->address_bytes;
    const struct mem_ref ref = {
        .seg = e->in->seg != INSN_NO_SEG ? e->in->seg : SEG_DS,
        .offset =
            (operand_reg_get(e, GPR_RBX, width) + (e->v->gpr[GPR_RAX] & 0xff)) & size_mask(width)};
    uint64_t value = 0;
    struct operand o;
    enum hv_err err = operand_resolve(e, ref, 1, false, &o);

    if (!err) {
        err = operand_access(e, &o, false, &value);
        operand_release(e, &o);
    }
    if (!err) {
        operand_reg_set(e, GPR_RAX, 1, value);
    }
    return err;
}

static void swap_bytes(const struct emul *e)
{
    unsigned reg = opcode_reg(e->in), size = e->in->operand_bytes;
    uint64_t value = operand_reg_get(e, reg, size);

    operand_reg_set(e, reg, size,
                    size == 8 ? __builtin_bswap64(value) : __builtin_bswap32((uint32_t)value));
}

static enum hv_err move_if(const struct emul *e)
{
    unsigned size = e->in->operand_bytes;
    uint64_t value = 0;
    enum hv_err err = read_rm(e, size, &value);

    if (!err) {
        bool holds = alu_condition(e->in->opcode & 15, flags_get(e));

        operand_reg_set(e, e->in->reg, size, holds ? value : operand_reg_get(e, e->in->reg, size));
    }
    return err;
}

/* --- the table --- */

static enum hv_err flag_op(const struct emul *e)
{
    const uint64_t in_ah = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF;
    uint64_t flags = flags_get(e), *rax = &e->v->gpr[GPR_RAX];

    switch (e->in->opcode) {
    case 0xf5:
        flags ^= RFLAGS_CF;
        break;
    case 0xf8:
    case 0xf9:
        flags = with_flag(flags, RFLAGS_CF, e->in->opcode & 1);
        break;
    case 0xfc:
    case 0xfd:
        flags = with_flag(flags, RFLAGS_DF, e->in->opcode & 1);
        break;
    case 0x9e:
        flags = (flags & ~in_ah) | (*rax >> 8 & in_ah);
        break;
    case 0x9f:
        *rax = (*rax & ~0xff00ull) | (flags & 0xff) << 8;
        break;
    default:
        return HV_ENOTSUP;
    }
    flags_set(e, flags);
    return HV_OK;
}

static enum hv_err one_byte(const struct emul *e, unsigned size)
{
    const struct insn *in = e->in;
    unsigned group = in->reg & 7;

    switch (in->opcode) {
    case 0x27:
    case 0x2f:
        decimal_packed(e, in->opcode == 0x2f);
        return HV_OK;
    case 0x37:
    case 0x3f:
        decimal_unpacked(e, in->opcode == 0x3f);
        return HV_OK;
    case 0x40 ... 0x4f:
        increment(e);
        return HV_OK;
    case 0x69:
    case 0x6b:
        return multiply_into(e, true);
    case 0x8d:
        operand_reg_set(e, in->reg, in->operand_bytes, operand_ref(e, 0).offset);
        return HV_OK;
    case 0x90 ... 0x97:
        exchange_accumulator(e);
        return HV_OK;
    case 0x98:
        widen_accumulator(e);
        return HV_OK;
    case 0x99:
        widen_into_data(e);
        return HV_OK;
    case 0xa8:
    case 0xa9:
        test_accumulator(e);
        return HV_OK;
    case 0xb0 ... 0xb7:
        operand_reg_set(e, opcode_reg(in), 1, (uint64_t)in->imm);
        return HV_OK;
    case 0xb8 ... 0xbf:
        operand_reg_set(e, opcode_reg(in), in->operand_bytes, (uint64_t)in->imm);
        return HV_OK;
    case 0xc0:
    case 0xc1:
        return shift(e, size, (unsigned)in->imm & 0xff);
    case 0xd0:
    case 0xd1:
        return shift(e, size, 1);
    case 0xd2:
    case 0xd3:
        return shift(e, size, (unsigned)operand_reg_get(e, GPR_RCX, 1));
    case 0xd4:
    case 0xd5:
        return decimal_scale(e, in->opcode == 0xd4);
    case 0xd7:
        return translate_byte(e);
    case 0xf6:
    case 0xf7:
        return group >= 6   ? divide(e, size, group == 7)
               : group >= 4 ? multiply(e, size, group == 5)
                            : HV_ENOTSUP;
    default:
        return flag_op(e);
    }
}

static enum hv_err two_bytes(const struct emul *e)
{
    const struct insn *in = e->in;

    switch (in->opcode) {
    case 0x0f1f: /* NOP */
        return HV_OK;
    case 0x0f40 ... 0x0f4f:
        return move_if(e);
    case 0x0f90 ... 0x0f9f:
        return write_rm(e, 1, alu_condition(in->opcode & 15, flags_get(e)));
    case 0x0fa4:
    case 0x0fac:
        return shift_double(e, (unsigned)in->imm & 0xff);
    case 0x0fa5:
    case 0x0fad:
        return shift_double(e, (unsigned)operand_reg_get(e, GPR_RCX, 1));
    case 0x0faf:
        return multiply_into(e, false);
    case 0x0fbc:
    case 0x0fbd:
        return scan(e, in->opcode & 1);
    case 0x0fc8 ... 0x0fcf:
        swap_bytes(e);
        return HV_OK;
    case 0x0fae: /* LFENCE, MFENCE, SFENCE */
        return in->mod == 3 && (in->reg & 7) >= 5 ? HV_OK : HV_ENOTSUP;
    default:
        return HV_ENOTSUP;
    }
}

enum hv_err exec_calc(const struct emul *e)
{
    const struct insn *in = e->in;
    unsigned size = in->opcode & 1 ? in->operand_bytes : 1;

    if (in->opcode < 0x40 && (in->opcode & 6) == 4) {
        accumulator_immediate(e);
        return HV_OK;
    }
    return in->opcode < 0x100 ? one_byte(e, size) : two_bytes(e);
}
