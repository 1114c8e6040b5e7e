/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happens at an exit: one table, indexed by kind, of a handler for the fast path and one for
 * the slow. The fast handler runs inside the section: it does not sleep, wait or log, and touches
 * nothing before it knows that it can finish. The slow one runs as an ordinary thread and starts
 * the operation from the beginning. Private to kernel/vm.
 */
#pragma once

#include "kernel/vm/backend.h"
#include "kernel/vm/vm.h"

enum exit_action {
    ACT_SLOW,   /* from a fast handler: call the slow one */
    ACT_RESUME, /* dealt with: enter again */
    ACT_LEAVE,  /* leave the section, look at everything pending, enter again */
    ACT_YIELD   /* the same, and offer the processor to others */
};

typedef enum exit_action (*exit_handler_t)(struct vcpu *v, struct vm_exit *exit);

struct exit_handlers {
    exit_handler_t fast, slow;
};

/* exit.c; indexed by enum exit_kind, no entry NULL. */
extern const struct exit_handlers exit_table[NR_EXIT_KINDS];

/* What an error of vcpu_length, the emulator or a device means: nothing was done, and the exit comes
 * again; HV_EFAULT: an event is queued. */
enum exit_action exit_again(struct vcpu *v, enum hv_err err);

/* insn.c: the guest single-steps and an instruction was emulated. Always ACT_RESUME. */
enum exit_action insn_single_step(struct vcpu *v);
/* The instruction that exited, of `len` bytes, is done: step over it and go on. */
static inline enum exit_action exit_done(struct vcpu *v, uint64_t len)
{
    if (likely(v->plain_step)) {
        v->rip += len;
        return ACT_RESUME;
    }
    return unlikely(hv->advance(v, len)) ? insn_single_step(v) : ACT_RESUME;
}

/* insn.c: the `len` bytes of 64-bit code at RIP, quickly. NULL: look at them otherwise. In a section
 * only, and good until the next entry. */
const uint8_t *vcpu_code(struct vcpu *v, unsigned len);

/* vcpu_length, quick where the processor told it. */
static inline enum hv_err exit_length(struct vcpu *v, struct vm_exit *exit)
{
    return likely(exit->insn_len != 0) ? HV_OK : vcpu_length(v, exit);
}

/* fault.c: nested page faults. */
enum exit_action fault_fast(struct vcpu *v, struct vm_exit *exit);
enum exit_action fault_slow(struct vcpu *v, struct vm_exit *exit);
/* Carry out the instruction at RIP, whose access to exit->mem.gpa cannot be mapped. */
enum exit_action fault_device(struct vcpu *v, struct vm_exit *exit, bool fast);
/* Off the fast path: the page at gpa cannot be had now (HV_EAGAIN, HV_EIO, HV_ENOMEM). ACT_LEAVE. */
enum exit_action fault_failed(struct vcpu *v, gpa_t gpa, enum hv_err err);

/* A general register by its number in instructions: RSP is not in gpr[]. */
static inline uint64_t exit_gpr(struct vcpu *v, uint8_t gpr)
{
    return gpr == GPR_RSP ? hv->get_reg(v, REG_RSP) : v->gpr[gpr % NR_GPRS];
}

static inline void exit_gpr_set(struct vcpu *v, uint8_t gpr, uint64_t value)
{
    if (gpr == GPR_RSP) {
        hv->set_reg(v, REG_RSP, value);
    } else {
        v->gpr[gpr % NR_GPRS] = value;
    }
}

/* dr.c: a move to or from a debug register, off the fast path. */
enum exit_action dr_exit(struct vcpu *v, struct vm_exit *exit);

/* softmmu.c: VMs whose view is a shadow view. */
enum exit_action softmmu_fault(struct vcpu *v, struct vm_exit *exit);
enum exit_action softmmu_invlpg(struct vcpu *v, struct vm_exit *exit);
/* The vCPU is new, or its view is. */
void softmmu_reset(struct vcpu *v);
/* The registers that the root depends on have changed: load it, now or before the next entry. */
void softmmu_changed(struct vcpu *v);
void softmmu_stale(struct vcpu *v);
/* A move to CR3 and nothing else, of a value that was checked, in long mode. HV_EAGAIN on the fast
 * path, HV_ENOMEM off it: nothing was done. */
