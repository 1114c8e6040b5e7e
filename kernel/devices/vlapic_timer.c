/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local APIC timer: one-shot, periodic, TSC-deadline. Manual: "APIC Timer".
 *
 * All state belongs to the vCPU's thread. The host timer's callback, in interrupt context and perhaps
 * on a processor the vCPU has left, only sets `timer_expired` and requests the vCPU; the thread then
 * compares the deadline with the clock, raises the vector and arms the next period. A host timer that
 * is left armed after the guest disarmed costs one look and does nothing. Periods that a vCPU missed
 * because it did not run are counted as one.
 */
#include "kernel/devices/vlapic_internal.h"

#include "arch/x86_64/clock.h"

#define INPUT_SHIFT 3        /* one timer input tick is 8 TSC ticks */
#define MIN_PERIOD_TSC 20000 /* shortest period served, some microseconds: no timer storms */

uint64_t vlapic_bus_hz(void)
{
    return clock_tsc_hz() >> INPUT_SHIFT;
}

static enum apic_timer_mode mode_of(uint32_t lvt)
{
    switch ((lvt >> 17) & 3) {
    case 0:
        return TIMER_ONE_SHOT;
    case 1:
        return TIMER_PERIODIC;
    default:
        return TIMER_TSC_DEADLINE;
    }
}

static unsigned count_shift(const struct vlapic *a)
{
    unsigned code = (a->divide & 3) | ((a->divide >> 1) & 4);

    return INPUT_SHIFT + ((code + 1) & 7); /* code 7 divides by one */
}

static void expired(struct timer *t)
{
    struct vlapic *a = container_of(t, struct vlapic, timer);

    __atomic_store_n(&a->timer_expired, 1, __ATOMIC_RELEASE);
    vcpu_request(a->v, VCPU_REQ_EVENT);
}

static void raise_lvt(struct vlapic *a)
{
    uint32_t lvt = a->lvt[LVT_TIMER];

    if (lvt & LVT_MASKED) {
        return;
    }
    if ((lvt & 0xff) < 16) {
        apic_error(a, ESR_RECEIVE_ILLEGAL);
        return;
    }
    apic_raise_self(a, lvt & 0xff);
}

/* The deadline has passed (or was in the past when it was set). */
static void fire(struct vlapic *a, uint64_t now)
{
    if (mode_of(a->lvt[LVT_TIMER]) == TIMER_PERIODIC && a->period) {
        uint64_t step = MAX(a->period, (uint64_t)MIN_PERIOD_TSC);
        uint64_t missed = (now - a->deadline) / step;

        a->deadline += (missed + 1) * step;
        timer_arm(&a->timer, a->deadline);
    } else {
        a->deadline = 0;
        a->guest_deadline = 0;
    }
    raise_lvt(a);
}

void apic_timer_service(struct vlapic *a)
{
    __atomic_exchange_n(&a->timer_expired, 0, __ATOMIC_ACQ_REL);
    uint64_t now = rdtsc();

    if (a->deadline && now >= a->deadline) {
        fire(a, now);
    }
}

/* Set the deadline `delta` ticks from now; one that is due already fires at once. */
static void start(struct vlapic *a, uint64_t delta)
{
    uint64_t now = rdtsc();

    a->deadline = now + delta;
    if (delta == 0 || a->deadline < now) {
        a->deadline = delta == 0 ? now : UINT64_MAX;
    }
    if (delta == 0) {
        fire(a, now);
    } else {
        timer_arm(&a->timer, a->deadline);
    }
}

void apic_timer_set_count(struct vlapic *a, uint32_t count)
{
    if (mode_of(a->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE) {
        return;
    }
    a->initial_count = count;
    a->period = (uint64_t)count << count_shift(a);
    if (count == 0) {
        a->deadline = 0;
        return;
    }
    start(a, a->period);
}

uint32_t apic_timer_count(struct vlapic *a)
{
    if (mode_of(a->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE) {
        return 0;
    }
    apic_timer_service(a);
    if (!a->deadline) {
        return 0;
    }
    uint64_t now = rdtsc();
    uint64_t left = a->deadline > now ? (a->deadline - now) >> count_shift(a) : 0;

    return (uint32_t)MIN(left, (uint64_t)a->initial_count);
}

/* A new divider counts the rest of the running count in the new unit. */
void apic_timer_set_divide(struct vlapic *a, uint32_t divide)
{
    uint32_t left = apic_timer_count(a);

    a->divide = divide & 0xb;
    a->period = (uint64_t)a->initial_count << count_shift(a);
    if (a->deadline && mode_of(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE) {
        start(a, MAX((uint64_t)left, 1ull) << count_shift(a));
    }
}

void apic_timer_set_deadline(struct vlapic *a, uint64_t guest_tsc)
{
    if (mode_of(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE) {
        return;
    }
    a->guest_deadline = guest_tsc;
    if (guest_tsc == 0) {
        a->deadline = 0;
        return;
    }
    uint64_t now = vcpu_guest_tsc(a->v);
    start(a, guest_tsc > now ? guest_tsc - now : 0);
}

void vlapic_tsc_moved(struct vlapic *a)
{
    if (a->guest_deadline) {
        apic_timer_set_deadline(a, a->guest_deadline);
    }
}

uint64_t apic_timer_deadline(struct vlapic *a)
{
    if (mode_of(a->lvt[LVT_TIMER]) != TIMER_TSC_DEADLINE) {
        return 0;
    }
    apic_timer_service(a);
    return a->guest_deadline;
}

/* A change between TSC-deadline and the counting modes disarms the timer. */
void apic_timer_lvt_changed(struct vlapic *a, uint32_t old_lvt)
{
    bool was = mode_of(old_lvt) == TIMER_TSC_DEADLINE;
    bool is = mode_of(a->lvt[LVT_TIMER]) == TIMER_TSC_DEADLINE;

    if (was != is) {
        a->deadline = 0;
        a->guest_deadline = 0;
        a->initial_count = 0;
        a->period = 0;
    }
}

void apic_timer_init(struct vlapic *a)
{
    timer_init(&a->timer, expired);
}

void apic_timer_stop(struct vlapic *a)
{
    timer_cancel(&a->timer);
}

void apic_timer_reset(struct vlapic *a)
{
    a->deadline = 0;
    a->guest_deadline = 0;
    a->period = 0;
    a->initial_count = 0;
    a->divide = 0;
    __atomic_store_n(&a->timer_expired, 0, __ATOMIC_RELAXED);
}
