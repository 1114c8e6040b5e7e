/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of a disk (kernel/drivers/blk_queue.c) on a disk in memory that fails, hangs, forgets and
 * disappears on demand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/drivers/blk_queue.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "tests/host/env.h"

#define DISK_PAGES 64u
#define DEPTH 8u
#define FRAMES 256u
#define SECOND 1000000000ull

static struct fake {
    struct blk_disk disk;
    uint8_t data[DISK_PAGES][PAGE_SIZE];
    struct blk_request *held[BLK_DEPTH_MAX]; /* in the device */
    bool lost[BLK_DEPTH_MAX];                /* forgotten until the next reset */
    bool hang;                               /* nothing completes */
    bool failing;                            /* all that is in the device now */
    bool busy;                               /* takes nothing */
    bool gone;                               /* does not answer */
    bool reset_fails;
    uint64_t bad_page;  /* not 0: all requests fail that are in the device with one for it */
    unsigned fail;      /* this many further requests fail */
    uint64_t fail_rate; /* one in so many fails at random */
    uint64_t hang_rate; /* one in so many is forgotten */
    bool fail_for_good; /* with HV_ENOTSUP */
    unsigned resets, cuts, submits;
    struct blk_request *order[4096]; /* as they were submitted */
    unsigned done_when_cut;
    struct rng rng;
} fake;

static mfn_t frames[FRAMES];
static uint64_t now_ns;
static unsigned nr_done;
static unsigned nr_logged;

void log_msg(enum log_level level, const char *fmt, ...)
{
    (void)level;
    (void)fmt;
    nr_logged++;
}

static enum hv_err fake_submit(struct blk_disk *d, struct blk_request *r)
{
    (void)d;
    if (fake.gone) {
        return HV_ENOENT;
    }
    if (fake.busy) {
        return HV_EBUSY;
    }
    assert_null(fake.held[r->tag]);
    assert_true(r->tag < fake.disk.depth);
    fake.held[r->tag] = r;
    fake.order[fake.submits++ % 4096] = r;
    return HV_OK;
}

static void move(const struct blk_request *r)
{
    uint64_t page = r->sector / BLK_PAGE_SECTORS;

    for (unsigned i = 0; i < r->nr_frames; i++) {
        uint64_t pa = blk_page(&fake.disk, r, i);

        assert_true(fake.disk.reach == 0 || pa >> PAGE_SHIFT < fake.disk.reach);
        void *frame = env_frame_ptr(MFN(pa >> PAGE_SHIFT));

        if (r->op == BLK_WRITE) {
            memcpy(fake.data[page + i], frame, PAGE_SIZE);
        } else {
            memcpy(frame, fake.data[page + i], PAGE_SIZE);
        }
    }
}

static bool one_in(uint64_t rate)
{
    return rate != 0 && rng_below(&fake.rng, rate) == 0;
}

static bool bad_company(void)
{
    bool bad = false;

    for (unsigned tag = 0; fake.bad_page != 0 && tag < fake.disk.depth; tag++) {
        const struct blk_request *r = fake.held[tag];

        bad = bad || (r != NULL && r->sector == fake.bad_page * BLK_PAGE_SECTORS);
    }
    return bad;
}

static void serve(unsigned tag)
{
    struct blk_request *r = fake.held[tag];
    bool fail = fake.fail != 0 || one_in(fake.fail_rate) || fake.failing;

    if (fake.lost[tag] || one_in(fake.hang_rate)) {
        fake.lost[tag] = true;
        return;
    }
    fake.held[tag] = NULL;
    fake.fail -= fake.fail != 0;
    if (!fail) {
        move(r);
    }
    blkq_complete(&fake.disk, tag, !fail ? HV_OK : fake.fail_for_good ? HV_ENOTSUP : HV_EIO);
}

static enum hv_err fake_reap(struct blk_disk *d)
{
    unsigned first = (unsigned)rng_below(&fake.rng, d->depth);

    if (fake.gone) {
        return HV_ENOENT;
    }
    fake.failing = bad_company();
    for (unsigned i = 0; i < d->depth && !fake.hang; i++) {
        unsigned tag = (first + i) % d->depth;

        if (fake.held[tag] != NULL) {
            serve(tag);
        }
    }
    return HV_OK;
}

static enum hv_err fake_reset(struct blk_disk *d)
{
    (void)d;
    fake.resets++;
    memset(fake.lost, 0, sizeof(fake.lost));
    memset(fake.held, 0, sizeof(fake.held));
    return fake.reset_fails ? HV_ETIMEDOUT : HV_OK;
}

