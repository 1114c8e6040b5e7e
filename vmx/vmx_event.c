/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Delivering events: the entry event for what can be taken, interrupt-window and NMI-window exits
 * for what cannot yet, IDT-vectoring information for what an exit cut short ("Event Injection",
 * "Virtual NMIs", "Information for VM Exits That Occur During Event Delivery"). NMI blocking is the
 * processor's business: virtual NMIs are on. Called by kernel/vm/event.c and vmx_run, from the
 * vCPU's thread only.
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmx.h"

static uint64_t get_blocked(struct vcpu *v)
{
    return vmx_get_here(v, VC_INTERRUPTIBILITY, VMCS_GUEST_INTERRUPTIBILITY);
}

void vmx_clear_shadow(struct vcpu *v)
{
    uint64_t blocked = get_blocked(v);

    if (unlikely(blocked & BLOCKED_SHADOW)) {
        vmx_set(v, VC_INTERRUPTIBILITY, blocked & ~BLOCKED_SHADOW);
    }
}

enum hv_err vmx_inject(struct vcpu *v, const struct event *ev)
{
    static const uint32_t types[] = {
        [EVENT_INTERRUPT] = EVENT_TYPE_EXTERNAL,
        [EVENT_NMI] = EVENT_TYPE_NMI,
        [EVENT_EXCEPTION] = EVENT_TYPE_HARD_EXCEPTION,
        [EVENT_SOFT_INT] = EVENT_TYPE_SOFT_INT,
    };
    struct vmx_vcpu *s = vmx_of(v);

    if (s->event_queued) {
        return HV_EBUSY;
    }
    uint64_t word = EVENT_VALID | ev->vector | types[ev->type] << EVENT_TYPE_SHIFT;
    if (ev->has_error) {
        word |= EVENT_HAS_ERROR;
        s->event_error = ev->error;
    }
    if (ev->type == EVENT_SOFT_INT) {
        s->event_length = ev->insn_len;
    }
    s->event_queued = true;
    s->copy[VC_ENTRY_EVENT] = word;
    s->dirty |= BIT(VC_ENTRY_EVENT); /* the processor cleared the valid bit since */

    /* An injected event ends any shadow; an NMI whose delivery begins again is not blocked by it. */
    uint64_t blocked = get_blocked(v);
    uint64_t ends = BLOCKED_SHADOW | (ev->type == EVENT_NMI ? BLOCKED_BY_NMI : 0);
    if (unlikely(blocked & ends)) {
        vmx_set(v, VC_INTERRUPTIBILITY, blocked & ~ends);
    }
    return HV_OK;
}

bool vmx_can_take(struct vcpu *v, enum window kind)
{
    if (vmx_of(v)->event_queued) {
        return false;
    }
    uint64_t blocked = get_blocked(v);
    /* STI holds back interrupts only, and the NMI window may open behind it ("NMI-Window Exiting and
     * Virtual-NMI Exiting"): waiting for the end of its shadow might be for ever. */
    if (kind == WINDOW_NMI) {
        return !(blocked & (BLOCKED_BY_MOV_SS | BLOCKED_BY_NMI));
    }
    return !(blocked & BLOCKED_SHADOW) &&
           (vmx_get_here(v, VC_RFLAGS, VMCS_GUEST_RFLAGS) & RFLAGS_IF);
}

void vmx_window(struct vcpu *v, enum window kind, bool on)
{
    uint64_t bit = kind == WINDOW_NMI ? PROC_NMI_WINDOW : PROC_IRQ_WINDOW;
    uint64_t proc = vmx_get(v, VC_PROC_CTL);

    vmx_set(v, VC_PROC_CTL, on ? proc | bit : proc & ~bit);
}

void vmx_trap_tpr(struct vcpu *v, bool on)
{
    uint64_t proc = vmx_get(v, VC_PROC_CTL);

    /* Without a TPR shadow every access exits anyway. */
    if (proc & PROC_TPR_SHADOW) {
        vmx_set(v, VC_PROC_CTL, on ? proc | PROC_CR8_LOAD : proc & ~PROC_CR8_LOAD);
    }
}

bool vmx_event_interrupted(struct vcpu *v)
{
    uint64_t word = vmcs_get(VMCS_VECTORING);

    if (likely(!(word & EVENT_VALID))) {
        return false;
    }
    vcpu_event_cut_short(v, word, (uint32_t)vmcs_get(VMCS_VECTORING_ERROR));
    return true;
}

void vmx_event_nmi_unblocked(struct vcpu *v)
{
    vmx_set(v, VC_INTERRUPTIBILITY, get_blocked(v) | BLOCKED_BY_NMI);
}
