/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio devices: disks, console, balloon; what their drivers may do, and what they may not. */
#include "tests/host/virtioenv.h"

#include <stdlib.h>
#include <string.h>

/* ---- Disks ---- */

static struct vblk *make_blk(const char *name, bool read_only)
{
    struct vblk *d;

    for (unsigned i = 0; i < sizeof image; i++) {
        image[i] = (uint8_t)(i * 13 + i / 256);
    }
    strcpy(fake.vm.config.disk, name);
    fake.vm.config.disk_readonly = read_only ? SWITCH_ON : SWITCH_OFF;
    assert_int_equal(vblk_create(&fake.vm, &d), HV_OK);
    m = vblk_transport(d);
    return d;
}

#define F_FLUSH BIT(9)
#define F_DISCARD BIT(13)
#define F_ZEROES BIT(14)
#define HEADER 0xb000u
#define STATUS 0xb100u

/* One request with `len` bytes at DATA, the header in two pieces; its status. */
static uint8_t request(uint32_t type, uint64_t sector, uint32_t len)
{
    uint8_t header[16] = {0}, status = 0xee;

    memcpy(header, &type, 4);
    memcpy(header + 8, &sector, 8);
    ringenv_store(HEADER, header, 16);
    ringenv_store(STATUS, &status, 1);
    desc(0, 0, HEADER, 3, 1, 1);
    desc(0, 1, HEADER + 3, 13, 1, len ? 2 : 3);
    desc(0, 2, DATA, len, type == 0 || type == 8 ? 3 : 1, 3);
    desc(0, 3, STATUS, 1, 2, 0);
    offer(0, 0);
    ringenv_load(STATUS, &status, 1);
    return status;
}

static void expect_data(const uint8_t *want, size_t n)
{
    uint8_t *have = malloc(n);

    assert_true(ringenv_load(DATA, have, n));
    assert_memory_equal(have, want, n);
    free(have);
}

static void fill_data(uint8_t *data, size_t n, uint8_t seed)
{
    for (size_t i = 0; i < n; i++) {
        data[i] = (uint8_t)(seed + i * 3 + i / 200);
    }
    assert_true(ringenv_store(DATA, data, n));
}

