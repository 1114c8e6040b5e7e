/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of vmx/ share: the vendor's data per VM, per vCPU and per processor. Only
 * kernel/vm/backend.c looks in from outside, for the backend table.
 *
 * Fields of the VMCS that change while a vCPU runs have a copy in struct vmx_vcpu. `valid` tells
 * which copies are good: an exit makes those of guest state void, and they are read when first asked
 * for. `dirty` tells which the VMCS lacks: they are written before the next entry. So a field that
 * nobody changed is neither read nor written, and a vCPU can be set up while its VMCS is nowhere.
 *
 * A VMCS is in use (active) on one processor at most. When its vCPU appears on another, the one that
 * had it clears it, by a cross-call: vmx_bind.
 */
#pragma once

#include "kernel/vm/backend.h"
#include "kernel/vm/vm.h"
#include "vmx/vmcs.h"
#include "vmx/vmx_caps.h"

extern const struct hv_backend vmx_backend;
extern struct vmx_caps vmx_caps; /* constant after the first processor is enabled */

/* Permission maps: a bit per port (two pages), and per MSR and direction; 1 exits. */
struct vmx_vm {
    uint64_t *io_map;
    uint64_t *msr_map;
};

/* Copies of VMCS fields; encodings in vmx_regs.c. Segments in the order of enum seg_reg. */
enum vmx_copy {
    /* What only we change. */
    VC_PROC_CTL,
    VC_EPTP,
    VC_VPID,
    VC_TSC_OFFSET,
    VC_CR0_SHADOW,
    VC_CR4_SHADOW,
    VC_CR4_MASK,
    VC_PAT,
    VC_ENTRY_EVENT,
    /* What the guest changes. */
    VC_GUEST,
    VC_RSP = VC_GUEST,
    VC_RFLAGS,
    VC_CR0,
    VC_CR3,
    VC_CR4,
    VC_DR7,
    VC_INTERRUPTIBILITY,
    VC_PENDING_DEBUG,
    VC_EFER,
    VC_ENTRY_CTL,
    VC_SYSENTER_CS,
    VC_SYSENTER_ESP,
    VC_SYSENTER_EIP,
    VC_PDPTE,
    VC_SELECTOR = VC_PDPTE + 4, /* ES to TR */
    VC_LIMIT = VC_SELECTOR + 8, /* ES to IDTR */
    VC_RIGHTS = VC_LIMIT + 10,  /* ES to TR */
    VC_BASE = VC_RIGHTS + 8,    /* ES to IDTR */
    NR_VC = VC_BASE + 10
};
_Static_assert(NR_VC <= 62, "a bit for each copy, and two more");

/* More in `dirty`: control registers changed, drop the tag's linear translations. */
#define VMX_FLUSH_LINEAR BIT(62)
/* A section begins: the stack may stand elsewhere, the VMCS may have to be launched. */
#define VMX_NEW_SECTION BIT(63)

#define VC_MASK_OURS (BIT(VC_GUEST) - 1)

/* Registers that no VMCS holds: in the processor while the vCPU is loaded, here otherwise. The host
 * uses none of them. */
struct vmx_live {
    uint64_t cr2, dr[4], dr6;
    uint64_t star, lstar, cstar, syscall_mask, kernel_gs_base;
};

#define VMX_NO_CPU UINT32_MAX

struct vmx_vcpu {
    /* vmx_entry.asm knows these. */
    uint64_t dirty;    /* by enum vmx_copy */
    uint64_t rip;      /* as the VMCS has it */
    uint64_t host_rsp; /* likewise */
    bool launched;     /* VMRESUME, not VMLAUNCH */

    bool event_queued;    /* VC_ENTRY_EVENT holds an event that no entry has taken */
    bool software;        /* the software MMU: no nested tables, CR3 is ours */
    bool unrestricted;    /* real mode and paging off are the processor's business */
    bool identity;        /* paging is off, and the processor cannot: an identity map stands in */
    bool emulated;        /* was in real mode, which the processor cannot: vmx_enterable */
    uint8_t event_length; /* of the instruction that VC_ENTRY_EVENT stands for */
    uint32_t event_error; /* its error code */
    uint64_t valid;       /* by enum vmx_copy; likewise: */
    uint64_t stays;       /* what an exit does not make void */
    uint64_t fields;      /* what the VMCS holds */
    uint64_t copy[NR_VC];

    uint64_t efer;      /* as the guest wrote it, LMA left out */
    uint64_t guest_cr3; /* while `identity` or `software` */
    struct vmx_live live;
    uint32_t *apic_page;        /* virtual-APIC page: the task priority */
    struct vmx_msr_entry *msrs; /* EFER to load at entry and exit, where no control does it */
    void *vmcs;
    uint64_t vmcs_pa;
    unsigned cpu;      /* where the VMCS is active; VMX_NO_CPU: nowhere, in memory only */
    unsigned host_cpu; /* whose host state it holds */
    bool built;        /* constant fields written */
};

struct vmx_msr_entry {
    uint32_t index, reserved;
    uint64_t value;
};

struct vmx_cpu {
    void *vmxon;
    struct vmx_vcpu *current; /* whose VMCS the instructions act on; this processor only */
};

static inline struct vmx_vcpu *vmx_of(const struct vcpu *v)
{
    return v->vendor;
}

/* vmx.c: make v's VMCS the current one here. Interrupts on if it was active elsewhere. */
void vmx_bind(struct vcpu *v);
/* v's VMCS is the current one of this processor. */
bool vmx_is_current(const struct vcpu *v);
/* Into memory, from whichever processor has it; the next entry launches it. */
void vmx_release(struct vmx_vcpu *s);

/* vmx_entry.asm: one VMLAUNCH or VMRESUME with v's registers, interrupts off; goes on as one of the
 * functions of vmx_exit.c. */
