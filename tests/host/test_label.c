/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Partition tables and file system marks (kernel/drivers/label.c), on good, damaged and random disks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/drivers/label.h"
#include "kernel/lib/crc32.h"
#include "kernel/lib/rng.h"
#include "tests/host/partitions.h"

#define SECTORS 2048u
#define BYTES (SECTORS * 512u)

static uint8_t disk[BYTES];
static uint8_t page[LABEL_PAGE];
static struct label label;
static uint64_t unreadable; /* reads that touch this sector fail; 0: none */

static enum hv_err read_disk(void *arg, uint64_t sector, void *out)
{
    const struct label_source *s = arg;

    assert_true(sector % (s->sector_bytes / 512) == 0);
    assert_true(sector <= SECTORS - 8);
    if (unreadable != 0 && sector <= unreadable && unreadable < sector + 8) {
        return HV_EIO;
    }
    memcpy(out, disk + sector * 512, LABEL_PAGE);
    return HV_OK;
}

static struct label_source source = {.read = read_disk, .arg = &source, .nr_sectors = SECTORS};

static int start(void **state)
{
    (void)state;
    memset(disk, 0, sizeof(disk));
    source.sector_bytes = 512;
    unreadable = 0;
    return 0;
}

static void mbr_entry(size_t sector, unsigned i, uint8_t type, uint32_t first, uint32_t nr)
{
    partitions_mbr(disk, sector, i, type, first, nr);
}

static void gpt_header(uint64_t lba, uint64_t entries)
{
    partitions_gpt_header(disk, source.sector_bytes, lba, entries);
}

static void gpt_entry(uint64_t entries, unsigned i, const uint8_t type[16], uint64_t first,
                      uint64_t last, const char *name)
{
    partitions_gpt_entry(disk, source.sector_bytes, entries, i, type, first, last, name);
}

/* Two partitions, entries 1 and 100, in both tables. */
static void make_gpt(void)
{
    uint64_t last = BYTES / source.sector_bytes - 1;
    uint64_t table = 128 * 128 / source.sector_bytes;
    uint64_t entries[2] = {2, last - table};

    mbr_entry(0, 0, 0xee, 1, 0xffffffff);
    for (unsigned i = 0; i < 2; i++) {
        gpt_entry(entries[i], 0, partitions_linux, 64, 127, "root");
        gpt_entry(entries[i], 99, label_swap_type, 128, 191, "swap \xe4");
        gpt_header(i == 0 ? 1 : last, entries[i]);
    }
}

static void expect_gpt(const char *problem)
{
    uint64_t unit = source.sector_bytes / 512;
    char buf[40];

    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_int_equal(label.kind, LABEL_GPT);
    if (problem == NULL) {
        assert_null(label.problem);
    } else {
        assert_string_equal(label.problem, problem);
    }
    assert_int_equal(label.nr_parts, 2);
    assert_int_equal(label.parts[0].number, 1);
    assert_int_equal(label.parts[0].first, 64 * unit);
    assert_int_equal(label.parts[0].nr_sectors, 64 * unit);
    assert_string_equal(label.parts[0].name, "root");
    assert_string_equal(label_type(&label.parts[0], LABEL_GPT, buf), "Linux filesystem");
    assert_int_equal(label.parts[1].number, 100);
    assert_string_equal(label.parts[1].name, "swap ?");
    assert_string_equal(label_type(&label.parts[1], LABEL_GPT, buf), "Ballast swap");
    assert_memory_equal(label.parts[1].type, label_swap_type, 16);
}

static void test_gpt(void **state)
{
    (void)state;
    make_gpt();
    expect_gpt(NULL);
}

static void test_gpt_4k(void **state)
{
    (void)state;
    source.sector_bytes = 4096;
    make_gpt();
    expect_gpt(NULL);
}