enum hv_err softmmu_cr3(struct vcpu *v, uint64_t value) __must_check;
/* Off the fast path: have the root up to date. False: no memory, try again. */
bool softmmu_ready(struct vcpu *v);

/* realmode.c: EXIT_EMULATE, off the fast path: run a bounded stretch of the guest's code in software. */
enum exit_action realmode_exit(struct vcpu *v, struct vm_exit *exit);

/* event.c: choose and queue what the next entry delivers. False: something needs the slow path. */
bool event_prepare(struct vcpu *v);
/* Would an entry now deliver something to a halted vCPU? Takes in what VCPU_REQ_EVENT and
 * VCPU_REQ_NMI announced. */
bool event_wakes(struct vcpu *v);

/* tag.c: give v a tag for this processor that has seen flush epoch `epoch`. Right before run. */
void tag_assign(struct vcpu *v, uint64_t epoch);
/* The entry was refused, with whatever flush it carried. Before v's thread may sleep. */
void tag_entry_failed(struct vcpu *v);
/* The processor may have changed, or recycled its tags: make the next look at the epoch fail. */
void tag_check(struct vcpu *v);

/* cpuid.c. Creation says what the guest is offered (vm->page1gb): before start_build_memory. */
enum hv_err cpuid_create(struct vm *vm) __must_check;
void cpuid_destroy(struct vm *vm);
void cpuid_execute(struct vcpu *v);

/* msr.c; HV_EPERM: #GP(0), HV_EAGAIN: off the fast path. */
enum hv_err msr_read(struct vcpu *v, uint32_t index, uint64_t *out) __must_check;
enum hv_err msr_write(struct vcpu *v, uint32_t index, uint64_t value) __must_check;
/* Leave to the guest what needs no handler: at VM creation. */
void msr_open(struct vm *vm);
void msr_reset(struct vcpu *v);
/* Registers that the processor has to hold before v enters (TSC_AUX). */
void msr_load(struct vcpu *v);

/* cr.c */
enum exit_action cr_exit(struct vcpu *v, struct vm_exit *exit);
enum exit_action cr_xsetbv(struct vcpu *v, struct vm_exit *exit);
/* The guest writes CR0, CR3, CR4 or CR8. HV_EPERM: it gets #GP(0). HV_EAGAIN: off the fast path, or, like
 * HV_ENOMEM, again. Nothing has happened unless HV_OK. */
enum hv_err cr_write(struct vcpu *v, unsigned cr, uint64_t value) __must_check;

/* run.c: run v until VCPU_REQ_STOP; its hardware state is in memory afterwards. */
void run_vcpu(struct vcpu *v);
/* struct thread's switch_out of vCPU threads. */
void run_switch_out(struct thread *t);

/* vcpu.c */
enum hv_err vcpu_create(struct vm *vm, unsigned id) __must_check;
void vcpu_destroy(struct vcpu *v);
/* Power-on state; vCPUs other than 0 wait for a start-up message. */
void vcpu_reset(struct vcpu *v);
/* INIT was received. */
void vcpu_init_signal(struct vcpu *v);

/* start.c: fresh memory and devices, images loaded, vCPU 0 at their entry. No vCPU runs. */
enum hv_err start_prepare(struct vm *vm) __must_check;
/* p2m and view according to the configuration, in place of those that the VM has. */
enum hv_err start_build_memory(struct vm *vm) __must_check;
void start_free_memory(struct vm *vm);

/* life.c: a vCPU thread enters (false: the VM is dying) and leaves the run loop. */
bool life_vcpu_enter(struct vcpu *v);
void life_vcpu_leave(struct vcpu *v);
/* For vm_destroy: no vCPU runs any more, none will, and no other operation starts. HV_EBUSY: another
 * thread is destroying the VM. */
enum hv_err life_end(struct vm *vm) __must_check;
