/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * String instructions. See exec.h. Each iteration resolves all its memory before its first effect and
 * commits its registers when it is done, as the processor does; so a fault in the middle is precise,
 * and a bounded slice ends with RIP still at the instruction and the counters telling what is left.
 */
#include "arch/x86_64/regs.h"
#include "kernel/devices/bus.h"
#include "kernel/emul/exec.h"
#include "kernel/vm/vm.h"

#define SLICE 64 /* iterations between two looks at the guest's interrupts */

typedef enum hv_err (*iteration_t)(const struct emul *e, unsigned size, uint16_t port);

static unsigned source_segment(const struct insn *in)
{
    return in->seg != INSN_NO_SEG ? in->seg : SEG_DS;
}

static gva_t source(const struct emul *e)
{
    uint64_t offset = operand_reg_get(e, GPR_RSI, e->in->address_bytes);

    return segment_linear(e, source_segment(e->in), offset);
}

static gva_t destination(const struct emul *e)
{
    return segment_linear(e, SEG_ES, operand_reg_get(e, GPR_RDI, e->in->address_bytes));
}

static void advance(const struct emul *e, unsigned reg, unsigned size)
{
    bool down = (hv->get_reg(e->v, REG_RFLAGS) & RFLAGS_DF) != 0;
    unsigned width = e->in->address_bytes;
    uint64_t value = operand_reg_get(e, reg, width);

    operand_reg_set(e, reg, width, down ? value - size : value + size);
}

static enum hv_err do_movs(const struct emul *e, unsigned size, uint16_t port)
{
    struct operand from, to;
    uint64_t value = 0;
    enum hv_err err = operand_resolve(e, source(e), size, false, &from);

    (void)port;
    if (!err) {
        err = operand_resolve(e, destination(e), size, true, &to);
    }
    if (!err) {
        err = operand_access(e, &from, false, &value);
    }
    if (!err) {
        err = operand_access(e, &to, true, &value);
    }
    if (!err) {
        advance(e, GPR_RSI, size);
        advance(e, GPR_RDI, size);
    }
    return err;
}

static enum hv_err do_stos(const struct emul *e, unsigned size, uint16_t port)
{
    struct operand to;
    uint64_t value = operand_reg_get(e, GPR_RAX, size);
    enum hv_err err = operand_resolve(e, destination(e), size, true, &to);

    (void)port;
    if (!err) {
        err = operand_access(e, &to, true, &value);
    }
    if (!err) {
        advance(e, GPR_RDI, size);
    }
    return err;
}

static enum hv_err do_lods(const struct emul *e, unsigned size, uint16_t port)
{
    struct operand from;
    uint64_t value = 0;
    enum hv_err err = operand_resolve(e, source(e), size, false, &from);

    (void)port;
    if (!err) {
        err = operand_access(e, &from, false, &value);
    }
    if (!err) {
        operand_reg_set(e, GPR_RAX, size, value);
        advance(e, GPR_RSI, size);
    }
    return err;
}

static enum hv_err do_ins(const struct emul *e, unsigned size, uint16_t port)
{
    struct operand to;
    uint64_t value = 0;
    enum hv_err err = operand_resolve(e, destination(e), size, true, &to);

    if (!err) {
        err = bus_port(e->v->vm->bus, e->v, port, size, false, &value);
    }
    if (!err) {
        err = operand_access(e, &to, true, &value);
    }
    if (!err) {
        advance(e, GPR_RDI, size);
    }
    return err;
}

static enum hv_err do_outs(const struct emul *e, unsigned size, uint16_t port)
{
    struct operand from;
    uint64_t value = 0;
    enum hv_err err = operand_resolve(e, source(e), size, false, &from);

    if (!err) {
        err = operand_access(e, &from, false, &value);
    }
    if (!err) {
        err = bus_port(e->v->vm->bus, e->v, port, size, true, &value);
    }
    if (!err) {
        advance(e, GPR_RSI, size);
    }
    return err;
}

static enum hv_err repeat(const struct emul *e, iteration_t fn, unsigned size, uint16_t port)
{
    unsigned width = e->in->address_bytes;

    if (!e->in->rep) {
        return fn(e, size, port);
    }
    for (unsigned i = 0; i < SLICE; i++) {
        uint64_t count = operand_reg_get(e, GPR_RCX, width);

        if (count == 0) {
            return HV_OK;
        }
        enum hv_err err = fn(e, size, port);
        if (err) {
            return err;
        }
        operand_reg_set(e, GPR_RCX, width, count - 1);
        if (count == 1) {
            return HV_OK;
        }
    }
    return HV_EBUSY;
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
        return repeat(e, do_movs, size, 0);
    case 0xaa:
    case 0xab:
        return repeat(e, do_stos, size, 0);
    case 0xac:
    case 0xad:
        return repeat(e, do_lods, size, 0);
    default:
        return HV_ENOTSUP;
    }
}

enum hv_err exec_string_io(const struct emul *e, uint16_t port, bool in)
{
    unsigned size = e->in->opcode & 1 ? MIN((unsigned)e->in->operand_bytes, 4u) : 1;
    bool ins = e->in->opcode == 0x6c || e->in->opcode == 0x6d;
    bool outs = e->in->opcode == 0x6e || e->in->opcode == 0x6f;

    if (!(in ? ins : outs)) {
        return HV_EBUSY; /* not the bytes that exited */
    }
    return repeat(e, in ? do_ins : do_outs, size, port);
}
