/* SPDX-License-Identifier: BSD-2-Clause */
/* Platform ports, VMware calls, firmware tables. */
#include "kernel/devices/platform.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/devices/bus.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vfwcfg.h"
#include "kernel/devices/vlapic.h"
#include "kernel/devices/vmware.h"
#include "kernel/lib/random.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/guestmem.h"
#include "tests/host/fakevm.h"

static struct vfwcfg *fwcfg;
static uint8_t low_memory[0x100000];

uint64_t vlapic_bus_hz(void)
{
    return 125000000;
}

enum hv_err guestmem_write(struct vm *vm, gpa_t gpa, const void *src, size_t len)
{
    (void)vm;
    assert_true(gpa.a + len <= 0x500 || gpa.a == 0x9f000 || gpa.a >= 0xe0000);
    assert_true(gpa.a + len <= 0x100000);
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
           vmware_create(&fake.vm) || vfwcfg_create(&fake.vm, &fwcfg);
}

static int teardown(void **state)
{
    (void)state;
    vfwcfg_destroy(fwcfg);
    bus_destroy(fake.vm.bus);
    return 0;
}

static void test_endings(void **state)
{
    (void)state;
    out(0xcf9, 1, 0x02);
    out(0xcf8, 4, 0x80000004);
    assert_int_equal(fake.stops, 0);
    out(0xcf9, 1, 0x06);
    assert_int_equal(fake.vm.stop_reason, STOP_RESET);
    out(0xf4, 1, 5);
    assert_int_equal(fake.vm.stop_reason, STOP_DEBUG_EXIT);
    assert_int_equal(fake.vm.stop_code, 11);
    out(0x92, 1, 1);
    assert_int_equal(fake.stops, 3);
}

static unsigned irq_set, line_set;
static bool level_set;

void isa_irq_set(struct vm *vm, unsigned irq, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    irq_set = irq;
    level_set = level;
}

void vioapic_set_line(struct vm *vm, unsigned gsi, bool level)
{
    assert_ptr_equal(vm, &fake.vm);
    line_set = gsi;
    level_set = level;
}

static void test_test_irqs(void **state)
{
    (void)state;
    out(0x200e, 1, 1);
    assert_int_equal(irq_set, 14);
    assert_true(level_set);
    out(0x200e, 4, 0);
    assert_false(level_set);
    out(0x2017, 1, 1);
    assert_int_equal(line_set, 23);
    assert_true(level_set);
    assert_int_equal(in(0x2001, 1), 0xff);
}

