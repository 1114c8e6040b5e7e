/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest registers outside the saved array: they live in the VMCB, except FS, GS, TR, LDTR and the
 * system-call MSRs, which are in the processor during a section (VMSAVE fetches them first), and
 * DR0-DR3, which are in struct svm_vcpu or the processor. The guest is never shown EFER.SVME.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/vm/softmmu_regs.h"
#include "svm/svm.h"

/* On the tables that set_root gave, whatever the guest believes (backend.h). */
static void sync_mode(struct vcpu *v)
{
    const struct svm_vcpu *s = svm_of(v);
    struct vmcb *m = s->vmcb;
    struct softmmu_regs r =
        softmmu_regs(s->guest.cr0, s->guest.cr4, s->guest.efer, cpu_features.nx);

    m->save.cr0 = r.cr0;
    m->save.cr4 = r.cr4;
    m->save.efer = r.efer | EFER_SVME;
    svm_dirty(m, CLEAN_CR);
}

static uint64_t guest_efer(const struct svm_vcpu *s)
{
    bool active = (s->guest.efer & EFER_LME) && (s->guest.cr0 & CR0_PG);

    return s->guest.efer | (active ? EFER_LMA : 0);
}

/* The registers that are the guest's belief alone with the software MMU. */
static uint64_t *believed(struct vcpu *v, enum hv_reg reg)
{
    struct svm_vcpu *s = svm_of(v);

    if (likely(!v->vm->software_mmu)) {
        return NULL;
    }
    switch (reg) {
    case REG_CR0:
        return &s->guest.cr0;
    case REG_CR3:
        return &s->guest.cr3;
    case REG_CR4:
        return &s->guest.cr4;
    case REG_EFER:
        return &s->guest.efer;
    default:
        return NULL;
    }
}

void svm_drs_load(const struct svm_vcpu *s)
{
    WRITE_DR(0, s->dr[0]);
    WRITE_DR(1, s->dr[1]);
    WRITE_DR(2, s->dr[2]);
    WRITE_DR(3, s->dr[3]);
}

void svm_drs_save(struct svm_vcpu *s)
{
    READ_DR(0, s->dr[0]);
    READ_DR(1, s->dr[1]);
    READ_DR(2, s->dr[2]);
    READ_DR(3, s->dr[3]);
}

uint64_t svm_get_reg(struct vcpu *v, enum hv_reg reg)
{
    const struct vmcb *m = svm_vmcb(v);
    const uint64_t *guest = believed(v, reg);

    if (guest != NULL) {
        return reg == REG_EFER ? guest_efer(svm_of(v)) : *guest;
    }

    switch (reg) {
    case REG_RSP:
        return m->save.rsp;
    case REG_RFLAGS:
        return m->save.rflags;
    case REG_CR0:
        return m->save.cr0;
    case REG_CR2:
        return m->save.cr2;
    case REG_CR3:
        return m->save.cr3;
    case REG_CR4:
        return m->save.cr4;
    case REG_EFER:
        return m->save.efer & ~EFER_SVME;
    case REG_DR0 ... REG_DR3:
        if (v->loaded) {
            svm_drs_save(svm_of(v));
        }
        return svm_of(v)->dr[reg - REG_DR0];
    case REG_DR6:
        return m->save.dr6;
    case REG_DR7:
        return m->save.dr7;
    case REG_TPR:
        return m->ctl.int_control & INTCTL_TPR_MASK;
    case REG_PDPTE0 ... REG_PDPTE3: /* walked from memory */
    case NR_HV_REGS:
        break;
    }
    return 0;
}

void svm_set_reg(struct vcpu *v, enum hv_reg reg, uint64_t value)
{
    struct vmcb *m = svm_vmcb(v);
    uint64_t *guest = believed(v, reg);

    if (guest != NULL) {
        *guest = reg == REG_EFER ? value & ~EFER_LMA : value;
        if (reg != REG_CR3) {
            sync_mode(v);
        }
        return;
    }
    switch (reg) {
    case REG_RSP:
        m->save.rsp = value;
        break;
    case REG_RFLAGS:
        m->save.rflags = value | RFLAGS_FIXED1;
        break;
    case REG_CR0:
        m->save.cr0 = value;
        svm_dirty(m, CLEAN_CR);
        break;
    case REG_CR2:
        m->save.cr2 = value;
        svm_dirty(m, CLEAN_CR2);
        if (svm_of(v)->in_section) {
            write_cr2(value); /* as svm_section_begin */
        }
        break;
    case REG_CR3:
        m->save.cr3 = value;
        svm_dirty(m, CLEAN_CR);
        break;
    case REG_CR4:
        m->save.cr4 = value;
        svm_dirty(m, CLEAN_CR);
        break;
    case REG_EFER:
        m->save.efer = value | EFER_SVME;
        svm_dirty(m, CLEAN_CR);
        break;
    case REG_DR0 ... REG_DR3:
        (void)svm_get_reg(v, reg);
        svm_of(v)->dr[reg - REG_DR0] = value;
        if (v->loaded) {
            svm_drs_load(svm_of(v));
        } else {
            v->set_unloaded = true;
        }
        break;
    case REG_DR6:
        m->save.dr6 = value;
        svm_dirty(m, CLEAN_DR);
        break;
    case REG_DR7:
        m->save.dr7 = value;
        svm_dirty(m, CLEAN_DR);
        break;
    case REG_TPR:
        m->ctl.int_control =
            (m->ctl.int_control & ~INTCTL_TPR_MASK) | ((uint32_t)value & INTCTL_TPR_MASK);
        svm_dirty(m, CLEAN_INT);
        break;
    case REG_PDPTE0 ... REG_PDPTE3:
    case NR_HV_REGS:
        break;
    }
}

