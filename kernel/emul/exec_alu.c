/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Instructions that compute with a memory operand. See exec.h. They may read and write, so they run off
 * the fast path only. The bus has no locked cycles: LOCK is accepted and changes nothing, for a device
 * register cannot be shared with another writer that way.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/alu.h"
#include "kernel/emul/exec.h"

/* One such instruction on its way: the operand and its value before. */
struct rmw {
    const struct emul *e;
    struct operand o;
    unsigned size;
    uint64_t old, flags;
};

static enum hv_err begin(struct rmw *r, gpa_t gpa, int64_t extra, bool write)
{
    enum hv_err err = operand_resolve_exit(r->e, extra, gpa, r->size, write, &r->o);

    r->flags = hv->get_reg(r->e->v, REG_RFLAGS);
    return err ? err : operand_access(r->e, &r->o, false, &r->old);
}

static enum hv_err store(struct rmw *r, uint64_t value)
{
    value &= size_mask(r->size);
    return operand_access(r->e, &r->o, true, &value);
}

static void set_flags(const struct rmw *r)
{
    hv->set_reg(r->e->v, REG_RFLAGS, r->flags);
}

/* Memory OP src -> memory (CMP: flags only). */
static enum hv_err op_to_memory(struct rmw *r, gpa_t gpa, enum alu_op op, uint64_t src)
{
    enum hv_err err = begin(r, gpa, 0, op != ALU_CMP);

    if (err) {
        return err;
    }
    uint64_t result = alu(op, r->size, r->old, src, &r->flags);
    if (op != ALU_CMP) {
        err = store(r, result);
    }
    if (!err) {
        set_flags(r);
    }
    return err;
}

/* Register OP memory -> register. */
static enum hv_err op_to_register(struct rmw *r, gpa_t gpa, enum alu_op op)
{
    enum hv_err err = begin(r, gpa, 0, false);
    unsigned reg = r->e->in->reg;

    if (err) {
        return err;
    }
    uint64_t result = alu(op, r->size, operand_reg_get(r->e, reg, r->size), r->old, &r->flags);
    if (op != ALU_CMP) {
        operand_reg_set(r->e, reg, r->size, result);
    }
    set_flags(r);
    return HV_OK;
}

static enum hv_err test_bits(struct rmw *r, gpa_t gpa, uint64_t src)
{
    enum hv_err err = begin(r, gpa, 0, false);

    if (!err) {
        alu(ALU_AND, r->size, r->old, src, &r->flags);
        set_flags(r);
    }
    return err;
}

static enum hv_err exchange(struct rmw *r, gpa_t gpa, bool add)
{
    enum hv_err err = begin(r, gpa, 0, true);
    uint64_t src = operand_reg_get(r->e, r->e->in->reg, r->size), value = src;

    if (err) {
        return err;
    }
    if (add) {
        value = alu(ALU_ADD, r->size, r->old, src, &r->flags);
    }
    if (r->o.is_reg) {
        /* Of one register and itself, the sum stays. */
        operand_reg_set(r->e, r->e->in->reg, r->size, r->old);
    }
    err = store(r, value);
    if (!err) {
        if (!r->o.is_reg) {
            operand_reg_set(r->e, r->e->in->reg, r->size, r->old);
        }
        set_flags(r);
    }
    return err;
}

static enum hv_err compare_exchange(struct rmw *r, gpa_t gpa)
{
    enum hv_err err = begin(r, gpa, 0, true);

    if (err) {
        return err;
    }
    alu(ALU_CMP, r->size, operand_reg_get(r->e, GPR_RAX, r->size), r->old, &r->flags);
    bool equal = (r->flags & RFLAGS_ZF) != 0;
    /* The processor writes to memory in either case. */
    if (equal || !r->o.is_reg) {
        err = store(r, equal ? operand_reg_get(r->e, r->e->in->reg, r->size) : r->old);
    }
    if (!err) {
        if (!equal) {
            operand_reg_set(r->e, GPR_RAX, r->size, r->old);
        }
        set_flags(r);
    }
    return err;
}

static struct operand half_of(const struct operand *o, unsigned i, unsigned bytes)
{
    struct operand half = *o;

    half.size = half.first = bytes;
    half.part[0].a += i * bytes;
    half.ram[0] = o->ram[0] ? (char *)o->ram[0] + i * bytes : NULL;
    return half;
}

