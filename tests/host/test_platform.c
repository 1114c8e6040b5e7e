/* SPDX-License-Identifier: BSD-2-Clause */
/* The small devices: PIT, CMOS clock, platform ports, VMware calls; firmware tables. */
#include "kernel/devices/platform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vlapic.h"
#include "kernel/devices/vmware.h"
#include "kernel/devices/vpit.h"
#include "kernel/devices/vrtc.h"
#include "kernel/lib/random.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/guestmem.h"
#include "tests/host/fakevm.h"

static struct vpit *pit;
static struct vrtc *rtc;
static uint8_t low_memory[0x100000];

uint64_t vlapic_bus_hz(void)
{
    return 125000000;
}

enum hv_err guestmem_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
    (void)vm;
    assert_in_range(gpa.a + len, 0xe0000, 0x100000);
    memcpy(low_memory + gpa.a, src, len);
    return HV_OK;
}

const struct {
    char signature[4];
    uint32_t length;
    uint8_t rest[56];
} _binary_dsdt_aml_start = {"DSDT", 64, {0}};

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

static int setup(void **state)
{
    (void)state;
    fakevm_reset(2);
    fake.vm.config.identity = IDENTITY_VMWARE;
    return bus_create(&fake.vm, &fake.vm.bus) || platform_create(&fake.vm) ||
           vmware_create(&fake.vm) || vpit_create(&fake.vm, &pit) || vrtc_create(&fake.vm, &rtc);
}

static int teardown(void **state)
{
    (void)state;
    vpit_destroy(pit);
    vrtc_destroy(rtc);
    bus_destroy(fake.vm.bus);
    return 0;
}

static void test_endings(void **state)
{
    (void)state;
    out(0x601, 1, 0x80); /* Linux clears the wake status first */
    out(0x600, 1, 0x14); /* no enable bit */
    out(0x600, 1, 0x2c); /* S3 */
    assert_int_equal(fake.stops, 0);
    out(0x600, 1, 0x34);
    assert_int_equal(fake.vm.stop_reason, STOP_POWEROFF);
    out(0xcf9, 1, 0x02);
    out(0xcf8, 4, 0x80000004);
    assert_int_equal(fake.stops, 1);
    out(0xcf9, 1, 0x06);
    assert_int_equal(fake.vm.stop_reason, STOP_RESET);
    out(0xf4, 1, 5);
    assert_int_equal(fake.vm.stop_reason, STOP_DEBUG_EXIT);
    assert_int_equal(fake.vm.stop_code, 11);
    out(0x64, 1, 0xfe);
    assert_int_equal(fake.vm.stop_reason, STOP_RESET);
    out(0x92, 1, 1);
    assert_int_equal(fake.stops, 5);
}

static void test_absent(void **state)
{
    (void)state;
    uint64_t ports, mmio;
    assert_int_equal(in(0x21, 1), 0xff);
    assert_int_equal(in(0xa1, 1), 0xff);
    assert_int_equal(in(0xcfc, 4), 0xffffffff);
    assert_int_equal(in(0xcfe, 2), 0xffff);
    assert_int_equal(in(0x2f9, 1), 0xff);
    assert_int_equal(in(0x64, 1), 0);
    assert_int_equal(in(0x92, 1), 2);
    out(0x80, 1, 7);
    bus_unclaimed(fake.vm.bus, &ports, &mmio);
    assert_int_equal(ports, 0);
}

static void test_vmware(void **state)
{
    (void)state;
    struct vcpu *v = &fake.vcpu[0];
    v->gpr[GPR_RAX] = 0x564d5868;
    v->gpr[GPR_RCX] = 10;
    v->gpr[GPR_RBX] = UINT64_MAX;
    assert_int_not_equal(in(0x5658, 4), 0xffffffff);
    assert_int_equal(v->gpr[GPR_RBX], 0x564d5868);
    v->gpr[GPR_RCX] = 45;
    assert_int_equal(in(0x5658, 4), 1000000000);
    assert_int_equal(v->gpr[GPR_RBX], 0);
    assert_int_equal(v->gpr[GPR_RCX], 125000000);
    v->gpr[GPR_RCX] = 68;
    assert_int_equal(in(0x5658, 4), 8);
    v->gpr[GPR_RCX] = 0x1234;
    v->gpr[GPR_RBX] = 77;
    assert_int_equal(in(0x5658, 4), 0xffffffff);
    assert_int_equal(v->gpr[GPR_RBX], 77);
    v->gpr[GPR_RAX] = 0;
    v->gpr[GPR_RCX] = 10;
    assert_int_equal(in(0x5658, 4), 0xffffffff);
}

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

static uint8_t cmos(uint8_t index)
{
    out(0x70, 1, index);
    return (uint8_t)in(0x71, 1);
}

static void test_rtc(void **state)
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

