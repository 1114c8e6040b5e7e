/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moves to and from debug registers, which are the guest's own and exit nowhere: they come here when its
 * code is executed in software (realmode.c), which has looked at the privilege level. Breakpoints are
 * the processor's to find: in emulated code there are none.
 */
#include "arch/x86_64/regs.h"
#include "kernel/emul/emul.h"
#include "kernel/vm/exit.h"

/* DR4 and DR5 are other names of DR6 and DR7, unless CR4.DE takes them away. False: no register. */
static bool register_of(struct vcpu *v, unsigned number, enum hv_reg *reg)
{
    if (number < 4) {
        *reg = REG_DR0 + number;
        return true;
    }
    if (number > 7 || (number < 6 && (hv->get_reg(v, REG_CR4) & CR4_DE))) {
        return false;
    }
    *reg = (number & 1) ? REG_DR7 : REG_DR6;
    return true;
}

/* False: bits that must be zero are not. */
static bool write_dr(struct vcpu *v, enum hv_reg reg, uint64_t value)
{
    if (reg == REG_DR6 || reg == REG_DR7) {
        uint64_t own = reg == REG_DR6 ? DR6_WRITABLE : DR7_WRITABLE;

        if (value > UINT32_MAX) {
            return false;
        }
        value = (value & own) | (reg == REG_DR6 ? DR6_RESET : DR7_RESET);
    }
    hv->set_reg(v, reg, value);
    return true;
}

/* "Debug Control Register (DR7)": general detect; the handler is to reach the registers again. */
static bool is_detected(struct vcpu *v)
{
    uint64_t dr7 = hv->get_reg(v, REG_DR7);

    if (dr7 & DR7_GD) {
        hv->set_reg(v, REG_DR7, dr7 & ~DR7_GD);
        hv->set_reg(v, REG_DR6, hv->get_reg(v, REG_DR6) | DR6_BD);
        vcpu_inject_exception(v, EXC_DB, false, 0);
    }
    return (dr7 & DR7_GD) != 0;
}

enum exit_action dr_exit(struct vcpu *v, struct vm_exit *exit)
{
    uint64_t mask = emul_mode_of(v) == EMUL_64 ? UINT64_MAX : UINT32_MAX;
    uint64_t none;
    enum hv_reg reg;
    enum hv_err err = emul_decode_cr(v, &exit->cr, false, &exit->insn_len, &none);

    if (err != HV_OK) {
        return exit_again(v, err);
    }
    if (!register_of(v, exit->cr.cr, &reg)) {
        vcpu_inject_ud(v);
        return ACT_RESUME;
    }
    if (is_detected(v)) {
        return ACT_RESUME;
    }
    if (!exit->cr.write) {
        exit_gpr_set(v, exit->cr.gpr, hv->get_reg(v, reg) & mask);
    } else if (!write_dr(v, reg, exit_gpr(v, exit->cr.gpr) & mask)) {
        vcpu_inject_gp(v);
        return ACT_RESUME;
    }
    return exit_done(v, exit->insn_len);
}
