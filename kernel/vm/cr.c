/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Control registers that exit. With nested paging the guest owns what the processor lets it own of
 * CR0, CR3 and CR4; the rest is judged and set here, and everything with the software MMU. CR8 exits only while an interrupt waits for the
 * task priority to fall (event.c), and XSETBV always, because XCR0 decides what of the host's
 * registers the guest reaches.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/emul/emul.h"
#include "kernel/lib/string.h"
#include "kernel/vm/cr_rules.h"
#include "kernel/vm/exit.h"
#include "kernel/vm/guestmem.h"

#define TPR_MAX 15u

/* What CPUID says a guest's CR4 has (kernel/vm/cpuid.c). */
static uint64_t cr4_offered(const struct vm *vm)
{
    const struct cpu_features *f = &cpu_features;

    uint64_t hidden = vm->software_mmu ? CR4_PCIDE | CR4_PKE : 0;

    return ~hidden & (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
                      CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | (f->umip ? CR4_UMIP : 0) |
                      (f->fsgsbase ? CR4_FSGSBASE : 0) | (f->pcid ? CR4_PCIDE : 0) |
                      (f->xsave ? CR4_OSXSAVE : 0) | (f->smep ? CR4_SMEP : 0) |
                      (f->smap ? CR4_SMAP : 0) | ((fpu_xcr0_mask() & XCR0_PKRU) ? CR4_PKE : 0));
}

static void get_state(struct vcpu *v, struct cr_state *s)
{
    const uint16_t code_long = 0x200, type = 0xf, busy = 2, tss16 = 1;
    struct segment cs, tr;

    hv->get_seg(v, SEG_CS, &cs);
    hv->get_seg(v, SEG_TR, &tr);
    *s = (struct cr_state){
        .cr0 = hv->get_reg(v, REG_CR0),
        .cr3 = hv->get_reg(v, REG_CR3),
        .cr4 = hv->get_reg(v, REG_CR4),
        .efer = hv->get_reg(v, REG_EFER),
        .code64 = (cs.attr & code_long) != 0,
        .task16 = (tr.attr & type & ~busy) == tss16,
        .cr4_offered = cr4_offered(v->vm),
        .phys_bits = cpu_features.phys_bits,
    };
}

/* The state once `value` is in that register. */
static struct cr_state state_after(const struct cr_state *s, unsigned cr, uint64_t value)
{
    struct cr_state after = *s;

    if (cr == 0) {
        after.cr0 = value;
    } else if (cr == 3) {
        after.cr3 = value;
    } else {
        after.cr4 = value;
    }
    return after;
}

/*
 * With PAE tables outside long mode, the write also loads the four top-level entries ("PDPTE
 * Registers"). HV_EPERM: one of them has reserved bits set.
 */
static enum hv_err load_pdptes(struct vcpu *v, const struct cr_state *after)
{
    uint64_t entry[4];

    if (!(after->cr0 & CR0_PG) || !(after->cr4 & CR4_PAE) || (after->efer & EFER_LME)) {
        return HV_OK;
    }
    if (vcpu_in_section(v)) {
        return HV_EAGAIN;
    }
    enum hv_err err = guestmem_read_by(v, GPA(cr_rules_pdpt(after->cr3)), entry, sizeof(entry));
    if (err == HV_ENOENT) {
        memset(entry, 0xff, sizeof(entry)); /* as reads of nothing are */
    } else if (err != HV_OK) {
        return err;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(entry); i++) {
        if (!cr_rules_pdpte(after, entry[i])) {
            return HV_EPERM;
        }
    }
    for (unsigned i = 0; i < ARRAY_SIZE(entry); i++) {
        v->pdptr[i] = entry[i];
        if (!v->vm->software_mmu) {
            hv->set_reg(v, REG_PDPTE0 + i, entry[i]);
        }
    }
    return HV_OK;
}

/* The frequent case: the software MMU, long mode, an address that the processor has. */
static inline bool is_plain_cr3(const struct vcpu *v, uint64_t value)
{
    return v->vm->software_mmu && (v->shadow.paging.efer & EFER_LMA) &&
           value >> cpu_features.phys_bits == 0 &&
           !(__atomic_load_n(&v->request, __ATOMIC_RELAXED) & VCPU_REQ_MMU);
}

/* Does a walk of the guest's tables depend on what changes, or is it to drop its translations? */
static bool matters_to_walks(const struct cr_state *was, unsigned cr, uint64_t value)
{
    const uint64_t cr0 = CR0_PG | CR0_WP;
    const uint64_t cr4 = CR4_PSE | CR4_PAE | CR4_PGE | CR4_SMEP | CR4_SMAP;

    return cr == 3 || ((was->cr0 ^ value) & cr0 && cr == 0) ||
           ((was->cr4 ^ value) & cr4 && cr == 4);
}

