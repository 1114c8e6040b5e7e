/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local APIC's core: which vector is deliverable, acceptance, end of interrupt, reset states.
 *
 * Invariants: bits of IRR and TMR change atomically, by anybody; ISR, priorities and registers belong
 * to the vCPU's thread. A raised vector is followed by a request to the vCPU, which looks at
 * vlapic_pending before it enters the guest or sleeps, so no interrupt is lost. Whatever lowers the
 * processor priority (EOI, TPR) asks for another look as well.
 */
#include "kernel/devices/vlapic.h"

#include "arch/x86_64/msr.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vlapic_internal.h"
#include "kernel/lib/bitmap.h"
#include "kernel/lib/string.h"
#include "mm/slab.h"

static inline uint64_t word_of(const uint64_t map[4], int i)
{
    return __atomic_load_n(&map[i], __ATOMIC_RELAXED);
}

int apic_highest(const uint64_t map[4])
{
    if (likely(!(word_of(map, 0) | word_of(map, 1) | word_of(map, 2) | word_of(map, 3)))) {
        return -1;
    }
    for (int i = 3; i >= 0; i--) {
        uint64_t word = word_of(map, i);

        if (word) {
            return i * 64 + 63 - __builtin_clzll(word);
        }
    }
    return -1;
}

uint8_t vlapic_tpr(struct vlapic *a)
{
    uint8_t cr8 = (uint8_t)(hv->get_reg(a->v, REG_TPR) & 0xf);

    if (cr8 != a->tpr >> 4) {
        a->tpr = (uint8_t)(cr8 << 4);
    }
    return a->tpr;
}

void vlapic_set_tpr(struct vlapic *a, uint8_t tpr)
{
    a->tpr = tpr;
    hv->set_reg(a->v, REG_TPR, tpr >> 4);
    apic_recheck(a);
}

/* Manual: "Task and Processor Priorities". */
uint8_t apic_ppr(struct vlapic *a)
{
    uint8_t tpr = vlapic_tpr(a);
    uint8_t in_service = a->isr_top < 0 ? 0 : (uint8_t)(a->isr_top & 0xf0);

    return (tpr & 0xf0) >= in_service ? tpr : in_service;
}

int vlapic_pending(struct vlapic *a)
{
    if (unlikely(__atomic_load_n(&a->timer_expired, __ATOMIC_RELAXED))) {
        apic_timer_service(a);
    }
    int vector = apic_highest(a->irr);
    if (likely(vector < 0) || !apic_hw_enabled(a) || !apic_sw_enabled(a)) {
        return -1;
    }
    return (vector & 0xf0) > (apic_ppr(a) & 0xf0) ? vector : -1;
}

int vlapic_blocked(struct vlapic *a)
{
    int vector = apic_highest(a->irr);

    if (likely(vector < 0) || !apic_hw_enabled(a) || !apic_sw_enabled(a)) {
        return -1;
    }
    bool by_tpr = (vector & 0xf0) <= (vlapic_tpr(a) & 0xf0);
    bool by_isr = a->isr_top >= 0 && (vector & 0xf0) <= (a->isr_top & 0xf0);
    return by_tpr && !by_isr ? vector : -1;
}

bool vlapic_is_on(const struct vlapic *a)
{
    return apic_hw_enabled(a);
}

bool vlapic_takes_extint(const struct vlapic *a)
{
    uint32_t lvt = a->lvt[LVT_LINT0];

    return !apic_hw_enabled(a) || (lvt & (LVT_MASKED | LVT_EXTINT)) == LVT_EXTINT;
}

void vlapic_accept(struct vlapic *a, unsigned vector)
{
    vector &= 0xff;
    bitmap_clear_atomic(a->irr, vector);
    bitmap_set(a->isr, vector);
    a->isr_top = MAX(a->isr_top, (int)vector);
}

