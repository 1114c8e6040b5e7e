/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of svm/ share: the vendor's data per VM, per vCPU and per processor. Only
 * kernel/vm/backend.c looks in from outside, for the backend table.
 */
#pragma once

#include "kernel/vm/backend.h"
#include "kernel/vm/vm.h"
#include "svm/vmcb.h"

extern const struct hv_backend svm_backend;

/* Permission maps; constant once direct_msr has been called for the last time, before vCPUs run. */
struct svm_vm {
    uint8_t *iopm;  /* one bit per port */
    uint8_t *msrpm; /* two bits per MSR: read, write */
};

struct svm_vcpu {
    struct vmcb *vmcb;
    uint64_t vmcb_pa;
    uint64_t dr[4];    /* DR0-DR3 while not loaded: the VMCB does not hold them */
    uint64_t iret_rip; /* the IRET that ends an NMI handler, once it was intercepted */
    unsigned cpu;      /* processor of the last entry: clean bits hold only there */
    struct {
        uint64_t cr0, cr3, cr4, efer; /* software MMU: what the guest believes; LMA left out */
    } guest;
    bool in_section;             /* guest FS, GS, TR, LDTR and their MSRs are in the processor */
    bool irq_window, nmi_window; /* the window is open for these */
    bool nmi_masked;             /* an NMI was injected and its IRET not seen */
    bool after_iret;             /* iret_rip is valid: NMIs stay masked while RIP is there */
};

struct svm_cpu {
    void *hsave;       /* where VMRUN keeps host state */
    struct vmcb *host; /* FS, GS, TR, LDTR and syscall MSRs of the host, for VMLOAD */
    uint64_t host_pa;
};

static inline struct svm_vcpu *svm_of(const struct vcpu *v)
{
    return v->vendor;
}
static inline struct vmcb *svm_vmcb(const struct vcpu *v)
{
    return svm_of(v)->vmcb;
}
/* Fields of these groups (CLEAN_*) were written. */
static inline void svm_dirty(struct vmcb *m, uint32_t groups)
{
    m->ctl.clean &= ~groups;
}

static inline void svm_vmload(uint64_t pa)
{
    __asm__ volatile("vmload %0" ::"a"(pa) : "memory");
}
static inline void svm_vmsave(uint64_t pa)
{
    __asm__ volatile("vmsave %0" ::"a"(pa) : "memory");
}

/* svm_entry.asm: one VMRUN with v's registers; returns through svm_exit. GIF 0, IF 1. */
void svm_run(struct vcpu *v, struct vm_exit *exit);

/* svm_exit.c: what VMRUN left behind into v and the neutral form. */
void svm_exit(struct vcpu *v, struct vm_exit *exit);

/* svm_regs.c */
/* DR0 to DR3 into and out of the processor. */
void svm_drs_load(const struct svm_vcpu *s);
void svm_drs_save(struct svm_vcpu *s);
/* Operations of struct hv_backend, as those that follow. */
uint64_t svm_get_reg(struct vcpu *v, enum hv_reg reg);
void svm_set_reg(struct vcpu *v, enum hv_reg reg, uint64_t value);
void svm_get_seg(struct vcpu *v, enum seg_reg seg, struct segment *out);
void svm_set_seg(struct vcpu *v, enum seg_reg seg, const struct segment *in);
enum hv_err svm_get_msr(struct vcpu *v, uint32_t index, uint64_t *out);
enum hv_err svm_set_msr(struct vcpu *v, uint32_t index, uint64_t value);
bool svm_advance(struct vcpu *v, uint64_t len);
bool svm_code_state(struct vcpu *v, struct code_state *out);

/* svm_flush.c */
void svm_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all);

/* svm_event.c */
enum hv_err svm_inject(struct vcpu *v, const struct event *ev);
bool svm_can_take(struct vcpu *v, enum window kind);
void svm_window(struct vcpu *v, enum window kind, bool on);
void svm_trap_tpr(struct vcpu *v, bool on);
void svm_clear_shadow(struct vcpu *v);
/* The exit cut an event's delivery short, or an injected event was taken: keep, or forget it. */
void svm_event_after_exit(struct vcpu *v, struct vmcb *m);
/* IRET of an NMI handler was intercepted. */
void svm_event_iret(struct vcpu *v);

/* svm_bitmap.c */
enum hv_err svm_bitmap_create(struct svm_vm *s, uint32_t owner);
void svm_bitmap_destroy(struct svm_vm *s);
void svm_direct_msr(struct vm *vm, uint32_t index);