static void test_gpt_damaged(void **state)
{
    const char *second = "the first GPT is damaged, the second is used";

    (void)state;
    make_gpt();
    disk[512 + 60] ^= 1; /* header */
    expect_gpt(second);
    disk[512 + 60] ^= 1;
    disk[1024 + 128 * 50] ^= 1; /* an entry */
    expect_gpt(second);
    unreadable = 20;
    expect_gpt(second);
    unreadable = 0;
    disk[BYTES - 512 + 30] ^= 1;
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_string_equal(label.problem, "both GPTs are damaged");
    assert_int_equal(label.nr_parts, 0);
    unreadable = 1;
    assert_int_equal(label_read(&source, page, &label), HV_EIO);
}

/* A partition that reaches beyond the disk is not shown. */
static void test_gpt_beyond(void **state)
{
    (void)state;
    make_gpt();
    gpt_entry(2, 1, partitions_linux, 100, SECTORS, "big");
    gpt_entry(2, 2, partitions_linux, 100, 99, "negative");
    gpt_entry(2, 3, partitions_linux, UINT64_MAX, UINT64_MAX, "far");
    gpt_header(1, 2);
    expect_gpt(NULL);
}

static void test_mbr(void **state)
{
    char buf[40];

    (void)state;
    mbr_entry(0, 0, 0x83, 63, 100);
    mbr_entry(0, 1, 0x0f, 200, 800);
    mbr_entry(0, 3, 0x82, 1500, 500);
    mbr_entry(200, 0, 0x07, 10, 100);
    mbr_entry(200, 1, 0x05, 300, 200);
    mbr_entry(500, 0, 0x42, 8, 100);
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_int_equal(label.kind, LABEL_MBR);
    assert_int_equal(label.nr_parts, 5);
    assert_int_equal(label.parts[0].first, 63);
    assert_int_equal(label.parts[2].number, 4);
    assert_string_equal(label_type(&label.parts[2], LABEL_MBR, buf), "Linux swap");
    assert_int_equal(label.parts[3].number, 5);
    assert_int_equal(label.parts[3].first, 210);
    assert_int_equal(label.parts[4].number, 6);
    assert_int_equal(label.parts[4].first, 508);
    assert_string_equal(label_type(&label.parts[4], LABEL_MBR, buf), "type 0x42");
}

/* The chain of logical partitions runs in a circle. */
static void test_mbr_loop(void **state)
{
    (void)state;
    mbr_entry(0, 0, 0x05, 200, 800);
    mbr_entry(200, 0, 0x83, 10, 100);
    mbr_entry(200, 1, 0x05, 0, 200);
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_int_equal(label.nr_parts, LABEL_PARTS_MAX);
}

static void test_no_table(void **state)
{
    (void)state;
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_int_equal(label.kind, LABEL_NONE);
    /* A boot sector's code where the table would be. */
    memset(disk + 446, 0x31, 64);
    disk[510] = 0x55;
    disk[511] = 0xaa;
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    assert_int_equal(label.kind, LABEL_NONE);
    unreadable = 7;
    assert_int_equal(label_read(&source, page, &label), HV_EIO);
    source.nr_sectors = 4; /* less than a page */
    assert_int_equal(label_read(&source, page, &label), HV_OK);
    source.nr_sectors = SECTORS;
}

static void expect_content(size_t at, const char *mark, size_t len, const char *name)
{
    size_t base = 100 * 512;

    memset(disk, 0, sizeof(disk));
    memcpy(disk + base + at, mark, len);
    assert_string_equal(label_content(&source, 100, 1000, page), name);
}

static void test_content(void **state)
{
    (void)state;
    expect_content(1080, "\x53\xef", 2, "ext2, ext3 or ext4");
    expect_content(0, "BALLAST-SWAP-01", 16, "Ballast swap area");
    expect_content(4086, "SWAPSPACE2", 10, "Linux swap");
    expect_content(32769, "CD001", 5, "ISO 9660");
    expect_content(65600, "_BHRfS_M", 8, "btrfs");
    expect_content(70, "x", 1, "unknown data");
    expect_content(70, "", 0, "blank");
    memcpy(disk + 100 * 512 + 32769, "CD001", 5);
    assert_string_equal(label_content(&source, 100, 8, page), "blank"); /* beyond the partition */
    unreadable = 101;
    assert_null(label_content(&source, 100, 1000, page));
}