/* CMPXCHG16B: aligned, so within a page; the bus takes it in halves. */
static enum hv_err compare_exchange_16(struct rmw *r, gpa_t gpa)
{
    static const uint8_t expected[2] = {GPR_RAX, GPR_RDX}, wanted[2] = {GPR_RBX, GPR_RCX};
    const struct emul *e = r->e;
    uint64_t old[2];
    enum hv_err err = HV_OK;

    if (gpa.a & 15) {
        return operand_segment_fault(e, SEG_DS);
    }
    err = operand_resolve_exit(e, 0, gpa, 16, true, &r->o);
    if (!err && r->o.first < 16) {
        err = HV_EBUSY; /* not what exited */
    }
    r->flags = hv->get_reg(e->v, REG_RFLAGS) & ~RFLAGS_ZF;
    bool equal = true;
    for (unsigned i = 0; !err && i < 2; i++) {
        struct operand half = half_of(&r->o, i, 8);

        err = operand_access(e, &half, false, &old[i]);
        equal = equal && !err && old[i] == operand_reg_get(e, expected[i], 8);
    }
    for (unsigned i = 0; !err && i < 2; i++) {
        struct operand half = half_of(&r->o, i, 8);
        uint64_t value = equal ? operand_reg_get(e, wanted[i], 8) : old[i];

        err = operand_access(e, &half, true, &value);
    }
    for (unsigned i = 0; !err && !equal && i < 2; i++) {
        operand_reg_set(e, expected[i], 8, old[i]);
    }
    if (!err) {
        r->flags |= equal ? RFLAGS_ZF : 0;
        set_flags(r);
    }
    return err;
}

static uint64_t pair(const struct emul *e, unsigned high, unsigned low)
{
    return operand_reg_get(e, high, 4) << 32 | operand_reg_get(e, low, 4);
}

/* CMPXCHG8B: of the flags only ZF changes. */
static enum hv_err compare_exchange_8(struct rmw *r, gpa_t gpa)
{
    const struct emul *e = r->e;

    r->size = 8;
    enum hv_err err = begin(r, gpa, 0, true);
    if (err) {
        return err;
    }
    bool equal = r->old == pair(e, GPR_RDX, GPR_RAX);
    err = store(r, equal ? pair(e, GPR_RCX, GPR_RBX) : r->old);
    if (!err) {
        if (!equal) {
            operand_reg_set(e, GPR_RAX, 4, r->old);
            operand_reg_set(e, GPR_RDX, 4, r->old >> 32);
        }
        r->flags = (r->flags & ~RFLAGS_ZF) | (equal ? RFLAGS_ZF : 0);
        set_flags(r);
    }
    return err;
}

enum unary { UNARY_INC, UNARY_DEC, UNARY_NOT, UNARY_NEG };

static enum hv_err unary(struct rmw *r, gpa_t gpa, enum unary op)
{
    enum hv_err err = begin(r, gpa, 0, true);
    uint64_t result;

    if (err) {
        return err;
    }
    if (op == UNARY_NOT) {
        result = ~r->old;
    } else if (op == UNARY_NEG) {
        result = alu_neg(r->size, r->old, &r->flags);
    } else {
        result = alu_inc(r->size, r->old, op == UNARY_DEC, &r->flags);
    }
    err = store(r, result);
    if (!err) {
        set_flags(r);
    }
    return err;
}

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

/* A bit number from a register reaches beyond the operand: it moves the address. */
static enum hv_err bit_op(struct rmw *r, gpa_t gpa, enum bit_op op, bool from_register)
{
    unsigned bits = 8 * r->size;
    int64_t number =
        from_register ? (int64_t)sign_extend(operand_reg_get(r->e, r->e->in->reg, r->size), r->size)
                      : r->e->in->imm & (bits - 1);
    /* Not that of a register. */
    int64_t words = r->e->in->mod == 3 ? 0 : number >> (r->size == 8 ? 6 : r->size == 4 ? 5 : 4);
    enum hv_err err = begin(r, gpa, words * (int64_t)r->size, op != BIT_TEST);

