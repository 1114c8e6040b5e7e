/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest registers outside the saved array: copies of VMCS fields, and the registers that no VMCS
 * holds (struct vmx_live). Control registers and EFER: vmx_cr.c.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"
#include "vmx/vmx.h"

#define EIGHT(first, encoding)                                                              \
    [(first)] = (encoding), [(first) + 1] = (encoding) + 2, [(first) + 2] = (encoding) + 4, \
    [(first) + 3] = (encoding) + 6, [(first) + 4] = (encoding) + 8,                         \
    [(first) + 5] = (encoding) + 10, [(first) + 6] = (encoding) + 12,                       \
    [(first) + 7] = (encoding) + 14

static const uint16_t encodings[NR_VC] = {
    [VC_RSP] = VMCS_GUEST_RSP,
    [VC_RFLAGS] = VMCS_GUEST_RFLAGS,
    [VC_CR0] = VMCS_GUEST_CR0,
    [VC_CR3] = VMCS_GUEST_CR3,
    [VC_CR4] = VMCS_GUEST_CR4,
    [VC_DR7] = VMCS_GUEST_DR7,
    [VC_INTERRUPTIBILITY] = VMCS_GUEST_INTERRUPTIBILITY,
    [VC_PENDING_DEBUG] = VMCS_GUEST_PENDING_DEBUG,
    [VC_EFER] = VMCS_GUEST_EFER,
    [VC_ENTRY_CTL] = VMCS_ENTRY_CTL,
    [VC_SYSENTER_CS] = VMCS_GUEST_SYSENTER_CS,
    [VC_SYSENTER_ESP] = VMCS_GUEST_SYSENTER_ESP,
    [VC_SYSENTER_EIP] = VMCS_GUEST_SYSENTER_EIP,
    [VC_PDPTE] = VMCS_GUEST_PDPTE0,
    [VC_PDPTE + 1] = VMCS_GUEST_PDPTE0 + 2,
    [VC_PDPTE + 2] = VMCS_GUEST_PDPTE0 + 4,
    [VC_PDPTE + 3] = VMCS_GUEST_PDPTE0 + 6,
    EIGHT(VC_SELECTOR, VMCS_GUEST_ES),
    EIGHT(VC_LIMIT, VMCS_GUEST_ES_LIMIT),
    [VC_LIMIT + SEG_GDTR] = VMCS_GUEST_GDTR_LIMIT,
    [VC_LIMIT + SEG_IDTR] = VMCS_GUEST_IDTR_LIMIT,
    EIGHT(VC_RIGHTS, VMCS_GUEST_ES_RIGHTS),
    EIGHT(VC_BASE, VMCS_GUEST_ES_BASE),
    [VC_BASE + SEG_GDTR] = VMCS_GUEST_GDTR_BASE,
    [VC_BASE + SEG_IDTR] = VMCS_GUEST_IDTR_BASE,
    [VC_PROC_CTL] = VMCS_PROC_CTL,
    [VC_EPTP] = VMCS_EPTP,
    [VC_VPID] = VMCS_VPID,
    [VC_TSC_OFFSET] = VMCS_TSC_OFFSET,
    [VC_CR0_SHADOW] = VMCS_CR0_SHADOW,
    [VC_CR4_SHADOW] = VMCS_CR4_SHADOW,
    [VC_CR4_MASK] = VMCS_CR4_MASK,
    [VC_PAT] = VMCS_GUEST_PAT,
    [VC_ENTRY_EVENT] = VMCS_ENTRY_EVENT,
};

/* ---- Copies ---- */

uint64_t vmx_fetch(struct vcpu *v, enum vmx_copy what)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (unlikely(!vmx_is_current(v))) {
        vmx_bind(v);
    }
    s->copy[what] = vmcs_read(encodings[what]);
    s->valid |= BIT(what);
    return s->copy[what];
}