void vmx_run(struct vcpu *v, struct vm_exit *exit);
void vmx_host_entry(void); /* where exits arrive */

/* vmcs.c: fields that never change, and those that name this processor. The VMCS is current. */
void vmcs_build(const struct vcpu *v);
void vmcs_set_host(void);
/*
 * Let the preemption timer, where there is one, end the guest's turn after a millisecond of its own
 * time. A pending interrupt ends it anyway, but for Bochs 2.7, which holds interrupts back from a
 * guest that was entered with them off until the guest turns them on or off.
 */
void vmcs_wind_timer(void);

/* vmx_exit.c: before an entry if anything is dirty; false: the guest cannot be entered. */
bool vmx_prepare(struct vcpu *v, struct vm_exit *exit);
/* What the guest's turn left behind into v and the neutral form. */
void vmx_exit(struct vcpu *v, struct vm_exit *exit);
/* Guest-physical address of the exit; 0 without nested tables. */
uint64_t vmx_exit_gpa(const struct vcpu *v);
/* The instruction failed: the guest did not run. */
void vmx_refused(struct vcpu *v, struct vm_exit *exit);

/* vmx_emulate.c: for processors without unrestricted guests. */
extern const struct hv_emulation vmx_emulation;
/* Of a vCPU that is `emulated`: may it be entered? Then it is emulated no longer. */
bool vmx_enterable(struct vcpu *v);

/* vmx_regs.c */
/* Read a copy that is not valid. */
uint64_t vmx_fetch(struct vcpu *v, enum vmx_copy what);
/* How s, new and zero, is to be run. */
void vmx_regs_init(struct vmx_vcpu *s, const struct vm *vm);
/* Write what is dirty into the VMCS. */
void vmx_write_back(struct vcpu *v);
/* Nothing of the guest is left; root, tag and TSC offset stay. */
void vmx_clear_regs(struct vcpu *v);
/* The same inside a section, for fields that are asked for often. */
static inline uint64_t vmx_get_here(struct vcpu *v, enum vmx_copy what, enum vmcs_field field)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (!(s->valid >> what & 1)) {
        s->copy[what] = vcpu_in_section(v) ? vmcs_get(field) : vmx_fetch(v, what);
        s->valid |= BIT(what);
    }
    return s->copy[what];
}
static inline uint64_t vmx_get(struct vcpu *v, enum vmx_copy what)
{
    const struct vmx_vcpu *s = vmx_of(v);

    return likely(s->valid >> what & 1) ? s->copy[what] : vmx_fetch(v, what);
}
static inline void vmx_set(struct vcpu *v, enum vmx_copy what, uint64_t value)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (!(s->valid >> what & 1) || s->copy[what] != value) {
        s->copy[what] = value;
        s->valid |= BIT(what);
        s->dirty |= BIT(what);
    }
}
/* vmx_regs.c: operations of struct hv_backend. */
uint64_t vmx_get_reg(struct vcpu *v, enum hv_reg reg);
void vmx_set_reg(struct vcpu *v, enum hv_reg reg, uint64_t value);
void vmx_get_seg(struct vcpu *v, enum seg_reg seg, struct segment *out);
void vmx_set_seg(struct vcpu *v, enum seg_reg seg, const struct segment *in);
enum hv_err vmx_get_msr(struct vcpu *v, uint32_t index, uint64_t *out);
enum hv_err vmx_set_msr(struct vcpu *v, uint32_t index, uint64_t value);
bool vmx_advance(struct vcpu *v, uint64_t len);
bool vmx_code_state(struct vcpu *v, struct code_state *out);
/* Between memory and the processor. */
void vmx_live_load(const struct vmx_live *l);
void vmx_live_save(struct vmx_live *l);

/* vmx_cr.c: in the guest's values. */
uint64_t vmx_get_cr0(struct vcpu *v);
uint64_t vmx_get_cr3(struct vcpu *v);
uint64_t vmx_get_cr4(struct vcpu *v);
uint64_t vmx_get_efer(struct vcpu *v);
void vmx_set_cr0(struct vcpu *v, uint64_t value);
void vmx_set_cr3(struct vcpu *v, uint64_t value);
void vmx_set_cr4(struct vcpu *v, uint64_t value);
void vmx_set_efer(struct vcpu *v, uint64_t value);
/* Bits of CR0 whose guest value is in the shadow and whose change exits. */
uint64_t vmx_cr0_mask(const struct vmx_vcpu *s);
/* The primary processor-based controls that s always has. */
uint64_t vmx_proc_controls(const struct vmx_vcpu *s);

/* vmx_event.c */
enum hv_err vmx_inject(struct vcpu *v, const struct event *ev);
bool vmx_can_take(struct vcpu *v, enum window kind);
void vmx_window(struct vcpu *v, enum window kind, bool on);
void vmx_trap_tpr(struct vcpu *v, bool on);
void vmx_clear_shadow(struct vcpu *v);
/* After exits that can happen while an event is delivered: keep it. True: there was one. */
bool vmx_event_interrupted(struct vcpu *v);
/* The exit came from an IRET that had ended NMI blocking already. */
void vmx_event_nmi_unblocked(struct vcpu *v);

/* vmx_bitmap.c */
enum hv_err vmx_bitmap_create(struct vmx_vm *m, uint32_t owner);
void vmx_bitmap_destroy(struct vmx_vm *m);
void vmx_direct_msr(struct vm *vm, uint32_t index);

/* vmx_flush.c */
/* v is being entered: drop the linear translations under its tag, if that is due (VMX_FLUSH_LINEAR). */
void vmx_flush_due(struct vcpu *v);
/* Operation of struct hv_backend. */
void vmx_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all);
