/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Delivering events: EVENTINJ for what can be taken, V_IRQ with its intercept as the interrupt
 * window, the IRET intercept as the end of an NMI, EXITINTINFO for what an exit cut short ("Event
 * Injection", "Interrupt and Local APIC Support"). Called by kernel/vm/event.c and svm_run, from the
 * vCPU's thread only.
 */
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/regs.h"
#include "svm/svm.h"

enum hv_err svm_inject(struct vcpu *v, const struct event *ev)
{
    static const uint32_t types[] = {
        [EVENT_INTERRUPT] = EVINJ_TYPE_INTR,
        [EVENT_NMI] = EVINJ_TYPE_NMI,
        [EVENT_EXCEPTION] = EVINJ_TYPE_EXCEPTION,
        [EVENT_SOFT_INT] = EVINJ_TYPE_SOFT,
    };
    struct svm_vcpu *s = svm_of(v);
    struct vmcb *m = s->vmcb;

    if (m->ctl.event_inj & EVINJ_VALID) {
        return HV_EBUSY;
    }
    uint64_t word = EVINJ_VALID | ev->vector | types[ev->type] << EVINJ_TYPE_SHIFT;
    if (ev->has_error) {
        word |= EVINJ_ERROR_VALID | (uint64_t)ev->error << EVINJ_ERROR_SHIFT;
    }
    m->ctl.event_inj = word;
    if (ev->type == EVENT_NMI) {
        s->nmi_masked = true;
        m->ctl.intercept1 |= (uint32_t)ICEPT1_IRET;
        svm_dirty(m, CLEAN_INTERCEPTS);
    }
    return HV_OK;
}

bool svm_can_take(struct vcpu *v, enum window kind)
{
    struct svm_vcpu *s = svm_of(v);
    const struct vmcb *m = s->vmcb;

    if ((m->ctl.int_state & INTSTATE_SHADOW) || (m->ctl.event_inj & EVINJ_VALID)) {
        return false;
    }
    if (kind == WINDOW_IRQ) {
        return (m->save.rflags & RFLAGS_IF) != 0;
    }
    if (s->after_iret && s->iret_rip != v->rip) {
        s->after_iret = false;
        s->nmi_masked = false;
    }
    return !s->nmi_masked;
}

static void set_virq(struct vmcb *m, bool on)
{
    const uint32_t virq = (uint32_t)(INTCTL_IRQ | INTCTL_PRIO_MASK | INTCTL_IGNORE_TPR);

    if (on) {
        m->ctl.int_control |= virq;
        m->ctl.intercept1 |= (uint32_t)ICEPT1_VINTR;
    } else {
        m->ctl.int_control &= ~virq;
        m->ctl.intercept1 &= (uint32_t)~ICEPT1_VINTR;
    }
    svm_dirty(m, CLEAN_INT | CLEAN_INTERCEPTS);
}

/*
 * A masked NMI waits for IRET, which is intercepted meanwhile. Once that stands at RIP, or where only
 * an interrupt shadow is in the way, the interrupt window serves as well as anything: it opens as
 * soon as the guest enables interrupts, and NMIs are looked at then. Where they are enabled before the IRET,
 * it would open there for ever: the NMI goes at the next exit.
 */
void svm_window(struct vcpu *v, enum window kind, bool on)
{
    struct svm_vcpu *s = svm_of(v);

    if (kind == WINDOW_NMI) {
        bool behind_iret = s->after_iret && !(s->vmcb->save.rflags & RFLAGS_IF);

        s->nmi_window = on && (!s->nmi_masked || behind_iret);
    } else {
        s->irq_window = on;
    }
    set_virq(s->vmcb, s->nmi_window || s->irq_window);
}

void svm_trap_tpr(struct vcpu *v, bool on)
{
    struct vmcb *m = svm_vmcb(v);

    m->ctl.cr_write &= (uint16_t)~ICEPT_CR_TPR;
    m->ctl.cr_write |= on ? (uint16_t)ICEPT_CR_TPR : 0;
    svm_dirty(m, CLEAN_INTERCEPTS);
}

void svm_clear_shadow(struct vcpu *v)
{
    svm_vmcb(v)->ctl.int_state = 0;
}

void svm_event_iret(struct vcpu *v)
{
    struct svm_vcpu *s = svm_of(v);

    /* The IRET has not executed yet: NMIs stay masked until RIP has moved. */
    s->after_iret = true;
    s->iret_rip = v->rip;
    s->vmcb->ctl.intercept1 &= (uint32_t)~ICEPT1_IRET;
    svm_dirty(s->vmcb, CLEAN_INTERCEPTS);
}

void svm_event_after_exit(struct vcpu *v, struct vmcb *m)
{
    uint64_t word = m->ctl.exit_int_info;

    m->ctl.event_inj = 0;
    v->interrupted.type = EVENT_NONE;
    vcpu_event_cut_short(v, word, (uint32_t)(word >> EVINJ_ERROR_SHIFT));
}