static void test_absent(void **state)
{
    (void)state;
    uint64_t ports, mmio;
    assert_int_equal(in(0xcfc, 4), 0xffffffff);
    assert_int_equal(in(0xcfe, 2), 0xffff);
    assert_int_equal(in(0x2f9, 1), 0xff);
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

static uint64_t fw_number(uint16_t item, unsigned bytes)
{
    uint64_t v = 0;
    out(0x510, 2, item);
    for (unsigned i = 0; i < bytes; i++) {
        v |= (uint64_t)in(0x511, 1) << (8 * i);
    }
    return v;
}

static void test_fw_cfg(void **state)
{
    (void)state;
    char text[16];
    fake.vm.config.memory_bytes = MIB(64);
    strcpy(fake.vm.config.cmdline, "a=1 b");
    assert_int_equal(fw_number(0, 4), 0x554d4551); /* QEMU */
    assert_int_equal(in(0x511, 1), 0);             /* behind the end */
    assert_int_equal(fw_number(1, 4), 1);
    assert_int_equal(fw_number(3, 8), MIB(64));
    assert_int_equal(fw_number(5, 2), 2);
    assert_int_equal(fw_number(0x0f, 2), 2);
    assert_int_equal(fw_number(0x14, 4), 6);
    out(0x510, 2, 0x15);
    for (unsigned i = 0; i < 6; i++) {
        text[i] = (char)in(0x511, 1);
    }
    assert_string_equal(text, "a=1 b");
    assert_int_equal(fw_number(0x19, 4), 0x01000000);
    assert_int_equal(in(0x511, 1) << 24 | in(0x511, 1) << 16 | in(0x511, 1) << 8 | in(0x511, 1),
                     80);
    assert_int_equal(in(0x511, 1) << 8 | in(0x511, 1), 0x20);
    in(0x511, 2); /* reserved; the upper byte of a wide read is a port further on */
    in(0x511, 1);
    assert_int_equal(in(0x511, 1), 'e');
    out(0x510, 2, 0x20);
    for (unsigned i = 0; i < 60; i++) {
        in(0x511, 1);
    }
    uint64_t base = 0;
    for (unsigned i = 0; i < 8; i++) {
        base |= (uint64_t)in(0x511, 1) << (8 * i);
    }
    assert_int_equal(base, MIB(1));
    assert_int_equal(fw_number(0x4000, 8), 0);
    out(0x510, 1, 5); /* half a selector */
    out(0x511, 1, 5);
    assert_int_equal(in(0x510, 2), 0);
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

/* What is in low memory agrees with the memory map, and every vector leads to code. */
static void test_bios(void **state)
{
    (void)state;
    gpa_t rsdp;
    fake.vm.config.memory_bytes = MIB(64);
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    assert_int_equal(low_memory[0x413] | low_memory[0x414] << 8, 0x9f000 / 1024);
    assert_int_equal((low_memory[0x40e] | low_memory[0x40f] << 8) << 4, 0x9f000);
    assert_int_equal(low_memory[0x9f000], 4);
    assert_int_equal(low_memory[0x400] | low_memory[0x401] << 8, 0x3f8);
    for (unsigned i = 0; i < 256; i++) {
        uint32_t v;
        memcpy(&v, &low_memory[4 * i], 4);
        const uint8_t *code = &low_memory[(v >> 16 << 4) + (v & 0xffff)];
        assert_int_equal(v >> 16, 0xf000);
        assert_true(*code == 0xcf || *code == 0xf9 || *code == 0xb8 || *code == 0xb4);
    }
    assert_int_equal(low_memory[0xffff0], 0xba);
    assert_int_equal(low_memory[0xffff1] | low_memory[0xffff2] << 8, 0xcf9);
    fake.vm.config.memory_bytes = KIB(512);
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    assert_int_equal(low_memory[0x413] | low_memory[0x414] << 8, 512);
}

/* Only what there is appears: the SSDT's devices, and the SSDT itself. */
static void test_acpi_virtio(void **state)
{
    gpa_t rsdp;

    (void)state;
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    uint64_t xsdt = get(rsdp.a + 24, 8);
    assert_int_equal(get(xsdt + 4, 4), 36 + 3 * 8);
    for (unsigned nr = 1; nr <= 8; nr++) {
        fake.vm.nr_virtio = nr;
        assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
        assert_int_equal(get(xsdt + 4, 4), 36 + 4 * 8);
        assert_int_equal(sum(xsdt, get(xsdt + 4, 4)), 0);
        uint64_t rsdt = get(rsdp.a + 16, 4);
        assert_memory_equal(low_memory + rsdt, "RSDT", 4);
        assert_int_equal(get(rsdt + 4, 4), 36 + 4 * 4);
        assert_int_equal(sum(rsdt, get(rsdt + 4, 4)), 0);
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(get(rsdt + 36 + 4 * i, 4), get(xsdt + 36 + 8 * i, 8));
        }
        uint64_t ssdt = get(xsdt + 36 + 3 * 8, 8), len = get(ssdt + 4, 4);
        assert_memory_equal(low_memory + ssdt, "SSDT", 4);
        assert_int_equal(sum(ssdt, (unsigned)len), 0);
        /* Scope (\\_SB), whose length and whose devices' lengths add up. */
        uint64_t at = ssdt + 36;
        assert_int_equal(get(at, 1), 0x10);
        assert_int_equal((get(at + 1, 1) & 0xf) | get(at + 2, 1) << 4, len - 36 - 1);
        assert_memory_equal(low_memory + at + 3, "\\_SB_", 5);
        at += 8;
        for (unsigned i = 0; i < nr; i++) {
            uint64_t bytes = (get(at + 2, 1) & 0xf) | get(at + 3, 1) << 4;
            assert_int_equal(get(at, 2), 0x825b);
            assert_memory_equal(low_memory + at + 14, "LNRO0005", 9);
            assert_int_equal(low_memory[at + 7], '0' + i);
            assert_int_equal(get(at + 2 + bytes - 2 - 9 - 8, 4), 0xfeb00000 + 0x1000 * i);
            assert_int_equal(get(at + 2 + bytes - 2 - 4, 4), 16 + i);
            at += 2 + bytes;
        }
        assert_int_equal(at, ssdt + len);
    }
    fake.vm.nr_virtio = 0;
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
    /* WBINVD, C1, no fixed buttons, no wake by clock, a reset register; not hardware-reduced. */
    assert_int_equal(get(fadt + 112, 4), 1u << 10 | 7u << 4 | 5);
    assert_int_equal(get(fadt + 109, 2), 5);
    assert_int_equal(get(fadt + 46, 2), 9);
    assert_int_equal(get(fadt + 56, 4), 0x600);
    assert_int_equal(get(fadt + 64, 4), 0x604);
    assert_int_equal(get(fadt + 76, 4), 0x608);
    assert_int_equal(get(fadt + 88, 4), 0x04000204);
    assert_int_equal(get(fadt + 148 + 4, 8), 0x600);
    assert_int_equal(get(fadt + 172 + 4, 8), 0x604);
    assert_int_equal(get(fadt + 208 + 4, 8), 0x608);
    uint64_t facs = get(fadt + 36, 4);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(low_memory + facs, "FACS", 4);
    assert_memory_equal(low_memory + get(fadt + 140, 8), "DSDT", 4);
    assert_int_equal(get(fadt + 140, 8), get(fadt + 40, 4));
    assert_memory_equal(low_memory + madt, "APIC", 4);
    assert_int_equal(get(madt + 4, 4), 44 + 12 + 2 * 10 + 6 + 2 * 8);
    assert_int_equal(sum(madt, get(madt + 4, 4)), 0);
    uint64_t hpet = get(xsdt + 52, 8);
    assert_memory_equal(low_memory + hpet, "HPET", 4);
    assert_int_equal(sum(hpet, 56), 0);
    assert_int_equal(get(hpet + 44, 8), 0xfed00000);
}

/* Entries of each type, in order, and what they say. */
static void test_mptable(void **state)
{
    (void)state;
    unsigned count[5] = {0}, last = 0;
    gpa_t rsdp;
    assert_int_equal(acpi_tables_write(&fake.vm, &rsdp), HV_OK);
    uint64_t mp = 0xf0000;
    while (memcmp(low_memory + mp, "_MP_", 4)) {
        mp += 16;
        assert_in_range(mp, 0xf0000, 0xfffe0);
    }
    assert_int_equal(sum(mp, 16), 0);
    uint64_t table = get(mp + 4, 4), end = table + get(table + 4, 2);
    assert_memory_equal(low_memory + table, "PCMP", 4);
    assert_int_equal(sum(table, end - table), 0);
    for (uint64_t at = table + 44; at < end;) {
        unsigned type = low_memory[at];
        assert_in_range(type, last, 4);
        last = type;
        if (type == 0) {
            assert_int_equal(low_memory[at + 1], count[0]);
            assert_int_equal(low_memory[at + 3], count[0] ? 1 : 3);
        }
        if (type == 3) {
            unsigned irq = low_memory[at + 5];
            assert_int_equal(low_memory[at + 7], irq ? irq : 2);
            assert_int_equal(get(at + 2, 2), irq == 9 ? 13 : 0);
        }
        count[type]++;
        at += type ? 8 : 20;
    }
    assert_int_equal(count[0], 2);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 1);
    assert_int_equal(count[3], 15);
    assert_int_equal(count[4], 2);
    assert_int_equal(get(table + 34, 2), 21);
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

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_endings), TEST(test_test_irqs), TEST(test_absent),      TEST(test_vmware),
        TEST(test_bios),    TEST(test_acpi),      TEST(test_acpi_virtio), TEST(test_mptable),
        TEST(test_smbios),  TEST(test_uuid),      TEST(test_fw_cfg),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
