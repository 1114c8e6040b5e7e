/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads and stores, one line per form. See exec.h. Each makes a single access, so that the fast path's
 * "again" never comes after an effect.
 */
#include "kernel/emul/exec.h"

enum kind { LOAD, LOAD_ZERO, LOAD_SIGN, STORE, STORE_IMM, STORE_SEG, LOAD_ACC, STORE_ACC };

struct form {
    uint16_t opcode;
    uint8_t kind;
    uint8_t bytes; /* of memory; 0: the operand size */
};

static const struct form forms[] = {
    {0x8b, LOAD, 0},        {0x89, STORE, 0},       {0x8a, LOAD, 1},        {0x88, STORE, 1},
    {0xc7, STORE_IMM, 0},   {0xc6, STORE_IMM, 1},   {0x0fb6, LOAD_ZERO, 1}, {0x0fb7, LOAD_ZERO, 2},
    {0x0fbe, LOAD_SIGN, 1}, {0x0fbf, LOAD_SIGN, 2}, {0x63, LOAD_SIGN, 4},   {0x0fc3, STORE, 0},
    {0x8c, STORE_SEG, 2},   {0xa1, LOAD_ACC, 0},    {0xa3, STORE_ACC, 0},   {0xa0, LOAD_ACC, 1},
    {0xa2, STORE_ACC, 1},
};

static const struct form *find_form(const struct emul *e)
{
    const struct insn *in = e->in;

    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++) {
        if (forms[i].opcode == in->opcode) {
            bool direct = forms[i].kind == LOAD_ACC || forms[i].kind == STORE_ACC;
            bool arpl = in->opcode == 0x63 && in->mode != EMUL_64;
            bool memory = direct || (in->has_modrm && in->mod != 3);

            return (memory || e->all) && !arpl ? &forms[i] : NULL;
        }
    }
    return NULL;
}

static void finish_load(const struct emul *e, const struct form *f, unsigned size, uint64_t value)
{
    unsigned reg = f->kind == LOAD_ACC ? GPR_RAX : e->in->reg;
    unsigned dest = f->kind == LOAD || f->kind == LOAD_ACC ? size : e->in->operand_bytes;

    if (f->kind == LOAD_SIGN) {
        value = sign_extend(value, size);
    }
    operand_reg_set(e, reg, dest, value);
}

static uint64_t stored_value(const struct emul *e, enum kind kind, unsigned size)
{
    struct segment s;

    switch (kind) {
    case STORE_IMM:
        return (uint64_t)e->in->imm & size_mask(size);
    case STORE_SEG:
        hv->get_seg(e->v, (enum seg_reg)(e->in->reg & 7), &s);
        return s.selector;
    default:
        return operand_reg_get(e, kind == STORE ? e->in->reg : GPR_RAX, size);
    }
}

enum hv_err exec_mov(const struct emul *e, gpa_t gpa)
{
    const struct form *f = find_form(e);
    struct operand o;

    if (!f) {
        return HV_ENOTSUP;
    }
    bool store =
        f->kind == STORE || f->kind == STORE_IMM || f->kind == STORE_SEG || f->kind == STORE_ACC;
    bool movnti = f->opcode == 0x0fc3; /* has no 16-bit form */
    unsigned size = movnti ? MAX((unsigned)e->in->operand_bytes, 4u) : e->in->operand_bytes;
    uint64_t value = 0;

    /* A selector fills a register, but two bytes of memory. */
    bool fills = f->kind == STORE_SEG && e->in->mod == 3;
    if (f->bytes && !fills) {
        size = MIN((unsigned)f->bytes, size);
    }
    enum hv_err err = operand_resolve_exit(e, 0, gpa, size, store, &o);
    if (err) {
        return err;
    }
    if (store) {
        value = stored_value(e, f->kind, size);
    }
    err = operand_access(e, &o, store, &value);
    if (!err && !store) {
        finish_load(e, f, size, value);
    }
    operand_release(e, &o);
    return err;
}
