/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parser of loader data against well-formed, truncated and corrupted Multiboot2 and PVH blocks.
 * A block lives in heap memory of its exact size, so that AddressSanitizer sees any read beyond it.
 */
#include "boot/bootinfo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Make-believe physical memory: a few areas. */
struct area {
    uint64_t pa;
    uint64_t size;
    uint8_t *data;
};

static struct area areas[4];
static unsigned nr_areas;
static struct boot_info info;

static const void *map(uint64_t pa, uint64_t size)
{
    for (unsigned i = 0; i < nr_areas; i++) {
        const struct area *area = &areas[i];

        if (pa >= area->pa && pa - area->pa <= area->size && size <= area->size - (pa - area->pa)) {
            return area->data + (pa - area->pa);
        }
    }
    return NULL;
}

static const struct bootinfo_env env = {.map = map};

static void add_area(uint64_t pa, const void *data, uint64_t size)
{
    uint8_t *copy = malloc(size != 0 ? size : 1);

    assert_non_null(copy);
    memcpy(copy, data, size);
    areas[nr_areas++] = (struct area){.pa = pa, .size = size, .data = copy};
}

static int drop_areas(void **state)
{
    (void)state;
    while (nr_areas > 0) {
        free(areas[--nr_areas].data);
    }
    return 0;
}

/* ---- Building blocks ------------------------------------------------------------------------- */

struct builder {
    uint8_t bytes[65536];
    uint32_t used;
    uint32_t tag;
};

static void put(struct builder *b, const void *data, size_t size)
{
    assert_true(b->used + size <= sizeof(b->bytes));
    memcpy(b->bytes + b->used, data, size);
    b->used += (uint32_t)size;
}

static void put8(struct builder *b, uint8_t value)
{
    put(b, &value, sizeof(value));
}

static void put32(struct builder *b, uint32_t value)
{
    put(b, &value, sizeof(value));
}

static void put64(struct builder *b, uint64_t value)
{
    put(b, &value, sizeof(value));
}

static void put_string(struct builder *b, const char *text)
{
    put(b, text, strlen(text) + 1);
}

static void tag_begin(struct builder *b, uint32_t type)
{
    b->tag = b->used;
    put32(b, type);
    put32(b, 0);
}

static void tag_end(struct builder *b)
{
    uint32_t size = b->used - b->tag;

    memcpy(b->bytes + b->tag + 4, &size, sizeof(size));
    while (b->used % 8 != 0) {
        put8(b, 0);
    }
}

static void mb2_begin(struct builder *b)
{
    memset(b, 0, sizeof(*b));
    put64(b, 0);
}

static void mb2_end(struct builder *b)
{
    tag_begin(b, 0);
    tag_end(b);
    memcpy(b->bytes, &b->used, sizeof(b->used));
}

static void mb2_string(struct builder *b, uint32_t type, const char *text)
{
    tag_begin(b, type);
    put_string(b, text);
    tag_end(b);
}

static void mb2_module(struct builder *b, uint32_t start, uint32_t end, const char *text)
{
    tag_begin(b, 3);
    put32(b, start);
    put32(b, end);
    put_string(b, text);
    tag_end(b);
}

static void put_range(struct builder *b, uint64_t base, uint64_t size, uint32_t type)
{
    put64(b, base);
    put64(b, size);
    put32(b, type);
    put32(b, 0);
}

static void mb2_map_begin(struct builder *b)
{
    tag_begin(b, 6);
    put32(b, 24);
    put32(b, 0);
}

static void mb2_small_map(struct builder *b)
{
    mb2_map_begin(b);
    put_range(b, 0x100000, 0x7f00000, 1);
    put_range(b, 0, 0x9fc00, 1);
    put_range(b, 0x9fc00, 0x400, 2);
    tag_end(b);
}

