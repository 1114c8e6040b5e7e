/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI table parser: sane tables, each kind of damage, and random damage under the sanitizers. Every
 * mapping is a fresh allocation of exactly the bytes asked for, so that a read beyond them is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "arch/x86_64/acpi_tables.h"
#include "kernel/lib/rng.h"
#include "kernel/lib/string.h"

#define MEM_BASE 0xe0000u
#define MEM_SIZE 0x4000u
#define RSDP_PA 0xe0010u
#define XSDT_PA 0xe1000u
#define RSDT_PA 0xe1200u
#define MADT_PA 0xe1400u
#define FADT_PA 0xe1800u
#define DSDT_PA 0xe1c00u
#define HPET_PA 0xe2000u
#define DMAR_PA 0xe2100u
#define IVRS_PA 0xe2200u
#define MAX_MAPS 8192

static uint8_t memory[MEM_SIZE];
static void *maps[MAX_MAPS];
static unsigned nr_maps, nr_reports;

static uint8_t *at(uint64_t pa)
{
    return memory + (pa - MEM_BASE);
}

static const void *map(void *arg, uint64_t pa, uint64_t size)
{
    (void)arg;
    if (pa < MEM_BASE || pa - MEM_BASE > MEM_SIZE || size > MEM_SIZE - (pa - MEM_BASE) ||
        nr_maps == MAX_MAPS) {
        return NULL;
    }
    maps[nr_maps] = malloc(size);
    memcpy(maps[nr_maps], at(pa), size);
    return maps[nr_maps++];
}

static void count_report(void *arg, const char *message)
{
    (void)arg;
    assert_true(strlen(message) > 0);
    nr_reports++;
}

static const struct acpi_source source = {map, count_report, NULL};

static void put(uint64_t pa, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at(pa)[i] = (uint8_t)(v >> (8 * i));
    }
}

static void fix_sum(uint64_t pa, size_t size, size_t sum_at)
{
    uint8_t sum = 0;

    at(pa)[sum_at] = 0;
    for (size_t i = 0; i < size; i++) {
        sum = (uint8_t)(sum + at(pa)[i]);
    }
    at(pa)[sum_at] = (uint8_t)-sum;
}

static void seal(uint64_t pa)
{
    uint64_t size = (uint64_t)at(pa)[4] | (uint64_t)at(pa)[5] << 8;

    fix_sum(pa, size < MEM_SIZE - (pa - MEM_BASE) ? size : 0, 9);
}

static void begin_table(uint64_t pa, const char *signature, uint32_t size)
{
    memcpy(at(pa), signature, 4);
    put(pa + 4, size, 4);
}

static void build_madt(void)
{
    uint64_t e = MADT_PA + 44;

    put(MADT_PA + 36, 0xfee00000, 4);
    put(MADT_PA + 40, 1, 4);
    for (unsigned i = 0; i < 3; i++, e += 8) { /* the third is disabled */
        put(e, 0, 1);
        put(e + 1, 8, 1);
        put(e + 2, i, 1);
        put(e + 3, i * 2, 1);
        put(e + 4, i < 2, 4);
    }
    put(e, 1, 1), put(e + 1, 12, 1), put(e + 4, 0xfec00000, 4), put(e + 8, 0, 4);
    e += 12;
    put(e, 2, 1), put(e + 1, 10, 1), put(e + 3, 9, 1), put(e + 4, 20, 4), put(e + 8, 0xf, 2);
    e += 10;
    put(e, 9, 1), put(e + 1, 16, 1), put(e + 4, 300, 4), put(e + 8, 1, 4), put(e + 12, 7, 4);
    e += 16;
    put(e, 9, 1), put(e + 1, 16, 1), put(e + 4, 2, 4), put(e + 8, 1, 4); /* again APIC 2 */
    e += 16;
    begin_table(MADT_PA, "APIC", (uint32_t)(e - MADT_PA));
    seal(MADT_PA);
}

static void build_fadt(void)
{
    static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12, 0x06, 0x04, 0x0a, 0x05, 0x01};

    begin_table(FADT_PA, "FACP", 244);
    put(FADT_PA + 40, DSDT_PA, 4);
    put(FADT_PA + 48, 0xb2, 4);
    put(FADT_PA + 52, 2, 1);
    put(FADT_PA + 64, 0x604, 4);
    put(FADT_PA + 76, 0x608, 4);
    put(FADT_PA + 112, BIT(10) | BIT(8), 4);
    put(FADT_PA + 116, ACPI_SPACE_IO, 1);
    put(FADT_PA + 120, 0xcf9, 8);
    put(FADT_PA + 128, 0x0f, 1);
    seal(FADT_PA);
    begin_table(DSDT_PA, "DSDT", 36 + 8 + sizeof(s5));
    memcpy(at(DSDT_PA + 36 + 8), s5, sizeof(s5));
    seal(DSDT_PA);
}

