/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The counter is a function of time; each comparator remembers when it matches next and has a host
 * timer for that. Matches that come faster than pace.h lets them, or that were missed, are one.
 *
 * One lock (RANK_DEVICE, interrupts off: the timers take it), only tried on the fast path. A VM that
 * has stopped lets the timers run out.
 */
#include "kernel/devices/vhpet.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/pace.h"
#include "kernel/devices/vioapic.h"
#include "kernel/sched/timer.h"
#include "mm/slab.h"

#define WINDOW 0x400
#define TICK_NS (VHPET_PERIOD_FS / 1000000)
#define FAR_TICKS (1ull << 50) /* beyond anybody's life */

#define REG_CAPABILITIES 0x00
#define REG_CONFIG 0x10
#define REG_STATUS 0x20
#define REG_COUNTER 0xf0
#define REG_TIMERS 0x100
#define TIMER_SIZE 0x20
#define TIMER_CONFIG 0x00
#define TIMER_COMPARATOR 0x08

#define CONFIG_ENABLE BIT(0)
#define CONFIG_LEGACY BIT(1)

#define TN_LEVEL BIT(1)
#define TN_INTERRUPT BIT(2)
#define TN_PERIODIC BIT(3)
#define TN_CAN_REPEAT BIT(4)
#define TN_IS_64 BIT(5)
#define TN_SET_VALUE BIT(6)
#define TN_32 BIT(8)
#define TN_ROUTE(c) ((unsigned)((c) >> 9) & 0x1fu)
#define TN_WRITABLE 0x3f4eull
#define TN_ROUTES (0x00f00104ull << 32) /* IOAPIC pins 2, 8, 20 to 23 */

struct comparator {
    struct vhpet *hpet;
    unsigned number;
    uint64_t config, value, period;
    uint64_t match_ns; /* when it matches next, 0: not in sight */
    struct pace pace;
    struct timer timer;
};

struct vhpet {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    uint64_t config, status;
    uint64_t base; /* the counter at start_ns, or while it stands still */
    uint64_t start_ns;
    struct comparator timers[VHPET_TIMERS];
};

static uint64_t counter(const struct vhpet *h, uint64_t now_ns)
{
    return h->config & CONFIG_ENABLE ? h->base + (now_ns - h->start_ns) / TICK_NS : h->base;
}

/* ---- Interrupts ---- */

static void set_line(const struct comparator *c, bool level)
{
    const struct vhpet *h = c->hpet;

    if ((h->config & CONFIG_LEGACY) && c->number < 2) {
        isa_irq_set(h->vm, c->number == 0 ? ISA_IRQ_PIT : ISA_IRQ_RTC, level);
    } else if (TN_ROUTES >> 32 & BIT(TN_ROUTE(c->config))) {
        vioapic_set_line(h->vm, TN_ROUTE(c->config), level);
    }
}

static void raise(struct comparator *c)
{
    struct vhpet *h = c->hpet;

    if (c->config & TN_LEVEL) {
        h->status |= BIT(c->number);
        if (c->config & TN_INTERRUPT) {
            set_line(c, true);
        }
    } else if (c->config & TN_INTERRUPT) {
        set_line(c, true);
        set_line(c, false);
    }
}

static void clear_status(struct vhpet *h, uint64_t bits)
{
    bits &= h->status;
    h->status &= ~bits;
    for (unsigned i = 0; i < VHPET_TIMERS; i++) {
        if (bits & BIT(i)) {
            set_line(&h->timers[i], false);
        }
    }
}

/* ---- Matches ---- */

static uint64_t width_of(const struct comparator *c, uint64_t value)
{
    return c->config & TN_32 ? (uint32_t)value : value;
}

/* When the counter reaches the comparator's value next. Lock held. */
static void schedule(struct comparator *c, uint64_t now_ns)
{
    const struct vhpet *h = c->hpet;
    uint64_t ticks = width_of(c, c->value - counter(h, now_ns));

    c->match_ns = 0;
    if ((h->config & CONFIG_ENABLE) && ticks < FAR_TICKS) {
        c->match_ns = now_ns + MAX(ticks * TICK_NS, 1ull);
        timer_arm(&c->timer, rdtsc() + clock_ns_to_tsc(c->match_ns - now_ns));
    }
}

static void match(struct comparator *c, uint64_t now_ns)
{
    /* Whole periods, as far as there is one. */
    uint64_t period = MAX(c->period, 1ull), gap = pace_next(&c->pace, c->hpet->vm) / TICK_NS;
    uint64_t step = gap > period ? (gap + period - 1) / period * period : period;

    raise(c);
    if (!(c->config & TN_PERIODIC)) {
        /* The next one is a turn of the counter away, however late this is. */
        c->match_ns = 0;
        return;
    }
    uint64_t late = width_of(c, counter(c->hpet, now_ns) - c->value);
    c->value = width_of(c, c->value + (late / step + 1) * step);
    schedule(c, now_ns);
}

/* Interrupt context. */
static void expired(struct timer *t)
{
    struct comparator *c = container_of(t, struct comparator, timer);
    struct vhpet *h = c->hpet;
    uint64_t flags = spin_lock_irqsave(&h->lock), now = clock_now_ns();

    if (!c->match_ns || vm_has_ended(h->vm)) {
        c->match_ns = 0;
    } else if (now < c->match_ns) {
        timer_arm(&c->timer, rdtsc() + clock_ns_to_tsc(c->match_ns - now));
    } else {
        match(c, now);
    }
    spin_unlock_irqrestore(&h->lock, flags);
}

static void schedule_all(struct vhpet *h, uint64_t now_ns)
{
    for (unsigned i = 0; i < VHPET_TIMERS; i++) {
        schedule(&h->timers[i], now_ns);
    }
}

