/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The emulator's entry points: fetch, decode, execute, step over. See emul.h for the contract. The
 * exit says what happened; when the bytes do not fit it (another vCPU changed them), the guest simply
 * runs on at the same RIP.
 */
#include "kernel/emul/emul.h"

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/exec.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"

#define CS_LONG BIT(9)
#define CS_BIG BIT(10)

enum emul_mode emul_mode_of(struct vcpu *v)
{
    struct segment cs;
    uint64_t efer = hv->get_reg(v, REG_EFER);

    hv->get_seg(v, SEG_CS, &cs);
    if ((efer & EFER_LMA) && (cs.attr & CS_LONG)) {
        return EMUL_64;
    }
    return cs.attr & CS_BIG ? EMUL_32 : EMUL_16;
}

/* On the fast path only what the cache has: a full decode is too long there. */
enum hv_err emul_fetch(struct vcpu *v, bool fast, struct bytes *bytes, struct insn *in)
{
    const uint8_t *code = fast ? vcpu_code(v, INSN_MAX_BYTES) : NULL;

    if (likely(code)) {
        memcpy(bytes->b, code, INSN_MAX_BYTES);
        bytes->len = INSN_MAX_BYTES;
        return decode_cached(bytes->b, INSN_MAX_BYTES, EMUL_64, in) ? HV_OK : HV_EAGAIN;
    }
    enum hv_err err = guestmem_fetch(v, fast, bytes->b, &bytes->len);
    enum emul_mode mode = emul_mode_of(v);
    if (err) {
        return err;
    }
    if (fast) {
        return decode_cached(bytes->b, bytes->len, mode, in) ? HV_OK : HV_EAGAIN;
    }
    return decode_insn(bytes->b, bytes->len, mode, in) ? HV_OK : HV_ENOTSUP;
}

void emul_describe(const struct bytes *bytes, char *text, size_t len)
{
    size_t n = scnprintf(text, len, "bytes");

    for (unsigned i = 0; i < bytes->len; i++) {
        n += scnprintf(text + n, len - n, " %02x", bytes->b[i]);
    }
}

enum hv_err emul_finish(struct vcpu *v, const struct insn *in, enum hv_err err)
{
    if (err == HV_EBUSY) {
        return HV_OK;
    }
    if (err) {
        return err;
    }
    vcpu_advance(v, in->length);
    return HV_OK;
}

enum hv_err emul_mmio(struct vcpu *v, const struct exit_memory *mem, bool fast, char *text,
                      size_t text_len)
{
    struct bytes bytes = {.len = 0};
    struct insn in;
    const struct emul e = {
        .v = v, .in = &in, .fast = fast, .ram = mem->ram, .reads = !(mem->access & P2M_WRITE)};
    enum hv_err err = HV_ENOTSUP;

    if (likely(!(mem->access & P2M_EXEC) && !mem->table_walk)) {
        err = emul_fetch(v, fast, &bytes, &in);
        if (likely(!err)) {
            err = exec_mov(&e, mem->gpa);
            if (unlikely(err == HV_ENOTSUP)) {
                err = exec_alu(&e, mem->gpa);
            }
            if (unlikely(err == HV_ENOTSUP)) {
                err = exec_string(&e);
            }
            if (unlikely(err == HV_ENOTSUP)) {
                err = exec_stack(&e);
            }
            err = emul_finish(v, &in, err);
        }
    }
    if (unlikely(err == HV_ENOTSUP || err == HV_ENOENT)) {
        emul_describe(&bytes, text, text_len);
        err = HV_ENOTSUP;
    }
    return err;
}

enum hv_err emul_string_io(struct vcpu *v, const struct exit_port *port, bool fast, char *text,
                           size_t text_len)
{
    struct bytes bytes = {.len = 0};
    struct insn in;
    const struct emul e = {.v = v, .in = &in, .fast = fast};

    if (fast) {
        return HV_EAGAIN;
    }
    enum hv_err err = emul_fetch(v, fast, &bytes, &in);
    if (!err) {
        err = emul_finish(v, &in, exec_string_io(&e, port->port, port->size, port->in));
    }
    if (err == HV_ENOTSUP || err == HV_ENOENT) {
        emul_describe(&bytes, text, text_len);
        err = HV_ENOTSUP;
    }
    return err;
}