static void mb2_rich(struct builder *b)
{
    static const uint8_t rsdp[36] = "RSD PTR ";

    mb2_begin(b);
    mb2_string(b, 1, "loglevel=debug seed=7");
    mb2_string(b, 2, "GRUB 2.06");
    mb2_module(b, 0x1000000, 0x1000100, "ballast.conf");
    mb2_module(b, 0x1001000, 0x1001000, "  vmlinuz   quiet console=ttyS0");
    mb2_small_map(b);
    tag_begin(b, 8);
    put64(b, 0xfd000000);
    put32(b, 4096);
    put32(b, 1024);
    put32(b, 768);
    put8(b, 32);
    put8(b, 1);
    put(b, "\0\0\20\10\10\10\0\10", 8);
    tag_end(b);
    tag_begin(b, 14);
    put(b, rsdp, 20);
    tag_end(b);
    tag_begin(b, 15);
    put(b, rsdp, 36);
    tag_end(b);
    tag_begin(b, 12);
    put64(b, 0x1234);
    tag_end(b);
    tag_begin(b, BOOT_TAG_SECURE_BOOT);
    put32(b, 1);
    tag_end(b);
    tag_begin(b, 4711);
    tag_end(b);
    mb2_end(b);
}

static enum hv_err parse_mb2(const struct builder *b, uint32_t size)
{
    drop_areas(NULL);
    add_area(0x10000, b->bytes, size);
    enum hv_err err = bootinfo_parse(BOOT_MAGIC_MULTIBOOT2, 0x10000, &env, &info);

    assert_int_equal(err == HV_OK, info.error == NULL);
    return err;
}

/* ---- Multiboot2 ------------------------------------------------------------------------------ */

static void mb2_reads_everything(void **state)
{
    static struct builder b;

    (void)state;
    mb2_rich(&b);
    assert_int_equal(parse_mb2(&b, b.used), HV_OK);
    assert_string_equal(info.cmdline, "loglevel=debug seed=7");
    assert_string_equal(info.loader, "GRUB 2.06");
    assert_int_equal(info.firmware, BOOT_FIRMWARE_UEFI);
    assert_int_equal(info.secure_boot, BOOT_SECURE_ON);
    assert_int_equal(info.rsdp_size, 36);
    assert_memory_equal(info.rsdp, "RSD PTR ", 8);
    assert_int_equal(info.fb.kind, BOOT_FB_RGB);
    assert_int_equal(info.fb.pa, 0xfd000000);
    assert_int_equal(info.fb.red_pos, 16);
    assert_int_equal(info.fb.blue_pos, 0);
    assert_int_equal(info.nr_modules, 2);
    assert_string_equal(info.modules[0].name, "ballast.conf");
    assert_string_equal(info.modules[0].args, "");
    assert_int_equal(info.modules[0].base, 0x1000000);
    assert_int_equal(info.modules[0].size, 0x100);
    assert_string_equal(info.modules[1].name, "vmlinuz");
    assert_string_equal(info.modules[1].args, "quiet console=ttyS0");
    assert_int_equal(info.modules[1].size, 0);
    assert_int_equal(info.nr_ranges, 3);
    assert_int_equal(info.ranges[0].base, 0);
    assert_int_equal(info.ranges[1].base, 0x9fc00);
    assert_int_equal(info.ranges[1].type, BOOT_RANGE_RESERVED);
    assert_int_equal(info.ranges[2].size, 0x7f00000);
    assert_ptr_equal(bootinfo_module(&info, "vmlinuz"), &info.modules[1]);
    assert_null(bootinfo_module(&info, "vmlinux"));
}

/* Every possible cut of the block is refused, whatever size it claims for itself. */
static void mb2_truncated(void **state)
{
    static struct builder b, cut;

    (void)state;
    mb2_rich(&b);
    for (uint32_t size = 0; size < b.used; size++) {
        assert_int_not_equal(parse_mb2(&b, size), HV_OK);
        cut = b;
        memcpy(cut.bytes, &size, sizeof(size));
        if (size >= 4) {
            assert_int_not_equal(parse_mb2(&cut, size), HV_OK);
        }
    }
}

/* Any byte may be wrong: the parser ends, reads nothing outside, and explains a refusal. */
static void mb2_corrupted(void **state)
{
    static struct builder b, bad;
    static const uint8_t values[] = {0x00, 0x01, 0x07, 0x08, 0x7f, 0x80, 0xff};

    (void)state;
    mb2_rich(&b);
    for (uint32_t at = 0; at < b.used; at++) {
        for (unsigned i = 0; i < sizeof(values); i++) {
            bad = b;
            bad.bytes[at] = values[i];
            (void)!parse_mb2(&bad, bad.used);
        }
    }
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        bad = b;
        for (int i = rand() % 8; i >= 0; i--) {
            bad.bytes[(uint32_t)rand() % bad.used] = (uint8_t)rand();
        }
        (void)!parse_mb2(&bad, bad.used);
    }
}

