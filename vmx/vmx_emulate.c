/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests in real mode on processors without "unrestricted guest": common code executes their instructions
 * (kernel/vm/realmode.c) until protected mode is on and the segment registers, which may hold real
 * mode's contents a while longer, the descriptor tables and RIP pass what VM entry checks. A vCPU gets into
 * this by INIT or by clearing CR0.PE, which exits; while it lasts the copies in struct vmx_vcpu are the guest's registers.
 */
#include "arch/x86_64/regs.h"
#include "vmx/vmx.h"
#include "vmx/vmx_doctor.h"

#define IN(field, first, nr) ((field) >= (first) && (field) < (first) + 2 * (nr))

/* What the rules of vmx_doctor_enterable ask for, from the copies. */
static uint64_t read_copy(void *arg, uint32_t field)
{
    static const struct {
        uint32_t first;
        uint8_t copy, nr;
    } groups[] = {
        {VMCS_GUEST_ES, VC_SELECTOR, 8},      /* to TR */
        {VMCS_GUEST_ES_LIMIT, VC_LIMIT, 10},  /* to IDTR */
        {VMCS_GUEST_ES_RIGHTS, VC_RIGHTS, 8}, /* to TR */
        {VMCS_GUEST_ES_BASE, VC_BASE, 10},    /* to IDTR */
    };
    struct vcpu *v = arg;

    for (unsigned i = 0; i < ARRAY_SIZE(groups); i++) {
        if (IN(field, groups[i].first, groups[i].nr)) {
            return vmx_get(v, groups[i].copy + (field - groups[i].first) / 2);
        }
    }
    if (field == VMCS_GUEST_RIP) {
        return v->rip;
    }
    return vmx_get(v, field == VMCS_GUEST_CR0      ? VC_CR0
                      : field == VMCS_GUEST_RFLAGS ? VC_RFLAGS
                                                   : VC_ENTRY_CTL);
}

bool vmx_enterable(struct vcpu *v)
{
    struct vmx_vcpu *s = vmx_of(v);

    if (!s->emulated) {
        return true;
    }
    /* A shadow ends with the next instruction, and is none of the entry's business. */
    if (!(vmx_get_reg(v, REG_CR0) & CR0_PE) || (vmx_get(v, VC_INTERRUPTIBILITY) & BLOCKED_SHADOW) ||
        vmx_doctor_enterable(&vmx_caps, read_copy, v) != 0) {
        return false;
    }
    s->emulated = false;
    return true;
}

static bool vmx_withdraw(struct vcpu *v, struct event *out)
{
    static const enum event_type types[8] = {
        [EVENT_TYPE_EXTERNAL] = EVENT_INTERRUPT,
        [EVENT_TYPE_NMI] = EVENT_NMI,
        [EVENT_TYPE_HARD_EXCEPTION] = EVENT_EXCEPTION,
        [EVENT_TYPE_SOFT_INT] = EVENT_SOFT_INT,
    };
    struct vmx_vcpu *s = vmx_of(v);
    uint64_t word = s->copy[VC_ENTRY_EVENT];

    if (!s->event_queued) {
        return false;
    }
    s->event_queued = false;
    s->dirty &= ~BIT(VC_ENTRY_EVENT);
    *out = (struct event){
        .type = types[word >> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK],
        .vector = (uint8_t)(word & EVENT_VECTOR),
        .has_error = (word & EVENT_HAS_ERROR) != 0,
        .error = word & EVENT_HAS_ERROR ? s->event_error : 0,
        .insn_len = s->event_length,
    };
    return true;
}

static void vmx_block(struct vcpu *v, enum block what, bool on)
{
    uint64_t bit = what == BLOCK_NMI ? BLOCKED_BY_NMI : BLOCKED_BY_MOV_SS;
    uint64_t blocked = vmx_get(v, VC_INTERRUPTIBILITY);

    vmx_set(v, VC_INTERRUPTIBILITY, on ? blocked | bit : blocked & ~bit);
}

const struct hv_emulation vmx_emulation = {
    .enterable = vmx_enterable,
    .withdraw = vmx_withdraw,
    .block = vmx_block,
};
