/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The swap area (kernel/drivers/swaparea.c) on disks in memory: which area is taken, by name or without, what is
 * never written, and formatting.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/drivers/blkclaim.h"
#include "kernel/drivers/ramdisk.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/lib/crc32.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/reclaim/store.h"
#include "tests/host/env.h"
#include "tests/host/partitions.h"

#define NR_DISKS 3u
#define DISK_PAGES 1536u
#define PART1 512u /* first sectors of partitions of 600 pages */
#define PART2 6144u
#define PART_PAGES 600u
#define NEVER UINT64_MAX

static struct fake {
    struct blk_disk disk;
    uint8_t data[DISK_PAGES][PAGE_SIZE];
    unsigned nr_written;             /* requests */
    uint64_t unreadable, unwritable; /* pages, NEVER: none */
    bool forgets;                    /* writes are done, nothing is written */
    bool flush_fails;
} fakes[NR_DISKS];

static unsigned nr_disks;
static char logged[4096];
static struct store *heard;
static enum hv_err slots_result;
static struct blk_request last_slots;

/* ---- Surroundings ---- */

void log_msg(enum log_level level, const char *fmt, ...)
{
    size_t n = strlen(logged);
    va_list args;

    (void)level;
    va_start(args, fmt);
    n += (size_t)vsnprintf(logged + n, sizeof(logged) - n, fmt, args);
    va_end(args);
    assert_true(n + 2 < sizeof(logged));
    strcpy(logged + n, "\n");
}

unsigned blk_count(void)
{
    return nr_disks;
}

struct blk_disk *blk_disk(unsigned index)
{
    assert_true(index < nr_disks);
    return &fakes[index].disk;
}

enum hv_err blk_io(struct blk_disk *d, enum blk_op op, uint64_t sector, const mfn_t *frames,
                   uint32_t nr_frames)
{
    struct fake *f = (struct fake *)d;
    uint64_t page = sector / BLK_PAGE_SECTORS;

    assert_false(blk_gone(d));
    if (op == BLK_FLUSH) {
        return f->flush_fails ? HV_EIO : HV_OK;
    }
    assert_true(nr_frames >= 1 && nr_frames <= BLK_RUN_MAX);
    assert_true(sector + nr_frames * BLK_PAGE_SECTORS <= d->nr_sectors);
    assert_false(op == BLK_WRITE && d->read_only);
    uint64_t bad = op == BLK_WRITE ? f->unwritable : f->unreadable;

    f->nr_written += op == BLK_WRITE;
    if (page <= bad && bad < page + nr_frames) {
        return HV_EIO;
    }
    for (uint32_t i = 0; i < nr_frames; i++) {
        uint8_t *place = f->data[0] + sector * BLK_SECTOR + i * PAGE_SIZE;
        void *frame = env_frame_ptr(frames[i]);

        if (op == BLK_READ) {
            memcpy(frame, place, PAGE_SIZE);
        } else if (!f->forgets) {
            memcpy(place, frame, PAGE_SIZE);
        }
    }
    return HV_OK;
}

void blk_submit(struct blk_disk *d, struct blk_request *r)
{
    assert_ptr_equal(d, &fakes[0].disk);
    last_slots = *r;
    r->result = slots_result;
    r->done(r);
}

enum hv_err ramdisk_create(uint64_t bytes, struct blk_disk **out)
{
    if (bytes / PAGE_SIZE > DISK_PAGES) {
        return HV_ENOMEM;
    }
    *out = &fakes[nr_disks++].disk;
    (*out)->nr_sectors = bytes / BLK_SECTOR;
    return HV_OK;
}

static void listen(struct store *s)
{
    assert_null(heard);
    heard = s;
}

/* ---- Disks ---- */

static uint8_t *bytes_of(unsigned disk, uint64_t sector)
{
    return fakes[disk].data[0] + sector * BLK_SECTOR;
}

static void seal(struct swaparea_header *h)
{
    h->crc = crc32(0, h, offsetof(struct swaparea_header, crc));
}

/* A signature, as tools/mkswap.py writes it; `id` fills the UUID. */
static struct swaparea_header *sign(unsigned disk, uint64_t sector, uint64_t nr_pages, uint8_t id)
{
    struct swaparea_header *h = (struct swaparea_header *)bytes_of(disk, sector);