static uint8_t sum(uint64_t at, size_t len)
{
    uint8_t s = 0;
    for (size_t i = 0; i < len; i++) {
        s = (uint8_t)(s + low_memory[at + i]);
    }
    return s;
}

static uint64_t get(uint64_t at, unsigned bytes)
{
    uint64_t v = 0;
    memcpy(&v, low_memory + at, bytes);
    return v;
}

static void test_acpi(void **state)
{
    (void)state;
    gpa_t rsdp;
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    assert_int_equal(rsdp.a, 0xe0000);
    assert_memory_equal(low_memory + rsdp.a, "RSD PTR ", 8);
    assert_int_equal(sum(rsdp.a, 20), 0);
    assert_int_equal(sum(rsdp.a, 36), 0);
    uint64_t xsdt = get(rsdp.a + 24, 8);
    assert_memory_equal(low_memory + xsdt, "XSDT", 4);
    assert_int_equal(sum(xsdt, get(xsdt + 4, 4)), 0);
    uint64_t fadt = get(xsdt + 36, 8), madt = get(xsdt + 44, 8);
    assert_memory_equal(low_memory + fadt, "FACP", 4);
    assert_int_equal(get(fadt + 4, 4), 276);
    assert_int_equal(sum(fadt, 276), 0);
    assert_int_equal(get(fadt + 112, 4), 1u << 20 | 1u << 10 | 3u << 4);
    assert_int_equal(get(fadt + 109, 2), 0x24);
    assert_int_equal(get(fadt + 248, 8), 0x600);
    assert_memory_equal(low_memory + get(fadt + 140, 8), "DSDT", 4);
    assert_memory_equal(low_memory + madt, "APIC", 4);
    assert_int_equal(get(madt + 4, 4), 44 + 12 + 2 * 8);
    assert_int_equal(sum(madt, get(madt + 4, 4)), 0);
}

static bool contains(const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0xf0000; i + n <= sizeof low_memory; i++) {
        if (!memcmp(low_memory + i, text, n)) {
            return true;
        }
    }
    return false;
}

static void test_smbios(void **state)
{
    (void)state;
    gpa_t rsdp;
    memset(low_memory, 0, sizeof low_memory);
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    assert_memory_equal(low_memory + 0xf0000, "_SM_", 4);
    assert_int_equal(sum(0xf0000, 0x1f), 0);
    assert_int_equal(sum(0xf0010, 15), 0);
    uint64_t table = get(0xf0018, 4), end = table + get(0xf0016, 2);
    unsigned n = 0;
    int last = -1;
    while (table < end) {
        last = low_memory[table];
        table += low_memory[table + 1];
        while (get(table, 2)) {
            table++;
        }
        table += 2;
        n++;
    }
    assert_int_equal(table, end);
    assert_int_equal(n, get(0xf001c, 2));
    assert_int_equal(last, 127);
    assert_true(contains("VMware, Inc."));
    assert_true(contains("VMware-56 4d "));
    memset(low_memory, 0, sizeof low_memory);
    fake.vm.config.identity = IDENTITY_NONE;
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    assert_false(contains("VMware"));
    assert_true(contains("Ballast"));
}

/* The UUID in the structure of type 1, which follows that of type 0. */
static void read_uuid(uint8_t uuid[16])
{
    gpa_t rsdp;
    memset(low_memory, 0, sizeof low_memory);
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    uint64_t table = get(0xf0018, 4);
    for (table += low_memory[table + 1]; get(table, 2); table++) {}
    assert_int_equal(low_memory[table + 2], 1);
    memcpy(uuid, low_memory + table + 2 + 8, 16);
}

/* Seed and name of a VM decide its UUID, whatever was drawn for others. */
static void test_uuid(void **state)
{
    (void)state;
    uint8_t first[16], other[16], again[16];
    random_set_seed(1);
    read_uuid(first);
    assert_int_equal(first[7] >> 4, 4);
    assert_int_equal(first[8] >> 6, 2);
    strcpy(fake.vm.config.name, "other");
    read_uuid(other);
    assert_memory_not_equal(first, other, 16);
    strcpy(fake.vm.config.name, "fake");
    read_uuid(again);
    assert_memory_equal(first, again, 16);
    random_set_seed(2);
    read_uuid(again);
    assert_memory_not_equal(first, again, 16);
}

static void test_garbage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 11);
    for (int i = 0; i < 300000; i++) {
        static const uint16_t ports[] = {0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71};
        uint16_t port = ports[rng_below(&rng, 7)];
        unsigned size = 1u << rng_below(&rng, 3);
        if (rng_below(&rng, 2)) {
            out(port, size, rng_next(&rng));
        } else {
            in(port, size);
        }
        fake.now_ns += rng_next(&rng) >> rng_below(&rng, 64);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_endings),   TEST(test_absent),  TEST(test_vmware), TEST(test_pit_channel2),
        TEST(test_pit_latch), TEST(test_rtc),     TEST(test_acpi),   TEST(test_smbios),
        TEST(test_uuid),      TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