static void build(void)
{
    static const uint32_t tables[] = {MADT_PA, FADT_PA, HPET_PA, DMAR_PA, IVRS_PA};

    memset(memory, 0, sizeof(memory));
    memcpy(at(RSDP_PA), "RSD PTR ", 8);
    put(RSDP_PA + 15, 2, 1);
    put(RSDP_PA + 16, RSDT_PA, 4);
    put(RSDP_PA + 20, 36, 4);
    put(RSDP_PA + 24, XSDT_PA, 8);
    fix_sum(RSDP_PA, 20, 8);
    fix_sum(RSDP_PA, 36, 32);

    begin_table(XSDT_PA, "XSDT", 36 + 8 * ARRAY_SIZE(tables));
    begin_table(RSDT_PA, "RSDT", 36 + 4 * ARRAY_SIZE(tables));
    for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
        put(XSDT_PA + 36 + 8 * i, tables[i], 8);
        put(RSDT_PA + 36 + 4 * i, tables[i], 4);
    }
    seal(XSDT_PA);
    seal(RSDT_PA);
    build_madt();
    build_fadt();
    begin_table(HPET_PA, "HPET", 56);
    put(HPET_PA + 44, 0xfed00000, 8);
    seal(HPET_PA);
    begin_table(DMAR_PA, "DMAR", 48 + 16);
    put(DMAR_PA + 48 + 2, 16, 2);
    put(DMAR_PA + 48 + 8, 0xfed90000, 8);
    seal(DMAR_PA);
    begin_table(IVRS_PA, "IVRS", 48 + 24);
    put(IVRS_PA + 48, 0x11, 1);
    put(IVRS_PA + 50, 24, 2);
    put(IVRS_PA + 56, 0xfd000000, 8);
    seal(IVRS_PA);
    nr_reports = 0;
}

static void free_maps(void)
{
    while (nr_maps > 0) {
        free(maps[--nr_maps]);
    }
}

static enum hv_err parse(struct acpi_info *info)
{
    void *rsdp = malloc(36);

    memcpy(rsdp, at(RSDP_PA), 36);
    enum hv_err err = acpi_parse(&source, rsdp, 36, info);
    free(rsdp);
    free_maps();
    return err;
}

static void check_sane(const struct acpi_info *info)
{
    assert_true(info->found);
    assert_int_equal(info->nr_cpus, 3);
    assert_int_equal(info->cpus[0].apic_id, 0);
    assert_int_equal(info->cpus[1].apic_id, 2);
    assert_int_equal(info->cpus[2].apic_id, 300);
    assert_int_equal(info->cpus[2].uid, 7);
    assert_int_equal(info->nr_ioapics, 1);
    assert_int_equal(info->ioapics[0].pa, 0xfec00000);
    assert_int_equal(info->nr_overrides, 1);
    assert_int_equal(info->overrides[0].isa_irq, 9);
    assert_int_equal(info->overrides[0].gsi, 20);
    assert_true(info->overrides[0].level);
    assert_true(info->overrides[0].active_low);
    assert_true(info->have_s5);
    assert_int_equal(info->s5_type_a, 5);
    assert_int_equal(info->s5_type_b, 1);
    assert_int_equal(info->pm1a_control.address, 0x604);
    assert_int_equal(info->pm_timer.address, 0x608);
    assert_true(info->pm_timer_32bit);
    assert_int_equal(info->reset.address, 0xcf9);
    assert_int_equal(info->reset_value, 0x0f);
    assert_int_equal(info->hpet_pa, 0xfed00000);
    assert_int_equal(info->nr_iommus, 2);
    assert_int_equal(info->iommus[0].pa, 0xfed90000);
    assert_int_equal(info->iommus[1].kind, ACPI_IOMMU_IVRS);
}

static void test_sane_tables(void **state)
{
    static struct acpi_info info;
    (void)state;

    build();
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(nr_reports, 0);
    assert_int_equal(info.nr_bad, 0);
    check_sane(&info);
}

static void test_rsdp_is_found_in_bios_area(void **state)
{
    uint64_t pa = 0;
    (void)state;

    build();
    assert_int_equal(acpi_find_rsdp(&source, &pa), HV_OK);
    assert_int_equal(pa, RSDP_PA);
    free_maps();
    at(RSDP_PA)[10] ^= 1;
    assert_int_equal(acpi_find_rsdp(&source, &pa), HV_ENOENT);
    free_maps();
}