    *h = (struct swaparea_header){
        .magic = "BALLAST-SWAP-01", .version = 1, .page_bytes = PAGE_SIZE, .nr_pages = nr_pages};
    memset(h->uuid, id, sizeof(h->uuid));
    seal(h);
    return h;
}

static void put_mbr(unsigned disk, uint8_t type)
{
    partitions_mbr(bytes_of(disk, 0), 0, 0, type, PART1, PART_PAGES * 8);
    partitions_mbr(bytes_of(disk, 0), 0, 1, type, PART2, PART_PAGES * 8);
}

static void put_gpt(unsigned disk, const uint8_t type1[16], const uint8_t type2[16])
{
    uint8_t *d = bytes_of(disk, 0);

    partitions_mbr(d, 0, 0, 0xee, 1, UINT32_MAX);
    partitions_gpt_entry(d, 512, 2, 0, type1, PART1, PART1 + PART_PAGES * 8 - 1, "one");
    partitions_gpt_entry(d, 512, 2, 1, type2, PART2, PART2 + PART_PAGES * 8 - 1, "two");
    partitions_gpt_header(d, 512, 1, 2);
}

static int start(void **state)
{
    (void)state;
    env_start(MFN(16), 64, 1);
    nr_disks = 2;
    logged[0] = '\0';
    heard = NULL;
    slots_result = HV_OK;
    for (unsigned i = 0; i < NR_DISKS; i++) {
        struct fake *f = &fakes[i];

        memset(f, 0, sizeof(*f));
        f->unreadable = f->unwritable = NEVER;
        f->disk.nr_sectors = DISK_PAGES * BLK_PAGE_SECTORS;
        f->disk.sector_bytes = 512;
        snprintf(f->disk.name, sizeof(f->disk.name), "disk%u", i);
        snprintf(f->disk.serial, sizeof(f->disk.serial), "SERIAL%u", i);
    }
    fakes[1].disk.serial[0] = '\0';
    return 0;
}

static int stop(void **state)
{
    (void)state;
    swaparea_stop();
    env_stop();
    return 0;
}

/* Act on the option; the area in use afterwards is `name` (NULL: none), and the log has the words. Nothing was
 * written for that. */
static void option_gives(const char *option, const char *name, const char *words)
{
    struct swaparea a;
    unsigned before = fakes[0].nr_written + fakes[1].nr_written;

    swaparea_stop();
    logged[0] = '\0';
    swaparea_start(option, NULL, 0);
    assert_int_equal(fakes[0].nr_written + fakes[1].nr_written, before);
    if (name == NULL) {
        assert_false(swaparea_in_use(&a));
        assert_null(swaparea_store());
    } else if (!swaparea_in_use(&a)) {
        fail_msg("swap = %s: nothing in use: %s", option, logged);
    } else {
        assert_string_equal(a.name, name);
        assert_string_equal(swaparea_store()->name, name);
    }
    if (words[0] == '\0' ? logged[0] != '\0' : strstr(logged, words) == NULL) {
        fail_msg("swap = %s: logged '%s', not '%s'", option, logged, words);
    }
}

static struct swaparea found(const char *name)
{
    struct swaparea a;

    assert_int_equal(swaparea_find(name, &a), HV_OK);
    return a;
}

/* ---- Headers ---- */