/* The swap area's own mark hides no other. */
static void test_foreign(void **state)
{
    uint8_t *area = disk + 100 * 512;
    const char *name;

    (void)state;
    memcpy(area, "BALLAST-SWAP-01", 16);
    assert_int_equal(label_foreign(&source, 100, 1000, page, &name), HV_OK);
    assert_null(name);
    memcpy(area + 65600, "_BHRfS_M", 8);
    assert_string_equal(label_content(&source, 100, 1000, page), "Ballast swap area");
    assert_int_equal(label_foreign(&source, 100, 1000, page, &name), HV_OK);
    assert_string_equal(name, "btrfs");
    memcpy(area + 1080, "\x53\xef", 2);
    assert_int_equal(label_foreign(&source, 100, 1000, page, &name), HV_OK);
    assert_string_equal(name, "ext2, ext3 or ext4");
    unreadable = 101;
    assert_int_equal(label_foreign(&source, 100, 1000, page, &name), HV_EIO);
}

static void test_crc(void **state)
{
    (void)state;
    assert_int_equal(crc32(0, "123456789", 9), 0xcbf43926);
    assert_int_equal(crc32(crc32(0, "1234", 4), "56789", 5), 0xcbf43926);
}

/* Good tables with random damage: no read outside of the disk (read_disk asserts), no partition outside
 * of it, no endless loop. */
static void test_hostile(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, 11);
    for (unsigned round = 0; round < 3000; round++) {
        start(NULL);
        source.sector_bytes = rng_below(&rng, 2) ? 512 : 4096;
        if (rng_below(&rng, 2)) {
            make_gpt();
        } else {
            mbr_entry(0, 0, 0x05, 200, 800);
            mbr_entry(200, 0, 0x83, 10, 100);
            mbr_entry(200, 1, 0x05, (uint32_t)rng_next(&rng), 200);
        }
        for (unsigned i = 0; i < 1 + round % 16; i++) {
            disk[rng_below(&rng, 3) ? rng_below(&rng, 2048) : rng_below(&rng, BYTES)] =
                (uint8_t)rng_next(&rng);
        }
        if (rng_below(&rng, 2)) { /* damage that the checksum does not show */
            size_t unit = source.sector_bytes;

            partitions_put64(disk + unit + 72, rng_below(&rng, 4) ? 2 : rng_next(&rng));
            partitions_put32(disk + unit + 80, (uint32_t)rng_next(&rng) >> rng_below(&rng, 32));
            partitions_put32(disk + unit + 16, 0);
            partitions_put32(disk + unit + 16, crc32(0, disk + unit, 92));
        }
        if (label_read(&source, page, &label) != HV_OK) {
            continue;
        }
        for (unsigned i = 0; i < label.nr_parts; i++) {
            const struct label_part *p = &label.parts[i];

            assert_true(p->first < SECTORS && p->nr_sectors <= SECTORS - p->first);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_gpt, start),
        cmocka_unit_test_setup(test_gpt_4k, start),
        cmocka_unit_test_setup(test_gpt_damaged, start),
        cmocka_unit_test_setup(test_gpt_beyond, start),
        cmocka_unit_test_setup(test_mbr, start),
        cmocka_unit_test_setup(test_mbr_loop, start),
        cmocka_unit_test_setup(test_no_table, start),
        cmocka_unit_test_setup(test_content, start),
        cmocka_unit_test_setup(test_foreign, start),
        cmocka_unit_test_setup(test_crc, start),
        cmocka_unit_test_setup(test_hostile, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