/* --- control and debug registers --- */

/* Manual: "LMSW—Load Machine Status Word": PE may be set, not cleared. */
static uint64_t lmsw(uint64_t cr0, uint64_t value)
{
    return (cr0 & ~(CR0_MP | CR0_EM | CR0_TS)) | (value & (CR0_PE | CR0_MP | CR0_EM | CR0_TS));
}

static enum hv_err word_operand(const struct emul *e, bool write, uint64_t *value)
{
    struct operand o;

    if (e->in->mod == 3) {
        /* SMSW to a register stores as much as the operand size holds. */
        if (write) {
            operand_reg_set(e, e->in->rm, e->in->operand_bytes, *value);
        } else {
            *value = operand_reg_get(e, e->in->rm, 2);
        }
        return HV_OK;
    }
    enum hv_err err = operand_resolve(e, operand_ref(e, 0), 2, write, &o);
    if (!err) {
        err = operand_access(e, &o, write, value);
        operand_release(e, &o);
    }
    return err;
}

static enum hv_err decode_msw(const struct emul *e, uint64_t *lmsw_value)
{
    uint64_t cr0 = hv->get_reg(e->v, REG_CR0), value = cr0;
    unsigned group = e->in->reg & 7;
    enum hv_err err;

    if (group == 4) {
        return word_operand(e, true, &value);
    }
    if (group != 6) {
        return HV_ENOTSUP;
    }
    err = word_operand(e, false, &value);
    *lmsw_value = lmsw(cr0, value);
    return err;
}

struct exit_cr emul_cr_of(const struct insn *in)
{
    if (in->opcode >= 0x0f20 && in->opcode <= 0x0f23) {
        return (struct exit_cr){.cr = in->lock ? in->reg | 8 : in->reg,
                                .write = (in->opcode & 2) != 0,
                                .decoded = true,
                                .gpr = (uint8_t)((in->rm & 7) | (in->rex & 1 ? 8 : 0))};
    }
    return (struct exit_cr){.cr = 0, .write = in->opcode == 0x0f06 || (in->reg & 7) == 6};
}

enum hv_err emul_decode_cr(struct vcpu *v, struct exit_cr *cr, bool fast, uint8_t *insn_len,
                           uint64_t *lmsw_value)
{
    struct bytes bytes = {.len = 0};
    struct insn in;
    const struct emul e = {.v = v, .in = &in, .fast = fast};
    enum hv_err err = emul_fetch(v, fast, &bytes, &in);

    if (err) {
        return err;
    }
    *insn_len = in.length;
    *cr = emul_cr_of(&in);
    switch (in.opcode) {
    case 0x0f20:
    case 0x0f21:
    case 0x0f22:
    case 0x0f23:
        return HV_OK;
    case 0x0f06:
        *lmsw_value = hv->get_reg(v, REG_CR0) & ~CR0_TS;
        return HV_OK;
    case 0x0f01:
        return decode_msw(&e, lmsw_value);
    default:
        return HV_ENOTSUP;
    }
}

enum hv_err emul_decode_invlpg(struct vcpu *v, bool fast, uint8_t *insn_len, gva_t *gva)
{
    struct bytes bytes = {.len = 0};
    struct insn in;
    const struct emul e = {.v = v, .in = &in, .fast = fast};
    enum hv_err err = emul_fetch(v, fast, &bytes, &in);

    if (err == HV_OK && (in.opcode != 0x0f01 || (in.reg & 7) != 7 || in.mod == 3)) {
        /* Another vCPU has put something else there. */
        vcpu_inject_ud(v);
        return HV_EFAULT;
    }
    if (err == HV_OK) {
        *insn_len = in.length;
        *gva = operand_linear(&e, operand_ref(&e, 0));
    }
    return err;
}