static void test_header(void **state)
{
    struct swaparea_header *h = sign(0, 0, DISK_PAGES, 1);

    (void)state;
    option_gives("auto", "disk0", "swap on disk0: 4 MiB, UUID 01010101010101010101010101010101");
    assert_int_equal(swaparea_store()->nr_slots, DISK_PAGES - SWAPAREA_FIRST_SLOT);
    option_gives("", "disk0", "swap on disk0");
    option_gives("off", NULL, "");
    for (size_t i = 0; i < sizeof(*h); i++) {
        ((uint8_t *)h)[i] ^= 0x10;
        option_gives("auto", NULL, "");
        ((uint8_t *)h)[i] ^= 0x10;
    }
    h->version = 2;
    seal(h);
    option_gives("auto", NULL, "");
    sign(0, 0, DISK_PAGES, 1)->page_bytes = 8192;
    seal(h);
    option_gives("auto", NULL, "");
    sign(0, 0, SWAPAREA_MIN_PAGES - 1, 1);
    option_gives("auto", NULL, "");
    sign(0, 0, DISK_PAGES + 1, 1);
    option_gives("auto", NULL, "");
    sign(0, 0, SWAPAREA_MIN_PAGES, 1); /* the disk has grown since */
    option_gives("auto", "disk0", "swap on disk0");
    assert_int_equal(swaparea_store()->nr_slots, SWAPAREA_MIN_PAGES - SWAPAREA_FIRST_SLOT);
    fakes[0].unreadable = 0;
    option_gives("auto", NULL, "");
    option_gives("disk:disk0", NULL, "it carries no swap area of ours; nothing is written to it");
}

/* ---- What others put there since ---- */

/* A signature on disk0 behind which is `what`: refused under each name, and `swap test` likewise. */
static void refused(const char *what)
{
    char why[SWAPAREA_WHY_MAX], words[256];
    struct swaparea a;

    snprintf(words, sizeof(words),
             "swap area on disk0 passed over: behind its signature is %s; nothing is written to "
             "it. `swap format disk0` makes it an area again\n",
             what);
    option_gives("auto", NULL, words);
    snprintf(words, sizeof(words), "no swap on disk0: behind its signature is %s; nothing", what);
    option_gives("disk:disk0", NULL, words);
    option_gives("disk:SERIAL0", NULL, words);
    option_gives("disk:07070707070707070707070707070707", NULL, words);
    a = found("disk0");
    assert_int_equal(swaparea_check(&a, why), HV_EPERM);
    assert_non_null(strstr(why, what));
}

