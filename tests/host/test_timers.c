/* SPDX-License-Identifier: BSD-2-Clause */
/* The timers of a PC: 8254, CMOS clock, ACPI's PM registers, HPET. Interrupt lines are recorded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/vhpet.h"
#include "kernel/devices/vpit.h"
#include "kernel/devices/vpm.h"
#include "kernel/devices/vrtc.h"
#include "kernel/lib/rng.h"
#include "tests/host/fakevm.h"

#define MS 1000000ull

static struct vpit *pit;
static struct vrtc *rtc;
static struct vpm *pm;
static struct vhpet *hpet;

static struct {
    bool level;
    unsigned rises;
} lines[32]; /* ISA interrupts; from 16 on, and for those that are the HPET's alone, IOAPIC pins */

static void set(unsigned line, bool level)
{
    lines[line].rises += level && !lines[line].level;
    lines[line].level = level;
}

void isa_irq_set(struct vm *vm, unsigned irq, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    set(irq, level);
}

void isa_irq_set_timer(struct vm *vm, unsigned irq, bool level)
{
    if (!vm->hpet_is_legacy) {
        isa_irq_set(vm, irq, level);
    }
}

void vioapic_set_line(struct vm *vm, unsigned gsi, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    set(gsi, level);
}

static void out(uint16_t port, unsigned size, uint64_t value)
{
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, size, true, &value), HV_OK);
}

static uint32_t in(uint16_t port, unsigned size)
{
    uint64_t value = 0;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, size, false, &value), HV_OK);
    return (uint32_t)(size == 4 ? value : value & ((1u << 8 * size) - 1));
}

static void hpet_access(uint64_t at, unsigned size, bool write, uint64_t *value)
{
    gpa_t gpa = GPA(VHPET_BASE + at);
    assert_int_equal(bus_mmio(fake.vm.bus, &fake.vcpu[0], gpa, size, write, value), HV_OK);
}

static uint64_t hpet_read(uint64_t at)
{
    uint64_t value = 0;
    hpet_access(at, 8, false, &value);
    return value;
}

static void hpet_write(uint64_t at, uint64_t value)
{
    hpet_access(at, 8, true, &value);
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(1);
    fake.vm.state = VM_RUNNING;
    fake.vm.config.memory_bytes = MIB(64);
    memset(lines, 0, sizeof lines);
    return bus_create(&fake.vm, &fake.vm.bus) || vpit_create(&fake.vm, &pit) ||
           vrtc_create(&fake.vm, &rtc) || vpm_create(&fake.vm, &pm) ||
           vhpet_create(&fake.vm, &hpet);
}

static int teardown(void **state)
{
    (void)state;
    vhpet_destroy(hpet);
    vpm_destroy(pm);
    vrtc_destroy(rtc);
    vpit_destroy(pit);
    bus_destroy(fake.vm.bus);
    return 0;
}

/* ---- 8254 ---- */

/* Linux's quick calibration: mode 0 on channel 2, gate by port 0x61, reads of the upper byte. */
static void test_pit_channel2(void **state)
{
    (void)state;
    out(0x61, 1, 1);
    out(0x43, 1, 0xb0);
    out(0x42, 1, 0xff);
    out(0x42, 1, 0xff);
    assert_int_equal(in(0x61, 1) & 0x20, 0);
    in(0x42, 1);
    assert_int_equal(in(0x42, 1), 0xff);
    fake.now_ns += 10000000; /* 11932 ticks */
    in(0x42, 1);
    assert_int_equal(in(0x42, 1), (0xffff - 11931) >> 8);
    fake.now_ns += 50000000;
    assert_int_equal(in(0x61, 1) & 0x20, 0x20); /* terminal count */
    /* Without the gate it stands still. */
    out(0x61, 1, 0);
    out(0x42, 1, 0x00);
    out(0x42, 1, 0x10);
    fake.now_ns += 10000000;
    assert_int_equal(in(0x42, 1), 0x00);
    assert_int_equal(in(0x42, 1), 0x10);
}

static void test_pit_latch(void **state)
{
    (void)state;
    out(0x43, 1, 0x34); /* channel 0, mode 2 */
    out(0x40, 1, 0x00);
    out(0x40, 1, 0x00);
    out(0x43, 1, 0x00);
    fake.now_ns += 1000000;
    assert_int_equal(in(0x40, 1) | in(0x40, 1) << 8, 0); /* 65536, as it was latched */
    out(0x43, 1, 0xc2); /* read-back: count and status of channel 0 */
    assert_int_equal(in(0x40, 1) & 0x3f, 0x34);
    unsigned count = in(0x40, 1);
    count |= in(0x40, 1) << 8;
    assert_int_equal(count, 65536 - 1193);
}

