/* SPDX-License-Identifier: BSD-2-Clause */
/* The 8259 pair: initialisation, priorities, masks, ends of interrupts, cascade, level inputs, polls. */
#include "kernel/devices/vpic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/isa_irq.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/rng.h"
#include "tests/host/fakevm.h"

static unsigned rises;
static struct {
    unsigned gsi, count;
    bool level;
} ioapic;

void vlapic_lint0_rose(struct vm *vm)
{
    assert_ptr_equal(vm, &fake.vm);
    rises++;
}

void vioapic_set_line(struct vm *vm, unsigned gsi, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    ioapic.gsi = gsi;
    ioapic.level = level;
    ioapic.count++;
}

static void out(uint16_t port, uint64_t value)
{
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, 1, true, &value), HV_OK);
}

static uint8_t in(uint16_t port)
{
    uint64_t value = 0;
    assert_int_equal(bus_port(fake.vm.bus, &fake.vcpu[0], port, 1, false, &value), HV_OK);
    return (uint8_t)value;
}

/* As Linux does it: vectors 0x30 and 0x38, nothing masked. */
static void init(uint8_t icw4)
{
    out(0x20, 0x11);
    out(0x21, 0x30);
    out(0x21, 0x04);
    out(0x21, icw4);
    out(0xa0, 0x11);
    out(0xa1, 0x38);
    out(0xa1, 0x02);
    out(0xa1, icw4);
}

static void pulse(unsigned irq)
{
    vpic_set_line(&fake.vm, irq, true);
    vpic_set_line(&fake.vm, irq, false);
}

static int take(void)
{
    return vpic_acknowledge(&fake.vm);
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(1);
    if (bus_create(&fake.vm, &fake.vm.bus) || vpic_create(&fake.vm)) {
        return -1;
    }
    rises = 0;
    init(1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vpic_destroy(&fake.vm);
    bus_destroy(fake.vm.bus);
    return 0;
}

static void test_probe(void **state)
{
    (void)state;
    assert_int_equal(take(), -1);
    /* Linux's way to find out whether there is one. */
    out(0xa1, 0xff);
    out(0x21, 0xfb);
    assert_int_equal(in(0x21), 0xfb);
    assert_int_equal(in(0xa1), 0xff);
    out(0x4d0, 0xff);
    out(0x4d1, 0xff);
    assert_int_equal(in(0x4d0), 0xf8);
    assert_int_equal(in(0x4d1), 0xde);
}

static void test_priorities(void **state)
{
    (void)state;
    pulse(4);
    assert_int_equal(fake.vm.intr, 1);
    assert_int_equal(rises, 1);
    assert_int_equal(in(0x20), 0x10);
    assert_int_equal(take(), 0x34);
    assert_int_equal(fake.vm.intr, 0);
    out(0x20, 0x0b);
    assert_int_equal(in(0x20), 0x10); /* in service */
    pulse(6);
    assert_int_equal(fake.vm.intr, 0); /* lower */
    pulse(1);
    assert_int_equal(take(), 0x31);
    out(0x20, 0x20);
    assert_int_equal(fake.vm.intr, 0);
    out(0x20, 0x20);
    assert_int_equal(take(), 0x36);
    out(0x20, 0x66); /* specific */
    assert_int_equal(in(0x20), 0);
    assert_int_equal(take(), -1);
}

static void test_edges(void **state)
{
    (void)state;
    vpic_set_line(&fake.vm, 3, true);
    vpic_set_line(&fake.vm, 3, true);
    assert_int_equal(take(), 0x33);
    out(0x20, 0x20);
    assert_int_equal(take(), -1); /* high still, but no new edge */
    vpic_set_line(&fake.vm, 3, false);
    vpic_set_line(&fake.vm, 3, true);
    assert_int_equal(take(), 0x33);
}

static void test_masks(void **state)
{
    (void)state;
    out(0x21, 0x10);
    pulse(4);
    assert_int_equal(fake.vm.intr, 0);
    out(0x21, 0);
    assert_int_equal(fake.vm.intr, 1);
    out(0x21, 0x10);
    assert_int_equal(fake.vm.intr, 0);
    assert_int_equal(take(), -1);
    out(0x21, 0);
    assert_int_equal(take(), 0x34);
}

static void test_cascade(void **state)
{
    (void)state;
    pulse(12);
    pulse(9);
    assert_int_equal(take(), 0x39);
    assert_int_equal(fake.vm.intr, 0);
    pulse(8); /* higher, but the cascade is in service */
    assert_int_equal(fake.vm.intr, 0);
    pulse(1);
    assert_int_equal(take(), 0x31);
    out(0x20, 0x20);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(take(), 0x38);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(take(), 0x3c);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(take(), -1);
    out(0x21, 0x04); /* the cascade masked */
    pulse(9);
    assert_int_equal(fake.vm.intr, 0);
}

/* "Special fully nested mode": a higher one of the slave's goes through. */
static void test_nested(void **state)
{
    (void)state;
    init(0x11);
    pulse(12);
    assert_int_equal(take(), 0x3c);
    pulse(8);
    assert_int_equal(take(), 0x38);
    out(0xa0, 0x20);
    out(0xa0, 0x0b);
    assert_int_equal(in(0xa0), 0x10);
}

static void test_level(void **state)
{
    (void)state;
    out(0x4d1, 0x02); /* 9 */
    vpic_set_line(&fake.vm, 9, true);
    assert_int_equal(take(), 0x39);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(take(), 0x39); /* as long as it is high */
    vpic_set_line(&fake.vm, 9, false);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(take(), -1);
}

static void test_auto_eoi(void **state)
{
    (void)state;
    init(3);
    pulse(1);
    pulse(4);
    assert_int_equal(take(), 0x31);
    assert_int_equal(take(), 0x34);
    out(0x20, 0x80); /* rotating */
    pulse(1);
    pulse(0);
    assert_int_equal(take(), 0x30);
    pulse(0);
    assert_int_equal(take(), 0x31);
    assert_int_equal(take(), 0x30);
}

static void test_rotation(void **state)
{
    (void)state;
    out(0x20, 0xc3); /* 3 is lowest, 4 highest */
    pulse(3);
    pulse(4);
    pulse(7);
    assert_int_equal(take(), 0x34);
    out(0x20, 0xa0); /* now 4 is lowest */
    assert_int_equal(take(), 0x37);
    out(0x20, 0xe7); /* and now 7 */
    assert_int_equal(take(), 0x33);
}

static void test_special_mask(void **state)
{
    (void)state;
    pulse(1);
    assert_int_equal(take(), 0x31);
    pulse(5);
    assert_int_equal(take(), -1);
    out(0x21, 0x02);
    out(0x20, 0x68);
    assert_int_equal(take(), 0x35);
    out(0x20, 0x20); /* ends 5, not the masked 1 */
    out(0x20, 0x0b);
    assert_int_equal(in(0x20), 0x02);
    out(0x20, 0x48);
    pulse(6);
    assert_int_equal(take(), -1);
}

static void test_poll(void **state)
{
    (void)state;
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0);
    pulse(5);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0x85);
    out(0x20, 0x0b);
    assert_int_equal(in(0x20), 0x20);
    assert_int_equal(fake.vm.intr, 0);
}

