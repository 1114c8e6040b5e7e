/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CMOS clock. The machine's wall clock is not read: time starts at a fixed date when the
 * hypervisor does, so that runs repeat exactly; what a guest sets is kept as the difference to that.
 *
 * The clock, its flags and the interrupt line are functions of time: each access first does what has
 * happened since the last (`sync`). A host timer is armed for the next event that the guest wants an
 * interrupt from, and only while the line is low: reading register C lowers it.
 *
 * One lock (RANK_DEVICE, interrupts off: the timer takes it), only tried on the fast path.
 */
#include "kernel/devices/vrtc.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/devices/bus.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/lib/string.h"
#include "kernel/sched/timer.h"
#include "kernel/vm/loader.h"
#include "mm/slab.h"

#define START_OF_TIME 1767225600ull /* 2026-01-01 00:00:00 UTC */
#define NS_PER_S 1000000000ull
#define BASE_HZ 32768ull
#define UPDATE_NS 244000 /* how long an update is announced */
#define S_PER_DAY 86400ull
#define PORT_INDEX 0

enum cmos {
    CMOS_SECONDS = 0x00,
    CMOS_SECONDS_ALARM = 0x01,
    CMOS_MINUTES = 0x02,
    CMOS_MINUTES_ALARM = 0x03,
    CMOS_HOURS = 0x04,
    CMOS_HOURS_ALARM = 0x05,
    CMOS_WEEKDAY = 0x06,
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_YEAR = 0x09,
    CMOS_A = 0x0a,
    CMOS_B = 0x0b,
    CMOS_C = 0x0c,
    CMOS_D = 0x0d,
    CMOS_BASE_KIB = 0x15,     /* two bytes each */
    CMOS_EXTENDED_KIB = 0x17, /* from 1 MiB on */
    CMOS_EXTENDED_KIB_2 = 0x30,
    CMOS_CENTURY = 0x32,
    CMOS_ABOVE_16M = 0x34, /* in 64 KiB */
    CMOS_ABOVE_4G = 0x5b   /* three bytes, in 64 KiB */
};

#define A_UPDATING 0x80u
#define A_DIVIDER 0x70u
#define A_DIVIDER_RUNS 0x20u
#define A_RATE 0x0fu
#define A_RESET 0x26u /* 32,768 Hz time base, 1,024 Hz */
#define B_SET 0x80u
#define B_24_HOURS 0x02u
#define B_BINARY 0x04u
#define C_PERIODIC 0x40u /* flags; their enable bits have the same places in B */
#define C_ALARM 0x20u
#define C_UPDATE 0x10u
#define C_FLAGS (C_PERIODIC | C_ALARM | C_UPDATE)
#define C_INTERRUPT 0x80u
#define D_VALID 0x80u
#define ALARM_ANY 0xc0u

struct vrtc {
    struct spinlock lock; /* all but vm */
    struct vm *vm;
    uint8_t index, a, b, c;
    uint64_t offset_s;       /* the clock is ahead of the host's by this (modulo 2^64) */
    struct vrtc_date frozen; /* while B_SET: what the guest is writing */
    uint64_t seen_ns;        /* events up to here are in register C */
    bool line;
    struct timer timer;
    uint8_t ram[128];
};

void vrtc_split(uint64_t unix_seconds, struct vrtc_date *out)
{
    uint64_t days = unix_seconds / 86400, rest = unix_seconds % 86400;

    out->hour = (unsigned)(rest / 3600);
    out->minute = (unsigned)(rest / 60 % 60);
    out->second = (unsigned)(rest % 60);
    out->weekday = (unsigned)((days + 4) % 7 + 1); /* the first day was a Thursday */
    /* Years that begin in March, counted from the year 0: leap days come last. */
    uint64_t z = days + 719468, era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    out->day = (unsigned)(doy - (153 * mp + 2) / 5 + 1);
    out->month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    out->year = (unsigned)(era * 400 + yoe + (out->month <= 2));
}

uint64_t vrtc_join(const struct vrtc_date *d)
{
    uint64_t month = (d->month + 9) % 12; /* from March */
    uint64_t y = d->year - (d->month <= 2), era = y / 400, yoe = y % 400;
    uint64_t doy = (153 * month + 2) / 5 + d->day - 1;
    uint64_t days = era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;

    return days * S_PER_DAY + d->hour * 3600ull + d->minute * 60ull + d->second;
}

