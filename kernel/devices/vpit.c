/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 8254 as a function of time: a channel remembers when its count was loaded, and what it shows is
 * computed from the clock when somebody looks. Channel 0's output is interrupt line 0: a host timer
 * fires where it rises next. Edges that come faster than pace.h lets them, or that nobody took, are one.
 *
 * One lock (RANK_DEVICE, interrupts off: the timer takes it), only tried on the fast path. A VM that has
 * stopped lets the timer run out.
 */
#include "kernel/devices/vpit.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/pace.h"
#include "kernel/sched/timer.h"
#include "mm/slab.h"

#define PIT_HZ 1193182ull
#define NS_PER_S 1000000000ull
#define REFRESH_TOGGLE_NS 15085 /* port 0x61 bit 4 changes with each memory refresh */
#define PORT_CONTROL 3

#define SPEAKER_GATE2 0x01u
#define SPEAKER_DATA 0x02u
#define SPEAKER_REFRESH 0x10u
#define SPEAKER_OUT2 0x20u

enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct channel {
    uint64_t start_ns;    /* when the count was loaded or the gate rose */
    uint32_t count;       /* 1 .. 65536 */
    uint8_t mode, access; /* mode 0..5 */
    bool bcd, gate, loaded;
    bool write_high, read_high; /* the next byte is the upper one */
    uint8_t write_low;
    bool latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

struct vpit {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    struct channel ch[3];
    uint8_t speaker;
    uint64_t edge_ns; /* when channel 0's output rises next, 0: never */
    struct pace pace;
    struct timer timer;
};

static uint64_t ticks_between(uint64_t start_ns, uint64_t end_ns)
{
    uint64_t ns = end_ns - start_ns;

    return ns / NS_PER_S * PIT_HZ + ns % NS_PER_S * PIT_HZ / NS_PER_S;
}

static uint64_t ticks_since(uint64_t start_ns)
{
    return ticks_between(start_ns, clock_now_ns());
}

/* When `ticks` have passed since start_ns: the first nanosecond at which ticks_since says so. */
static uint64_t time_of(uint64_t start_ns, uint64_t ticks)
{
    uint64_t rest = ticks % PIT_HZ * NS_PER_S;

    return start_ns + ticks / PIT_HZ * NS_PER_S + (rest + PIT_HZ - 1) / PIT_HZ;
}

static uint16_t current_count(const struct channel *c)
{
    uint64_t t = c->loaded && c->gate ? ticks_since(c->start_ns) : 0;
    uint64_t value;

    if (c->mode == 3) {
        value = c->count - (2 * t) % c->count; /* counts by two, twice per period */
    } else if (c->mode == 2) {
        value = c->count - t % c->count;
    } else {
        value = c->count - t; /* runs on below zero */
    }
    if (c->bcd) {
        uint32_t n = (uint32_t)(value % 10000);

        value = n % 10 | n / 10 % 10 << 4 | n / 100 % 10 << 8 | n / 1000 << 12;
    }
    return (uint16_t)value;
}

static bool output(const struct channel *c)
{
    if (!c->loaded) {
        return c->mode != 0;
    }
    uint64_t t = c->gate || c->mode == 1 || c->mode == 5 ? ticks_since(c->start_ns) : 0;
    switch (c->mode) {
    case 0:
    case 1:
        return t >= c->count;
    case 2:
        return t % c->count != c->count - 1;
    case 3:
        return t % c->count < (c->count + 1) / 2;
    default: /* strobes: low for one tick */
        return t != c->count;
    }
}

/* ---- Interrupt line 0 ---- */

/* Ticks from the load to the first rise of the output behind tick `now`; 0: none comes. */
static uint64_t next_rise(const struct channel *c, uint64_t now)
{
    switch (c->mode) {
    case 0:
        return now < c->count ? c->count : 0;
    case 2:
    case 3:
        return (now / c->count + 1) * c->count;
    case 4: /* low for the one tick behind the count */
        return now <= c->count ? c->count + 1 : 0;
    default: /* one-shots wait for a gate that never rises on channel 0 */
        return 0;
    }
}

/* The next edge, at least `gap_ns` behind `now_ns`, into the host timer; lock held. */
static void schedule(struct vpit *p, uint64_t now_ns, uint64_t gap_ns)
{
    const struct channel *c = &p->ch[0];
    uint64_t ticks = 0;

    if (c->loaded) {
        ticks = next_rise(c, now_ns > c->start_ns ? ticks_between(c->start_ns, now_ns) : 0);
    }
    p->edge_ns = ticks ? MAX(time_of(c->start_ns, ticks), now_ns + gap_ns) : 0;
    if (p->edge_ns) {
        timer_arm(&p->timer, rdtsc() + clock_ns_to_tsc(p->edge_ns - now_ns));
    }
}

/* Interrupt context. A timer that was left armed finds no edge due. */
static void expired(struct timer *t)
{
    struct vpit *p = container_of(t, struct vpit, timer);
    uint64_t flags = spin_lock_irqsave(&p->lock), now = clock_now_ns();

    if (!p->edge_ns || vm_has_ended(p->vm)) {
        p->edge_ns = 0;
    } else if (now < p->edge_ns) {
        timer_arm(&p->timer, rdtsc() + clock_ns_to_tsc(p->edge_ns - now));
    } else {
        isa_irq_set_timer(p->vm, ISA_IRQ_PIT, false);
        isa_irq_set_timer(p->vm, ISA_IRQ_PIT, true);
        schedule(p, now, pace_next(&p->pace, p->vm));
    }
    spin_unlock_irqrestore(&p->lock, flags);
}

/* ---- Registers ---- */

static void load(struct channel *c, uint16_t value)
{
    uint32_t n = value;

    if (c->bcd) {
        n = (n & 0xf) + (n >> 4 & 0xf) * 10 + (n >> 8 & 0xf) * 100 + (n >> 12) * 1000;
        n = n ? n : 10000;
    }
    c->count = n ? n : 0x10000;
    c->start_ns = clock_now_ns();
    c->loaded = true;
}

/* Channel 0 was written: its output, and when that changes. */
static void channel0_changed(struct vpit *p)
{
    const struct channel *c = &p->ch[0];

    isa_irq_set_timer(p->vm, ISA_IRQ_PIT, output(c));
    schedule(p, clock_now_ns(), PACE_MIN_NS);
}

static void write_count(struct channel *c, uint8_t value)
{
    switch (c->access) {
    case ACCESS_LOW:
        load(c, value);
        break;
    case ACCESS_HIGH:
        load(c, (uint16_t)(value << 8));
        break;
    default:
        if (c->write_high) {
            load(c, (uint16_t)(value << 8 | c->write_low));
        } else {
            c->write_low = value;
        }
        c->write_high = !c->write_high;
        break;
    }
}

static void latch_count(struct channel *c)
{
    if (!c->latched) {
        c->latched = true;
        c->latch = current_count(c);
    }
}

static void latch_status(struct channel *c)
{
    if (!c->status_latched) {
        c->status_latched = true;
        c->status = (uint8_t)((output(c) ? 0x80 : 0) | (c->loaded ? 0 : 0x40) | c->access << 4 |
                              c->mode << 1 | (c->bcd ? 1 : 0));
    }
}

static uint8_t read_count(struct channel *c)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latched ? c->latch : current_count(c);
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_high);

    if (c->access == ACCESS_BOTH) {
        c->read_high = !c->read_high;
    }
    if (c->access != ACCESS_BOTH || high) {
        c->latched = false;
    }
    return (uint8_t)(high ? value >> 8 : value);
}