static void pit_load(uint8_t control, unsigned count)
{
    out(0x43, 1, control);
    out(0x40, 1, count & 0xff);
    out(0x40, 1, count >> 8);
}

/* A thousand hertz for a second are a thousand edges; a VM that has ended has none. */
static void test_pit_periodic(void **state)
{
    (void)state;
    for (unsigned mode = 2; mode <= 3; mode++) {
        pit_load((uint8_t)(0x30 | mode << 1), 1193);
        lines[0].rises = 0;
        fakevm_run(1000 * MS, 20000);
        assert_in_range(lines[0].rises, 999, 1001);
    }
    fake.vm.state = VM_STOPPED;
    lines[0].rises = 0;
    fakevm_run(100 * MS, 20000);
    assert_int_equal(lines[0].rises, 0);
}

/* Mode 0 counts once, and again only when it is loaded again. */
static void test_pit_one_shot(void **state)
{
    (void)state;
    pit_load(0x30, 11932);
    assert_false(lines[0].level);
    fakevm_run(9 * MS, 10000);
    assert_int_equal(lines[0].rises, 0);
    fakevm_run(2 * MS, 10000);
    assert_int_equal(lines[0].rises, 1);
    assert_true(lines[0].level);
    fakevm_run(200 * MS, 100000);
    assert_int_equal(lines[0].rises, 1);
    out(0x40, 1, 0x9c);
    out(0x40, 1, 0x2e);
    assert_false(lines[0].level);
    fakevm_run(11 * MS, 10000);
    assert_int_equal(lines[0].rises, 2);
}

/* However fast the guest asks for ticks, the host's timer has its pace. */
static void test_pit_storm(void **state)
{
    (void)state;
    pit_load(0x34, 2);
    lines[0].rises = 0;
    fakevm_run(10 * MS, 1000);
    assert_in_range(lines[0].rises, 100, 210);
    /* A VM that does not run makes the host work less and less for it; when it runs again, all is well. */
    fake.idle = true;
    fakevm_run(1000 * MS, 10000);
    unsigned before = lines[0].rises;
    fakevm_run(1000 * MS, 10000);
    assert_in_range(lines[0].rises - before, 19, 21);
    fake.idle = false;
    fakevm_run(100 * MS, 1000);
    before = lines[0].rises;
    fakevm_run(10 * MS, 1000);
    assert_in_range(lines[0].rises - before, 100, 210);
}

/* While the HPET stands in for it, it stays silent. */
static void test_pit_replaced(void **state)
{
    (void)state;
    hpet_write(0x10, 2);
    pit_load(0x34, 1193);
    fakevm_run(10 * MS, 10000);
    assert_int_equal(lines[0].rises, 0);
    hpet_write(0x10, 0);
    fakevm_run(10 * MS, 10000);
    assert_in_range(lines[0].rises, 9, 11);
}

/* ---- CMOS clock ---- */

static uint8_t cmos(uint8_t index)
{
    out(0x70, 1, index);
    return (uint8_t)in(0x71, 1);
}

static void test_rtc_date(void **state)
{
    (void)state;
    struct vrtc_date d;
    vrtc_split(0, &d);
    assert_int_equal(d.year, 1970);
    assert_int_equal(d.weekday, 5);
    vrtc_split(951782400, &d); /* 2000-02-29 */
    assert_int_equal(d.year * 10000 + d.month * 100 + d.day, 20000229);
    vrtc_split(4102444799, &d); /* 2099-12-31 23:59:59 */
    assert_int_equal(d.year * 10000 + d.month * 100 + d.day, 20991231);
    assert_int_equal(d.hour * 10000 + d.minute * 100 + d.second, 235959);
    fake.now_ns = (13 * 3600ull + 45 * 60 + 59) * 1000000000;
    assert_int_equal(cmos(0x0a) & 0x80, 0);
    assert_int_equal(cmos(0x0d), 0x80);
    assert_int_equal(cmos(0x09), 0x26);
    assert_int_equal(cmos(0x32), 0x20);
    assert_int_equal(cmos(0x04), 0x13);
    assert_int_equal(cmos(0x02), 0x45);
    assert_int_equal(cmos(0x00), 0x59);
    out(0x70, 1, 0x0b);
    out(0x71, 1, 0x04); /* binary, 12 hours */
    assert_int_equal(cmos(0x04), 0x81);
    assert_int_equal(cmos(0x00), 59);
    out(0x70, 1, 0x40);
    out(0x71, 1, 0x99);
    assert_int_equal(cmos(0x40), 0x99);
}