/* ---- Encoding: BCD or binary, 12 or 24 hours ---- */

static uint8_t encode(const struct vrtc *r, unsigned n)
{
    return (uint8_t)(r->b & B_BINARY ? n : n / 10 << 4 | n % 10);
}

static unsigned decode(const struct vrtc *r, uint8_t value)
{
    return r->b & B_BINARY ? value : (value >> 4) * 10u + (value & 0xf);
}

static uint8_t encode_hour(const struct vrtc *r, unsigned hour)
{
    if (r->b & B_24_HOURS) {
        return encode(r, hour);
    }
    return (uint8_t)(encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct vrtc *r, uint8_t value)
{
    if (r->b & B_24_HOURS) {
        return decode(r, value);
    }
    return decode(r, value & 0x7f) % 12 + (value & 0x80 ? 12 : 0);
}

/* ---- Time ---- */

static uint64_t seconds_at(const struct vrtc *r, uint64_t ns)
{
    return START_OF_TIME + r->offset_s + ns / NS_PER_S;
}

static bool running(const struct vrtc *r)
{
    return !(r->b & B_SET) && (r->a & A_DIVIDER) == A_DIVIDER_RUNS;
}

/* Of the periodic interrupt; 0: none. The two fastest rates are those of codes 8 and 9. */
static uint64_t period_ns(const struct vrtc *r)
{
    unsigned rate = r->a & A_RATE;

    if (rate == 0 || (r->a & A_DIVIDER) != A_DIVIDER_RUNS) {
        return 0;
    }
    rate = rate < 3 ? rate + 7 : rate;
    return (NS_PER_S << (rate - 1)) / BASE_HZ;
}

static bool alarm_is_any(uint8_t alarm)
{
    return (alarm & ALARM_ANY) == ALARM_ANY;
}

static bool alarm_is(uint8_t alarm, uint8_t encoded)
{
    return alarm_is_any(alarm) || alarm == encoded;
}

/* The first number from `from` to 59 that the alarm names; 60: none does. */
static uint64_t next_of_sixty(const struct vrtc *r, uint8_t alarm, uint64_t from)
{
    unsigned n = alarm_is_any(alarm) ? (unsigned)from : decode(r, alarm);

    return n >= from && n < 60 && alarm_is(alarm, encode(r, n)) ? n : 60;
}

/* Seconds from `now` to the alarm's next time of day, at least 1; 0: it names none. */
static uint64_t seconds_to_alarm(const struct vrtc *r, uint64_t now)
{
    uint64_t day = now % S_PER_DAY;
    uint8_t minutes = r->ram[CMOS_MINUTES_ALARM], seconds = r->ram[CMOS_SECONDS_ALARM];

    for (uint64_t h = day / 3600; h <= day / 3600 + 24; h++) {
        if (!alarm_is(r->ram[CMOS_HOURS_ALARM], encode_hour(r, (unsigned)(h % 24)))) {
            continue;
        }
        /* In the hour that it is now: the rest of this minute, then those behind it. */
        uint64_t rest = day + 1 > h * 3600 ? day + 1 - h * 3600 : 0, m = rest / 60;
        uint64_t s = next_of_sixty(r, seconds, rest % 60);

        if (m < 60 && s < 60 && next_of_sixty(r, minutes, m) == m) {
            return h * 3600 + m * 60 + s - day;
        }
        m = next_of_sixty(r, minutes, m + 1);
        s = next_of_sixty(r, seconds, 0);
        if (m < 60 && s < 60) {
            return h * 3600 + m * 60 + s - day;
        }
    }
    return 0;
}

/* When flag `flag` comes next behind `ns`; UINT64_MAX: not in sight. */
static uint64_t next_event(const struct vrtc *r, uint8_t flag, uint64_t ns)
{
    uint64_t period = period_ns(r), second = ns / NS_PER_S, wait = 1;

    if (flag == C_PERIODIC) {
        return period ? (ns / period + 1) * period : UINT64_MAX;
    }
    if (flag == C_ALARM) {
        wait = seconds_to_alarm(r, seconds_at(r, ns));
    }
    return running(r) && wait ? (second + wait) * NS_PER_S : UINT64_MAX;
}

/* Everything up to now has happened. Lock held. */
static uint64_t sync(struct vrtc *r)
{
    static const uint8_t flags[] = {C_PERIODIC, C_ALARM, C_UPDATE};
    uint64_t now = clock_now_ns();

    for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
        if (!(r->c & flags[i]) && now >= next_event(r, flags[i], r->seen_ns)) {
            r->c |= flags[i];
        }
    }
    r->seen_ns = now;
    return now;
}