/* Read-back command: latch counts (bit 5 clear) and status (bit 4 clear) of the chosen channels. */
static void read_back(struct vpit *p, uint8_t command)
{
    for (unsigned i = 0; i < 3; i++) {
        if (command & (2u << i)) {
            if (!(command & 0x20)) {
                latch_count(&p->ch[i]);
            }
            if (!(command & 0x10)) {
                latch_status(&p->ch[i]);
            }
        }
    }
}

static void write_control(struct vpit *p, uint8_t command)
{
    unsigned select = command >> 6;

    if (select == 3) {
        read_back(p, command);
        return;
    }
    struct channel *c = &p->ch[select];
    uint8_t access = (command >> 4) & 3;
    if (access == ACCESS_LATCH) {
        latch_count(c);
        return;
    }
    uint8_t mode = (command >> 1) & 7;
    bool was_high = output(c);
    *c = (struct channel){.access = access,
                          .mode = mode > 5 ? mode & 3 : mode,
                          .bcd = command & 1,
                          .gate = c->gate,
                          .count = 0x10000};
    if (select == 0) {
        p->edge_ns = 0;
        if (output(c) != was_high) {
            isa_irq_set_timer(p->vm, ISA_IRQ_PIT, !was_high);
        }
    }
}

static void write_speaker(struct vpit *p, uint8_t value)
{
    struct channel *c = &p->ch[2];
    bool gate = value & SPEAKER_GATE2;

    if (gate && !c->gate) {
        c->start_ns = clock_now_ns(); /* counting starts, or starts again, when it may */
    }
    c->gate = gate;
    p->speaker = value & (SPEAKER_GATE2 | SPEAKER_DATA);
}

