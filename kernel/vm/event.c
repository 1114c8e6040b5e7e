/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which event the next entry delivers: first what an exit cut short, then an exception, then an NMI,
 * then the local APIC's highest vector. What cannot be taken yet gets a window. Owner thread only.
 */
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/devices/vpic.h"
#include "kernel/vm/exit.h"

/* Classes of "Interrupt 8--Double Fault Exception". */
enum exc_class { EXC_BENIGN, EXC_CONTRIBUTORY, EXC_PAGE_FAULT, EXC_DOUBLE };

static enum exc_class class_of(uint8_t vector)
{
    switch (vector) {
    case EXC_DE:
    case EXC_TS:
    case EXC_NP:
    case EXC_SS:
    case EXC_GP:
    case EXC_CP:
        return EXC_CONTRIBUTORY;
    case EXC_PF:
    case EXC_VE:
        return EXC_PAGE_FAULT;
    case EXC_DF:
        return EXC_DOUBLE;
    default:
        return EXC_BENIGN;
    }
}

static bool makes_double_fault(enum exc_class first, enum exc_class second)
{
    return (first == EXC_CONTRIBUTORY && second == EXC_CONTRIBUTORY) ||
           (first == EXC_PAGE_FAULT && (second == EXC_CONTRIBUTORY || second == EXC_PAGE_FAULT));
}