static void test_reused(void **state)
{
    static const struct {
        size_t at;
        const char *mark, *what;
    } marks[] = {
        {64, "x", "unknown data"},
        {4095, "x", "unknown data"},
        {1080, "\x53\xef", "ext2, ext3 or ext4"},
        {512, "LABELONE", "LVM physical volume"},
        {4096, "\xfc\x4e\x2b\xa9", "Linux RAID member"},
        {8 * 4096 + 1, "CD001", "ISO 9660"},
        {16 * 4096 + 64, "_BHRfS_M", "btrfs"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(marks); i++) {
        sign(0, 0, DISK_PAGES, 7);
        option_gives("auto", "disk0", "swap on disk0");
        memcpy(bytes_of(0, 0) + marks[i].at, marks[i].mark, strlen(marks[i].mark));
        refused(marks[i].what);
        memset(fakes[0].data, 0, sizeof(fakes[0].data));
    }
    sign(0, 0, DISK_PAGES, 7);
    memcpy(bytes_of(0, 0) + 300 * PAGE_SIZE, "_BHRfS_M", 8); /* a slot: a guest's page */
    option_gives("auto", "disk0", "swap on disk0");
    fakes[0].unreadable = 16;
    refused("what cannot be read");
}

/* A table leaves the header as it was. */
static void test_partitioned(void **state)
{
    (void)state;
    sign(0, 0, DISK_PAGES, 7);
    put_mbr(0, 0x83);
    refused("a partition table (MBR, 2 partitions)");
    memset(bytes_of(0, 0) + 446 + 16, 0, 16);
    refused("a partition table (MBR, 1 partition)");
    put_gpt(0, partitions_linux, partitions_linux);
    refused("a partition table (GPT, 2 partitions)");
    fakes[0].unreadable = DISK_PAGES - 1; /* where the second GPT would be */
    bytes_of(0, 1)[20] ^= 1;
    refused("what cannot be read");
    bytes_of(0, 1)[20] ^= 1;
    fakes[0].unreadable = NEVER;
    /* A partition of that table may be one of ours. */
    sign(0, PART2, PART_PAGES, 8);
    put_gpt(0, partitions_linux, label_swap_type);
    option_gives("auto", "disk0p2", "swap area on disk0 passed over");
    memcpy(bytes_of(0, PART2) + 1080, "\x53\xef", 2);
    option_gives("auto", NULL,
                 "swap area on disk0p2 passed over: behind its signature is ext2, ext3 or ext4");
    option_gives("disk:disk0p2", NULL, "`swap format disk0p2` makes it an area again");
}

/* ---- Which one ---- */

static void test_order(void **state)
{
    struct swaparea a;

    (void)state;
    option_gives("auto", NULL, "");
    option_gives("disk:disk1", NULL,
                 "swap = disk:disk1: no swap on disk1: it carries no swap area of ours; nothing is "
                 "written to it. `swap format disk1` makes one");
    option_gives("disk:disk7", NULL, "swap = disk:disk7: no such disk, partition or area");
    option_gives("disk:", NULL, "no such disk"); /* disk1 has no serial number */
    put_mbr(0, 0x82);
    sign(0, PART2, PART_PAGES, 2);
    sign(1, 0, DISK_PAGES, 3);
    option_gives("auto", "disk0p2", "swap on disk0p2: 1 MiB");
    option_gives("disk:disk1", "disk1", "swap on disk1");
    option_gives("disk:03030303030303030303030303030303", "disk1", "swap on disk1");
    option_gives("disk:02020202020202020202020202020202", "disk0p2", "swap on disk0p2");
    option_gives("disk:0202020202020202020202020202020", NULL, "no such disk");
    sign(0, PART1, PART_PAGES, 4);
    option_gives("auto", "disk0p1", "swap on disk0p1");
    a = found("SERIAL0");
    assert_string_equal(a.name, "disk0");
    assert_int_equal(a.nr_pages, DISK_PAGES);
    a = found("disk0p2");
    assert_int_equal(a.first, PART2);
    assert_int_equal(a.nr_pages, PART_PAGES);
    assert_int_equal(swaparea_find("disk0p3", &a), HV_ENOENT);
    fakes[0].disk.queue.gone = true;
    option_gives("auto", "disk1", "swap on disk1");
    assert_int_equal(swaparea_find("disk0", &a), HV_ENOENT);
    fakes[0].disk.queue.gone = false;
    fakes[0].unreadable = 0;
    option_gives("auto", "disk1", "swap on disk1");
    fakes[1].disk.nr_sectors = 7; /* not a page */
    option_gives("auto", NULL, "");
}

/* On a GPT `auto` wants the type as well; whoever is named, by whatever name, is meant. */
static void test_type(void **state)
{
    (void)state;
    put_gpt(0, partitions_linux, label_swap_type);
    option_gives("auto", NULL, ""); /* the type alone */
    sign(0, PART1, PART_PAGES, 5);
    option_gives("auto", NULL,
                 "swap area on disk0p1 passed over: the partition is not of a swap area's type; "
                 "`swap = disk:disk0p1` takes it");
    option_gives("disk:disk0p1", "disk0p1", "swap on disk0p1");
    option_gives("disk:05050505050505050505050505050505", "disk0p1", "swap on disk0p1");
    assert_true(found("disk0p1").other_type);
    assert_false(found("disk0p2").other_type);
    assert_false(found("disk0").other_type);
    sign(0, PART2, PART_PAGES, 6);
    option_gives("auto", "disk0p2", "swap on disk0p2");
    memset(bytes_of(0, 0), 0, PART1 * BLK_SECTOR);
    put_mbr(0, 0x83); /* whose types say nothing of us */
    option_gives("auto", "disk0p1", "swap on disk0p1");
    assert_false(found("disk0p1").other_type);
}

static void test_read_only(void **state)
{
    char why[SWAPAREA_WHY_MAX];
    struct swaparea a;

    (void)state;
    sign(0, 0, DISK_PAGES, 1);
    fakes[0].disk.read_only = true;
    option_gives("auto", NULL, "swap area on disk0 passed over: the disk is read-only\n");
    option_gives("disk:disk0", NULL,
                 "swap = disk:disk0: no swap on disk0: the disk is read-only\n");
    option_gives("disk:01010101010101010101010101010101", NULL, "the disk is read-only");
    a = found("disk0");
    assert_int_equal(swaparea_check(&a, why), HV_EPERM);
    assert_int_equal(swaparea_may_format(&a), HV_EPERM);
    assert_int_equal(swaparea_format(&a), HV_EPERM);
    sign(1, 0, DISK_PAGES, 2);
    option_gives("auto", "disk1", "swap on disk1");
}

/* A guest can write a signature to its disk. */
static void test_lent(void **state)
{
    struct swaparea_loan loan = {.area = found("disk0"), .vm = "guest"};
    char why[SWAPAREA_WHY_MAX];
    struct swaparea a;

    (void)state;
    sign(0, 0, DISK_PAGES, 1);
    swaparea_start("auto", &loan, 1);
    assert_string_equal(logged, "swap area on disk0 passed over: it is on the disk of vm guest\n");
    swaparea_start("disk:01010101010101010101010101010101", &loan, 1);
    assert_non_null(strstr(logged, "no such disk, partition or area"));
    swaparea_start("disk:SERIAL0", &loan, 1);
    assert_non_null(strstr(logged, "swap = disk:SERIAL0: no swap on disk0: it is on the disk of vm "
                                   "guest\n"));
    assert_null(swaparea_store());
    memset(bytes_of(0, 0), 0, PAGE_SIZE);
    put_mbr(0, 0x82);
    sign(0, PART1, PART_PAGES, 1);
    sign(0, PART2, PART_PAGES, 2);
    loan.area = found("disk0p1");
    swaparea_start("auto", &loan, 1); /* its neighbour */
    assert_true(swaparea_in_use(&a));
    assert_string_equal(a.name, "disk0p2");
    assert_int_equal(swaparea_check(&a, why), HV_OK); /* in use, but for swapping */
    /* A VM that was not foreseen has it. */
    swaparea_stop();
    assert_int_equal(swaparea_check(&a, why), HV_OK);
    assert_int_equal(blkclaim_take(a.disk, PART2, 8, false), HV_OK);
    assert_int_equal(swaparea_check(&a, why), HV_EPERM);
    assert_string_equal(why, "it is in use");
    option_gives("disk:disk0p2", NULL, "no swap on disk0p2: a VM uses it as its disk");
    blkclaim_drop(a.disk, PART2, 8, false);
}

/* ---- Formatting ---- */

static bool all_are(const uint8_t *p, size_t n, uint8_t value)
{
    return p[0] == value && memcmp(p, p + 1, n - 1) == 0;
}

static void test_format(void **state)
{
    struct fake *f = &fakes[0];
    struct swaparea a, other, used;
    char why[SWAPAREA_WHY_MAX];
    uint32_t code, again;

    (void)state;
    memset(f->data, 0xa5, sizeof(f->data));
    a = found("disk0");
    swaparea_listen(listen);
    assert_int_equal(swaparea_check(&a, why), HV_ENOENT);
    assert_int_equal(swaparea_format(&a), HV_OK);
    assert_ptr_equal(heard, swaparea_store());
    assert_true(swaparea_in_use(&used));
    assert_string_equal(used.name, "disk0");
    assert_memory_equal(f->data, "BALLAST-SWAP-01", 16);
    assert_true(all_are(f->data[0] + sizeof(struct swaparea_header),
                        SWAPAREA_FIRST_SLOT * PAGE_SIZE - sizeof(struct swaparea_header), 0));
    assert_true(all_are(f->data[SWAPAREA_FIRST_SLOT],
                        (DISK_PAGES - 1 - SWAPAREA_FIRST_SLOT) * PAGE_SIZE, 0xa5));
    assert_true(all_are(f->data[DISK_PAGES - 1], PAGE_SIZE, 0));
    assert_int_equal(swaparea_check(&a, why), HV_OK);
    assert_int_equal(swaparea_may_format(&a), HV_EBUSY);
    assert_int_equal(swaparea_format(&a), HV_EBUSY);
    other = found("disk1");
    assert_int_equal(swaparea_format(&other), HV_OK); /* a second one, which stands by */
    assert_true(swaparea_in_use(&used));
    assert_string_equal(used.name, "disk0");
    assert_memory_not_equal(f->data[0], fakes[1].data[0], sizeof(struct swaparea_header));
    option_gives("disk:disk1", "disk1", "swap on disk1");
    swaparea_stop();
    heard = NULL;
    option_gives("auto", "disk0", "swap on disk0");
    swaparea_listen(listen); /* who comes late hears of it too */
    assert_ptr_equal(heard, swaparea_store());

    assert_int_equal(swaparea_code(&a, &code), HV_OK);
    assert_int_equal(swaparea_code(&a, &again), HV_OK);
    assert_int_equal(code, again);
    f->data[0][100] ^= 1;
    assert_int_equal(swaparea_code(&a, &again), HV_OK);
    assert_int_not_equal(code, again);
    f->data[0][100] ^= 1;
    a.disk->serial[0] ^= 1;
    assert_int_equal(swaparea_code(&a, &again), HV_OK);
    assert_int_not_equal(code, again);
    f->unreadable = 0;
    assert_int_equal(swaparea_code(&a, &again), HV_EIO);
}

/* What was repartitioned or has marks far inside is an area again. */
static void test_format_reused(void **state)
{
    struct swaparea a = found("disk0");

    (void)state;
    sign(0, 0, DISK_PAGES, 7);
    put_gpt(0, label_swap_type, partitions_linux);
    memcpy(bytes_of(0, 0) + 16 * 4096 + 64, "_BHRfS_M", 8);
    assert_int_equal(swaparea_format(&a), HV_OK);
    option_gives("auto", "disk0", "swap on disk0");
    swaparea_stop();
    put_gpt(1, partitions_linux, partitions_linux);
    a = found("disk1p2");
    assert_int_equal(swaparea_format(&a), HV_OK); /* in use now, but not taken by `auto` */
    assert_true(a.other_type);
    assert_true(swaparea_in_use(&a));
    assert_string_equal(a.name, "disk1p2");
    memset(fakes[0].data, 0, sizeof(fakes[0].data));
    option_gives("auto", NULL, "swap area on disk1p2 passed over: the partition is not");
    option_gives("disk:disk1p2", "disk1p2", "swap on disk1p2");
}

/* Nothing is in use that was not written as a whole and read back. */
static void test_format_fails(void **state)
{
    static const uint64_t steps[] = {DISK_PAGES - 1, 1, SWAPAREA_FIRST_SLOT - 1, 0};
    struct fake *f = &fakes[0];
    struct swaparea a = found("disk0"), small = a;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        f->unwritable = steps[i];
        assert_int_equal(swaparea_format(&a), HV_EIO);
        assert_null(swaparea_store());
    }
    f->unwritable = NEVER;
    f->flush_fails = true;
    assert_int_equal(swaparea_format(&a), HV_EIO);
    f->flush_fails = false;
    memset(f->data[0], 0, PAGE_SIZE);
    f->forgets = true;
    assert_int_equal(swaparea_format(&a), HV_EIO);
    f->forgets = false;
    assert_null(swaparea_store());
    small.nr_pages = SWAPAREA_MIN_PAGES - 1;
    assert_int_equal(swaparea_format(&small), HV_ERANGE);
    assert_int_equal(blkclaim_take(a.disk, 800, 8, false), HV_OK);
    assert_int_equal(swaparea_format(&a), HV_EBUSY);
    blkclaim_drop(a.disk, 800, 8, false);
    small.nr_pages = SWAPAREA_MIN_PAGES;
    assert_int_equal(swaparea_format(&small), HV_OK);
}