static void cmos_write(uint8_t index, uint8_t value)
{
    out(0x70, 1, index);
    out(0x71, 1, value);
}

static void test_rtc_set(void **state)
{
    (void)state;
    struct vrtc_date d;
    struct rng rng;
    rng_seed(&rng, 5);
    for (int i = 0; i < 10000; i++) {
        uint64_t s = rng_below(&rng, 1ull << 36);
        vrtc_split(s, &d);
        assert_int_equal(vrtc_join(&d), s);
    }
    cmos_write(0x0b, 0x86); /* binary, halted */
    cmos_write(0x09, 99);
    cmos_write(0x32, 20);
    cmos_write(0x08, 2);
    cmos_write(0x07, 28);
    cmos_write(0x04, 23);
    cmos_write(0x02, 59);
    cmos_write(0x00, 58);
    fake.now_ns += 5000 * MS;
    assert_int_equal(cmos(0x00), 58);
    cmos_write(0x0b, 0x06);
    fake.now_ns += 2000 * MS;
    assert_int_equal(cmos(0x00), 0);
    assert_int_equal(cmos(0x04), 0);
    assert_int_equal(cmos(0x07), 1);
    assert_int_equal(cmos(0x08), 3);
    assert_int_equal(cmos(0x32), 20);
    assert_int_equal(cmos(0x09), 99);
}

/* Each enabled source raises the line once, until register C is read. */
static void test_rtc_periodic(void **state)
{
    (void)state;
    cmos_write(0x0a, 0x26); /* 1024 Hz */
    cmos_write(0x0b, 0x42);
    fakevm_run(10 * MS, 10000);
    assert_int_equal(lines[8].rises, 1);
    assert_int_equal(cmos(0x0c) & 0xc0, 0xc0);
    assert_false(lines[8].level);
    unsigned before = lines[8].rises;
    for (int i = 0; i < 100000; i++) { /* one second */
        fakevm_run(10000, 10000);
        if (lines[8].level) {
            cmos(0x0c);
        }
    }
    assert_in_range(lines[8].rises - before, 1022, 1026);
    cmos_write(0x0b, 0x02);
    cmos(0x0c);
    before = lines[8].rises;
    fakevm_run(10 * MS, 10000);
    assert_int_equal(lines[8].rises, before);
    assert_int_equal(cmos(0x0c), 0x40); /* the flag without the interrupt */
}

static void test_rtc_update(void **state)
{
    (void)state;
    unsigned updating = 0;
    cmos(0x0c);
    cmos_write(0x0b, 0x12);
    for (int i = 0; i < 3000; i++) {
        fakevm_run(MS / 10 * 10, MS / 10 * 10);
        if (lines[8].level) {
            assert_int_equal(cmos(0x0c) & 0x90, 0x90);
        }
    }
    assert_int_equal(lines[8].rises, 3);
    for (int i = 0; i < 10000; i++) {
        fake.now_ns += MS / 10;
        updating += (cmos(0x0a) & 0x80) != 0;
    }
    assert_in_range(updating, 2, 3);
}

static void alarm_at(uint8_t h, uint8_t m, uint8_t s)
{
    cmos_write(0x05, h);
    cmos_write(0x03, m);
    cmos_write(0x01, s);
    cmos(0x0c);
    lines[8].rises = 0;
}

static void test_rtc_alarm(void **state)
{
    (void)state;
    cmos_write(0x0b, 0x26); /* binary */
    fake.now_ns = (3600ull * 23 + 59 * 60 + 50) * 1000 * MS;
    alarm_at(0, 0, 5);
    fakevm_run(14000 * MS, 100 * MS);
    assert_int_equal(lines[8].rises, 0);
    fakevm_run(2000 * MS, 100 * MS);
    assert_int_equal(lines[8].rises, 1);
    assert_int_equal(cmos(0x0c) & 0xa0, 0xa0);
    alarm_at(0xff, 0xff, 30); /* each minute */
    for (int i = 0; i < 180 * 4; i++) {
        fakevm_run(250 * MS, 250 * MS);
        if (lines[8].level) {
            assert_int_equal(cmos(0x00), 30);
            cmos(0x0c);
        }
    }
    assert_int_equal(lines[8].rises, 3);
    alarm_at(77, 0, 0); /* no such hour */
    fakevm_run(86400 * 1000 * MS, 10000 * MS);
    assert_int_equal(lines[8].rises, 0);
}

