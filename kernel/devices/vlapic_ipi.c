/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupt messages: from an interrupt command register or the IOAPIC to the APICs that its
 * destination names. Manual: "Issuing Interprocessor Interrupts", "Determining IPI Destination".
 * APIC ids equal vCPU numbers. Any context; takes no lock.
 */
#include "kernel/devices/vlapic_internal.h"

#define ICR_VECTOR(icr) ((unsigned)(icr)&0xffu)
#define ICR_DELIVERY(icr) ((unsigned)((icr) >> 8) & 7u)
#define ICR_LOGICAL BIT(11)
#define ICR_ASSERT BIT(14)
#define ICR_LEVEL BIT(15)
#define ICR_SHORTHAND(icr) ((unsigned)((icr) >> 18) & 3u)

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

static bool matches_logical(const struct vlapic *a, uint32_t dest)
{
    uint32_t ldr = apic_ldr(a);

    if (apic_x2(a)) {
        return (dest >> 16) == (ldr >> 16) && (dest & ldr & 0xffff);
    }
    uint32_t own = ldr >> 24;
    if (a->dfr >> 28 == 0xf) { /* flat model */
        return (dest & own & 0xff) != 0;
    }
    return ((dest >> 4) & 0xf) == own >> 4 && (dest & own & 0xf); /* cluster model */
}

static bool matches(const struct vlapic *a, uint32_t dest, bool logical)
{
    if (!apic_hw_enabled(a)) {
        return false;
    }
    if (dest == UINT32_MAX) {
        return true;
    }
    if (logical) {
        return matches_logical(a, dest);
    }
    return dest == a->v->id;
}

static void deliver(struct vlapic *a, unsigned delivery, unsigned vector, bool level)
{
    switch (delivery) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        if (apic_sw_enabled(a)) {
            vlapic_raise(a, vector, level);
        }
        break;
    case DELIVER_NMI:
        vcpu_request(a->v, VCPU_REQ_NMI);
        break;
    case DELIVER_INIT:
        vcpu_request(a->v, VCPU_REQ_INIT);
        break;
    case DELIVER_SIPI:
        __atomic_store_n(&a->v->sipi_vector, (uint8_t)vector, __ATOMIC_RELAXED);
        vcpu_request(a->v, VCPU_REQ_SIPI);
        break;
    default: /* SMI and external interrupts: this platform has neither */
        break;
    }
}

/* The least busy of the APICs in `set` (a bit per vCPU); the lowest number wins a tie. */
static struct vlapic *lowest_priority(struct vm *vm, uint32_t set)
{
    struct vlapic *best = NULL;

    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        struct vlapic *a = vm->vcpus[i]->lapic;

        if ((set & BIT(i)) && apic_sw_enabled(a) && (!best || a->tpr < best->tpr)) {
            best = a;
        }
    }
    return best;
}

void vlapic_message(struct vm *vm, uint32_t dest, bool logical, unsigned delivery, unsigned vector,
                    bool level)
{
    uint32_t set = 0;

    if (likely(!logical && dest < vm->nr_vcpus)) {
        struct vlapic *a = vm->vcpus[dest]->lapic;

        if (apic_hw_enabled(a)) {
            deliver(a, delivery, vector, level);
        }
        return;
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (matches(vm->vcpus[i]->lapic, dest, logical)) {
            set |= (uint32_t)BIT(i);
        }
    }
    if (delivery == DELIVER_LOWEST) {
        struct vlapic *a = lowest_priority(vm, set);

        if (a) {
            deliver(a, delivery, vector, level);
        }
        return;
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (set & BIT(i)) {
            deliver(vm->vcpus[i]->lapic, delivery, vector, level);
        }
    }
}

static void broadcast(struct vlapic *from, bool self, unsigned delivery, unsigned vector)
{
    struct vm *vm = from->v->vm;

    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        struct vlapic *a = vm->vcpus[i]->lapic;

        if ((self || a != from) && apic_hw_enabled(a)) {
            deliver(a, delivery, vector, false);
        }
    }
}

void apic_send(struct vlapic *a, uint64_t icr)
{
    unsigned vector = ICR_VECTOR(icr), delivery = ICR_DELIVERY(icr);
    bool fixed = delivery == DELIVER_FIXED || delivery == DELIVER_LOWEST;

    if (fixed && vector < 16) {
        apic_error(a, ESR_SEND_ILLEGAL);
        return;
    }
    if (delivery == DELIVER_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT)) {
        return; /* INIT level de-assert: only old processors listened */
    }
    switch (ICR_SHORTHAND(icr)) {
    case TO_SELF:
        if (fixed && apic_sw_enabled(a)) {
            apic_raise_self(a, vector);
        }
        break;
    case TO_ALL:
        broadcast(a, true, delivery, vector);
        break;
    case TO_OTHERS:
        broadcast(a, false, delivery, vector);
        break;
    default:
        vlapic_message(a->v->vm,
                       apic_x2(a) ? (uint32_t)(icr >> 32) : vlapic_wide_dest((uint32_t)(icr >> 32)),
                       (icr & ICR_LOGICAL) != 0, delivery, vector, false);
        break;
    }
}

/* Manual: "Local Vector Table"; all LINT0 pins hang on the one wire. */
static void lint0(struct vlapic *a)
{
    uint32_t lvt = __atomic_load_n(&a->lvt[LVT_LINT0], __ATOMIC_RELAXED);

    if (!apic_hw_enabled(a)) {
        vcpu_request(a->v, VCPU_REQ_EVENT);
        return;
    }
    if (lvt & LVT_MASKED) {
        return;
    }
    switch (LVT_DELIVERY(lvt)) {
    case DELIVER_EXTINT:
        vcpu_request(a->v, VCPU_REQ_EVENT);
        break;
    case DELIVER_FIXED:
    case DELIVER_NMI:
    case DELIVER_INIT:
        deliver(a, LVT_DELIVERY(lvt), lvt & 0xff, false);
        break;
    default:
        break;
    }
}

void vlapic_lint0_rose(struct vm *vm)
{
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (vm->vcpus[i] && vm->vcpus[i]->lapic) {
            lint0(vm->vcpus[i]->lapic);
        }
    }
}