static struct vmcb_seg *seg_slot(struct vmcb *m, enum seg_reg seg)
{
    switch (seg) {
    case SEG_ES:
        return &m->save.es;
    case SEG_CS:
        return &m->save.cs;
    case SEG_SS:
        return &m->save.ss;
    case SEG_DS:
        return &m->save.ds;
    case SEG_FS:
        return &m->save.fs;
    case SEG_GS:
        return &m->save.gs;
    case SEG_LDTR:
        return &m->save.ldtr;
    case SEG_TR:
        return &m->save.tr;
    case SEG_GDTR:
        return &m->save.gdtr;
    case SEG_IDTR:
    case NR_SEGS:
        break;
    }
    return &m->save.idtr;
}

/* Kept by VMLOAD and VMSAVE, not by VMRUN. */
static bool seg_is_lazy(enum seg_reg seg)
{
    return seg == SEG_FS || seg == SEG_GS || seg == SEG_LDTR || seg == SEG_TR;
}

void svm_get_seg(struct vcpu *v, enum seg_reg seg, struct segment *out)
{
    struct svm_vcpu *s = svm_of(v);

    if (s->in_section && seg_is_lazy(seg)) {
        svm_vmsave(s->vmcb_pa);
    }
    const struct vmcb_seg *slot = seg_slot(s->vmcb, seg);
    *out = (struct segment){
        .selector = slot->selector, .attr = slot->attr, .limit = slot->limit, .base = slot->base};
    if (seg == SEG_SS) {
        /* The processor keeps the privilege level beside the segment. */
        out->attr = (uint16_t)((out->attr & ~0x60u) | (unsigned)s->vmcb->save.cpl << 5);
    }
}

void svm_set_seg(struct vcpu *v, enum seg_reg seg, const struct segment *in)
{
    struct svm_vcpu *s = svm_of(v);
    bool live = s->in_section && seg_is_lazy(seg);

    if (live) {
        svm_vmsave(s->vmcb_pa);
    }
    *seg_slot(s->vmcb, seg) = (struct vmcb_seg){
        .selector = in->selector, .attr = in->attr, .limit = in->limit, .base = in->base};
    if (seg == SEG_SS) {
        s->vmcb->save.cpl = (in->attr >> 5) & 3;
    }
    if (live) {
        svm_vmload(s->vmcb_pa);
    }
    svm_dirty(s->vmcb, CLEAN_SEG | CLEAN_DT);
}

/* Where the VMCB keeps an MSR, and whether VMLOAD and VMSAVE (not VMRUN) move it. */
static uint64_t *msr_slot(struct vmcb *m, uint32_t index, bool *lazy)
{
    *lazy = true;
    switch (index) {
    case MSR_STAR:
        return &m->save.star;
    case MSR_LSTAR:
        return &m->save.lstar;
    case MSR_CSTAR:
        return &m->save.cstar;
    case MSR_SYSCALL_MASK:
        return &m->save.sfmask;
    case MSR_FS_BASE:
        return &m->save.fs.base;
    case MSR_GS_BASE:
        return &m->save.gs.base;
    case MSR_KERNEL_GS_BASE:
        return &m->save.kernel_gs_base;
    case MSR_SYSENTER_CS:
        return &m->save.sysenter_cs;
    case MSR_SYSENTER_ESP:
        return &m->save.sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &m->save.sysenter_eip;
    case MSR_PAT:
        *lazy = false;
        return &m->save.pat;
    default:
        return NULL;
    }
}

enum hv_err svm_get_msr(struct vcpu *v, uint32_t index, uint64_t *out)
{
    struct svm_vcpu *s = svm_of(v);
    bool lazy;
    const uint64_t *slot = msr_slot(s->vmcb, index, &lazy);

    if (slot == NULL) {
        return HV_ENOENT;
    }
    if (lazy && s->in_section) {
        svm_vmsave(s->vmcb_pa);
    }
    *out = *slot;
    return HV_OK;
}

enum hv_err svm_set_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    struct svm_vcpu *s = svm_of(v);
    bool lazy;
    uint64_t *slot = msr_slot(s->vmcb, index, &lazy);

    if (slot == NULL) {
        return HV_ENOENT;
    }
    if (lazy && s->in_section) {
        svm_vmsave(s->vmcb_pa);
        *slot = value;
        svm_vmload(s->vmcb_pa);
    } else {
        *slot = value;
    }
    svm_dirty(s->vmcb, CLEAN_NP); /* the PAT belongs to the nested-paging group */
    return HV_OK;
}

static __attribute__((noinline)) bool drop_resume_flag(struct vmcb *m)
{
    m->save.rflags &= ~RFLAGS_RF;
    return (m->save.rflags & RFLAGS_TF) != 0;
}

bool svm_advance(struct vcpu *v, uint64_t len)
{
    struct vmcb *m = svm_vmcb(v);
    const uint16_t long_code = 0x200;
    uint64_t rip = v->rip + len;

    if (unlikely(!(m->save.cs.attr & long_code))) {
        rip = (uint32_t)rip;
    }
    v->rip = rip;
    m->ctl.int_state = 0;
    if (unlikely(m->save.rflags & (RFLAGS_TF | RFLAGS_RF))) {
        return drop_resume_flag(m);
    }
    return false;
}

bool svm_code_state(struct vcpu *v, struct code_state *out)
{
    const struct vmcb *m = svm_vmcb(v);
    const uint16_t long_code = 0x200;

    if (unlikely(!(m->save.cs.attr & long_code) || !(m->save.efer & EFER_LMA) ||
                 (m->save.cr4 & CR4_LA57))) {
        return false;
    }
    out->rip = v->rip;
    out->cr3 = v->vm->software_mmu ? svm_of(v)->guest.cr3 : m->save.cr3;
    return true;
}