    if (err) {
        return err;
    }
    uint64_t bit = BIT((uint64_t)number & (bits - 1)), value = r->old;
    if (op == BIT_SET) {
        value |= bit;
    } else if (op == BIT_RESET) {
        value &= ~bit;
    } else if (op == BIT_COMPLEMENT) {
        value ^= bit;
    }
    if (op != BIT_TEST) {
        err = store(r, value);
    }
    if (!err) {
        r->flags = (r->flags & ~RFLAGS_CF) | (r->old & bit ? RFLAGS_CF : 0);
        set_flags(r);
    }
    return err;
}

/* Opcodes F6, F7: TEST, NOT, NEG; multiplications and divisions are not done on devices. */
static enum hv_err group3(struct rmw *r, gpa_t gpa)
{
    switch (r->e->in->reg & 7) {
    case 0:
    case 1:
        return test_bits(r, gpa, (uint64_t)r->e->in->imm);
    case 2:
        return unary(r, gpa, UNARY_NOT);
    case 3:
        return unary(r, gpa, UNARY_NEG);
    default:
        return HV_ENOTSUP;
    }
}

static enum hv_err classic(struct rmw *r, gpa_t gpa)
{
    const struct insn *in = r->e->in;
    unsigned group = in->reg & 7;

    switch (in->opcode) {
    case 0x80:
    case 0x81:
    case 0x83:
        return op_to_memory(r, gpa, (enum alu_op)group, (uint64_t)in->imm);
    case 0x84:
    case 0x85:
        return test_bits(r, gpa, operand_reg_get(r->e, in->reg, r->size));
    case 0x86:
    case 0x87:
        return exchange(r, gpa, false);
    case 0xf6:
    case 0xf7:
        return group3(r, gpa);
    case 0xfe:
    case 0xff:
        return group < 2 ? unary(r, gpa, group ? UNARY_DEC : UNARY_INC) : HV_ENOTSUP;
    default:
        return HV_ENOTSUP;
    }
}

static enum hv_err extended(struct rmw *r, gpa_t gpa)
{
    const struct insn *in = r->e->in;

    switch (in->opcode) {
    case 0x0fb0:
    case 0x0fb1:
        return compare_exchange(r, gpa);
    case 0x0fc0:
    case 0x0fc1:
        return exchange(r, gpa, true);
    case 0x0fa3:
    case 0x0fab:
    case 0x0fb3:
    case 0x0fbb:
        return bit_op(r, gpa, (enum bit_op)((in->opcode >> 3) & 3), true);
    case 0x0fba:
        return (in->reg & 7) >= 4 ? bit_op(r, gpa, (enum bit_op)(in->reg & 3), false) : HV_ENOTSUP;
    case 0x0fc7:
        if ((in->reg & 7) != 1) {
            return HV_ENOTSUP;
        }
        if (in->rex & 8) { /* 64-bit code: no processor needs that to be executed here */
            return r->e->all ? HV_ENOTSUP : compare_exchange_16(r, gpa);
        }
        return compare_exchange_8(r, gpa);
    case 0x0f0d:
    case 0x0f18: /* prefetches */
        return HV_OK;
    case 0x0fae: /* CLFLUSH, CLFLUSHOPT */
        return (in->reg & 7) == 7 ? HV_OK : HV_ENOTSUP;
    default:
        return HV_ENOTSUP;
    }
}

static enum hv_err execute(struct rmw *r, gpa_t gpa)
{
    const struct insn *in = r->e->in;

    if (in->opcode < 0x40 && (in->opcode & 7) < 4) {
        enum alu_op op = (enum alu_op)(in->opcode >> 3);

        return in->opcode & 2 ? op_to_register(r, gpa, op)
                              : op_to_memory(r, gpa, op, operand_reg_get(r->e, in->reg, r->size));
    }
    return in->opcode < 0x100 ? classic(r, gpa) : extended(r, gpa);
}

enum hv_err exec_alu(const struct emul *e, gpa_t gpa)
{
    const struct insn *in = e->in;
    struct rmw r = {.e = e};

    if (!in->has_modrm || (in->mod == 3 && !e->all)) {
        return HV_ENOTSUP;
    }
    if (e->fast) {
        return HV_EAGAIN;
    }
    bool words_only = (in->opcode >= 0x0fa3 && in->opcode <= 0x0fab) || in->opcode == 0x0fb3 ||
                      in->opcode == 0x0fba || in->opcode == 0x0fbb;
    r.size = (in->opcode & 1) || words_only ? in->operand_bytes : 1;
    enum hv_err err = execute(&r, gpa);
    operand_release(e, &r.o);
    return err;
}
