/* SPDX-License-Identifier: BSD-2-Clause */
/* The keyboard controller: what kernels ask of it while they start, and its reset line. */
#include "kernel/devices/vkbd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/lib/rng.h"
#include "tests/host/fakevm.h"

static struct vkbd *kbd;
static bool line;
static unsigned edges;

void isa_irq_set(struct vm *vm, unsigned irq, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    assert_int_equal(irq, 1);
    edges += level && !line;
    line = level;
}

static void out(uint16_t port, uint8_t byte)
{
    uint64_t value = byte;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, 1, true, &value), HV_OK);
}

static uint8_t in(uint16_t port)
{
    uint64_t value = 0;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, 1, false, &value), HV_OK);
    return (uint8_t)value;
}

static void expect(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(in(0x64) & 3, 1);
        assert_int_equal(in(0x60), (uint8_t)bytes[i]);
    }
    assert_int_equal(in(0x64) & 3, 0);
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(1);
    line = false;
    edges = 0;
    return bus_create(&fake.vm, &fake.vm.bus) || vkbd_create(&fake.vm, &kbd);
}

static int teardown(void **state)
{
    (void)state;
    vkbd_destroy(kbd);
    bus_destroy(fake.vm.bus);
    return 0;
}

static void test_controller(void **state)
{
    (void)state;
    assert_int_equal(in(0x64), 0x14);
    out(0x64, 0xad);
    out(0x64, 0xa7);
    out(0x64, 0x20);
    assert_int_equal(in(0x64) & 8, 8);
    expect("\x55", 1); /* disabled, translating, interrupt wanted */
    out(0x64, 0x60);
    out(0x60, 0x44);
    edges = 0;
    out(0x64, 0xaa);
    expect("\x55", 1);
    out(0x64, 0xab);
    expect("\0", 1);
    assert_int_equal(edges, 0);
    out(0x64, 0xa9);
    expect("\x01", 1);
    out(0x64, 0xae);
    out(0x64, 0x20);
    expect("\x44", 1);
    out(0x64, 0xd0);
    expect("\x03", 1);
    out(0x64, 0xd1);
    out(0x60, 0xdf);
    out(0x64, 0xd0);
    expect("\xdf", 1);
    out(0x64, 0xc0);
    expect("\x80", 1);
    out(0x64, 0x61); /* any byte of its memory */
    out(0x60, 0x99);
    out(0x64, 0x21);
    expect("\x99", 1);
    out(0x64, 0xd2);
    out(0x60, 0x1c);
    expect("\x1c", 1);
    out(0x64, 0xd4); /* there is no mouse */
    out(0x60, 0xff);
    expect("", 0);
}

static void test_keyboard(void **state)
{
    (void)state;
    out(0x60, 0xff);
    assert_true(line);
    assert_int_equal(edges, 1);
    expect("\xfa\xaa", 2);
    assert_int_equal(edges, 2); /* one for each byte */
    assert_false(line);
    out(0x60, 0xf2);
    expect("\xfa\xab\x41", 3);
    out(0x64, 0x60);
    out(0x60, 0x05);
    out(0x60, 0xf2);
    expect("\xfa\xab\x83", 3);
    out(0x60, 0xed);
    out(0x60, 0xff); /* the lamps, not a reset */
    expect("\xfa\xfa", 2);
    out(0x60, 0xf0);
    out(0x60, 0);
    expect("\xfa\xfa\x02", 3);
    out(0x60, 0xf3);
    out(0x60, 0x20);
    out(0x60, 0xf4);
    expect("\xfa\xfa\xfa", 3);
    out(0x60, 0xee);
    expect("\xee", 1);
    out(0x60, 0xfe);
    expect("\xee", 1);
}

static void test_reset_line(void **state)
{
    (void)state;
    out(0x64, 0xff);
    assert_int_equal(fake.stops, 0);
    out(0x64, 0xfe);
    assert_int_equal(fake.stops, 1);
    assert_int_equal(fake.vm.stop_reason, STOP_RESET);
    out(0x64, 0xd1);
    out(0x60, 0x02);
    assert_int_equal(fake.stops, 2);
    vkbd_reset(kbd);
    out(0x64, 0xd0);
    expect("\x03", 1);
}

/* Whatever is written, nothing runs over. */
static void test_garbage(void **state)
{
    (void)state;
    struct rng r;
    unsigned full = 0;

    rng_seed(&r, 7);
    for (unsigned i = 0; i < 100000; i++) {
        out(rng_below(&r, 2) ? 0x60 : 0x64, (uint8_t)rng_next(&r));
        if (rng_below(&r, 3) == 0) {
            in(0x60);
        }
    }
    while ((in(0x64) & 1) && ++full) {
        in(0x60);
    }
    assert_in_range(full, 0, 16);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_controller),
        TEST(test_keyboard),
        TEST(test_reset_line),
        TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