/* Fields that the VMCS has, or that this guest needs; of the others the copies are all there is. */
static uint64_t fields_of(const struct vmx_vcpu *s)
{
    const struct vmx_controls *c = &vmx_caps.chosen;
    const uint64_t pdptes =
        BIT(VC_PDPTE) | BIT(VC_PDPTE + 1) | BIT(VC_PDPTE + 2) | BIT(VC_PDPTE + 3);
    uint64_t absent = 0;

    absent |= vmx_has(c->entry, ENTRY_LOAD_EFER) ? 0 : BIT(VC_EFER);
    absent |= vmx_has(c->entry, ENTRY_LOAD_PAT) && !s->software ? 0 : BIT(VC_PAT);
    absent |= vmx_has(c->proc2, PROC2_VPID) ? 0 : BIT(VC_VPID);
    absent |= s->software ? BIT(VC_EPTP) | pdptes : 0;
    return (BIT(NR_VC) - 1) & ~absent;
}

void vmx_regs_init(struct vmx_vcpu *s, const struct vm *vm)
{
    s->software = vm->software_mmu;
    s->unrestricted = hv_caps.unrestricted && !s->software;
    s->fields = fields_of(s);
    /* What the guest cannot change stays known over an exit. */
    s->stays = VC_MASK_OURS | (~s->fields & (BIT(NR_VC) - 1)) |
               (s->software ? BIT(VC_CR3) | BIT(VC_EFER) : 0);
}

void vmx_write_back(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);
    uint64_t dirty = s->dirty & s->fields;

    if ((dirty >> VC_ENTRY_EVENT & 1) && (s->copy[VC_ENTRY_EVENT] & EVENT_NEEDS_MORE)) {
        vmcs_write(VMCS_ENTRY_ERROR, s->event_error);
        vmcs_write(VMCS_ENTRY_LENGTH, s->event_length);
    }
    for (; dirty != 0; dirty &= dirty - 1) {
        unsigned i = (unsigned)__builtin_ctzll(dirty);

        vmcs_write(encodings[i], s->copy[i]);
    }
    s->dirty = 0;
}

/* ---- Registers that no VMCS holds ---- */

static uint64_t read_dr6(void)
{
    uint64_t value;

    READ_DR(6, value);
    return value;
}

static void load_drs(const struct vmx_live *l)
{
    WRITE_DR(0, l->dr[0]);
    WRITE_DR(1, l->dr[1]);
    WRITE_DR(2, l->dr[2]);
    WRITE_DR(3, l->dr[3]);
}

static void save_drs(struct vmx_live *l)
{
    READ_DR(0, l->dr[0]);
    READ_DR(1, l->dr[1]);
    READ_DR(2, l->dr[2]);
    READ_DR(3, l->dr[3]);
}

void vmx_live_load(const struct vmx_live *l)
{
    load_drs(l);
    WRITE_DR(6, l->dr6);
    write_cr2(l->cr2);
    wrmsr(MSR_STAR, l->star);
    wrmsr(MSR_LSTAR, l->lstar);
    wrmsr(MSR_CSTAR, l->cstar);
    wrmsr(MSR_SYSCALL_MASK, l->syscall_mask);
    wrmsr(MSR_KERNEL_GS_BASE, l->kernel_gs_base);
}

void vmx_live_save(struct vmx_live *l)
{
    save_drs(l);
    l->dr6 = read_dr6();
    l->cr2 = read_cr2();
    l->star = rdmsr(MSR_STAR);
    l->lstar = rdmsr(MSR_LSTAR);
    l->cstar = rdmsr(MSR_CSTAR);
    l->syscall_mask = rdmsr(MSR_SYSCALL_MASK);
    l->kernel_gs_base = rdmsr(MSR_KERNEL_GS_BASE);
}

static uint64_t *live_msr(struct vmx_live *l, uint32_t index)
{
    switch (index) {
    case MSR_STAR:
        return &l->star;
    case MSR_LSTAR:
        return &l->lstar;
    case MSR_CSTAR:
        return &l->cstar;
    case MSR_SYSCALL_MASK:
        return &l->syscall_mask;
    case MSR_KERNEL_GS_BASE:
        return &l->kernel_gs_base;
    default:
        return NULL;
    }
}

/* ---- The interface ---- */

/* Bits 7:4 of the task-priority register in the virtual-APIC page. */
#define APIC_PAGE_TPR (0x80 / sizeof(uint32_t))