static void fake_cut(struct blk_disk *d)
{
    (void)d;
    fake.cuts++;
    fake.done_when_cut = nr_done;
    memset(fake.held, 0, sizeof(fake.held));
}

static const struct blk_driver driver = {
    .name = "fake", .submit = fake_submit, .reap = fake_reap, .reset = fake_reset, .cut = fake_cut};

static int by_number(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;

    return x->n < y->n ? -1 : x->n > y->n;
}

static int start(void **state)
{
    (void)state;
    env_start(MFN(16), 1024, 1);
    memset(&fake, 0, sizeof(fake));
    fake.disk.driver = &driver;
    strcpy(fake.disk.name, "fake0");
    fake.disk.nr_sectors = DISK_PAGES * BLK_PAGE_SECTORS;
    fake.disk.sector_bytes = 512;
    fake.disk.depth = DEPTH;
    fake.disk.can_flush = true;
    rng_seed(&fake.rng, env_seed("blk"));
    blkq_init(&fake.disk);
    for (unsigned i = 0; i < FRAMES; i++) {
        assert_int_equal(buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &frames[i]), HV_OK);
    }
    qsort(frames, FRAMES, sizeof(frames[0]), by_number);
    now_ns = nr_done = nr_logged = 0;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FRAMES; i++) {
        buddy_free(frames[i], 0);
    }
    env_stop();
    return 0;
}

static void done(struct blk_request *r)
{
    assert_null(r->arg); /* once only */
    r->arg = r;
    nr_done++;
}

static struct blk_request request(enum blk_op op, uint64_t page, unsigned nr, unsigned frame)
{
    return (struct blk_request){.op = op,
                                .sector = page * BLK_PAGE_SECTORS,
                                .nr_frames = nr,
                                .frames = &frames[frame],
                                .done = done,
                                .result = HV_EPERM};
}

static void submit(struct blk_request *r)
{
    r->arg = NULL;
    blkq_submit(&fake.disk, r);
}

static void turn(uint64_t ns)
{
    now_ns += ns;
    (void)blkq_run(&fake.disk, now_ns);
}

static void fill(unsigned frame, uint8_t value)
{
    memset(env_frame_ptr(frames[frame]), value, PAGE_SIZE);
}

static bool holds(unsigned frame, uint8_t value)
{
    const uint8_t *p = env_frame_ptr(frames[frame]);

    return p[0] == value && memcmp(p, p + 1, PAGE_SIZE - 1) == 0;
}

/* ---- Tests ---- */

static void test_data(void **state)
{
    struct blk_request w = request(BLK_WRITE, 3, 2, 0);
    struct blk_request r = request(BLK_READ, 3, 2, 2);
    struct blk_request f = request(BLK_FLUSH, 0, 0, 0);

    (void)state;
    fill(0, 0x11);
    fill(1, 0x22);
    submit(&w);
    submit(&f);
    turn(1);
    turn(1);
    assert_int_equal(w.result, HV_OK);
    assert_int_equal(f.result, HV_OK);
    submit(&r);
    turn(1);
    turn(1);
    assert_int_equal(r.result, HV_OK);
    assert_true(holds(2, 0x11) && holds(3, 0x22));
    assert_true(blkq_idle(&fake.disk));
    assert_int_equal(fake.disk.queue.stats.frames_written, 2);
    assert_int_equal(fake.disk.queue.stats.flushes, 1);
}

/* What does not fit the disk is refused, and nothing of it reaches the driver. */
static void test_refused(void **state)
{
    struct blk_request bad[] = {
        request(BLK_READ, DISK_PAGES, 1, 0),
        request(BLK_READ, DISK_PAGES - 1, 2, 0),
        request(BLK_WRITE, 0, 0, 0),
        request(BLK_WRITE, 0, BLK_RUN_MAX + 1, 0),
        request(BLK_READ, UINT64_MAX / 16, 4, 0),
        request(BLK_FLUSH, 0, 1, 0),
        request(BLK_READ, 1, 1, 0),
    };

    (void)state;
    fake.disk.sector_bytes = 4096;
    bad[6].sector = 9; /* not a sector of 4096 bytes */
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        submit(&bad[i]);
    }
    turn(1);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(bad[i].result, HV_EINVAL);
    }
    assert_int_equal(fake.submits, 0);

    struct blk_request w = request(BLK_WRITE, 0, 1, 0);

    fake.disk.read_only = true;
    submit(&w);
    turn(1);
    assert_int_equal(w.result, HV_EINVAL);
    assert_int_equal(fake.submits, 0);
}

