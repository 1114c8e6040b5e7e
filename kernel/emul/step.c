/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Running a guest's code instruction by instruction, where its processor cannot: kernel/vm/realmode.c
 * asks. What the processor would exit for becomes that exit, which the caller puts through the same
 * table as if it had come from hardware; the rest is executed here. See emul.h.
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "kernel/emul/exec.h"
#include "kernel/emul/segment.h"
#include "kernel/vm/vm.h"

/* Instructions of supervisors. */
static bool is_privileged(const struct insn *in)
{
    switch (in->opcode) {
    case 0xf4:
    case 0x0f06:
    case 0x0f08:
    case 0x0f09:
    case 0x0f20 ... 0x0f23:
    case 0x0f30:
    case 0x0f32:
        return true;
    case 0x0f01: /* LMSW, INVLPG */
        return in->mod != 3 ? (in->reg & 7) >= 6 : (in->reg & 7) == 6;
    default:
        return false;
    }
}

/* Opcode 0F 01 in its many meanings. */
static enum exit_kind system_exit(const struct insn *in)
{
    unsigned group = in->reg & 7;

    if (group == 4 || group == 6) {
        return EXIT_CR; /* SMSW, LMSW */
    }
    if (in->mod != 3) {
        return group == 7 ? EXIT_INVLPG : EXIT_NONE;
    }
    switch (group << 3 | (in->rm & 7)) {
    case 0x01: /* a call of the hypervisor, */
    case 0x19: /* and the other vendor's */
        return EXIT_HYPERCALL;
    case 0x00:          /* ENCLV */
    case 0x02 ... 0x04: /* virtualisation */
    case 0x05:          /* PCONFIG */
    case 0x0f:          /* ENCLS */
    case 0x14:          /* virtualisation */
    case 0x15 ... 0x17: /* XEND, XTEST, ENCLU */
    case 0x18:          /* virtualisation */
    case 0x1a ... 0x1f:
        return EXIT_VIRT_INSN;
    case 0x08:
        return EXIT_MONITOR;
    case 0x09:
        return EXIT_MWAIT;
    case 0x11:
        return EXIT_XSETBV;
    case 0x39:
        return EXIT_RDTSC; /* RDTSCP */
    default:
        return EXIT_NONE;
    }
}

static enum exit_kind kind_of(const struct insn *in)
{
    switch (in->opcode) {
    case 0x6c ... 0x6f:
        return EXIT_STRING_IO;
    case 0x90:
        return in->rep == 0xf3 ? EXIT_PAUSE : EXIT_NONE;
    case 0xe4 ... 0xe7:
    case 0xec ... 0xef:
        return EXIT_PORT;
    case 0xf4:
        return EXIT_HLT;
    case 0x0f01:
        return system_exit(in);
    case 0x0f06:
    case 0x0f20:
    case 0x0f22:
        return EXIT_CR;
    case 0x0f08:
    case 0x0f09:
        return EXIT_WBINVD;
    case 0x0f21:
    case 0x0f23:
        return EXIT_DR;
    case 0x0f30:
    case 0x0f32:
        return EXIT_MSR;
    case 0x0f31:
        return EXIT_RDTSC;
    case 0x0f33:
        return EXIT_RDPMC;
    case 0x0fa2:
        return EXIT_CPUID;
    case 0x0f0b: /* UD2, UD1, UD0 */
    case 0x0fb9:
    case 0x0fff:
    case 0x0f37: /* GETSEC */
    case 0x0faa: /* RSM */
    case 0x0f78: /* a virtualisation extension's */
    case 0x0f79:
        return EXIT_VIRT_INSN;
    case 0x0fc7: /* likewise; not CMPXCHG8B */
        return in->mod != 3 && (in->reg & 6) == 6 ? EXIT_VIRT_INSN : EXIT_NONE;
    default:
        return EXIT_NONE;
    }
}

