/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CMOS clock. The machine's wall clock is not read: time starts at a fixed date when the
 * hypervisor does, so that runs repeat exactly. What a guest writes to the clock's registers is
 * ignored, the rest of the CMOS memory is kept. Registers are single bytes, set and read atomically;
 * there is no lock.
 */
#include "kernel/devices/vrtc.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/bus.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define START_OF_TIME 1767225600ull /* 2026-01-01 00:00:00 UTC */
#define NS_PER_S 1000000000ull
#define PORT_INDEX 0

enum cmos {
    CMOS_SECONDS = 0x00,
    CMOS_MINUTES = 0x02,
    CMOS_HOURS = 0x04,
    CMOS_WEEKDAY = 0x06,
    CMOS_DAY = 0x07,
    CMOS_MONTH = 0x08,
    CMOS_YEAR = 0x09,
    CMOS_A = 0x0a,
    CMOS_B = 0x0b,
    CMOS_C = 0x0c,
    CMOS_D = 0x0d,
    CMOS_CENTURY = 0x32
};

#define A_VALUE 0x26u /* 32,768 Hz time base, no update in progress */
#define B_BINARY 0x04u
#define B_24_HOURS 0x02u
#define B_WRITABLE (B_BINARY | B_24_HOURS | 0x01u)
#define D_VALID 0x80u

struct vrtc {
    uint8_t index; /* atomic */
    uint8_t b;     /* register B */
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

static uint8_t encode(const struct vrtc *r, unsigned n)
{
    return (uint8_t)(r->b & B_BINARY ? n : n / 10 << 4 | n % 10);
}

static uint8_t encode_hour(const struct vrtc *r, unsigned hour)
{
    if (r->b & B_24_HOURS) {
        return encode(r, hour);
    }
    return (uint8_t)(encode(r, (hour + 11) % 12 + 1) | (hour >= 12 ? 0x80 : 0));
}

static uint8_t read_register(struct vrtc *r, unsigned index)
{
    struct vrtc_date d;

    vrtc_split(START_OF_TIME + clock_now_ns() / NS_PER_S, &d);
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
        return A_VALUE;
    case CMOS_B:
        return r->b;
    case CMOS_C:
        return 0;
    case CMOS_D:
        return D_VALID;
    default:
        return r->ram[index];
    }
}

static enum hv_err access_port(void *dev, struct vcpu *v, uint64_t offset, unsigned size,
                               bool write, uint64_t *value)
{
    struct vrtc *r = dev;
    unsigned index = __atomic_load_n(&r->index, __ATOMIC_RELAXED);

    (void)v;
    (void)size;
    if (offset == PORT_INDEX) {
        if (write) {
            __atomic_store_n(&r->index, (uint8_t)*value & 0x7f, __ATOMIC_RELAXED);
        } else {
            *value = 0xff; /* write-only */
        }
    } else if (!write) {
        *value = read_register(r, index);
    } else if (index == CMOS_B) {
        r->b = (uint8_t)*value & B_WRITABLE;
    } else {
        r->ram[index] = (uint8_t)*value; /* shows only where it is plain memory */
    }
    return HV_OK;
}

void vrtc_reset(struct vrtc *r)
{
    r->index = 0;
    r->b = B_24_HOURS;
}

enum hv_err vrtc_create(struct vm *vm, struct vrtc **out)
{
    struct vrtc *r = kmalloc(sizeof *r, vm->id);

    if (!r) {
        return HV_ENOMEM;
    }
    *out = r;
    vrtc_reset(r);
    return bus_add_byte_ports(vm->bus, 0x70, 2, "rtc", access_port, r);
}

void vrtc_destroy(struct vrtc *r)
{
    kfree(r);
}