/* All frames but so many are taken; how many that is. */
static unsigned take_all_but(unsigned left, mfn_t *frames)
{
    unsigned nr = 0;

    while (buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &frames[nr]) == HV_OK) {
        nr++;
    }
    while (left-- != 0) {
        buddy_free(frames[--nr], 0);
    }
    return nr;
}

static void test_no_memory(void **state)
{
    char why[SWAPAREA_WHY_MAX];
    struct swaparea a = found("disk0");
    mfn_t frames[64];
    uint32_t code;

    (void)state;
    sign(0, 0, DISK_PAGES, 1);
    for (unsigned left = 0; left < 2; left++) { /* the second: of two things */
        unsigned nr = take_all_but(left, frames);

        option_gives("auto", NULL, "swap = auto: no memory to look for it; no swap\n");
        option_gives("disk:disk0", NULL, "swap = disk:disk0: no memory to look for it; no swap\n");
        assert_int_equal(swaparea_find("disk0", &a), HV_ENOMEM);
        assert_int_equal(swaparea_check(&a, why), HV_ENOMEM);
        assert_int_equal(swaparea_format(&a), HV_ENOMEM);
        assert_int_equal(swaparea_code(&a, &code), left == 0 ? HV_ENOMEM : HV_OK);
        while (nr-- != 0) {
            buddy_free(frames[nr], 0);
        }
    }
    assert_int_equal(fakes[0].nr_written, 0);
    option_gives("auto", "disk0", "swap on disk0");
}