static void test_isa(void **state)
{
    (void)state;
    isa_irq_set(&fake.vm, 4, true);
    assert_int_equal(ioapic.gsi, 4);
    assert_int_equal(take(), 0x34);
    out(0x20, 0x20);
    isa_irq_set_timer(&fake.vm, ISA_IRQ_PIT, true);
    assert_int_equal(ioapic.gsi, 2);
    assert_int_equal(take(), 0x30);
    unsigned before = ioapic.count;
    fake.vm.hpet_is_legacy = 1;
    isa_irq_set_timer(&fake.vm, ISA_IRQ_PIT, false);
    assert_int_equal(ioapic.count, before);
}

/* Whatever is written: the output is what an acknowledgement answers, and nothing runs away. */
static void test_garbage(void **state)
{
    (void)state;
    static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < 1000000; i++) {
        uint16_t port = ports[rng_below(&rng, ARRAY_SIZE(ports))];
        switch (rng_below(&rng, 4)) {
        case 0:
            out(port, rng_next(&rng) & 0xff);
            break;
        case 1:
            in(port);
            break;
        case 2:
            vpic_set_line(&fake.vm, (unsigned)rng_below(&rng, 16), rng_below(&rng, 2));
            break;
        default: {
            bool promised = fake.vm.intr != 0;
            int vector = take();
            assert_int_equal(vector >= 0, promised);
            assert_in_range(vector + 1, 0, 256);
            break;
        }
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_probe),    TEST(test_priorities),   TEST(test_edges), TEST(test_masks),
        TEST(test_cascade),  TEST(test_nested),       TEST(test_level), TEST(test_auto_eoi),
        TEST(test_rotation), TEST(test_special_mask), TEST(test_poll),  TEST(test_isa),
        TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