void vcpu_inject_exception(struct vcpu *v, uint8_t vector, bool has_error, uint32_t error)
{
    struct event *cut_short = &v->interrupted;
    uint8_t first;

    __atomic_fetch_or(&v->request, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
    if (cut_short->type == EVENT_EXCEPTION) {
        first = cut_short->vector;
    } else if (cut_short->type != EVENT_NONE) {
        /* Interrupts go first; the faulting instruction will fault again. */
        return;
    } else if (v->pending_exception.type != EVENT_NONE) {
        first = v->pending_exception.vector;
    } else {
        v->pending_exception = (struct event){
            .type = EVENT_EXCEPTION, .vector = vector, .has_error = has_error, .error = error};
        return;
    }

    enum exc_class c1 = class_of(first), c2 = class_of(vector);
    cut_short->type = EVENT_NONE;
    if (c1 == EXC_DOUBLE && c2 != EXC_BENIGN) {
        vm_stop_request(v->vm, STOP_TRIPLE_FAULT, 0, "triple fault at rip 0x%llx",
                        (unsigned long long)v->rip);
    } else if (makes_double_fault(c1, c2)) {
        v->pending_exception =
            (struct event){.type = EVENT_EXCEPTION, .vector = EXC_DF, .has_error = true};
    } else {
        v->pending_exception = (struct event){
            .type = EVENT_EXCEPTION, .vector = vector, .has_error = has_error, .error = error};
    }
}

void vcpu_event_cut_short(struct vcpu *v, uint64_t word, uint32_t error)
{
    static const enum event_type types[8] = {
        [0] = EVENT_INTERRUPT, [2] = EVENT_NMI, [3] = EVENT_EXCEPTION};
    uint8_t vector = word & 0xff;
    enum event_type type = types[word >> 8 & 7];
    bool has_error = (word >> 11 & 1) != 0;

    if (!(word >> 31 & 1)) {
        return;
    }
    /* QEMU's emulator, where the delivery of an injected interrupt faults. */
    if (type == EVENT_EXCEPTION && vector >= 32) {
        type = EVENT_INTERRUPT;
    }
    /* INT n, INT3, INTO and INT1 are executed again: RIP still points at them. */
    if (type == EVENT_EXCEPTION && (vector == EXC_BP || vector == EXC_OF)) {
        type = EVENT_NONE;
    }
    v->interrupted = (struct event){
        .type = type, .vector = vector, .has_error = has_error, .error = has_error ? error : 0};
    __atomic_fetch_or(&v->request, VCPU_REQ_EVENT, __ATOMIC_RELAXED);
}

/* True if `ev` went into the next entry. */
static bool deliver(struct vcpu *v, struct event *ev)
{
    if (ev->has_error && !(hv->get_reg(v, REG_CR0) & CR0_PE)) {
        ev->has_error = false; /* real mode knows no error codes */
    }
    if (ev->type == EVENT_NONE || hv->inject(v, ev) != HV_OK) {
        return false;
    }
    ev->type = EVENT_NONE;
    return true;
}

static bool deliver_nmi(struct vcpu *v, bool slot_taken)
{
    struct event nmi = {.type = EVENT_NMI, .vector = EXC_NMI};

    if (!slot_taken && hv->can_take(v, WINDOW_NMI) && deliver(v, &nmi)) {
        v->nmi_pending = false;
        hv->window(v, WINDOW_NMI, false);
        return true;
    }
    hv->window(v, WINDOW_NMI, true);
    return false;
}

/* The 8259s' output, as far as this vCPU's LINT0 lets it through. */
static inline bool extint_pending(const struct vcpu *v)
{
    return unlikely(__atomic_load_n(&v->vm->intr, __ATOMIC_SEQ_CST) != 0) &&
           vlapic_takes_extint(v->lapic);
}

/* External interrupts know no priority: they go before the APIC's own. True if the slot is taken. */
static __attribute__((noinline)) bool deliver_extint(struct vcpu *v)
{
    if (!hv->can_take(v, WINDOW_IRQ)) {
        return false;
    }
    int vector = vpic_acknowledge(v->vm);
    struct event irq = {.type = EVENT_INTERRUPT, .vector = (uint8_t)vector};

    return vector >= 0 && deliver(v, &irq);
}

static void deliver_interrupt(struct vcpu *v, bool slot_taken)
{
    if (extint_pending(v) && !slot_taken) {
        slot_taken = deliver_extint(v);
    }
    int vector = vlapic_pending(v->lapic);

    if (vector >= 0 && !slot_taken && hv->can_take(v, WINDOW_IRQ)) {
        struct event irq = {.type = EVENT_INTERRUPT, .vector = (uint8_t)vector};

        if (deliver(v, &irq)) {
            vlapic_accept(v->lapic, (unsigned)vector);
            vector = vlapic_pending(v->lapic);
        }
    }
    bool window = vector >= 0 || extint_pending(v);
    if (window != v->irq_window) {
        v->irq_window = window;
        hv->window(v, WINDOW_IRQ, window);
    }
    bool trap = vector < 0 && vlapic_blocked(v->lapic) >= 0;
    if (trap != v->tpr_trap) {
        v->tpr_trap = trap;
        hv->trap_tpr(v, trap);
    }
}

/* The request bits are cleared before the state they announce is looked at. */
static void take_in_requests(struct vcpu *v)
{
    const uint32_t mine = VCPU_REQ_EVENT | VCPU_REQ_NMI;
    uint32_t request = __atomic_load_n(&v->request, __ATOMIC_RELAXED);

    if (request & mine) {
        request = __atomic_fetch_and(&v->request, ~mine, __ATOMIC_SEQ_CST);
        if (request & VCPU_REQ_NMI) {
            v->nmi_pending = true;
        }
    }
}

bool event_prepare(struct vcpu *v)
{
    if (__atomic_load_n(&v->request, __ATOMIC_RELAXED) &
        (VCPU_REQ_STOP | VCPU_REQ_INIT | VCPU_REQ_SIPI | VCPU_REQ_MMU)) {
        return false;
    }
    take_in_requests(v);
    bool taken = deliver(v, &v->interrupted);
    if (!taken) {
        taken = deliver(v, &v->pending_exception);
    }
    if (v->nmi_pending) {
        taken |= deliver_nmi(v, taken);
    }
    deliver_interrupt(v, taken);
    return true;
}

bool event_wakes(struct vcpu *v)
{
    take_in_requests(v);
    return v->pending_exception.type != EVENT_NONE || v->interrupted.type != EVENT_NONE ||
           (v->nmi_pending && hv->can_take(v, WINDOW_NMI)) ||
           ((vlapic_pending(v->lapic) >= 0 || extint_pending(v)) && hv->can_take(v, WINDOW_IRQ));
}