/* A flush of a disk without a cache does not reach it. */
static void test_no_flush(void **state)
{
    struct blk_request f = request(BLK_FLUSH, 0, 0, 0);

    (void)state;
    fake.disk.can_flush = false;
    submit(&f);
    turn(1);
    assert_int_equal(f.result, HV_OK);
    assert_int_equal(fake.submits, 0);
}

/* Writers fill the device only so far; a read that comes then starts at once. */
static void test_room_for_reads(void **state)
{
    struct blk_request w[20];
    struct blk_request r = request(BLK_READ, 1, 1, 40);

    (void)state;
    fake.hang = true;
    for (unsigned i = 0; i < 20; i++) {
        w[i] = request(BLK_WRITE, i, 1, i);
        submit(&w[i]);
    }
    turn(1);
    assert_int_equal(fake.submits, DEPTH - DEPTH / 4);
    submit(&r);
    turn(1);
    assert_ptr_equal(fake.order[fake.submits - 1], &r);
    fake.hang = false;
    for (unsigned i = 0; i < 10; i++) {
        turn(1);
    }
    assert_int_equal(nr_done, 21);
}

/* Reads go before writes, and writes are not held up for ever. */
static void test_fairness(void **state)
{
    struct blk_request w[3], r[60];
    unsigned place[3];

    (void)state;
    fake.disk.depth = 1;
    for (unsigned i = 0; i < 3; i++) {
        w[i] = request(BLK_WRITE, i, 1, i);
        submit(&w[i]);
    }
    for (unsigned i = 0; i < 60; i++) {
        r[i] = request(BLK_READ, 10, 1, 10 + i);
        submit(&r[i]);
    }
    while (nr_done < 63) {
        turn(1);
    }
    for (unsigned i = 0, n = 0; i < fake.submits; i++) {
        if (fake.order[i]->op == BLK_WRITE) {
            place[n++] = i;
        }
    }
    assert_int_equal(place[0], BLK_OVERTAKE);
    assert_int_equal(place[1], 2 * BLK_OVERTAKE + 1);
    assert_int_equal(place[2], 3 * BLK_OVERTAKE + 2);
}

static void test_retries(void **state)
{
    struct blk_request r = request(BLK_READ, 0, 1, 0);

    (void)state;
    fake.fail = BLK_ATTEMPTS - 1;
    submit(&r);
    for (unsigned i = 0; i < 5; i++) {
        turn(1);
    }
    assert_int_equal(r.result, HV_OK);
    assert_int_equal(fake.disk.queue.stats.retries, BLK_ATTEMPTS - 1);

    fake.fail = BLK_ATTEMPTS;
    submit(&r);
    for (unsigned i = 0; i < 5; i++) {
        turn(1);
    }
    assert_int_equal(r.result, HV_EIO);
    assert_int_equal(fake.fail, 0);

    fake.fail = 1;
    fake.fail_for_good = true;
    submit(&r);
    turn(1);
    turn(1);
    assert_int_equal(r.result, HV_ENOTSUP); /* asking again would not help */
    assert_int_equal(fake.resets, 0);
}

/* A device that fails everything that is in it with the bad one: the others come through all the same. */
static void test_fails_neighbours(void **state)
{
    struct blk_request r[12];
    unsigned good = 0;

    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        r[i] = request(BLK_READ, i, 1, i);
        submit(&r[i]);
    }
    fake.bad_page = 5;
    for (unsigned i = 0; i < 100; i++) {
        turn(1);
    }
    assert_int_equal(nr_done, 12);
    for (unsigned i = 0; i < 12; i++) {
        good += r[i].result == HV_OK;
    }
    assert_int_equal(good, 11);
    assert_int_equal(r[5].result, HV_EIO);
}

/* What hangs is reset and starts again. */
static void test_timeout(void **state)
{
    struct blk_request r[3];

    (void)state;
    fake.hang = true;
    for (unsigned i = 0; i < 3; i++) {
        r[i] = request(BLK_READ, i, 1, i);
        submit(&r[i]);
    }
    turn(1);
    turn(BLK_TIMEOUT_NS);
    assert_int_equal(fake.resets, 0);
    turn(SECOND);
    assert_int_equal(fake.resets, 1);
    assert_int_equal(nr_done, 0);
    assert_ptr_equal(fake.order[3], &r[0]); /* in the order of before */
    fake.hang = false;
    turn(1);
    assert_int_equal(nr_done, 3);
    assert_int_equal(r[0].result, HV_OK);
    assert_false(blk_gone(&fake.disk));
}