/* The line as flags and enables want it, and the timer for what comes next. Lock held, synced. */
static void update(struct vrtc *r)
{
    bool line = (r->b & r->c & C_FLAGS) != 0;
    uint64_t next = UINT64_MAX;

    r->c = (uint8_t)((r->c & C_FLAGS) | (line ? C_INTERRUPT : 0));
    if (line != r->line) {
        r->line = line;
        isa_irq_set_timer(r->vm, ISA_IRQ_RTC, line);
    }
    for (unsigned flag = C_UPDATE; !line && flag <= C_PERIODIC; flag <<= 1) {
        if (r->b & flag) {
            next = MIN(next, next_event(r, (uint8_t)flag, r->seen_ns));
        }
    }
    if (next != UINT64_MAX) {
        timer_arm(&r->timer, rdtsc() + clock_ns_to_tsc(next - r->seen_ns));
    }
}

/* Interrupt context. */
static void expired(struct timer *t)
{
    struct vrtc *r = container_of(t, struct vrtc, timer);
    uint64_t flags = spin_lock_irqsave(&r->lock);

    if (!vm_has_ended(r->vm)) {
        sync(r);
        update(r);
    }
    spin_unlock_irqrestore(&r->lock, flags);
}

/* ---- Registers ---- */

static struct vrtc_date date_now(const struct vrtc *r, uint64_t now)
{
    struct vrtc_date d = r->frozen;

    if (!(r->b & B_SET)) {
        vrtc_split(seconds_at(r, now), &d);
    }
    return d;
}

static uint8_t read_register(struct vrtc *r, unsigned index)
{
    uint64_t now = sync(r);
    struct vrtc_date d = date_now(r, now);
    uint8_t c;

    switch (index) {
    case CMOS_SECONDS:
        return encode(r, d.second);
    case CMOS_MINUTES:
        return encode(r, d.minute);
    case CMOS_HOURS:
        return encode_hour(r, d.hour);
    case CMOS_WEEKDAY:
        return encode(r, d.weekday);
    case CMOS_DAY:
        return encode(r, d.day);
    case CMOS_MONTH:
        return encode(r, d.month);
    case CMOS_YEAR:
        return encode(r, d.year % 100);
    case CMOS_CENTURY:
        return encode(r, d.year / 100);
    case CMOS_A:
        return (uint8_t)(r->a |
                         (running(r) && now % NS_PER_S >= NS_PER_S - UPDATE_NS ? A_UPDATING : 0));
    case CMOS_B:
        return r->b;
    case CMOS_C:
        update(r);
        c = r->c;
        r->c = 0;
        update(r);
        return c;
    case CMOS_D:
        return D_VALID;
    default:
        return r->ram[index];
    }
}

/* A field of the date; what makes no sense is brought into range, for no guest shall see it again. */
static void set_field(const struct vrtc *r, struct vrtc_date *d, unsigned index, uint8_t value)
{
    unsigned n = decode(r, value);

    switch (index) {
    case CMOS_SECONDS:
        d->second = n % 60;
        break;
    case CMOS_MINUTES:
        d->minute = n % 60;
        break;
    case CMOS_HOURS:
        d->hour = decode_hour(r, value) % 24;
        break;
    case CMOS_DAY:
        d->day = MAX(n % 32, 1u);
        break;
    case CMOS_MONTH:
        d->month = MAX(n % 13, 1u);
        break;
    case CMOS_YEAR:
        d->year = d->year / 100 * 100 + n % 100;
        break;
    case CMOS_CENTURY:
        d->year = MAX(n % 100, 19u) * 100 + d->year % 100;
        break;
    default: /* the day of the week follows from the date */
        break;
    }
}

static void set_date(struct vrtc *r, const struct vrtc_date *d, uint64_t now)
{
    r->offset_s = 0;
    r->offset_s = vrtc_join(d) - seconds_at(r, now);
}