uint64_t vmx_get_reg(struct vcpu *v, enum hv_reg reg)
{
    struct vmx_vcpu *s = vmx_of(v);

    switch (reg) {
    case REG_RSP:
        return vmx_get(v, VC_RSP);
    case REG_RFLAGS:
        return vmx_get(v, VC_RFLAGS);
    case REG_CR0:
        return vmx_get_cr0(v);
    case REG_CR2:
        return v->loaded ? read_cr2() : s->live.cr2;
    case REG_CR3:
        return vmx_get_cr3(v);
    case REG_CR4:
        return vmx_get_cr4(v);
    case REG_EFER:
        return vmx_get_efer(v);
    case REG_DR0 ... REG_DR3:
        if (v->loaded) {
            save_drs(&s->live);
        }
        return s->live.dr[reg - REG_DR0];
    case REG_DR6:
        return v->loaded ? read_dr6() : s->live.dr6;
    case REG_DR7:
        return vmx_get(v, VC_DR7);
    case REG_TPR:
        return s->apic_page[APIC_PAGE_TPR] >> 4 & 0xf;
    case REG_PDPTE0 ... REG_PDPTE3:
        return vmx_get(v, VC_PDPTE + (reg - REG_PDPTE0));
    case NR_HV_REGS:
        break;
    }
    return 0;
}

void vmx_set_reg(struct vcpu *v, enum hv_reg reg, uint64_t value)
{
    struct vmx_vcpu *s = vmx_of(v);

    switch (reg) {
    case REG_RSP:
        vmx_set(v, VC_RSP, value);
        break;
    case REG_RFLAGS:
        vmx_set(v, VC_RFLAGS, value | RFLAGS_FIXED1);
        break;
    case REG_CR0:
        vmx_set_cr0(v, value);
        break;
    case REG_CR2:
        s->live.cr2 = value;
        if (v->loaded) {
            write_cr2(value);
        } else {
            v->set_unloaded = true;
        }
        break;
    case REG_CR3:
        vmx_set_cr3(v, value);
        break;
    case REG_CR4:
        vmx_set_cr4(v, value);
        break;
    case REG_EFER:
        vmx_set_efer(v, value);
        break;
    case REG_DR0 ... REG_DR3:
        (void)vmx_get_reg(v, reg);
        s->live.dr[reg - REG_DR0] = value;
        if (v->loaded) {
            load_drs(&s->live);
        } else {
            v->set_unloaded = true;
        }
        break;
    case REG_DR6:
        s->live.dr6 = value;
        if (v->loaded) {
            WRITE_DR(6, value);
        } else {
            v->set_unloaded = true;
        }
        break;
    case REG_DR7:
        vmx_set(v, VC_DR7, value);
        break;
    case REG_TPR:
        s->apic_page[APIC_PAGE_TPR] = (uint32_t)(value & 0xf) << 4;
        break;
    case REG_PDPTE0 ... REG_PDPTE3:
        vmx_set(v, VC_PDPTE + (reg - REG_PDPTE0), value);
        break;
    case NR_HV_REGS:
        break;
    }
}

void vmx_get_seg(struct vcpu *v, enum seg_reg seg, struct segment *out)
{
    *out = (struct segment){.limit = (uint32_t)vmx_get(v, VC_LIMIT + seg),
                            .base = vmx_get(v, VC_BASE + seg)};
    if (seg == SEG_GDTR || seg == SEG_IDTR) {
        return;
    }
    uint64_t rights = vmx_get(v, VC_RIGHTS + seg);
    out->selector = (uint16_t)vmx_get(v, VC_SELECTOR + seg);
    out->attr = (uint16_t)((rights & 0xff) | (rights >> 4 & 0xf00));
    if (rights & RIGHTS_UNUSABLE) {
        out->attr &= (uint16_t)~RIGHTS_P;
    }
}

/* As VM entry wants them: granularity as the limit says, data and code accessed. */
static uint64_t rights_of(enum seg_reg seg, const struct segment *in)
{
    uint64_t rights = (in->attr & 0xffu) | (uint64_t)(in->attr & 0xf00u) << 4;
    const uint64_t accessed = 1;

    if (!(rights & RIGHTS_P)) {
        return rights | RIGHTS_UNUSABLE;
    }
    if (in->limit > 0xfffff) {
        rights |= RIGHTS_G;
    } else if ((in->limit & 0xfff) != 0xfff) {
        rights &= ~RIGHTS_G;
    }
    if (seg < SEG_LDTR) {
        rights |= accessed;
    }
    return rights;
}