/* A field of an alarm: any (one in three), a number, or one that never comes. */
static uint8_t alarm_field(struct rng *r, unsigned limit)
{
    uint64_t kind = rng_below(r, 3);

    return (uint8_t)(kind == 0 ? 0xc0 + rng_below(r, 64)
                               : rng_below(r, kind == 1 ? limit : limit + 3));
}

static bool names(uint8_t alarm, uint64_t value)
{
    return alarm >= 0xc0 || alarm == value;
}

/* Alarms of all kinds come in the second that a search of the whole day finds. */
static void test_rtc_alarm_search(void **state)
{
    (void)state;
    struct rng r;

    rng_seed(&r, 5);
    cmos_write(0x0b, 0x06); /* binary, no interrupt */
    for (int round = 0; round < 400; round++) {
        uint8_t h = alarm_field(&r, 24), m = alarm_field(&r, 60), s = alarm_field(&r, 60);
        uint64_t now = fake.now_ns / (1000 * MS), wait = 0;

        for (uint64_t w = 1; w <= 86400 && !wait; w++) {
            uint64_t t = (now + w) % 86400;

            if (names(h, t / 3600) && names(m, t / 60 % 60) && names(s, t % 60)) {
                wait = w;
            }
        }
        alarm_at(h, m, s);
        fake.now_ns = (now + (wait ? wait : 90000)) * 1000 * MS - 1;
        assert_int_equal(cmos(0x0c) & 0x20, 0);
        fake.now_ns++;
        assert_int_equal(cmos(0x0c) & 0x20, wait ? 0x20 : 0);
        fake.now_ns += rng_below(&r, 7200 * 1000) * MS;
    }
}

static void test_cmos_memory(void **state)
{
    (void)state;
    assert_int_equal(cmos(0x15) | cmos(0x16) << 8, 0x9f000 >> 10);
    assert_int_equal(cmos(0x17) | cmos(0x18) << 8, 63 * 1024);
    assert_int_equal(cmos(0x34) | cmos(0x35) << 8, 48 * 16);
    cmos_write(0x40, 0x99);
    assert_int_equal(cmos(0x40), 0x99);
}

/* ---- ACPI ---- */

static void test_pm_power_off(void **state)
{
    (void)state;
    out(0x604, 2, 0x0400); /* no enable bit */
    out(0x604, 2, 0x2400); /* S1 */
    assert_int_equal(fake.stops, 0);
    assert_int_equal(in(0x604, 2) & 1, 1);
    out(0x604, 2, 0x2000);
    assert_int_equal(fake.vm.stop_reason, STOP_POWEROFF);
}

static void test_pm_timer(void **state)
{
    (void)state;
    uint32_t before = in(0x608, 4);
    fake.now_ns += 100 * MS;
    assert_in_range((in(0x608, 4) - before) & 0xffffff, 357953, 357956);
    assert_int_equal(in(0x608, 4) >> 24, 0);
    /* Bit 23 changes each 2.34 s. */
    fake.now_ns += 3000 * MS;
    assert_int_equal(in(0x600, 2), 1);
    assert_int_equal(lines[9].rises, 0);
    out(0x600, 2, 1);
    assert_int_equal(in(0x600, 2), 0);
    out(0x602, 2, 1);
    assert_int_equal(in(0x600, 4), 1u << 16);
    fakevm_run(2400 * MS, MS);
    assert_int_equal(lines[9].rises, 1);
    assert_true(lines[9].level);
    out(0x600, 2, 1);
    assert_false(lines[9].level);
    fakevm_run(4700 * MS, MS);
    assert_int_equal(lines[9].rises, 2);
    out(0x602, 2, 0);
    assert_false(lines[9].level);
}

/* ---- HPET ---- */