/* ---- The option, the store ---- */

static void test_ram(void **state)
{
    struct swaparea a;

    (void)state;
    option_gives("ram:4X", NULL, "swap = ram:4X: ");
    option_gives("ram:1G", NULL, "swap = ram:1G: ");
    option_gives("ram:1M", NULL, "swap = ram:1M: "); /* too small for an area */
    swaparea_stop();
    nr_disks = 2;
    swaparea_start("ram:4M", NULL, 0);
    assert_true(swaparea_in_use(&a));
    assert_ptr_equal(a.disk, &fakes[2].disk);
    assert_int_equal(swaparea_store()->nr_slots, 1024 - SWAPAREA_FIRST_SLOT);
}

static struct store_request *answered;

static void answer(struct store_request *r)
{
    answered = r;
}

static void test_store(void **state)
{
    static const enum hv_err results[][2] = {
        {HV_OK, HV_OK}, {HV_EIO, HV_EIO}, {HV_ENOENT, HV_ENOENT}, {HV_EINVAL, HV_EIO}};
    struct store_request r = {.op = STORE_WRITE, .slot = 5, .nr = 3, .done = answer};
    struct store *s;

    (void)state;
    put_mbr(0, 0x82);
    sign(0, PART1, PART_PAGES, 1);
    option_gives("auto", "disk0p1", "swap on disk0p1");
    s = swaparea_store();
    for (unsigned i = 0; i < ARRAY_SIZE(results); i++) {
        answered = NULL;
        slots_result = results[i][0];
        store_submit(s, &r);
        assert_ptr_equal(answered, &r);
        assert_int_equal(r.result, results[i][1]);
    }
    assert_int_equal(last_slots.op, BLK_WRITE);
    assert_int_equal(last_slots.nr_frames, 3);
    assert_int_equal(last_slots.sector, PART1 + (SWAPAREA_FIRST_SLOT + 5) * BLK_PAGE_SECTORS);
    r.op = STORE_READ;
    r.slot = s->nr_slots - 3; /* the last ones */
    store_submit(s, &r);
    assert_int_equal(last_slots.op, BLK_READ);
    assert_int_equal(last_slots.sector, PART1 + (PART_PAGES - 3) * BLK_PAGE_SECTORS);
    r.slot++;
    ENV_EXPECT_PANIC(store_submit(s, &r));
    r.slot = UINT64_MAX;
    ENV_EXPECT_PANIC(store_submit(s, &r));
    r.op = STORE_FLUSH;
    r.nr = 0;
    store_submit(s, &r);
    assert_int_equal(last_slots.op, BLK_FLUSH);
    assert_int_equal(last_slots.nr_frames, 0);
    assert_false(store_gone(s));
    fakes[0].disk.queue.gone = true;
    assert_true(store_gone(s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_header, start, stop),
        cmocka_unit_test_setup_teardown(test_reused, start, stop),
        cmocka_unit_test_setup_teardown(test_partitioned, start, stop),
        cmocka_unit_test_setup_teardown(test_order, start, stop),
        cmocka_unit_test_setup_teardown(test_type, start, stop),
        cmocka_unit_test_setup_teardown(test_read_only, start, stop),
        cmocka_unit_test_setup_teardown(test_lent, start, stop),
        cmocka_unit_test_setup_teardown(test_format, start, stop),
        cmocka_unit_test_setup_teardown(test_format_reused, start, stop),
        cmocka_unit_test_setup_teardown(test_format_fails, start, stop),
        cmocka_unit_test_setup_teardown(test_no_memory, start, stop),
        cmocka_unit_test_setup_teardown(test_ram, start, stop),
        cmocka_unit_test_setup_teardown(test_store, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