static void mb2_refuses(struct builder *b, const char *why)
{
    mb2_small_map(b);
    mb2_end(b);
    assert_int_not_equal(parse_mb2(b, b->used), HV_OK);
    assert_non_null(strstr(info.error, why));
    assert_null(strchr(info.error, '\n'));
}

static void mb2_bad_modules(void **state)
{
    static struct builder b;
    static char text[BOOT_MODULE_NAME_MAX + BOOT_MODULE_ARGS_MAX + 8];

    (void)state;
    mb2_begin(&b);
    mb2_module(&b, 0x2000, 0x1000, "x");
    mb2_refuses(&b, "ends before");
    mb2_begin(&b);
    mb2_module(&b, 0x1000, 0x2000, "");
    mb2_refuses(&b, "no name");
    mb2_begin(&b);
    memset(text, 'n', BOOT_MODULE_NAME_MAX);
    mb2_module(&b, 0x1000, 0x2000, text);
    mb2_refuses(&b, "too long");
    mb2_begin(&b);
    memset(text, 'n', sizeof(text) - 1);
    text[1] = ' ';
    mb2_module(&b, 0x1000, 0x2000, text);
    mb2_refuses(&b, "too long");
    mb2_begin(&b);
    for (unsigned i = 0; i <= BOOT_MAX_MODULES; i++) {
        mb2_module(&b, 0x1000, 0x2000, "many");
    }
    mb2_refuses(&b, "more boot modules");
}

static void mb2_long_cmdline(void **state)
{
    static struct builder b;
    static char text[BOOT_CMDLINE_MAX + 1];

    (void)state;
    memset(text, 'a', BOOT_CMDLINE_MAX);
    mb2_begin(&b);
    mb2_string(&b, 1, text);
    mb2_refuses(&b, "too long");
}

static void mb2_without_map(void **state)
{
    static struct builder b;

    (void)state;
    mb2_begin(&b);
    mb2_end(&b);
    assert_int_equal(parse_mb2(&b, b.used), HV_EINVAL);
    assert_non_null(strstr(info.error, "no memory map"));
}

static void unknown_protocol(void **state)
{
    (void)state;
    assert_int_equal(bootinfo_parse(0x2badb002, 0, &env, &info), HV_ENOTSUP);
    assert_int_equal(bootinfo_parse(BOOT_MAGIC_MULTIBOOT2, 0x10004, &env, &info), HV_EINVAL);
}

/* ---- Memory map ------------------------------------------------------------------------------ */

/* Caution wins where ranges overlap, and neighbours of one type become one. */
static void ranges_settle(void **state)
{
    static struct builder b;
    static const struct boot_range expected[] = {
        {0x0, 0x3000, BOOT_RANGE_USABLE},      {0x3000, 0x1000, BOOT_RANGE_BAD},
        {0x4000, 0x1000, BOOT_RANGE_RESERVED}, {0x5000, 0x1000, BOOT_RANGE_ACPI},
        {0x8000, 0x2000, BOOT_RANGE_USABLE},   {0xfffffffffffff000, 0xfff, BOOT_RANGE_RESERVED},
    };

    (void)state;
    mb2_begin(&b);
    mb2_map_begin(&b);
    put_range(&b, 0x9000, 0x1000, 1);
    put_range(&b, 0x8000, 0x1000, 1);
    put_range(&b, 0x0, 0x5000, 1);
    put_range(&b, 0x3000, 0x2000, 99);
    put_range(&b, 0x3000, 0x1000, 5);
    put_range(&b, 0x4000, 0x2000, 3);
    put_range(&b, 0x1000, 0x0, 2);
    put_range(&b, 0xfffffffffffff000, 0x1000, 2);
    tag_end(&b);
    mb2_end(&b);
    assert_int_equal(parse_mb2(&b, b.used), HV_OK);
    assert_int_equal(info.nr_ranges, ARRAY_SIZE(expected));
    for (unsigned i = 0; i < info.nr_ranges; i++) {
        assert_int_equal(info.ranges[i].base, expected[i].base);
        assert_int_equal(info.ranges[i].size, expected[i].size);
        assert_int_equal(info.ranges[i].type, expected[i].type);
    }
}

