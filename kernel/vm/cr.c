/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control registers that exit. With nested paging the guest owns CR0, CR2, CR3 and CR4; CR8 exits
 * only while an interrupt waits for the task priority to fall (event.c), and XSETBV always, because
 * XCR0 decides what of the host's registers the guest reaches.
 */
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"

#define TPR_MAX 15u

static enum exit_action again(const struct vcpu *v, enum hv_err err)
{
    if (vcpu_in_section(v)) {
        return ACT_SLOW;
    }
    return err == HV_EFAULT ? ACT_RESUME : ACT_LEAVE;
}

static uint64_t *gpr_of(struct vcpu *v, uint8_t gpr, uint64_t *rsp)
{
    if (gpr != GPR_RSP) {
        return &v->gpr[gpr % NR_GPRS];
    }
    *rsp = hv->get_reg(v, REG_RSP);
    return rsp;
}

enum exit_action cr_exit(struct vcpu *v, struct vm_exit *exit)
{
    uint64_t rsp, lmsw;

    if (!exit->cr.decoded || exit->insn_len == 0) {
        enum hv_err err = emul_decode_cr(v, &exit->cr, vcpu_in_section(v), &exit->insn_len, &lmsw);

        if (err != HV_OK) {
            return again(v, err);
        }
    }
    if (exit->cr.cr != 8) {
        if (vcpu_in_section(v)) {
            return ACT_SLOW;
        }
        vm_stop_request(v->vm, STOP_ERROR, 0, "exit that was not asked for: access to CR%u",
                        exit->cr.cr);
        return ACT_LEAVE;
    }
    uint64_t *reg = gpr_of(v, exit->cr.gpr, &rsp);
    if (!exit->cr.write) {
        *reg = vlapic_tpr(v->lapic) >> 4;
        if (reg == &rsp) {
            hv->set_reg(v, REG_RSP, rsp);
        }
    } else if (*reg > TPR_MAX) {
        vcpu_inject_gp(v);
        return ACT_RESUME;
    } else {
        vlapic_set_tpr(v->lapic, (uint8_t)(*reg << 4));
    }
    return exit_done(v, exit->insn_len);
}

enum exit_action cr_xsetbv(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_length(v, exit);

    if (err != HV_OK) {
        return again(v, err);
    }
    uint64_t value = (v->gpr[GPR_RDX] << 32) | (uint32_t)v->gpr[GPR_RAX];
    if (!(hv->get_reg(v, REG_CR4) & CR4_OSXSAVE)) {
        vcpu_inject_ud(v);
    } else if (vcpu_cpl(v) != 0 || (uint32_t)v->gpr[GPR_RCX] != 0 ||
               fpu_set_xcr0(v->fpu, value) != HV_OK) {
        vcpu_inject_gp(v);
    } else {
        return exit_done(v, exit->insn_len);
    }
    return ACT_RESUME;
}
