/* SPDX-License-Identifier: BSD-2-Clause */
/* The IOAPIC: registers, edge and level lines, masks, remote IRR, hostile writes. */
#include "kernel/devices/vioapic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/rng.h"
#include "tests/host/fakevm.h"

static struct {
    unsigned count;
    uint32_t dest;
    bool logical, level;
    unsigned delivery, vector;
} message;

void vlapic_message(struct vm *vm, uint32_t dest, bool logical, unsigned delivery, unsigned vector,
                    bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    message.count++;
    message.dest = dest;
    message.logical = logical;
    message.delivery = delivery;
    message.vector = vector;
    message.level = level;
}

static void wr(uint64_t offset, uint64_t value)
{
    assert_int_equal(
        bus_mmio(fake.vm.bus, &fake.vcpu[0], GPA(VIOAPIC_BASE + offset), 4, true, &value), HV_OK);
}

static uint32_t rd(uint64_t offset)
{
    uint64_t value = 0;
    assert_int_equal(
        bus_mmio(fake.vm.bus, &fake.vcpu[0], GPA(VIOAPIC_BASE + offset), 4, false, &value), HV_OK);
    return (uint32_t)value;
}

static void write_reg(uint32_t index, uint32_t value)
{
    wr(0, index);
    wr(0x10, value);
}

static uint32_t read_reg(uint32_t index)
{
    wr(0, index);
    return rd(0x10);
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(1);
    memset(&message, 0, sizeof message);
    return bus_create(&fake.vm, &fake.vm.bus) || vioapic_create(&fake.vm);
}

static int teardown(void **state)
{
    (void)state;
    vioapic_destroy(&fake.vm);
    bus_destroy(fake.vm.bus);
    return 0;
}

static void test_registers(void **state)
{
    (void)state;
    assert_int_equal(read_reg(1), 0x170011);
    assert_int_equal(read_reg(0x10 + 2 * 23), 0x10000);
    assert_int_equal(read_reg(0x10 + 2 * 24), 0xffffffff);
    write_reg(0, 0xffffffff);
    assert_int_equal(read_reg(0), 0x0f000000);
    write_reg(0x11, 0xffffffff);
    assert_int_equal(read_reg(0x11), 0xff000000);
    write_reg(0x10, 0xffffffff);
    assert_int_equal(read_reg(0x10), 0x1afff); /* delivery status and remote IRR are read-only */
}

static void test_edge(void **state)
{
    (void)state;
    vioapic_set_line(&fake.vm, 4, true); /* masked: lost */
    vioapic_set_line(&fake.vm, 4, false);
    write_reg(0x19, 0x02000000);
    write_reg(0x18, 0x0834);
    assert_int_equal(message.count, 0);
    vioapic_set_line(&fake.vm, 4, true);
    assert_int_equal(message.count, 1);
    assert_int_equal(message.dest, 2);
    assert_int_equal(message.vector, 0x34);
    assert_true(message.logical);
    assert_false(message.level);
    vioapic_set_line(&fake.vm, 4, true); /* no edge */
    assert_int_equal(message.count, 1);
    vioapic_set_line(&fake.vm, 4, false);
    vioapic_set_line(&fake.vm, 4, true);
    assert_int_equal(message.count, 2);
    vioapic_set_line(&fake.vm, 24, true); /* no such lines */
    vioapic_set_line(&fake.vm, 4000000000u, true);
    assert_int_equal(message.count, 2);
}

static void test_level(void **state)
{
    (void)state;
    write_reg(0x1a, 0x18035); /* line 5, level, masked */
    vioapic_set_line(&fake.vm, 5, true);
    assert_int_equal(message.count, 0);
    write_reg(0x1a, 0x8035); /* unmasked: the level is still there */
    assert_int_equal(message.count, 1);
    assert_true(message.level);
    assert_int_equal(read_reg(0x1a), 0xc035);
    vioapic_set_line(&fake.vm, 5, false);
    vioapic_set_line(&fake.vm, 5, true); /* remote IRR holds it back */
    assert_int_equal(message.count, 1);
    vioapic_eoi(&fake.vm, 0x36); /* another's vector */
    assert_int_equal(message.count, 1);
    vioapic_eoi(&fake.vm, 0x35); /* still asserted: again */
    assert_int_equal(message.count, 2);
    vioapic_set_line(&fake.vm, 5, false);
    vioapic_eoi(&fake.vm, 0x35);
    assert_int_equal(message.count, 2);
    assert_int_equal(read_reg(0x1a), 0x8035);
    /* A change to edge clears remote IRR (how old kernels end a stuck interrupt). */
    vioapic_set_line(&fake.vm, 5, true);
    assert_int_equal(read_reg(0x1a), 0xc035);
    write_reg(0x1a, 0x10035);
    write_reg(0x1a, 0x18035);
    assert_int_equal(read_reg(0x1a), 0x18035);
    write_reg(0x1a, 0x8035);
    assert_int_equal(message.count, 4);
}

static void test_reset(void **state)
{
    (void)state;
    write_reg(0x18, 0x34);
    vioapic_set_line(&fake.vm, 4, true);
    vioapic_reset(&fake.vm);
    assert_int_equal(read_reg(0x18), 0x10000);
    write_reg(0x18, 0x34);
    message.count = 0;
    vioapic_set_line(&fake.vm, 4, true); /* the line fell with the reset */
    assert_int_equal(message.count, 1);
}

static void test_garbage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < 300000; i++) {
        uint64_t v = rng_next(&rng);
        gpa_t at = GPA(VIOAPIC_BASE +
                       (rng_below(&rng, 2) ? rng_below(&rng, 4096) : rng_below(&rng, 2) * 16));
        bool write = rng_below(&rng, 2);
        if (write && at.a == VIOAPIC_BASE) {
            v &= 0x3f;
        }
        assert_int_equal(
            bus_mmio(fake.vm.bus, &fake.vcpu[0], at, 1u << rng_below(&rng, 4), write, &v), HV_OK);
        vioapic_set_line(&fake.vm, (unsigned)rng_below(&rng, 32), rng_below(&rng, 2));
        vioapic_eoi(&fake.vm, (unsigned)rng_below(&rng, 256));
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_registers), TEST(test_edge),    TEST(test_level),
        TEST(test_reset),     TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