void apic_eoi(struct vlapic *a)
{
    int vector = a->isr_top;

    if (vector < 0) {
        return;
    }
    bitmap_clear(a->isr, (unsigned)vector);
    a->isr_top = apic_highest(a->isr);
    if (unlikely(bitmap_test(a->tmr, (unsigned)vector))) {
        vioapic_eoi(a->v->vm, (unsigned)vector);
    }
    /* What comes later asks for itself. */
    if (apic_highest(a->irr) >= 0) {
        apic_recheck(a);
    }
}

/* Put the vector into IRR; true if it was not there yet. */
static bool request_vector(struct vlapic *a, unsigned vector, bool level)
{
    if (level) {
        bitmap_set_atomic(a->tmr, vector);
    } else if (unlikely(bitmap_test(a->tmr, vector))) {
        bitmap_clear_atomic(a->tmr, vector);
    }
    return !bitmap_set_atomic(a->irr, vector);
}

void vlapic_raise(struct vlapic *a, unsigned vector, bool level)
{
    vector &= 0xff;
    if (vector < 16) {
        apic_error(a, ESR_RECEIVE_ILLEGAL);
        return;
    }
    if (request_vector(a, vector, level)) {
        vcpu_request(a->v, VCPU_REQ_EVENT);
    }
}

void apic_raise_self(struct vlapic *a, unsigned vector)
{
    request_vector(a, vector, false);
    apic_recheck(a);
}

/* Manual: "Error Handling". The error interrupt comes once per change from no error to some. */
void apic_error(struct vlapic *a, uint32_t bit)
{
    uint32_t old = __atomic_fetch_or(&a->esr_pending, bit, __ATOMIC_RELAXED);
    uint32_t lvt = __atomic_load_n(&a->lvt[LVT_ERROR], __ATOMIC_RELAXED);

    if (!(old & bit) && !(lvt & LVT_MASKED) && (lvt & 0xff) >= 16) {
        vlapic_raise(a, lvt & 0xff, false);
    }
}

/* Manual: "Local APIC State After It Receives an INIT". The backend's reset sets CR8 to zero. */
static void reset_registers(struct vlapic *a)
{
    for (unsigned i = 0; i < 4; i++) {
        __atomic_store_n(&a->irr[i], 0, __ATOMIC_RELAXED);
        __atomic_store_n(&a->tmr[i], 0, __ATOMIC_RELAXED);
        a->isr[i] = 0;
    }
    a->isr_top = -1;
    a->svr = 0xff;
    a->dfr = UINT32_MAX;
    a->ldr = 0;
    a->esr = 0;
    __atomic_store_n(&a->esr_pending, 0, __ATOMIC_RELAXED);
    a->icr = 0;
    for (unsigned i = 0; i < NR_LVTS; i++) {
        a->lvt[i] = LVT_MASKED;
    }
    a->tpr = 0;
    apic_timer_reset(a);
}

void vlapic_init_signal(struct vcpu *v)
{
    reset_registers(v->lapic);
}

void vlapic_reset(struct vcpu *v)
{
    struct vlapic *a = v->lapic;

    reset_registers(a);
    a->base_msr = APIC_DEFAULT_BASE | APIC_BASE_ENABLE | (v->id == 0 ? APIC_BASE_BSP : 0);
}

void vlapic_virtual_wire(struct vcpu *v)
{
    struct vlapic *a = v->lapic;

    a->svr = 0xff | SVR_ENABLED;
    a->lvt[LVT_LINT0] = LVT_EXTINT;
    a->lvt[LVT_LINT1] = LVT_NMI;
}

enum hv_err vlapic_create(struct vcpu *v)
{
    struct vlapic *a = kmalloc(sizeof *a, v->vm->id);

    if (!a) {
        return HV_ENOMEM;
    }
    a->v = v;
    apic_timer_init(a);
    v->lapic = a;
    vlapic_reset(v);
    return HV_OK;
}

void vlapic_destroy(struct vcpu *v)
{
    struct vlapic *a = v->lapic;

    if (!a) {
        return;
    }
    apic_timer_stop(a);
    v->lapic = NULL;
    kfree(a);
}
