/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * String instructions. See exec.h. Each iteration resolves all its memory before its first effect and
 * commits its registers when it is done, as the processor does; so a fault in the middle is precise,
 * and a bounded slice ends with RIP still at the instruction and the counters telling what is left.
 * Flags of comparisons change with the last iteration only: they are no input. Manual: "REP/REPE/REPZ/
 * REPNE/REPNZ".
 */
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/emul/alu.h"
#include "kernel/emul/exec.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/vm.h"

#define SLICE 64 /* iterations between two looks at the guest's interrupts */

enum string_op { MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS };

/* What an operation does with its memory. */
#define SOURCE 1u /* reads [rSI] */
#define DEST_READ 2u
#define DEST_WRITE 4u
#define COMPARES 8u

static const uint8_t does[] = {
    [MOVS] = SOURCE | DEST_WRITE,
    [CMPS] = SOURCE | DEST_READ | COMPARES,
    [STOS] = DEST_WRITE,
    [LODS] = SOURCE,
    [SCAS] = DEST_READ | COMPARES,
    [INS] = DEST_WRITE,
    [OUTS] = SOURCE,
};

struct string {
    const struct emul *e;
    enum string_op op;
    unsigned size;
    uint16_t port;
    uint64_t flags;
    struct operand from, to;
};

static enum hv_err resolve(struct string *s)
{
    const struct emul *e = s->e;
    unsigned width = e->in->address_bytes, what = does[s->op];
    struct mem_ref source = {.seg = e->in->seg != INSN_NO_SEG ? e->in->seg : SEG_DS,
                             .offset = operand_reg_get(e, GPR_RSI, width)};
    struct mem_ref destination = {.seg = SEG_ES, .offset = operand_reg_get(e, GPR_RDI, width)};
    enum hv_err err = HV_OK;

    s->from = s->to = (struct operand){.pinned = false};
    if (what & SOURCE) {
        err = operand_resolve(e, source, s->size, false, &s->from);
    }
    if (!err && (what & (DEST_READ | DEST_WRITE))) {
        err = operand_resolve(e, destination, s->size, (what & DEST_WRITE) != 0, &s->to);
    }
    return err;
}

static enum hv_err move_data(struct string *s)
{
    const struct emul *e = s->e;
    uint64_t value = operand_reg_get(e, GPR_RAX, s->size), other = 0;
    enum hv_err err = HV_OK;

    if (does[s->op] & SOURCE) {
        err = operand_access(e, &s->from, false, &value);
    } else if (s->op == INS) {
        err = bus_port(e->v->vm->bus, e->v, s->port, s->size, false, &value);
    }
    if (!err && (does[s->op] & DEST_WRITE)) {
        err = operand_access(e, &s->to, true, &value);
    } else if (!err && (does[s->op] & DEST_READ)) {
        err = operand_access(e, &s->to, false, &other);
    }
    if (err) {
        return err;
    }
    if (s->op == LODS) {
        operand_reg_set(e, GPR_RAX, s->size, value);
    } else if (s->op == OUTS) {
        err = bus_port(e->v->vm->bus, e->v, s->port, s->size, true, &value);
    } else if (does[s->op] & COMPARES) {
        alu(ALU_CMP, s->size, value, other, &s->flags);
    }
    return err;
}

static void advance(const struct string *s, unsigned reg)
{
    unsigned width = s->e->in->address_bytes;
    uint64_t value = operand_reg_get(s->e, reg, width);

    operand_reg_set(s->e, reg, width, s->flags & RFLAGS_DF ? value - s->size : value + s->size);
}

static enum hv_err iterate(struct string *s)
{
    enum hv_err err = resolve(s);

    if (!err) {
        err = move_data(s);
    }
    operand_release(s->e, &s->from);
    operand_release(s->e, &s->to);
    if (!err && (does[s->op] & SOURCE)) {
        advance(s, GPR_RSI);
    }
    if (!err && (does[s->op] & (DEST_READ | DEST_WRITE))) {
        advance(s, GPR_RDI);
    }
    return err;
}

static void done(const struct string *s)
{
    if (does[s->op] & COMPARES) {
        hv->set_reg(s->e->v, REG_RFLAGS, s->flags);
    }
}

/* True if the comparison ends the loop. */
static bool decided(const struct string *s)
{
    bool equal = (s->flags & RFLAGS_ZF) != 0;

    return (does[s->op] & COMPARES) && equal != (s->e->in->rep == 0xf3);
}

static enum hv_err repeat(struct string *s)
{
    unsigned width = s->e->in->address_bytes;
    bool step = (s->flags & RFLAGS_TF) != 0;

    for (unsigned i = 0; i < (step ? 1 : SLICE); i++) {
        uint64_t count = operand_reg_get(s->e, GPR_RCX, width);

        if (count == 0) {
            return HV_OK;
        }
        enum hv_err err = iterate(s);
        if (err) {
            return err;
        }
        operand_reg_set(s->e, GPR_RCX, width, count - 1);
        if (count == 1 || decided(s)) {
            done(s);
            return HV_OK;
        }
    }
    if (step) {
        (void)insn_single_step(s->e->v); /* a debug exception behind each iteration */
    }
    return HV_EBUSY;
}

static enum hv_err execute(const struct emul *e, enum string_op op, unsigned size, uint16_t port)
{
    struct string s = {
        .e = e, .op = op, .size = size, .port = port, .flags = hv->get_reg(e->v, REG_RFLAGS)};

    if (e->in->rep) {
        return repeat(&s);
    }
    enum hv_err err = iterate(&s);
    if (!err) {
        done(&s);
    }
    return err;
}

enum hv_err exec_string(const struct emul *e)
{
    unsigned size = e->in->opcode & 1 ? e->in->operand_bytes : 1;

    if (e->fast) {
        return HV_EAGAIN;
    }
    switch (e->in->opcode) {
    case 0xa4:
    case 0xa5:
        return execute(e, MOVS, size, 0);
    case 0xa6:
    case 0xa7:
        return execute(e, CMPS, size, 0);
    case 0xaa:
    case 0xab:
        return execute(e, STOS, size, 0);
    case 0xac:
    case 0xad:
        return execute(e, LODS, size, 0);
    case 0xae:
    case 0xaf:
        return execute(e, SCAS, size, 0);
    default:
        return HV_ENOTSUP;
    }
}

enum hv_err exec_string_io(const struct emul *e, uint16_t port, unsigned exit_size, bool in)
{
    unsigned size = e->in->opcode & 1 ? MIN((unsigned)e->in->operand_bytes, 4u) : 1;
    bool ins = e->in->opcode == 0x6c || e->in->opcode == 0x6d;
    bool outs = e->in->opcode == 0x6e || e->in->opcode == 0x6f;

    if (!(in ? ins : outs) || size != exit_size) {
        return HV_EBUSY; /* not the bytes that exited */
    }
    return execute(e, in ? INS : OUTS, size, port);
}