static enum hv_err access_counter(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                  bool write, uint64_t *value)
{
    struct vpit *p = dev;

    (void)size;
    uint64_t flags;
    if (!device_lock_irqsave(&p->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    if (write && offset == PORT_CONTROL) {
        write_control(p, (uint8_t)*value);
    } else if (write) {
        write_count(&p->ch[offset], (uint8_t)*value);
        if (offset == 0) {
            channel0_changed(p);
        }
    } else {
        *value = offset == PORT_CONTROL ? 0xff : read_count(&p->ch[offset]);
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return HV_OK;
}

static enum hv_err access_speaker(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                                  bool write, uint64_t *value)
{
    struct vpit *p = dev;

    (void)size;
    (void)offset;
    uint64_t flags;
    if (!device_lock_irqsave(&p->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    if (write) {
        write_speaker(p, (uint8_t)*value);
    } else {
        bool refresh = clock_now_ns() / REFRESH_TOGGLE_NS & 1;

        *value =
            p->speaker | (refresh ? SPEAKER_REFRESH : 0) | (output(&p->ch[2]) ? SPEAKER_OUT2 : 0);
    }
    spin_unlock_irqrestore(&p->lock, flags);
    return HV_OK;
}

void vpit_reset(struct vpit *p)
{
    uint64_t flags = spin_lock_irqsave(&p->lock);
    for (unsigned i = 0; i < 3; i++) {
        p->ch[i] =
            (struct channel){.count = 0x10000, .mode = 3, .access = ACCESS_BOTH, .gate = i != 2};
    }
    p->speaker = 0;
    p->edge_ns = 0;
    spin_unlock_irqrestore(&p->lock, flags);
}

enum hv_err vpit_create(struct vm *vm, struct vpit **out)
{
    struct vpit *p = kmalloc(sizeof *p, vm->id);

    if (!p) {
        return HV_ENOMEM;
    }
    p->vm = vm;
    spin_init(&p->lock, RANK_DEVICE, "vpit");
    timer_init(&p->timer, expired);
    *out = p;
    vpit_reset(p);
    enum hv_err err = bus_add_byte_ports(vm->bus, 0x40, 4, "pit", access_counter, p);
    if (err) {
        return err;
    }
    return bus_add_byte_ports(vm->bus, 0x61, 1, "speaker", access_speaker, p);
}

void vpit_destroy(struct vpit *p)
{
    if (p) {
        timer_cancel(&p->timer);
        kfree(p);
    }
}