static void test_old_root_when_new_one_is_damaged(void **state)
{
    static struct acpi_info info;
    (void)state;

    build();
    at(RSDP_PA)[33] ^= 1; /* only in the extended checksum */
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(nr_reports, 1);
    check_sane(&info);

    build();
    at(XSDT_PA)[12] ^= 1;
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_bad, 1);
    check_sane(&info);
}

static void test_wrong_checksum_leaves_one_table_out(void **state)
{
    static struct acpi_info info;
    (void)state;

    build();
    at(MADT_PA)[50] ^= 0x10;
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_bad, 1);
    assert_int_equal(nr_reports, 1);
    assert_int_equal(info.nr_cpus, 0);
    assert_int_equal(info.lapic_pa, ACPI_DEFAULT_LAPIC);
    assert_true(info.have_s5);

    build();
    at(DSDT_PA)[40] ^= 1;
    assert_int_equal(parse(&info), HV_OK);
    assert_true(info.have_fadt);
    assert_false(info.have_s5);
}

static void test_truncated_and_absent_tables(void **state)
{
    static struct acpi_info info;
    (void)state;

    build();
    put(HPET_PA + 4, 20, 4); /* shorter than a header */
    put(DMAR_PA + 4, 0x7fffffff, 4);
    put(XSDT_PA + 36, 0xdeadbeef000, 8); /* no memory there */
    seal(XSDT_PA);
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_bad, 3);
    assert_false(info.have_hpet);
    assert_int_equal(info.nr_iommus, 1);

    build();
    put(RSDP_PA + 16, 0, 4);
    put(RSDP_PA + 24, 0, 8);
    fix_sum(RSDP_PA, 20, 8);
    fix_sum(RSDP_PA, 36, 32);
    assert_int_equal(parse(&info), HV_ENOENT);
    assert_false(info.found);
    assert_int_equal(acpi_parse(&source, NULL, 0, &info), HV_ENOENT);
}

static void test_loops_and_bad_entry_lengths(void **state)
{
    static struct acpi_info info;
    (void)state;

    build();
    put(XSDT_PA + 36, XSDT_PA, 8); /* the root names itself */
    put(XSDT_PA + 44, DSDT_PA, 8);
    seal(XSDT_PA);
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_cpus, 0);

    build();
    put(MADT_PA + 44 + 8 + 1, 0, 1); /* an entry without length would loop for ever */
    seal(MADT_PA);
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_cpus, 1);
    assert_int_equal(nr_reports, 1);

    build();
    put(DMAR_PA + 50, 400, 2); /* beyond the table */
    seal(DMAR_PA);
    assert_int_equal(parse(&info), HV_OK);
    assert_int_equal(info.nr_iommus, 1);
}

static void test_s5_package_cut_off(void **state)
{
    static struct acpi_info info;
    (void)state;

    for (uint32_t size = 36 + 8; size < 36 + 8 + 11; size++) {
        build();
        put(DSDT_PA + 4, size, 4);
        seal(DSDT_PA);
        assert_int_equal(parse(&info), HV_OK);
        assert_true(!info.have_s5 || info.s5_type_a == 5);
    }
}

static void test_random_damage(void **state)
{
    static const uint32_t tables[] = {XSDT_PA, RSDT_PA, MADT_PA, FADT_PA,
                                      DSDT_PA, HPET_PA, DMAR_PA, IVRS_PA};
    static struct acpi_info info;
    struct rng rng;
    (void)state;

    rng_seed(&rng, 1);
    for (unsigned round = 0; round < 20000; round++) {
        build();
        for (uint64_t n = rng_below(&rng, 12) + 1; n > 0; n--) {
            uint32_t pa = tables[rng_below(&rng, ARRAY_SIZE(tables))];

            at(pa)[rng_below(&rng, 256)] = (uint8_t)rng_next(&rng);
        }
        for (unsigned i = 0; i < ARRAY_SIZE(tables); i++) {
            seal(tables[i]); /* past the checksums, to the parsers */
        }
        (void)!parse(&info);
        assert_true(info.nr_cpus <= ACPI_MAX_CPUS && info.nr_iommus <= ACPI_MAX_IOMMUS &&
                    info.nr_overrides <= ACPI_MAX_OVERRIDES && info.nr_ioapics <= ACPI_MAX_IOAPICS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sane_tables),
        cmocka_unit_test(test_rsdp_is_found_in_bios_area),
        cmocka_unit_test(test_old_root_when_new_one_is_damaged),
        cmocka_unit_test(test_wrong_checksum_leaves_one_table_out),
        cmocka_unit_test(test_truncated_and_absent_tables),
        cmocka_unit_test(test_loops_and_bad_entry_lengths),
        cmocka_unit_test(test_s5_package_cut_off),
        cmocka_unit_test(test_random_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