static void write_b(struct vrtc *r, uint8_t value, uint64_t now)
{
    bool was_set = r->b & B_SET, set = value & B_SET;

    if (set && !was_set) {
        r->frozen = date_now(r, now);
    } else if (!set && was_set) {
        set_date(r, &r->frozen, now);
    }
    r->b = set ? (uint8_t)(value & ~C_UPDATE) : value;
}

static void write_register(struct vrtc *r, unsigned index, uint8_t value)
{
    uint64_t now = sync(r);
    struct vrtc_date d;

    switch (index) {
    case CMOS_SECONDS:
    case CMOS_MINUTES:
    case CMOS_HOURS:
    case CMOS_WEEKDAY:
    case CMOS_DAY:
    case CMOS_MONTH:
    case CMOS_YEAR:
    case CMOS_CENTURY:
        d = date_now(r, now);
        set_field(r, &d, index, value);
        if (r->b & B_SET) {
            r->frozen = d;
        } else {
            set_date(r, &d, now);
        }
        break;
    case CMOS_A:
        r->a = value & (A_DIVIDER | A_RATE);
        break;
    case CMOS_B:
        write_b(r, value, now);
        break;
    case CMOS_C:
    case CMOS_D:
        break;
    default:
        r->ram[index] = value;
        break;
    }
    update(r);
}

static enum hv_err access_port(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vrtc *r = dev;
    uint64_t flags;

    (void)size;
    if (!device_lock_irqsave(&r->lock, v, &flags)) {
        return HV_EAGAIN;
    }
    if (offset == PORT_INDEX) {
        if (write) {
            r->index = (uint8_t)*value & 0x7f; /* bit 7 would mask NMIs */
        } else {
            *value = 0xff; /* write-only */
        }
    } else if (write) {
        write_register(r, r->index, (uint8_t)*value);
    } else {
        *value = read_register(r, r->index);
    }
    spin_unlock_irqrestore(&r->lock, flags);
    return HV_OK;
}

/* ---- Life cycle ---- */

static void put16(struct vrtc *r, unsigned index, uint64_t value)
{
    value = MIN(value, 0xffffull);
    r->ram[index] = (uint8_t)value;
    r->ram[index + 1] = (uint8_t)(value >> 8);
}

/* What firmware would have found out, for kernels that look here. */
static void put_memory_sizes(struct vrtc *r)
{
    uint64_t bytes = r->vm->config.memory_bytes, low = MIN(bytes, GUEST_PCI_HOLE),
             high = bytes - low;

    put16(r, CMOS_BASE_KIB, MIN(bytes, GUEST_LOW_RAM_END) >> 10);
    put16(r, CMOS_EXTENDED_KIB, low > MIB(1) ? (low - MIB(1)) >> 10 : 0);
    put16(r, CMOS_EXTENDED_KIB_2, low > MIB(1) ? (low - MIB(1)) >> 10 : 0);
    put16(r, CMOS_ABOVE_16M, low > MIB(16) ? (low - MIB(16)) >> 16 : 0);
    put16(r, CMOS_ABOVE_4G, high >> 16 & 0xffff);
    r->ram[CMOS_ABOVE_4G + 2] = (uint8_t)(high >> 32);
}

void vrtc_reset(struct vrtc *r)
{
    uint64_t flags = spin_lock_irqsave(&r->lock);

    r->index = 0;
    r->a = A_RESET;
    r->b = B_24_HOURS;
    r->c = 0;
    r->line = false;
    r->seen_ns = clock_now_ns();
    memset(r->ram, 0, sizeof r->ram);
    put_memory_sizes(r);
    spin_unlock_irqrestore(&r->lock, flags);
}

enum hv_err vrtc_create(struct vm *vm, struct vrtc **out)
{
    struct vrtc *r = kmalloc(sizeof *r, vm->id);

    if (!r) {
        return HV_ENOMEM;
    }
    r->vm = vm;
    spin_init(&r->lock, RANK_DEVICE, "vrtc");
    timer_init(&r->timer, expired);
    *out = r;
    vrtc_reset(r);
    return bus_add_byte_ports(vm->bus, 0x70, 2, "rtc", access_port, r);
}

void vrtc_destroy(struct vrtc *r)
{
    if (r) {
        timer_cancel(&r->timer);
        kfree(r);
    }
}