/* Random maps: the result is sorted, disjoint, and agrees with a look-up in the raw list. */
static void ranges_random(void **state)
{
    static struct builder b;
    static const enum boot_range_type types[] = {BOOT_RANGE_USABLE, BOOT_RANGE_RESERVED,
                                                 BOOT_RANGE_ACPI, BOOT_RANGE_NVS, BOOT_RANGE_BAD};

    (void)state;
    srand(2);
    for (unsigned round = 0; round < 300; round++) {
        int model[256];
        unsigned nr = 1 + (unsigned)rand() % 40;

        memset(model, -1, sizeof(model));
        mb2_begin(&b);
        mb2_map_begin(&b);
        for (unsigned i = 0; i < nr; i++) {
            unsigned base = (unsigned)rand() % 200, size = 1 + (unsigned)rand() % 56;
            unsigned type = (unsigned)rand() % 5;

            put_range(&b, base, size, type + 1);
            for (unsigned at = base; at < base + size; at++) {
                model[at] = (int)types[type] > model[at] ? (int)types[type] : model[at];
            }
        }
        tag_end(&b);
        mb2_end(&b);
        assert_int_equal(parse_mb2(&b, b.used), HV_OK);
        uint64_t at = 0;
        for (unsigned i = 0; i < info.nr_ranges; i++) {
            assert_true(info.ranges[i].base >= at);
            for (; at < info.ranges[i].base; at++) {
                assert_int_equal(model[at], -1);
            }
            for (; at < info.ranges[i].base + info.ranges[i].size; at++) {
                assert_int_equal(model[at], info.ranges[i].type);
            }
        }
        for (; at < 256; at++) {
            assert_int_equal(model[at], -1);
        }
    }
}

/* ---- PVH ------------------------------------------------------------------------------------- */

static void cpio_member(struct builder *b, const char *name, uint32_t mode, const char *data)
{
    char header[128];

    snprintf(header, sizeof(header), "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
             1, mode, 0, 0, 1, 0, (unsigned)strlen(data), 0, 0, 0, 0, (unsigned)strlen(name) + 1,
             0);
    put(b, header, 110);
    put_string(b, name);
    while (b->used % 4 != 0) {
        put8(b, 0);
    }
    put(b, data, strlen(data));
    while (b->used % 4 != 0) {
        put8(b, 0);
    }
}

static void cpio_archive(struct builder *b)
{
    memset(b, 0, sizeof(*b));
    cpio_member(b, ".", 0040755, "");
    cpio_member(b, "ballast.conf", 0100644, "seed = 1\n");
    cpio_member(b, "./vmlinuz", 0100644, "kernel");
    cpio_member(b, "TRAILER!!!", 0, "");
}

#define PVH_PA 0x5000
#define PVH_MEMMAP_PA (PVH_PA + 56)
#define PVH_MODULE_PA (PVH_PA + 56 + 24)
#define PVH_CMDLINE_PA (PVH_PA + 56 + 24 + 32)
#define ARCHIVE_PA 0x8000

static void pvh_block(struct builder *b, uint64_t archive_size)
{
    memset(b, 0, sizeof(*b));
    put32(b, BOOT_MAGIC_PVH);
    put32(b, 1);
    put32(b, 0);
    put32(b, 1);
    put64(b, PVH_MODULE_PA);
    put64(b, PVH_CMDLINE_PA);
    put64(b, 0xf59e0);
    put64(b, PVH_MEMMAP_PA);
    put32(b, 1);
    put32(b, 0);
    put_range(b, 0, 0x8000000, 1);
    put64(b, ARCHIVE_PA);
    put64(b, archive_size);
    put64(b, 0);
    put64(b, 0);
    put_string(b, "seed=3");
}

static enum hv_err parse_pvh(const struct builder *block, uint32_t block_size,
                             const struct builder *archive, uint32_t archive_size)
{
    drop_areas(NULL);
    add_area(PVH_PA, block->bytes, block_size);
    add_area(ARCHIVE_PA, archive->bytes, archive_size);
    enum hv_err err = bootinfo_parse(BOOT_MAGIC_PVH, PVH_PA, &env, &info);

    assert_int_equal(err == HV_OK, info.error == NULL);
    return err;
}