/* One that always hangs fails in time, and then the disk is gone for the others too. */
static void test_hangs_for_ever(void **state)
{
    struct blk_request r[40], late = request(BLK_WRITE, 0, 1, 0);
    unsigned turns = 0;

    (void)state;
    fake.hang = true;
    for (unsigned i = 0; i < 40; i++) {
        r[i] = request(i % 2 ? BLK_READ : BLK_WRITE, i, 1, i);
        submit(&r[i]);
    }
    while (nr_done < 40 && turns++ < 60) {
        turn(SECOND);
    }
    assert_int_equal(nr_done, 40); /* within a minute */
    assert_true(blk_gone(&fake.disk));
    assert_int_equal(fake.cuts, 1);
    for (unsigned i = 0; i < 40; i++) {
        assert_true(r[i].result == HV_ENOENT || r[i].result == HV_EIO);
    }
    submit(&late);
    turn(1);
    assert_int_equal(late.result, HV_ENOENT);
    assert_true(blkq_idle(&fake.disk));
}

/* A disk that does not come back is cut off before anybody gets frames back. */
static void test_reset_fails(void **state)
{
    struct blk_request r[12];

    (void)state;
    fake.hang = fake.reset_fails = true;
    for (unsigned i = 0; i < 12; i++) {
        r[i] = request(BLK_READ, i, 1, i);
        submit(&r[i]);
    }
    turn(1);
    turn(2 * BLK_TIMEOUT_NS);
    assert_int_equal(fake.cuts, 1);
    assert_int_equal(fake.done_when_cut, 0);
    assert_int_equal(nr_done, 12);
    assert_int_equal(r[11].result, HV_ENOENT);
}

/* Pulled: seen by a look, or by a submission. */
static void test_removed(void **state)
{
    struct blk_request r = request(BLK_READ, 0, 1, 0), w = request(BLK_WRITE, 0, 1, 0);

    (void)state;
    fake.hang = true;
    submit(&r);
    turn(1);
    fake.gone = true;
    submit(&w);
    turn(1);
    assert_int_equal(r.result, HV_ENOENT);
    assert_int_equal(w.result, HV_ENOENT);
    assert_int_equal(fake.cuts, 1);
    assert_int_equal(fake.resets, 0);
}

static enum hv_err submit_gone(struct blk_disk *d, struct blk_request *r)
{
    (void)d;
    (void)r;
    return HV_ENOENT;
}

static void test_removed_at_submit(void **state)
{
    static struct blk_driver pulled;
    struct blk_request r = request(BLK_READ, 0, 1, 0), w = request(BLK_WRITE, 0, 1, 0);

    (void)state;
    pulled = driver;
    pulled.submit = submit_gone;
    fake.disk.driver = &pulled;
    submit(&w);
    submit(&r);
    turn(1);
    assert_int_equal(nr_done, 2);
    assert_int_equal(r.result, HV_ENOENT);
    assert_int_equal(w.result, HV_ENOENT);
}

/* A device that takes nothing now gets it later. */
static void test_busy(void **state)
{
    struct blk_request r = request(BLK_READ, 0, 1, 0);

    (void)state;
    fake.busy = true;
    submit(&r);
    for (unsigned i = 0; i < 10; i++) {
        turn(SECOND);
    }
    assert_int_equal(nr_done, 0);
    assert_false(blkq_idle(&fake.disk));
    fake.busy = false;
    turn(1);
    turn(1);
    assert_int_equal(r.result, HV_OK);
}

/* Completions of what is not in flight are the device's mistake. */
static void test_spurious(void **state)
{
    (void)state;
    blkq_complete(&fake.disk, 3, HV_OK);
    blkq_complete(&fake.disk, 77, HV_OK);
    assert_int_equal(nr_logged, 2);
    assert_true(blkq_idle(&fake.disk));
    for (unsigned i = 0; i < 1000; i++) { /* which does not fill the log */
        blkq_complete(&fake.disk, i, HV_OK);
    }
    assert_in_range(nr_logged, 3, 9);
}