/* ---- Registers ---- */

static void write_config(struct vhpet *h, uint64_t value, uint64_t now_ns)
{
    uint64_t count = counter(h, now_ns);

    h->config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
    h->base = count;
    h->start_ns = now_ns;
    __atomic_store_n(&h->vm->hpet_is_legacy, (value & CONFIG_LEGACY) != 0, __ATOMIC_RELAXED);
    schedule_all(h, now_ns);
}

static void write_timer_config(struct comparator *c, uint64_t value, uint64_t now_ns)
{
    bool had_line = (c->config & TN_INTERRUPT) && (c->hpet->status & BIT(c->number));

    if (had_line) {
        set_line(c, false);
    }
    c->config = (c->config & ~TN_WRITABLE) | (value & TN_WRITABLE);
    c->value = width_of(c, c->value);
    c->period = width_of(c, c->period);
    if (!(c->config & TN_LEVEL)) {
        c->hpet->status &= ~BIT(c->number);
    } else if ((c->config & TN_INTERRUPT) && (c->hpet->status & BIT(c->number))) {
        set_line(c, true);
    }
    schedule(c, now_ns);
}

/* "Timer N Comparator Register": a periodic timer's writes set the period, and with SET_VALUE, once,
 * the value too. */
static void write_comparator(struct comparator *c, uint64_t value, uint64_t now_ns)
{
    value = width_of(c, value);
    if (!(c->config & TN_PERIODIC) || (c->config & TN_SET_VALUE)) {
        c->value = value;
    }
    if (c->config & TN_PERIODIC) {
        c->period = value;
    }
    c->config &= ~TN_SET_VALUE;
    schedule(c, now_ns);
}

static struct comparator *timer_at(struct vhpet *h, uint64_t reg)
{
    uint64_t n = (reg - REG_TIMERS) / TIMER_SIZE;

    return reg >= REG_TIMERS && n < VHPET_TIMERS ? &h->timers[n] : NULL;
}

static uint64_t read_reg(struct vhpet *h, uint64_t reg)
{
    struct comparator *c = timer_at(h, reg);

    switch (c ? REG_TIMERS + reg % TIMER_SIZE : reg) {
    case REG_CAPABILITIES:
        return VHPET_PERIOD_FS << 32 | VHPET_BLOCK_ID;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter(h, clock_now_ns());
    case REG_TIMERS + TIMER_CONFIG:
        return c ? c->config : 0;
    case REG_TIMERS + TIMER_COMPARATOR:
        return c ? c->value : 0;
    default:
        return 0;
    }
}

static void write_reg(struct vhpet *h, uint64_t reg, uint64_t value)
{
    struct comparator *c = timer_at(h, reg);
    uint64_t now = clock_now_ns();

    if (c && reg % TIMER_SIZE == TIMER_CONFIG) {
        write_timer_config(c, value, now);
    } else if (c && reg % TIMER_SIZE == TIMER_COMPARATOR) {
        write_comparator(c, value, now);
    } else if (reg == REG_CONFIG) {
        write_config(h, value, now);
    } else if (reg == REG_STATUS) {
        clear_status(h, value);
    } else if (reg == REG_COUNTER) {
        h->base = value;
        h->start_ns = now;
        schedule_all(h, now);
    }
}

/* Registers are 64 bits wide; halves of them may be accessed. A write of a half keeps the other: of a
 * running counter, which "must be halted", as it is now; of status and comparators' upper half, zero. */
static enum hv_err access_mmio(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vhpet *h = dev;
    uint64_t reg = offset & ~7ull;
    unsigned shift = 8 * (offset & 7);
    uint64_t mask = (size >= 8 ? UINT64_MAX : BIT(8 * size) - 1) << shift;
    uint64_t flags;

    if (!device_lock_irqsave(&h->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    uint64_t old = reg == REG_STATUS ? 0 : read_reg(h, reg);
    if (!write) {
        *value = read_reg(h, reg) >> shift;
    } else {
        write_reg(h, reg, (old & ~mask) | ((*value << shift) & mask));
    }
    spin_unlock_irqrestore(&h->lock, flags);
    return HV_OK;
}

/* ---- Life cycle ---- */

void vhpet_reset(struct vhpet *h)
{
    uint64_t flags = spin_lock_irqsave(&h->lock);

    h->config = 0;
    h->status = 0;
    h->base = 0;
    for (unsigned i = 0; i < VHPET_TIMERS; i++) {
        struct comparator *c = &h->timers[i];

        c->config = TN_ROUTES | TN_CAN_REPEAT | TN_IS_64;
        c->value = UINT64_MAX;
        c->period = 0;
        c->match_ns = 0;
    }
    __atomic_store_n(&h->vm->hpet_is_legacy, 0, __ATOMIC_RELAXED);
    spin_unlock_irqrestore(&h->lock, flags);
}

enum hv_err vhpet_create(struct vm *vm, struct vhpet **out)
{
    struct vhpet *h = kmalloc(sizeof *h, vm->id);

    if (!h) {
        return HV_ENOMEM;
    }
    h->vm = vm;
    spin_init(&h->lock, RANK_DEVICE, "vhpet");
    for (unsigned i = 0; i < VHPET_TIMERS; i++) {
        h->timers[i].hpet = h;
        h->timers[i].number = i;
        timer_init(&h->timers[i].timer, expired);
    }
    *out = h;
    vhpet_reset(h);
    return bus_add_mmio(vm->bus, GPA(VHPET_BASE), WINDOW, "hpet", access_mmio, h);
}

void vhpet_destroy(struct vhpet *h)
{
    if (h) {
        for (unsigned i = 0; i < VHPET_TIMERS; i++) {
            timer_cancel(&h->timers[i].timer);
        }
        kfree(h);
    }
}