enum hv_err cr_write(struct vcpu *v, unsigned cr, uint64_t value)
{
    static const enum hv_reg regs[] = {[0] = REG_CR0, [3] = REG_CR3, [4] = REG_CR4};
    struct cr_state s;

    if (cr == 8) {
        if (value > TPR_MAX) {
            return HV_EPERM;
        }
        vlapic_set_tpr(v->lapic, (uint8_t)(value << 4));
        return HV_OK;
    }
    if (cr == 3 && is_plain_cr3(v, value)) {
        return softmmu_cr3(v, value);
    }
    get_state(v, &s);
    if (!cr_rules_write(&s, cr, value)) {
        return HV_EPERM;
    }
    value = cr_rules_kept(&s, cr, value);
    const struct cr_state after = state_after(&s, cr, value);
    enum hv_err err = load_pdptes(v, &after);
    if (err == HV_OK) {
        hv->set_reg(v, regs[cr], value);
        if (v->vm->software_mmu && matters_to_walks(&s, cr, value)) {
            softmmu_changed(v);
        }
    }
    return err;
}

static uint64_t read_cr(struct vcpu *v, unsigned cr)
{
    switch (cr) {
    case 0:
        return hv->get_reg(v, REG_CR0);
    case 3:
        return hv->get_reg(v, REG_CR3);
    case 4:
        return hv->get_reg(v, REG_CR4);
    default:
        return vlapic_tpr(v->lapic) >> 4;
    }
}

/* A move to or from a control register in 64-bit code, maybe with REX.B: 0F 20 or 22 /r. */
static bool quick_decode(struct vcpu *v, struct vm_exit *exit)
{
    uint32_t word;
    uint8_t rex = 0;
    const uint8_t *at = vcpu_code(v, sizeof(word));

    if (at == NULL) {
        return false;
    }
    memcpy(&word, at, sizeof(word));
    if ((word & 0xff) == 0x41) {
        rex = 8;
        word >>= 8;
    }
    if ((word & 0xfdff) != 0x200f) {
        return false;
    }
    exit->cr = (struct exit_cr){.cr = word >> 19 & 7,
                                .write = (word >> 9 & 1) != 0,
                                .decoded = true,
                                .gpr = (uint8_t)((word >> 16 & 7) | rex)};
    exit->insn_len = rex != 0 ? 4 : 3;
    return true;
}

/*
 * Do the bytes still say what the processor found? Another vCPU may have changed them: user code reaches SMSW,
 * and only that.
 */
static inline bool is_what_exited(struct vcpu *v, const struct exit_cr *told,
                                  const struct exit_cr *decoded)
{
    return decoded->cr == told->cr && decoded->write == told->write &&
           (decoded->write || !decoded->decoded || vcpu_cpl(v) == 0);
}

enum exit_action cr_exit(struct vcpu *v, struct vm_exit *exit)
{
    const uint32_t known = BIT(0) | BIT(3) | BIT(4) | BIT(8);
    const struct exit_cr told = exit->cr;
    uint64_t value = 0;

    bool looked = !exit->cr.decoded || exit->insn_len == 0;

    if (looked && !(vcpu_in_section(v) && quick_decode(v, exit))) {
        enum hv_err err = emul_decode_cr(v, &exit->cr, vcpu_in_section(v), &exit->insn_len, &value);

        if (err != HV_OK) {
            return exit_again(v, err);
        }
    }
    if (looked && unlikely(!is_what_exited(v, &told, &exit->cr))) {
        return ACT_RESUME;
    }
    if (!(BIT(exit->cr.cr) & known)) {
        vcpu_inject_ud(v);
        return ACT_RESUME;
    }
    if (exit->cr.write) {
        /* Not a move: CLTS or LMSW, whose result the decoder has worked out. */
        if (exit->cr.decoded) {
            value = exit_gpr(v, exit->cr.gpr);
            if (unlikely(value >> 32 != 0) && emul_mode_of(v) != EMUL_64) {
                value = (uint32_t)value;
            }
        }
        enum hv_err err = cr_write(v, exit->cr.cr, value);

        if (err == HV_EPERM) {
            vcpu_inject_gp(v);
            return ACT_RESUME;
        }
        if (err != HV_OK) {
            return exit_again(v, err);
        }
    } else if (exit->cr.decoded) {
        exit_gpr_set(v, exit->cr.gpr, read_cr(v, exit->cr.cr));
    }
    return exit_done(v, exit->insn_len);
}

enum exit_action cr_xsetbv(struct vcpu *v, struct vm_exit *exit)
{
    enum hv_err err = vcpu_length(v, exit);

    if (err != HV_OK) {
        return exit_again(v, err);
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