static void pvh_reads_everything(void **state)
{
    static struct builder block, archive;

    (void)state;
    cpio_archive(&archive);
    pvh_block(&block, archive.used);
    assert_int_equal(parse_pvh(&block, block.used, &archive, archive.used), HV_OK);
    assert_string_equal(info.cmdline, "seed=3");
    assert_int_equal(info.rsdp_pa, 0xf59e0);
    assert_int_equal(info.nr_ranges, 1);
    assert_int_equal(info.nr_modules, 2);
    assert_string_equal(info.modules[0].name, "ballast.conf");
    assert_int_equal(info.modules[0].size, 9);
    assert_memory_equal(map(info.modules[0].base, 9), "seed = 1\n", 9);
    assert_string_equal(info.modules[1].name, "vmlinuz");
    assert_memory_equal(map(info.modules[1].base, 6), "kernel", 6);
}

static void pvh_plain_module(void **state)
{
    static struct builder block, plain;

    (void)state;
    memset(&plain, 0, sizeof(plain));
    put_string(&plain, "not an archive");
    pvh_block(&block, plain.used);
    assert_int_equal(parse_pvh(&block, block.used, &plain, plain.used), HV_OK);
    assert_int_equal(info.nr_modules, 1);
    assert_string_equal(info.modules[0].name, "initrd");
}

static void pvh_truncated(void **state)
{
    static struct builder block, archive;

    (void)state;
    cpio_archive(&archive);
    pvh_block(&block, archive.used);
    for (uint32_t size = 0; size < block.used; size++) {
        assert_int_not_equal(parse_pvh(&block, size, &archive, archive.used), HV_OK);
    }
    for (uint32_t size = 0; size < archive.used; size++) {
        pvh_block(&block, archive.used);
        assert_int_not_equal(parse_pvh(&block, block.used, &archive, size), HV_OK);
    }
    /* Cut short and honest about it: an archive without its end. Padding may be missing. */
    for (uint32_t size = 110; size < archive.used - 4; size++) {
        pvh_block(&block, size);
        assert_int_not_equal(parse_pvh(&block, block.used, &archive, size), HV_OK);
    }
}

static void pvh_corrupted(void **state)
{
    static struct builder block, archive, bad_block, bad_archive;

    (void)state;
    cpio_archive(&archive);
    pvh_block(&block, archive.used);
    srand(3);
    for (unsigned round = 0; round < 40000; round++) {
        bad_block = block;
        bad_archive = archive;
        if (round % 2 == 0) {
            bad_block.bytes[(uint32_t)rand() % block.used] = (uint8_t)rand();
        }
        for (int i = rand() % 4; i > 0; i--) {
            bad_archive.bytes[(uint32_t)rand() % archive.used] =
                rand() % 2 == 0 ? (uint8_t) "0123456789abcdefF"[rand() % 17] : (uint8_t)rand();
        }
        (void)!parse_pvh(&bad_block, block.used, &bad_archive, archive.used);
    }
}

static void pvh_old_version(void **state)
{
    static struct builder block, archive;

    (void)state;
    cpio_archive(&archive);
    pvh_block(&block, archive.used);
    block.bytes[4] = 0;
    assert_int_equal(parse_pvh(&block, block.used, &archive, archive.used), HV_ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(mb2_reads_everything, drop_areas),
        cmocka_unit_test_teardown(mb2_truncated, drop_areas),
        cmocka_unit_test_teardown(mb2_corrupted, drop_areas),
        cmocka_unit_test_teardown(mb2_bad_modules, drop_areas),
        cmocka_unit_test_teardown(mb2_long_cmdline, drop_areas),
        cmocka_unit_test_teardown(mb2_without_map, drop_areas),
        cmocka_unit_test_teardown(unknown_protocol, drop_areas),
        cmocka_unit_test_teardown(ranges_settle, drop_areas),
        cmocka_unit_test_teardown(ranges_random, drop_areas),
        cmocka_unit_test_teardown(pvh_reads_everything, drop_areas),
        cmocka_unit_test_teardown(pvh_plain_module, drop_areas),
        cmocka_unit_test_teardown(pvh_truncated, drop_areas),
        cmocka_unit_test_teardown(pvh_corrupted, drop_areas),
        cmocka_unit_test_teardown(pvh_old_version, drop_areas),
    };

    return cmocka_run_group_tests_name("bootinfo", tests, NULL, NULL);
}
