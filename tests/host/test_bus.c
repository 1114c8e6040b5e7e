/* SPDX-License-Identifier: BSD-2-Clause */
/* Port and MMIO routing: claims, clashes, splitting, what nobody claims, rate-limited log lines. */
#include "kernel/devices/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/host/fakevm.h"

struct device {
    unsigned calls;
    uint64_t offset[8];
    unsigned size;
    bool write;
    uint64_t value;
};

static enum hv_err record(void *dev, struct vcpu *v, uint64_t offset, unsigned size, bool write,
                          uint64_t *value)
{
    struct device *d = dev;

    assert_ptr_equal(v, &fake.vcpu[0]);
    d->offset[d->calls++ % 8] = offset;
    d->size = size;
    d->write = write;
    if (write) {
        d->value = d->value << 8 | (*value & 0xff);
    } else {
        *value = 0xa0 + offset;
    }
    return HV_OK;
}

static struct bus *fresh(void)
{
    struct bus *b;

    fakevm_reset(1);
    assert_int_equal(bus_create(&fake.vm, &b), HV_OK);
    return b;
}

static uint64_t in(struct bus *b, uint16_t port, unsigned size)
{
    uint64_t value = 0x1234;

    assert_int_equal(bus_port(b, &fake.vcpu[0], port, size, false, &value), HV_OK);
    return value;
}

static void test_claims(void **state)
{
    (void)state;
    struct bus *b = fresh();
    struct device d = {0};
    assert_int_equal(bus_add_ports(b, 0x3f8, 8, "a", record, &d), HV_OK);
    assert_int_equal(bus_add_ports(b, 0x3ff, 2, "b", record, &d), HV_EEXIST);
    assert_int_equal(bus_add_ports(b, 0xffff, 2, "c", record, &d), HV_ERANGE);
    assert_int_equal(bus_add_ports(b, 0x10, 0, "d", record, &d), HV_ERANGE);
    assert_int_equal(bus_add_ports(b, 0xfe, 4, "e", record, &d), HV_OK); /* over two leaves */
    assert_int_equal(bus_add_ports(b, 0xffff, 1, "f", record, &d), HV_OK);
    assert_int_equal(in(b, 0x3fd, 1), 0xa5);
    assert_int_equal(in(b, 0x101, 1), 0xa3);
    assert_int_equal(in(b, 0xffff, 4), 0xa0);
    assert_int_equal(d.size, 4);
    assert_int_equal(in(b, 0x3f7, 1), 0xff);
    assert_int_equal(in(b, 0x3f7, 2), 0xffff);
    assert_int_equal(in(b, 0x400, 4), 0xffffffff);
    uint64_t ports, mmio;
    bus_unclaimed(b, &ports, &mmio);
    assert_int_equal(ports, 3);
    assert_int_equal(mmio, 0);
    bus_destroy(b);
}

static void test_bytes(void **state)
{
    (void)state;
    struct bus *b = fresh();
    struct device d = {0};
    uint64_t value = 0x44332211;
    assert_int_equal(bus_add_byte_ports(b, 0x70, 3, "a", record, &d), HV_OK);
    assert_int_equal(bus_port(b, &fake.vcpu[0], 0x70, 4, true, &value), HV_OK);
    assert_int_equal(d.calls, 3);
    assert_int_equal(d.size, 1);
    assert_int_equal(d.value, 0x112233);
    assert_int_equal(in(b, 0x70, 4), 0xffa2a1a0);
    /* On the fast path a split access asks to be repeated before anything happened. */
    fake.vcpu[0].in_guest = 1;
    d.calls = 0;
    assert_int_equal(bus_port(b, &fake.vcpu[0], 0x70, 2, true, &value), HV_EAGAIN);
    assert_int_equal(d.calls, 0);
    bus_destroy(b);
}

static void test_mmio(void **state)
{
    (void)state;
    struct bus *b = fresh();
    struct device d = {0};
    uint64_t value = 0;
    assert_int_equal(bus_add_mmio(b, GPA(0x1000), 0x1000, "a", record, &d), HV_OK);
    assert_int_equal(bus_add_mmio(b, GPA(0x1fff), 1, "b", record, &d), HV_EEXIST);
    assert_int_equal(bus_add_mmio(b, GPA(UINT64_MAX), 2, "c", record, &d), HV_ERANGE);
    assert_int_equal(bus_mmio(b, &fake.vcpu[0], GPA(0x1ffc), 4, false, &value), HV_OK);
    assert_int_equal(value, 0xa0 + 0xffc);
    assert_int_equal(bus_mmio(b, &fake.vcpu[0], GPA(0x2000), 8, false, &value), HV_OK);
    assert_int_equal(value, UINT64_MAX);
    assert_int_equal(bus_mmio(b, &fake.vcpu[0], GPA(0xfff), 1, false, &value), HV_OK);
    assert_int_equal(value, 0xff);
    bus_destroy(b);
}

static void test_log_limit(void **state)
{
    (void)state;
    struct bus *b = fresh();
    uint64_t value = 0, ports, mmio;
    for (int i = 0; i < 1000; i++) {
        in(b, 0x1234, 1);
    }
    unsigned burst = fake.log_lines;
    assert_true(burst > 0 && burst < 20);
    /* A line that is due is written off the fast path. */
    fake.now_ns += 60000000000ull;
    fake.vcpu[0].in_guest = 1;
    assert_int_equal(bus_port(b, &fake.vcpu[0], 0x1234, 1, false, &value), HV_EAGAIN);
    fake.vcpu[0].in_guest = 0;
    in(b, 0x1234, 1);
    assert_int_equal(fake.log_lines, burst + 1);
    fake.vcpu[0].in_guest = 1;
    in(b, 0x1234, 1);
    bus_unclaimed(b, &ports, &mmio);
    assert_int_equal(ports, 1002);
    bus_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_log_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
