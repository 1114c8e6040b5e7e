/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CR0, CR3, CR4 and EFER of guests. The guest owns what it may set at will; other bits exit when it
 * changes them, and what it believes to have set is in the read shadow. VMX wants NE and VMXE set; caches
 * and machine checks are the host's.
 *
 * A processor without unrestricted guests cannot turn paging off. While such a guest has it off, the
 * processor walks an identity map that common code has put at BACKEND_IDENTITY_MAP (32-bit tables of
 * 4 MiB pages), and CR3 and the paging bits exit. Nor can it leave protected mode: see vmx_emulate.c.
 *
 * With the software MMU (backend.h) the processor walks common code's tables: PG, WP, PAE and NXE are
 * always set, CR3 is set_root's, and whatever a walk looks at exits.
 */
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/vm/softmmu_regs.h"
#include "vmx/vmx.h"

/* What a guest may do with CR4 without asking, where its processor has the bit. */
#define CR4_GUEST                                                                                \
    (CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCE | CR4_OSFXSR | \
     CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP | CR4_SMAP |  \
     CR4_PKE)
/* Of these, what depends on whose page tables are walked; and what a walk looks at. */
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE)
#define CR4_WALK (CR4_PAGING | CR4_PGE)

uint64_t vmx_proc_controls(const struct vmx_vcpu *s)
{
    return vmx_caps.chosen.proc | (s->software ? PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG : 0);
}

uint64_t vmx_cr0_mask(const struct vmx_vcpu *s)
{
    return CR0_NE | CR0_CD | CR0_NW | (s->unrestricted ? 0 : CR0_PE | CR0_PG) |
           (s->software ? CR0_WP : 0);
}

uint64_t vmx_get_cr0(struct vcpu *v)
{
    uint64_t mask = vmx_cr0_mask(vmx_of(v));

    return (vmx_get(v, VC_CR0) & ~mask) | (vmx_get(v, VC_CR0_SHADOW) & mask);
}

uint64_t vmx_get_cr4(struct vcpu *v)
{
    uint64_t mask = vmx_get(v, VC_CR4_MASK);

    return (vmx_get(v, VC_CR4) & ~mask) | (vmx_get(v, VC_CR4_SHADOW) & mask);
}

uint64_t vmx_get_cr3(struct vcpu *v)
{
    const struct vmx_vcpu *s = vmx_of(v);

    return s->identity || s->software ? s->guest_cr3 : vmx_get(v, VC_CR3);
}

/* ---- What the processor gets ---- */

/* With the software MMU. */
static struct softmmu_regs real_regs(const struct vcpu *v, uint64_t cr0, uint64_t cr4)
{
    return softmmu_regs(cr0, cr4, vmx_of(v)->efer, cpu_features.nx);
}

static void put_cr4(struct vcpu *v, uint64_t value)
{
    const struct vmx_vcpu *s = vmx_of(v);
    uint64_t owned = CR4_GUEST & vmx_caps.cr4.may;
    uint64_t real = value & owned;

    if (s->software) {
        owned &= ~CR4_WALK;
        real = real_regs(v, vmx_get(v, VC_CR0_SHADOW), real).cr4;
    } else if (s->identity) {
        owned &= ~CR4_PAGING;
        real = (real & ~CR4_PAGING) | CR4_PSE;
    }
    real |= vmx_caps.cr4.must | (cpu_features.mce ? CR4_MCE : 0);
    vmx_set(v, VC_CR4_MASK, ~owned);
    vmx_set(v, VC_CR4_SHADOW, value);
    vmx_set(v, VC_CR4, real);
}

/* Paging goes on or off where the processor cannot turn it off. */
static void switch_identity(struct vcpu *v, bool on)
{
    struct vmx_vcpu *s = vmx_of(v);
    const uint64_t cr3_exits = PROC_CR3_LOAD | PROC_CR3_STORE;
    uint64_t cr4 = vmx_get_cr4(v), proc = vmx_get(v, VC_PROC_CTL) & ~cr3_exits;

    if (on) {
        s->guest_cr3 = vmx_get(v, VC_CR3);
        vmx_set(v, VC_CR3, BACKEND_IDENTITY_MAP);
        proc |= cr3_exits;
    } else {
        vmx_set(v, VC_CR3, s->guest_cr3);
    }
    vmx_set(v, VC_PROC_CTL, proc | vmx_caps.proc.must);
    s->identity = on;
    put_cr4(v, cr4);
}

/* With the software MMU common code says what is to be dropped. */
static void drop_linear(struct vmx_vcpu *s)
{
    if (!s->software) {
        s->dirty |= VMX_FLUSH_LINEAR;
    }
}

/* CR0 or EFER changed: long mode is active while both LME and PG are set. */
static void sync_mode(struct vcpu *v, uint64_t cr0)
{
    struct vmx_vcpu *s = vmx_of(v);
    bool paged = (cr0 & CR0_PG) != 0;
    uint64_t efer;

    if (s->software) {
        efer = real_regs(v, cr0, 0).efer;
    } else {
        efer = s->efer | (paged && (s->efer & EFER_LME) ? EFER_LMA : 0);
        if (s->identity != (!paged && !s->unrestricted)) {
            switch_identity(v, !s->identity);
        }
        if (s->identity) {
            efer &= ~EFER_LME; /* as the processor's CR0.PG is set */
        }
    }
    vmx_set(v, VC_EFER, efer);
    vmx_set(v, VC_ENTRY_CTL, vmx_caps.chosen.entry | (efer & EFER_LMA ? ENTRY_IA32E : 0));
    if (s->msrs != NULL) {
        s->msrs[0] = (struct vmx_msr_entry){.index = MSR_EFER, .value = efer};
    }
    drop_linear(s);
}

/* ---- The interface ---- */

void vmx_set_cr0(struct vcpu *v, uint64_t value)
{
    struct vmx_vcpu *s = vmx_of(v);
    uint64_t must = vmx_caps.cr0.must;
    uint64_t real = s->software ? real_regs(v, value, 0).cr0 : value & ~(CR0_CD | CR0_NW);

    if (s->unrestricted) {
        must &= ~(CR0_PE | CR0_PG);
    } else if (!(value & CR0_PE)) {
        s->emulated = true;
    }
    vmx_set(v, VC_CR0_SHADOW, value);
    vmx_set(v, VC_CR0, (real & vmx_caps.cr0.may) | must);
    if (s->software) {
        put_cr4(v, vmx_get_cr4(v));
    }
    sync_mode(v, value);
}

void vmx_set_cr3(struct vcpu *v, uint64_t value)
{
    struct vmx_vcpu *s = vmx_of(v);

    s->guest_cr3 = value;
    if (!s->identity && !s->software) {
        vmx_set(v, VC_CR3, value);
    }
    drop_linear(s);
}

void vmx_set_cr4(struct vcpu *v, uint64_t value)
{
    put_cr4(v, value);
    drop_linear(vmx_of(v));
}

uint64_t vmx_get_efer(struct vcpu *v)
{
    uint64_t efer = vmx_of(v)->efer;

    return efer | ((efer & EFER_LME) && (vmx_get_cr0(v) & CR0_PG) ? EFER_LMA : 0);
}

void vmx_set_efer(struct vcpu *v, uint64_t value)
{
    vmx_of(v)->efer = value & ~EFER_LMA;
    sync_mode(v, vmx_get_cr0(v));
}