/* Frames out of the device's reach go through others, one request at a time. */
static void test_bounce(void **state)
{
    const unsigned far = BLK_RUN_MAX;
    struct blk_request w[3], r = request(BLK_READ, 0, 2, 200);

    (void)state;
    for (unsigned i = 0; i < BLK_RUN_MAX; i++) {
        fake.disk.queue.bounce[i] = frames[i];
    }
    fake.disk.reach = frames[far].n;
    for (unsigned i = 0; i < 3; i++) {
        fill(far + i, (uint8_t)(0x31 + i));
        w[i] = request(BLK_WRITE, i, 1, far + i);
        submit(&w[i]);
    }
    turn(1);
    assert_int_equal(fake.submits, 1);
    for (unsigned i = 0; i < 4; i++) {
        turn(1);
    }
    assert_int_equal(nr_done, 3);
    assert_int_equal(fake.disk.queue.stats.bounced, 3);
    submit(&r);
    turn(1);
    fill(200, 0);
    turn(1);
    assert_int_equal(r.result, HV_OK);
    assert_true(holds(200, 0x31) && holds(201, 0x32));
    assert_null(fake.disk.queue.bouncing);
}

/* Completions may submit again. */
static void again(struct blk_request *r)
{
    if (++nr_done < 10) {
        blkq_submit(&fake.disk, r);
    }
}

static void test_resubmit(void **state)
{
    struct blk_request r = request(BLK_READ, 0, 1, 0);

    (void)state;
    r.done = again;
    blkq_submit(&fake.disk, &r);
    while (!blkq_idle(&fake.disk)) {
        turn(1);
    }
    assert_int_equal(nr_done, 10);
}

/* Anything may happen at any time: each request ends once, and what says HV_OK is true. */
static void test_random(void **state)
{
    static struct blk_request pool[48];
    static bool busy_page[DISK_PAGES];
    static int known[DISK_PAGES]; /* content, or -1 */
    static bool active[48];
    struct rng *rng = &fake.rng;
    unsigned ended = 0;

    (void)state;
    memset(busy_page, 0, sizeof(busy_page));
    memset(active, 0, sizeof(active));
    memset(known, 0, sizeof(known));
    fake.fail_rate = 7;
    fake.hang_rate = 400;
    for (unsigned step = 0; step < 20000; step++) {
        unsigned i = (unsigned)rng_below(rng, 48);
        unsigned page = (unsigned)rng_below(rng, DISK_PAGES);

        if (!active[i] && !busy_page[page]) {
            pool[i] = request(rng_below(rng, 2) ? BLK_READ : BLK_WRITE, page, 1, i);
            fill(i, (uint8_t)(pool[i].op == BLK_WRITE ? step : 0xee));
            active[i] = busy_page[page] = true;
            submit(&pool[i]);
        }
        turn(rng_below(rng, SECOND));
        for (i = 0; i < 48; i++) {
            if (!active[i] || pool[i].arg == NULL) {
                continue;
            }
            page = (unsigned)(pool[i].sector / BLK_PAGE_SECTORS);
            active[i] = busy_page[page] = false;
            ended++;
            if (pool[i].op == BLK_WRITE) {
                const uint8_t *p = env_frame_ptr(frames[i]);

                known[page] = pool[i].result == HV_OK ? *p : -1;
            } else if (pool[i].result == HV_OK && known[page] >= 0) {
                assert_true(holds(i, (uint8_t)known[page]));
            }
        }
    }
    fake.fail_rate = fake.hang_rate = 0;
    for (unsigned i = 0; i < 40; i++) {
        turn(SECOND);
    }
    assert_true(blkq_idle(&fake.disk));
    assert_true(ended > 1000);
    assert_true(fake.disk.queue.stats.retries > 100 && fake.resets > 3);
    assert_false(blk_gone(&fake.disk));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_data, start, stop),
        cmocka_unit_test_setup_teardown(test_refused, start, stop),
        cmocka_unit_test_setup_teardown(test_no_flush, start, stop),
        cmocka_unit_test_setup_teardown(test_room_for_reads, start, stop),
        cmocka_unit_test_setup_teardown(test_fairness, start, stop),
        cmocka_unit_test_setup_teardown(test_retries, start, stop),
        cmocka_unit_test_setup_teardown(test_fails_neighbours, start, stop),
        cmocka_unit_test_setup_teardown(test_timeout, start, stop),
        cmocka_unit_test_setup_teardown(test_hangs_for_ever, start, stop),
        cmocka_unit_test_setup_teardown(test_reset_fails, start, stop),
        cmocka_unit_test_setup_teardown(test_removed, start, stop),
        cmocka_unit_test_setup_teardown(test_removed_at_submit, start, stop),
        cmocka_unit_test_setup_teardown(test_busy, start, stop),
        cmocka_unit_test_setup_teardown(test_spurious, start, stop),
        cmocka_unit_test_setup_teardown(test_bounce, start, stop),
        cmocka_unit_test_setup_teardown(test_resubmit, start, stop),
        cmocka_unit_test_setup_teardown(test_random, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