static void test_image(void **state)
{
    struct vblk *d = make_blk("image", false);
    static uint8_t data[8192];
    uint32_t sectors = sizeof image / 512;
    struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {8, 8, 0};

    (void)state;
    assert_int_equal(mmio_sized(0x100, 8, false, 0), sectors);
    assert_int_equal(in(0x10c), 126);
    drive(F_FLUSH | F_DISCARD | F_ZEROES, 1);
    assert_int_equal(request(0, 0, 8192), 0);
    assert_int_equal(used_len(0), 8193);
    expect_data(image, 8192);
    /* The last sector; one further is an error, as are others. */
    assert_int_equal(request(0, sectors - 1, 512), 0);
    expect_data(image + 512 * (sectors - 1), 512);
    assert_int_equal(request(0, sectors, 512), 1);
    assert_int_equal(request(0, sectors - 1, 1024), 1);
    assert_int_equal(request(0, UINT64_MAX, 512), 1);
    assert_int_equal(request(0, 0, 511), 1);
    assert_int_equal(request(77, 0, 512), 2);
    assert_int_equal(request(4, 0, 0), 0);
    assert_int_equal(request(8, 0, 20), 0);
    expect_data((const uint8_t *)"image\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    assert_int_equal(request(8, 0, 19), 1);
    /* What is written is a copy of its own; the image is as it was. */
    uint8_t before[sizeof image];
    memcpy(before, image, sizeof image);
    fill_data(data, 4096, 9);
    assert_int_equal(vblk_frames(d), 0);
    assert_int_equal(vblk_frames_to_come(d), 1 + (sizeof image + 4095) / 4096);
    assert_int_equal(request(1, 3, 4096), 0); /* over two pages */
    assert_int_equal(vblk_frames(d), 3);      /* and a table */
    assert_int_equal(vblk_frames_to_come(d), (sizeof image + 4095) / 4096 - 2);
    assert_memory_equal(image, before, sizeof image);
    assert_int_equal(request(0, 0, 8192), 0);
    memcpy(before + 3 * 512, data, 4096);
    expect_data(before, 8192);
    /* Discarded, it reads as zero and takes no frame. */
    ringenv_store(DATA, &range, 16);
    assert_int_equal(request(11, 0, 16), 0);
    assert_int_equal(vblk_frames(d), 2);
    memset(before + 4096, 0, 4096);
    assert_int_equal(request(0, 0, 8192), 0);
    expect_data(before, 8192);
    range.sector = 2;
    range.sectors = 1;
    range.flags = 1;
    ringenv_store(DATA, &range, 16);
    assert_int_equal(request(11, 0, 16), 2);
    assert_int_equal(request(13, 0, 16), 0);
    memset(before + 1024, 0, 512);
    assert_int_equal(request(0, 0, 8192), 0);
    expect_data(before, 8192);
    range.sector = sectors;
    ringenv_store(DATA, &range, 16);
    assert_int_equal(request(13, 0, 16), 1);
    assert_int_equal(request(13, 0, 15), 1);
    range.sectors = 40000;
    ringenv_store(DATA, &range, 16);
    assert_int_equal(request(13, 0, 16), 1);
    /* Without frames it waits; with one it goes on. */
    host.frames_left = 0;
    host.hopeless = true;
    request(1, 16, 512);
    assert_int_equal(fake.vm.stop_reason, STOP_NO_MEMORY);
    host.frames_left = FRAMES;
    /* A reset forgets the driver, not what it wrote. */
    drive(0, 1);
    assert_int_equal(request(0, 0, 8192), 0);
    expect_data(before, 8192);
    assert_int_equal(request(11, 0, 16), 2); /* not negotiated */
    vblk_destroy(d);
}

static void test_image_lies(void **state)
{
    struct vblk *d = make_blk("image", true);

    (void)state;
    drive(F_FLUSH | BIT(5), 1);
    assert_int_equal(request(1, 0, 512), 1);
    out(0x14, 0);
    assert_int_equal(in(0x10) & (F_DISCARD | F_ZEROES | BIT(5)), BIT(5));
    desc(0, 0, HEADER, 15, 1, 1);
    desc(0, 1, STATUS, 1, 2, 0);
    offer(0, 0);
    assert_int_equal(in(0x70), 64 | 15);
    drive(F_FLUSH, 1);
    desc(0, 0, HEADER, 16, 0, 0);
    offer(0, 0);
    assert_int_equal(in(0x70), 64 | 15);
    vblk_destroy(d);
}

static void test_host_disk(void **state)
{
    static uint8_t data[8192], before[DISK_PAGES][4096];
    struct vblk *d = make_blk("disk:nvme0p1", false), *none;

    (void)state;
    for (unsigned i = 0; i < sizeof host.disk; i++) {
        ((uint8_t *)host.disk)[i] = (uint8_t)(i * 5 + i / 512);
    }
    memcpy(before, host.disk, sizeof before);
    assert_int_equal(mmio_sized(0x100, 8, false, 0), (DISK_PAGES - 3) * 8);
    assert_int_equal(vblk_frames(d), 32);
    drive(0, 1);
    assert_int_equal(request(0, 5, 4096), 0);
    expect_data(before[3] + 5 * 512, 4096);
    /* Pages that are covered in part are read first; the neighbours stay. */
    fill_data(data, 6 * 512, 7);
    assert_int_equal(request(1, 6, 6 * 512), 0);
    memcpy(before[3] + 6 * 512, data, 6 * 512);
    assert_memory_equal(before, host.disk, sizeof before);
    assert_int_equal(host.flushes, 1); /* the driver cannot ask for it */
    fill_data(data, 512, 1);
    assert_int_equal(request(1, 8 * 66 + 7, 512), 0);
    memcpy(before[69] + 7 * 512, data, 512);
    assert_memory_equal(before, host.disk, sizeof before);
    drive(F_FLUSH, 1);
    assert_int_equal(request(1, 0, 512), 0);
    assert_int_equal(host.flushes, 2);
    assert_int_equal(request(4, 0, 0), 0);
    assert_int_equal(host.flushes, 3);
    /* Longer than one slice: 8 parts of 5 pages. */
    host.reads = 0;
    uint8_t header[16] = {0}, status = 9;
    ringenv_store(HEADER, header, 16);
    desc(0, 0, HEADER, 16, 1, 1);
    for (unsigned i = 1; i <= 8; i++) {
        desc(0, i, DATA, 5 * 4096, 3, i + 1);
    }
    desc(0, 9, STATUS, 1, 2, 0);
    offer(0, 0);
    ringenv_load(STATUS, &status, 1);
    assert_int_equal(status, 0);
    assert_int_equal(host.reads, 2);
    assert_int_equal(used_len(0), 40 * 4096 + 1);
    expect_data(host.disk[3 + 35], 5 * 4096);
    host.disk_fails = true;
    assert_int_equal(request(0, 0, 512), 1);
    assert_int_equal(request(1, 0, 512), 1);
    assert_int_equal(request(4, 0, 0), 1);
    /* It is taken; a reader would not go with a writer either. */
    strcpy(fake.vm.config.disk, "disk:nvme0p1");
    assert_int_equal(vblk_create(&fake.vm, &none), HV_EBUSY);
    vblk_destroy(none);
    assert_true(blkclaim_any(&disk, 30, 1));
    assert_false(blkclaim_any(&disk, 0, 24));
    vblk_destroy(d);
    assert_false(blkclaim_any(&disk, 30, 1));
    strcpy(fake.vm.config.disk, "disk:sda");
    assert_int_equal(vblk_create(&fake.vm, &none), HV_ENOENT);
    vblk_destroy(none);
    host.frames_left = 31;
    strcpy(fake.vm.config.disk, "disk:nvme0p1");
    assert_int_equal(vblk_create(&fake.vm, &none), HV_ENOMEM);
    vblk_destroy(none);
}

/* Several may read, or one may write. */
static void test_claims(void **state)
{
    (void)state;
    assert_int_equal(blkclaim_take(&disk, 0, 100, false), HV_OK);
    assert_int_equal(blkclaim_take(&disk, 50, 100, false), HV_OK);
    assert_int_equal(blkclaim_take(&disk, 149, 1, true), HV_EBUSY);
    assert_int_equal(blkclaim_take(&disk, 150, 1, true), HV_OK);
    assert_int_equal(blkclaim_take(&disk, 150, 1, false), HV_EBUSY);
    blkclaim_drop(&disk, 150, 1, true);
    blkclaim_drop(&disk, 50, 100, false);
    for (unsigned i = 1; i < 64; i++) {
        assert_int_equal(blkclaim_take(&disk, 1000 + i, 1, true), HV_OK);
    }
    assert_int_equal(blkclaim_take(&disk, 5000, 1, true), HV_ENOMEM);
    for (unsigned i = 1; i < 64; i++) {
        blkclaim_drop(&disk, 1000 + i, 1, true);
    }
    blkclaim_drop(&disk, 0, 100, false);
    assert_false(blkclaim_any(&disk, 0, UINT64_MAX / 2));
}

/* ---- Console ---- */

static void test_console(void **state)
{
    struct vconsole *d;
    char text[16] = "";

    (void)state;
    fake.vm.config.console = CONSOLE_VIRTIO;
    assert_int_equal(vconsole_create(&fake.vm, NULL, &d), HV_OK);
    m = vconsole_transport(d);
    drive(0, 3);
    ringenv_store(DATA, "hello, ", 7);
    ringenv_store(DATA + 4096, "world", 5);
    desc(1, 0, DATA, 7, 1, 1);
    desc(1, 1, DATA + 4096, 5, 0, 0);
    offer(1, 0);
    assert_int_equal(used_index(1), 1);
    assert_string_equal(host.printed, "hello, world");
    /* While the host's log is behind, a chain waits, unpinned, and goes on where it stopped. */
    static char text_out[2 * 4096];
    for (unsigned i = 0; i < sizeof text_out; i++) {
        text_out[i] = (char)('a' + i * 7 % 23);
    }
    ringenv_store(DATA, text_out, sizeof text_out);
    desc(1, 0, DATA, 5000, 1, 1);
    desc(1, 1, DATA + 5000, sizeof text_out - 5000, 0, 0);
    host.log_room = 1000;
    host.nr_printed = host.logged = 0;
    offer(1, 0);
    assert_int_equal(used_index(1), 2);
    assert_in_range(host.waits, 7, 8);
    assert_int_equal(host.nr_printed, sizeof text_out);
    assert_memory_equal(host.printed, text_out, sizeof text_out);
    host.log_room = 0;
    /* Buffers wait for input, input for buffers. */
    desc(0, 0, DATA, 3, 2, 0);
    desc(0, 1, DATA + 3, 10, 2, 0);
    offer(0, 0);
    assert_int_equal(used_index(0), 0);
    strcpy(host.typed, "abcde");
    host.nr_typed = 5;
    host.input_ready(host.input_arg);
    turn();
    assert_int_equal(used_index(0), 1);
    assert_int_equal(used_len(0), 3);
    offer(0, 1);
    assert_int_equal(used_index(0), 2);
    assert_int_equal(used_len(0), 2);
    ringenv_load(DATA, text, 5);
    assert_string_equal(text, "abcde");
    /* Nothing to write into. */
    desc(0, 0, DATA, 3, 0, 0);
    host.nr_typed = 1;
    offer(0, 0);
    assert_int_equal(in(0x70), 64 | 15);
    vconsole_destroy(d);
    assert_null(host.input_ready);
}

/* ---- Balloon ---- */

#define B_STATS BIT(1)
#define B_POISON BIT(4)
#define B_REPORTS BIT(5)

static struct vballoon *make_balloon(void)
{
    struct vballoon *d;

    fake.vm.config.balloon = BALLOON_KEY_VIRTIO;
    assert_int_equal(vballoon_create(&fake.vm, &d), HV_OK);
    m = vballoon_transport(d);
    return d;
}

static void test_balloon_pages(void **state)
{
    struct vballoon *d = make_balloon();
    uint32_t pfns[3] = {5, UINT32_MAX, 77};

    (void)state;
    drive(BIT(0) | BIT(2), 3);
    assert_int_equal(host.starts, 1);
    ringenv_store(DATA + 4090, pfns, sizeof pfns);
    desc(0, 0, DATA + 4090, sizeof pfns, 0, 0);
    offer(0, 0);
    assert_int_equal(used_index(0), 1);
    assert_int_equal(host.nr_given, 3);
    assert_int_equal(host.given[1], UINT32_MAX);
    desc(1, 0, DATA + 4090, 8, 0, 0);
    offer(1, 0);
    assert_int_equal(host.nr_taken, 2);
    /* Who has pinned a page lets go of it soon. */
    host.nr_given = 0;
    host.give_err = HV_EBUSY;
    offer(0, 0);
    assert_int_equal(host.nr_given, 9);
    assert_int_equal(host.sleeps, 2);
    assert_int_equal(used_index(0), 2);
    /* Targets, once a second. */
    host.told = 1234;
    assert_int_equal(in(0x100), 0);
    uint32_t generation = in(0xfc);
    fakevm_run(1100000000, 50000000);
    turn();
    assert_int_equal(in(0x100), 1234);
    assert_int_not_equal(in(0xfc), generation);
    assert_true(in(0x60) & 2);
    out(0x104, 99);
    assert_int_equal(in(0x104), 99);
    out(0x100, 1); /* not the driver's */
    assert_int_equal(in(0x100), 1234);
    /* A driver without statistics is heard of while it does what it is told. */
    host.heards = 0;
    for (unsigned i = 0; i < 3; i++) {
        fakevm_run(1000000000, 50000000);
        turn();
    }
    assert_int_equal(host.heards, 0);
    host.size = 1000;
    fakevm_run(1000000000, 50000000);
    turn();
    assert_int_equal(host.heards, 1);
    desc(0, 0, DATA, 5, 0, 0);
    offer(0, 0);
    assert_int_equal(in(0x70), 64 | 15);
    assert_int_equal(host.stops, 0);
    out(0x70, 0);
    assert_int_equal(host.stops, 1);
    assert_int_equal(in(0x100), 0);
    vballoon_destroy(d);
}

/* A balloon, and a chain of one page on its way into it, which is kept. */
static struct vballoon *make_giving_balloon(void)
{
    struct vballoon *d = make_balloon();
    uint32_t pfn = 5;

    drive(BIT(0), 3);
    ringenv_store(DATA, &pfn, sizeof pfn);
    desc(0, 0, DATA, sizeof pfn, 0, 0);
    return d;
}

/* A chain that is kept is completed although the thread is held when that is due, but for one whose queue is
 * taken out. */
static void test_balloon_held(void **state)
{
    struct vballoon *d = make_giving_balloon();

    (void)state;
    for (unsigned taken = 1; taken < 3; taken++) {
        host.hold_on_give = true;
        offer(0, 0);
        assert_int_equal(host.nr_given, taken);
        assert_int_equal(used_index(0), taken - 1);
        host.hold_on_give = false;
        ringenv.fail_one = 0;
        vmmio_let_go(m);
        out(0x30, taken & 1); /* first the other one */
        out(0x44, 0);
        turn();
        assert_int_equal(used_index(0), 1);
    }
    vballoon_destroy(d);
}

/* A chain that is kept ends the turn to take frames as any other does: the next one waits for its own. */
static void test_balloon_turns(void **state)
{
    struct vballoon *d = make_giving_balloon();

    (void)state;
    host.in_line = ringenv.away = true;
    host.waits = 0;
    for (unsigned taken = 1; taken < 4; taken++) {
        offer(0, 0);
        assert_int_equal(used_index(0), taken);
        assert_int_equal(host.waits, 2 * taken); /* to be taken, and to be completed */
        assert_int_equal(m->hope.turn, 0);
        assert_int_equal(m->hope.since_ns, 0);
    }
    vballoon_destroy(d);
}

/* A driver that comes and goes without end does not fill the host's log. */
static void test_balloon_lines(void **state)
{
    struct vballoon *d = make_balloon();

    (void)state;
    fake.log_lines = 0;
    for (unsigned i = 0; i < 1000; i++) {
        drive(0, 3);
        turn();
    }
    assert_int_equal(host.starts, 1000);
    assert_in_range(fake.log_lines, 2, 8);
    vballoon_destroy(d);
}

static void test_balloon_stats(void **state)
{
    struct vballoon *d = make_balloon();
    uint8_t stats[30] = {4, 0, 1, 2, 0, 0, 0, 0, 0, 0, 99, 0, 1, 1, 1, 1, 1, 1, 1, 1, 5, 0, 7};

    (void)state;
    drive(B_STATS, 7);
    ringenv_store(DATA, stats, sizeof stats);
    desc(2, 0, DATA, sizeof stats, 0, 0);
    offer(2, 0);
    assert_int_equal(host.guest.known, 0x30);
    assert_int_equal(host.guest.value[BALLOON_STAT_FREE], 0x201);
    assert_int_equal(host.guest.value[BALLOON_STAT_TOTAL], 7);
    assert_int_equal(host.heards, 1);
    /* The buffer is the device's until it wants new numbers. */
    assert_int_equal(used_index(2), 0);
    fakevm_run(1000000000, 50000000);
    turn();
    assert_int_equal(used_index(2), 1);
    offer(2, 0);
    offer(2, 0); /* a second one */
    assert_int_equal(in(0x70), 64 | 15);
    vballoon_destroy(d);
}

static void report(unsigned queue)
{
    desc(queue, 0, 0x400000, 0x401000, 3, 1);
    desc(queue, 1, 0x10800, 0x1800, 2, 0);
    host.nr_discarded = 0;
    offer(queue, 0);
}

static void expect_discarded(void)
{
    const uint64_t want[] = {0x400 | 9ull << 32, 0x600 | 9ull << 32, 0x800, 0x11};

    assert_int_equal(host.nr_discarded, 4);
    assert_memory_equal(host.discarded, want, sizeof want);
}

static void test_balloon_reports(void **state)
{
    struct vballoon *d = make_balloon();

    (void)state;
    /* By the standard, as Linux counts with statistics and without. */
    drive(B_STATS | B_REPORTS, 0x17);
    report(4);
    expect_discarded();
    assert_int_equal(used_index(4), 1);
    assert_int_equal(host.nr_reported, 1026);
    drive(B_STATS | B_REPORTS, 0xf);
    report(3);
    expect_discarded();
    drive(B_REPORTS, 7);
    report(2);
    expect_discarded();
    drive(B_REPORTS, 0x13);
    report(4);
    expect_discarded();
    /* The host's rules. */
    host.rules = (struct ballooning_reports){.order = 2, .delay_ns = 70000000};
    host.sleeps = 0;
    report(4);
    assert_int_equal(host.nr_discarded, 3);
    assert_int_equal(host.sleeps, 4);
    host.rules = (struct ballooning_reports){.order = 0};
    /* A guest that wants its pattern keeps its pages. */
    drive(B_REPORTS | B_POISON, 0x13);
    out(0x10c, 0xaa);
    report(4);
    assert_int_equal(host.nr_discarded, 0);
    assert_int_equal(used_index(4), 1);
    out(0x10c, 0);
    report(4);
    expect_discarded();
    /* What is no RAM. */
    desc(4, 0, 1ull << 40, 0x1000, 2, 0);
    offer(4, 0);
    assert_int_equal(in(0x70), 64 | 15);
    drive(B_REPORTS, 0x13);
    desc(4, 0, UINT64_MAX - 100, 0x1000, 2, 0);
    offer(4, 0);
    assert_int_equal(in(0x70), 64 | 15);
    /* A queue of no use to what was negotiated. */
    drive(0, 0x13);
    desc(4, 0, 0x400000, 0x1000, 2, 0);
    offer(4, 0);
    assert_int_equal(in(0x70), 64 | 15);
    vballoon_destroy(d);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_image),         TEST(test_image_lies),      TEST(test_host_disk),
        TEST(test_claims),        TEST(test_console),         TEST(test_balloon_pages),
        TEST(test_balloon_stats), TEST(test_balloon_reports), TEST(test_balloon_lines),
        TEST(test_balloon_held),  TEST(test_balloon_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
