/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PM timer is a function of time. Its status bit is set when bit 23 has changed since the guest
 * cleared it; a host timer looks at that only while the guest wants an interrupt. The control register's
 * SCI_EN is always one: there is no system management mode to hand over from. Buttons are never pressed.
 *
 * One lock (RANK_DEVICE, interrupts off: the timer takes it), only tried on the fast path.
 */
#include "kernel/devices/vpm.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/lib/muldiv.h"
#include "kernel/sched/timer.h"
#include "mm/slab.h"

#define PM_HZ 3579545ull
#define NS_PER_S 1000000000ull
#define TIMER_MASK 0xffffffu
#define HALF_TURN 0x800000ull /* bit 23 changes */

#define STATUS_TIMER 0x0001u
#define ENABLE_TIMER 0x0001u
#define ENABLE_KNOWN 0x0521u /* timer, global lock, buttons, clock */
#define CONTROL_SCI 0x0001u
#define CONTROL_KNOWN 0x1c07u
#define CONTROL_SLEEP_TYPE(c) (((c) >> 10) & 7u)
#define CONTROL_SLEEP 0x2000u

struct vpm {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    uint16_t enable, control;
    uint64_t turn; /* half turns of the timer that the guest has seen: status is set behind it */
    bool sci;
    struct timer timer;
};

static uint64_t ticks(void)
{
    return mul_div(clock_now_ns(), PM_HZ, NS_PER_S);
}

static uint16_t status(const struct vpm *p)
{
    return ticks() / HALF_TURN != p->turn ? STATUS_TIMER : 0;
}

/* The interrupt line, and the next look at it. Lock held. */
static void update(struct vpm *p)
{
    bool sci = (status(p) & p->enable) != 0;

    if (sci != p->sci) {
        p->sci = sci;
        isa_irq_set(p->vm, ISA_IRQ_SCI, sci);
    }
    if (!sci && (p->enable & ENABLE_TIMER)) {
        uint64_t at = mul_div((p->turn + 1) * HALF_TURN + 1, NS_PER_S, PM_HZ) + 1;
        uint64_t now = clock_now_ns();

        timer_arm(&p->timer, rdtsc() + clock_ns_to_tsc(at > now ? at - now : 0));
    }
}

/* Interrupt context. Where the timer came early, update arms it again. */
static void expired(struct timer *t)
{
    struct vpm *p = container_of(t, struct vpm, timer);
    uint64_t flags = spin_lock_irqsave(&p->lock);

    update(p);
    spin_unlock_irqrestore(&p->lock, flags);
}

static void write_control(struct vpm *p, uint16_t value)
{
    p->control = value & CONTROL_KNOWN;
    if ((value & CONTROL_SLEEP) && CONTROL_SLEEP_TYPE(value) == VPM_SLEEP_TYPE_S5) {
        vm_stop_request(p->vm, STOP_POWEROFF, 0, "power-off by ACPI");
    }
}

/* `shift`: where the first byte lies in the 32 bits of status (low half) and enable. */
static enum hv_err access_event(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                bool write, uint64_t *value)
{
    struct vpm *p = dev;
    unsigned shift = 8 * (unsigned)offset;
    uint32_t mask = (uint32_t)((BIT(8 * size) - 1) << shift);
    uint64_t flags;

    if (!device_lock_irqsave(&p->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    if (write) {
        uint32_t bits = (uint32_t)(*value << shift) & mask;

        if (bits & STATUS_TIMER) {
            p->turn = ticks() / HALF_TURN;
        }
        p->enable = (uint16_t)(((p->enable & ~(mask >> 16)) | bits >> 16) & ENABLE_KNOWN);
        update(p);
    } else {
        *value = ((uint32_t)p->enable << 16 | status(p)) >> shift;
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return HV_OK;
}

static enum hv_err access_control(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                  bool write, uint64_t *value)
{
    struct vpm *p = dev;
    unsigned shift = 8 * (unsigned)offset;
    uint64_t flags;

    if (!device_lock_irqsave(&p->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    if (!write) {
        *value = (uint64_t)(p->control | CONTROL_SCI) >> shift;
    } else {
        uint16_t mask = (uint16_t)((BIT(8 * size) - 1) << shift);

        write_control(p, (uint16_t)((p->control & ~mask) | ((*value << shift) & mask)));
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return HV_OK;
}

static enum hv_err access_timer(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                bool write, uint64_t *value)
{
    (void)dev;
    (void)v;
    (void)size;
    if (!write) {
        *value = (ticks() & TIMER_MASK) >> (8 * offset);
    }
    return HV_OK;
}

void vpm_reset(struct vpm *p)
{
    uint64_t flags = spin_lock_irqsave(&p->lock);

    p->enable = 0;
    p->control = 0;
    p->turn = ticks() / HALF_TURN;
    update(p);
    spin_unlock_irqrestore(&p->lock, flags);
}

enum hv_err vpm_create(struct vm *vm, struct vpm **out)
{
    struct vpm *p = kmalloc(sizeof *p, vm->id);
    enum hv_err err;

    if (!p) {
        return HV_ENOMEM;
    }
    p->vm = vm;
    spin_init(&p->lock, RANK_DEVICE, "vpm");
    timer_init(&p->timer, expired);
    *out = p;
    vpm_reset(p);
    err = bus_add_ports(vm->bus, VPM_EVENT_PORT, VPM_EVENT_LENGTH, "pm-event", access_event, p);
    if (!err) {
        err = bus_add_ports(vm->bus, VPM_CONTROL_PORT, VPM_CONTROL_LENGTH, "pm-control",
                            access_control, p);
    }
    if (!err) {
        err = bus_add_ports(vm->bus, VPM_TIMER_PORT, VPM_TIMER_LENGTH, "pm-timer", access_timer, p);
    }
    return err;
}

void vpm_destroy(struct vpm *p)
{
    if (p) {
        timer_cancel(&p->timer);
        kfree(p);
    }
}