void vmx_set_seg(struct vcpu *v, enum seg_reg seg, const struct segment *in)
{
    vmx_set(v, VC_LIMIT + seg, in->limit);
    vmx_set(v, VC_BASE + seg, in->base);
    if (seg != SEG_GDTR && seg != SEG_IDTR) {
        vmx_set(v, VC_SELECTOR + seg, in->selector);
        vmx_set(v, VC_RIGHTS + seg, rights_of(seg, in));
    }
}

/* The copy that holds an MSR; NR_VC: none does. */
static enum vmx_copy msr_copy(uint32_t index)
{
    switch (index) {
    case MSR_FS_BASE:
        return VC_BASE + SEG_FS;
    case MSR_GS_BASE:
        return VC_BASE + SEG_GS;
    case MSR_SYSENTER_CS:
        return VC_SYSENTER_CS;
    case MSR_SYSENTER_ESP:
        return VC_SYSENTER_ESP;
    case MSR_SYSENTER_EIP:
        return VC_SYSENTER_EIP;
    case MSR_PAT:
        return VC_PAT;
    default:
        return NR_VC;
    }
}

enum hv_err vmx_get_msr(struct vcpu *v, uint32_t index, uint64_t *out)
{
    const uint64_t *slot = live_msr(&vmx_of(v)->live, index);
    enum vmx_copy what = msr_copy(index);

    if (slot != NULL) {
        *out = v->loaded ? rdmsr(index) : *slot;
        return HV_OK;
    }
    if (what == NR_VC) {
        return HV_ENOENT;
    }
    *out = vmx_get(v, what);
    return HV_OK;
}

enum hv_err vmx_set_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    uint64_t *slot = live_msr(&vmx_of(v)->live, index);
    enum vmx_copy what = msr_copy(index);

    if (slot != NULL) {
        if (v->loaded) {
            wrmsr(index, value);
        } else {
            v->set_unloaded = true;
        }
        *slot = value;
        return HV_OK;
    }
    if (what == NR_VC) {
        return HV_ENOENT;
    }
    vmx_set(v, what, value);
    return HV_OK;
}

bool vmx_advance(struct vcpu *v, uint64_t len)
{
    uint64_t rip = v->rip + len;

    /* Only code outside 64-bit mode lives below 4 GiB and may step across. */
    if (unlikely((rip ^ v->rip) >> 32) && !(vmx_get(v, VC_RIGHTS + SEG_CS) & RIGHTS_L)) {
        rip = (uint32_t)rip;
    }
    v->rip = rip;
    vmx_clear_shadow(v);
    uint64_t flags = vmx_get(v, VC_RFLAGS);
    if (unlikely(flags & (RFLAGS_TF | RFLAGS_RF))) {
        vmx_set(v, VC_RFLAGS, flags & ~RFLAGS_RF);
        return (flags & RFLAGS_TF) != 0;
    }
    return false;
}

bool vmx_code_state(struct vcpu *v, struct code_state *out)
{
    if (!(vmx_get_efer(v) & EFER_LMA) || !(vmx_get(v, VC_RIGHTS + SEG_CS) & RIGHTS_L) ||
        (vmx_get_cr4(v) & CR4_LA57)) {
        return false;
    }
    out->rip = v->rip;
    out->cr3 = vmx_get_cr3(v);
    return true;
}

/* ---- Clearing ---- */

void vmx_clear_regs(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);
    const uint64_t kept =
        BIT(VC_EPTP) | BIT(VC_VPID) | BIT(VC_TSC_OFFSET) | (s->software ? BIT(VC_CR3) : 0);

    for (unsigned i = 0; i < NR_VC; i++) {
        if (!(kept >> i & 1)) {
            s->copy[i] = 0;
        }
    }
    s->valid = s->dirty = BIT(NR_VC) - 1;
    s->event_queued = false;
    s->identity = false;
    s->efer = 0;
    s->guest_cr3 = 0;
    memset(&s->live, 0, sizeof(s->live));
    vmx_set(v, VC_PROC_CTL, vmx_proc_controls(s));
}
