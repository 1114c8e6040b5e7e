/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads and stores, one line per form. See exec.h. Each makes a single access, so that the fast path's
 * "again" never comes after an effect.
 */
#include "kernel/emul/exec.h"

enum kind { LOAD, LOAD_ZERO, LOAD_SIGN, STORE, STORE_IMM, LOAD_ACC, STORE_ACC };

struct form {
    uint16_t opcode;
    uint8_t kind;
    uint8_t bytes; /* of memory; 0: the operand size */
};

static const struct form forms[] = {
    {0x8b, LOAD, 0},        {0x89, STORE, 0},       {0x8a, LOAD, 1},        {0x88, STORE, 1},
    {0xc7, STORE_IMM, 0},   {0xc6, STORE_IMM, 1},   {0x0fb6, LOAD_ZERO, 1}, {0x0fb7, LOAD_ZERO, 2},
    {0x0fbe, LOAD_SIGN, 1}, {0x0fbf, LOAD_SIGN, 2}, {0x63, LOAD_SIGN, 4},   {0x0fc3, STORE, 0},
    {0xa1, LOAD_ACC, 0},    {0xa3, STORE_ACC, 0},   {0xa0, LOAD_ACC, 1},    {0xa2, STORE_ACC, 1},
};

static const struct form *find_form(const struct insn *in)
{
    for (unsigned i = 0; i < ARRAY_SIZE(forms); i++) {
        if (forms[i].opcode == in->opcode) {
            bool direct = forms[i].kind == LOAD_ACC || forms[i].kind == STORE_ACC;
            bool arpl = in->opcode == 0x63 && in->mode != EMUL_64;
            bool memory = direct || (in->has_modrm && in->mod != 3);

            return memory && !arpl ? &forms[i] : NULL;
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

enum hv_err exec_mov(const struct emul *e, gpa_t gpa)
{
    const struct form *f = find_form(e->in);
    struct operand o;

    if (!f) {
        return HV_ENOTSUP;
    }
    bool store = f->kind == STORE || f->kind == STORE_IMM || f->kind == STORE_ACC;
    unsigned size = e->in->operand_bytes;

    if (f->bytes) {
        size = MIN((unsigned)f->bytes, size);
    }
    uint64_t value = 0;
    enum hv_err err = operand_resolve_exit(e, operand_linear(e, 0), gpa, size, store, &o);
    if (err) {
        return err;
    }
    if (f->kind == STORE_IMM) {
        value = (uint64_t)e->in->imm;
    } else if (store) {
        value = operand_reg_get(e, f->kind == STORE ? e->in->reg : GPR_RAX, size);
    }
    value &= size_mask(size);
    err = operand_access(e, &o, store, &value);
    if (!err && !store) {
        finish_load(e, f, size, value);
    }
    return err;
}