static void describe_port(const struct emul *e, struct exit_port *port)
{
    const struct insn *in = e->in;
    bool by_dx = in->opcode < 0x80 || in->opcode >= 0xec;
    uint64_t number = by_dx ? e->v->gpr[GPR_RDX] : (uint64_t)in->imm;

    *port = (struct exit_port){
        .port = (uint16_t)(by_dx ? number & 0xffff : number & 0xff),
        .size = (uint8_t)(in->opcode & 1 ? MIN((unsigned)in->operand_bytes, 4u) : 1),
        .in = !(in->opcode & 2),
        .string = in->opcode < 0x80,
        .rep = in->rep != 0,
        .seg = 0xff,
    };
}

static void describe(const struct emul *e, enum exit_kind kind, struct vm_exit *exit)
{
    *exit = (struct vm_exit){.kind = kind, .insn_len = e->in->length};
    if (kind == EXIT_PORT || kind == EXIT_STRING_IO) {
        describe_port(e, &exit->port);
    } else if (kind == EXIT_MSR) {
        exit->msr = (struct exit_msr){.index = (uint32_t)e->v->gpr[GPR_RCX],
                                      .write = e->in->opcode == 0x0f30};
    } else if (kind == EXIT_CR) {
        exit->insn_len = 0; /* its handler decodes, and compares */
        exit->cr = emul_cr_of(e->in);
        exit->cr.decoded = false;
    }
}

/* HV_OK or what the processor checks before an instruction exits. */
static enum hv_err check_rights(const struct emul *e, enum exit_kind kind)
{
    unsigned cpl = vcpu_cpl(e->v), iopl = hv->get_reg(e->v, REG_RFLAGS) >> 12 & 3;
    bool port = kind == EXIT_PORT || kind == EXIT_STRING_IO;

    if ((is_privileged(e->in) && cpl != 0) || (port && cpl > iopl)) {
        return segment_fault(e, EXC_GP, 0);
    }
    return HV_OK;
}

static enum hv_err execute(const struct emul *e)
{
    static enum hv_err (*const groups[])(const struct emul *) = {
        exec_flow, exec_calc, exec_seg, exec_stack, exec_frame, exec_string,
    };
    enum hv_err err = exec_mov(e, GPA(0));

    for (unsigned i = 0; err == HV_ENOTSUP && i < ARRAY_SIZE(groups); i++) {
        err = groups[i](e);
    }
    return err == HV_ENOTSUP ? exec_alu(e, GPA(0)) : err;
}

enum hv_err emul_step(struct vcpu *v, struct vm_exit *exit, char *text, size_t text_len)
{
    struct bytes bytes = {.len = 0};
    struct insn in;
    const struct emul e = {.v = v, .in = &in, .all = true};
    struct segment cs;

    exit->kind = EXIT_NONE;
    enum hv_err err = emul_fetch(v, false, &bytes, &in);
    if (err == HV_ENOTSUP || err == HV_ENOENT) {
        /* No instruction; nor are the ones that reads of nothing give. */
        return segment_fault(&e, EXC_UD, 0);
    }
    if (err) {
        return err;
    }
    hv->get_seg(v, SEG_CS, &cs);
    if (in.mode != EMUL_64 && v->rip + in.length - 1 > cs.limit) {
        return segment_fault(&e, EXC_GP, 0);
    }
    enum exit_kind kind = kind_of(&in);
    err = check_rights(&e, kind);
    if (err) {
        return err;
    }
    if (kind != EXIT_NONE) {
        describe(&e, kind, exit);
        return HV_OK;
    }
    err = emul_finish(v, &in, execute(&e));
    if (err == HV_ENOTSUP || err == HV_ENOENT) {
        emul_describe(&bytes, text, text_len);
        err = HV_ENOTSUP;
    }
    return err;
}

enum hv_err emul_event(struct vcpu *v, const struct event *ev)
{
    const struct insn none = {.mode = (uint8_t)emul_mode_of(v)};
    const struct emul e = {.v = v, .in = &none, .all = true};
    const struct exec_interrupt what = {
        .vector = ev->vector, .has_error = ev->has_error, .error = ev->error, .rip = v->rip};

    return exec_deliver(&e, &what);
}