static void test_hpet_counter(void **state)
{
    (void)state;
    assert_int_equal(hpet_read(0) >> 32, 10000000);
    assert_int_equal(hpet_read(0xf0), 0);
    hpet_write(0xf0, 5000);
    fake.now_ns += MS;
    assert_int_equal(hpet_read(0xf0), 5000);
    hpet_write(0x10, 1);
    fake.now_ns += MS;
    assert_int_equal(hpet_read(0xf0), 105000);
    uint64_t high = 0;
    hpet_access(0xf4, 4, false, &high);
    assert_int_equal(high, 0);
    hpet_write(0x10, 0);
    fake.now_ns += MS;
    assert_int_equal(hpet_read(0xf0), 105000);
}

static void test_hpet_one_shot(void **state)
{
    (void)state;
    hpet_write(0x10, 3);
    hpet_write(0x100, 0x104); /* 32 bits, interrupt */
    hpet_write(0x108, (uint32_t)hpet_read(0xf0) + 100000);
    fakevm_run(MS - 20000, 10000);
    assert_int_equal(lines[0].rises, 0);
    fakevm_run(40000, 10000);
    assert_int_equal(lines[0].rises, 1);
    fakevm_run(10 * MS, 10000);
    assert_int_equal(lines[0].rises, 1);
}

/* As Linux sets it up: halted, value, then period. */
static void test_hpet_periodic(void **state)
{
    (void)state;
    hpet_write(0x10, 0);
    hpet_write(0xf0, 0);
    hpet_write(0x100, 0x14c); /* 32 bits, set value, periodic, interrupt */
    hpet_write(0x108, 100000);
    hpet_write(0x108, 100000);
    hpet_write(0x10, 3);
    fakevm_run(1000 * MS + 20000, 20000);
    assert_int_equal(lines[0].rises, 1000);
    hpet_write(0x108, 1); /* as fast as it may */
    lines[0].rises = 0;
    fakevm_run(10 * MS, 1000);
    assert_in_range(lines[0].rises, 100, 210);
    hpet_write(0x10, 2);
    lines[0].rises = 0;
    fakevm_run(10 * MS, 1000);
    assert_int_equal(lines[0].rises, 0);
}

/* A level interrupt through an IOAPIC pin stays until its status bit is written. */
static void test_hpet_level(void **state)
{
    (void)state;
    hpet_write(0x10, 1);
    hpet_write(0x140, 0x006 | 20 << 9);
    hpet_write(0x148, hpet_read(0xf0) + 1000);
    fakevm_run(MS, 10000);
    assert_int_equal(lines[20].rises, 1);
    assert_true(lines[20].level);
    assert_int_equal(hpet_read(0x20), 4);
    hpet_write(0x20, 1);
    assert_true(lines[20].level);
    hpet_write(0x20, 4);
    assert_false(lines[20].level);
    assert_int_equal(hpet_read(0x20), 0);
}

static void test_garbage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 11);
    for (int i = 0; i < 300000; i++) {
        static const uint16_t ports[] = {0x40,  0x41,  0x42,  0x43,  0x61,  0x70, 0x71,
                                         0x600, 0x602, 0x603, 0x605, 0x608, 0x60a};
        uint16_t port = ports[rng_below(&rng, ARRAY_SIZE(ports))];
        unsigned size = 1u << rng_below(&rng, 3);
        uint64_t at = rng_below(&rng, 0x400), wild = rng_next(&rng) >> rng_below(&rng, 64);
        if (rng_below(&rng, 2)) {
            out(port, size, rng_next(&rng));
        } else {
            in(port, size);
        }
        hpet_access(rng_below(&rng, 2) ? at & 0x1f8 : at, size * 2, rng_below(&rng, 2), &wild);
        fake.now_ns += (rng_next(&rng) & 0xffffffffff) >> rng_below(&rng, 40);
        fakevm_run(1, 1);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_pit_channel2),     TEST(test_pit_latch),     TEST(test_pit_periodic),
        TEST(test_pit_one_shot),     TEST(test_pit_storm),     TEST(test_pit_replaced),
        TEST(test_rtc_date),         TEST(test_rtc_set),       TEST(test_rtc_periodic),
        TEST(test_rtc_update),       TEST(test_rtc_alarm),     TEST(test_cmos_memory),
        TEST(test_rtc_alarm_search), TEST(test_pm_power_off),  TEST(test_pm_timer),
        TEST(test_hpet_counter),     TEST(test_hpet_one_shot), TEST(test_hpet_periodic),
        TEST(test_hpet_level),       TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
