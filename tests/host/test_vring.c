/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device's side of a virtqueue against a naive reading of the same memory: rings as drivers make them,
 * rings that were damaged at random, and single lies with what is said of them.
 */
#include "kernel/devices/vring.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/rng.h"
#include "tests/host/env.h"
#include "tests/host/ringenv.h"

#define DESC_PAGE 1u
#define INDIRECT_PAGE 4u

static struct vring ring;
static struct vring_chain chain;
static struct rng rng;

struct desc {
    uint64_t gpa;
    uint32_t len;
    uint16_t flags, next;
};
#define NEXT 1
#define WRITE 2
#define INDIRECT 4

uint64_t env_seed(const char *test)
{
    const char *text = getenv("BALLAST_SEED");

    print_message("%s: seed %s (BALLAST_SEED)\n", test, text ? text : "1");
    return text ? strtoull(text, NULL, 0) : 1;
}

/* ---- A driver ---- */

static void ring_at(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
    memset(&ring, 0, sizeof ring);
    ring.size = size;
    ring.indirect = true;
    ring.desc.gpa = desc;
    ring.avail.gpa = avail;
    ring.used.gpa = used;
    assert_true(vring_valid(&ring));
    vring_start(&ring);
}

static int setup(void **state)
{
    (void)state;
    ringenv_start();
    ring_at(8, DESC_PAGE * PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ringenv_stop();
    return 0;
}

static void put_desc(uint64_t table, unsigned index, uint64_t gpa, uint32_t len, unsigned flags,
                     unsigned next)
{
    struct desc d = {gpa, len, (uint16_t)flags, (uint16_t)next};

    assert_true(ringenv_store(table + 16 * index, &d, sizeof d));
}

static void put16(uint64_t gpa, uint16_t value)
{
    assert_true(ringenv_store(gpa, &value, 2));
}

static uint32_t get(uint64_t gpa, unsigned bytes)
{
    uint32_t v = 0;

    assert_true(ringenv_load(gpa, &v, bytes));
    return v;
}

static uint16_t avail_index(void)
{
    return (uint16_t)get(ring.avail.gpa + 2, 2);
}

static void offer(uint16_t head)
{
    uint16_t index = avail_index();

    put16(ring.avail.gpa + 4 + 2 * (index % ring.size), head);
    put16(ring.avail.gpa + 2, (uint16_t)(index + 1));
}

static enum hv_err pop(bool pin)
{
    assert_int_equal(vring_map(&ring), HV_OK);
    return vring_pop(&ring, &chain, pin);
}

/* ---- What drivers do ---- */

static void test_request(void **state)
{
    uint8_t data[64];

    (void)state;
    assert_int_equal(pop(true), HV_ENOENT);
    vring_unmap(&ring);
    /* Across pages, in three pieces; then a byte to be written. */
    put_desc(ring.desc.gpa, 3, 6 * PAGE_SIZE - 5, 9, NEXT, 0);
    put_desc(ring.desc.gpa, 0, 8 * PAGE_SIZE, 0, NEXT, 7);
    put_desc(ring.desc.gpa, 7, 9 * PAGE_SIZE + 1, 7, NEXT, 1);
    put_desc(ring.desc.gpa, 1, 10 * PAGE_SIZE - 2, 4, WRITE | NEXT, 2);
    put_desc(ring.desc.gpa, 2, 11 * PAGE_SIZE, 1, WRITE, 0);
    ringenv_store(6 * PAGE_SIZE - 5, "123456789", 9);
    ringenv_store(9 * PAGE_SIZE + 1, "abcdefg", 7);
    offer(3);
    assert_int_equal(pop(true), HV_OK);
    assert_int_equal(chain.readable, 16);
    assert_int_equal(chain.writable, 5);
    assert_int_equal(vring_read(&chain, data, 3), 3);
    assert_int_equal(vring_read(&chain, data + 3, sizeof data - 3), 13);
    assert_memory_equal(data, "123456789abcdefg", 16);
    assert_int_equal(vring_read(&chain, data, 1), 0);
    vring_write_last(&chain, '!');
    assert_int_equal(vring_write(&chain, "WXYZ", 4), 4);
    ringenv_load(10 * PAGE_SIZE - 2, data, 4);
    assert_memory_equal(data, "WXYZ", 4);
    assert_int_equal(get(11 * PAGE_SIZE, 1), '!');
    vring_release(&chain);
    vring_push(&ring, chain.head, 5);
    assert_int_equal(get(ring.used.gpa + 2, 2), 1);
    assert_int_equal(get(ring.used.gpa + 4, 4), 3);
    assert_int_equal(get(ring.used.gpa + 8, 4), 5);
    assert_false(vring_pending(&ring));
    assert_int_equal(vring_pop(&ring, &chain, true), HV_ENOENT);
    vring_unmap(&ring);
}

static void test_flags(void **state)
{
    (void)state;
    assert_int_equal(vring_map(&ring), HV_OK);
    vring_notify(&ring, false);
    assert_int_equal(get(ring.used.gpa, 2), 1);
    vring_notify(&ring, true);
    assert_int_equal(get(ring.used.gpa, 2), 0);
    assert_true(vring_wants_interrupt(&ring));
    put16(ring.avail.gpa, 1);
    assert_false(vring_wants_interrupt(&ring));
    put_desc(ring.desc.gpa, 5, PAGE_SIZE, 1, 0, 0);
    offer(5);
    assert_true(vring_pending(&ring));
    vring_unmap(&ring);
}

/* Taken back, and taken again; both indexes go around. */
static void test_undo_and_wrap(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 65536 + 20; i++) {
        put_desc(ring.desc.gpa, i % 8, 5 * PAGE_SIZE, 1 + i % 100, 0, 0);
        offer((uint16_t)(i % 8));
        assert_int_equal(pop(true), HV_OK);
        if (i % 1000 == 0) {
            vring_undo(&ring, &chain);
            assert_int_equal(vring_pop(&ring, &chain, true), HV_OK);
        }
        assert_int_equal(chain.readable, 1 + i % 100);
        assert_int_equal(chain.head, i % 8);
        vring_release(&chain);
        vring_push(&ring, chain.head, 0);
        vring_unmap(&ring);
    }
    assert_int_equal(get(ring.used.gpa + 2, 2), 20);
}

static void test_indirect(void **state)
{
    (void)state;
    uint64_t table = (INDIRECT_PAGE + 1) * PAGE_SIZE - 24; /* its second entry crosses a page */

    put_desc(ring.desc.gpa, 0, 7 * PAGE_SIZE, 10, NEXT, 1);
    put_desc(ring.desc.gpa, 1, table, 3 * 16, INDIRECT | WRITE, 99);
    put_desc(table, 0, 8 * PAGE_SIZE, 20, NEXT, 2);
    put_desc(table, 2, 9 * PAGE_SIZE, 30, NEXT | WRITE, 1);
    put_desc(table, 1, 9 * PAGE_SIZE, 40, WRITE, 1);
    offer(0);
    assert_int_equal(pop(true), HV_OK);
    assert_int_equal(chain.readable, 30);
    assert_int_equal(chain.writable, 70);
    assert_int_equal(ringenv.pins, 3 + 4);
    vring_release(&chain);
    vring_unmap(&ring);
    assert_int_equal(ringenv.pins, 0);
}

/* Ranges are not buffers. */
static void test_ranges(void **state)
{
    (void)state;
    put_desc(ring.desc.gpa, 0, 1ull << 40, 1u << 31, WRITE, 0);
    offer(0);
    assert_int_equal(pop(false), HV_OK);
    assert_int_equal(chain.seg[0].gpa, 1ull << 40);
    assert_int_equal(ringenv.pins, 3);
    vring_unmap(&ring);
}

static void test_places(void **state)
{
    static const struct {
        uint16_t size;
        uint64_t desc, avail, used;
    } bad[] = {{0, 0, 0, 0},     {3, 0, 0, 0},       {256, 0, 0, 0},    {8, 8, 0, 0},
               {8, 0, 1, 0},     {8, 0, 0, 2},       {8, -16ull, 0, 0}, {8, 0, -2ull, 0},
               {8, 0, 0, -4ull}, {128, 1, 0x1000, 0}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        ring.size = bad[i].size;
        ring.desc.gpa = bad[i].desc;
        ring.avail.gpa = bad[i].avail;
        ring.used.gpa = bad[i].used;
        assert_false(vring_valid(&ring));
        assert_string_not_equal(ring.why, "");
    }
    /* In a hole, and behind everything: only mapping tells. */
    for (unsigned i = 0; i < 3; i++) {
        uint64_t hole = RINGENV_HOLE * PAGE_SIZE - 16;

        ring_at(8, i == 0 ? hole : 0, i == 1 ? hole : 0, i == 2 ? 1ull << 50 : 0);
        assert_int_equal(vring_map(&ring), HV_EINVAL);
        assert_non_null(strstr(ring.why, "there is no RAM"));
        assert_int_equal(ringenv.pins, 0);
    }
}

/* ---- Lies ---- */

static void expect_wrong(const char *why)
{
    offer(0);
    assert_int_equal(pop(true), HV_EINVAL);
    assert_string_equal(ring.why, why);
    vring_unmap(&ring);
    assert_int_equal(ringenv.pins, 0);
    ring.next_avail = avail_index();
}

static void test_lies(void **state)
{
    uint64_t d = ring.desc.gpa, table = INDIRECT_PAGE * PAGE_SIZE;

    (void)state;
    put_desc(d, 0, PAGE_SIZE, 16, NEXT, 8);
    expect_wrong("descriptor 8 of 8");
    put_desc(d, 0, PAGE_SIZE, 16, NEXT, 0);
    expect_wrong("a chain that is too long or loops");
    put_desc(d, 0, PAGE_SIZE, 16, NEXT | WRITE, 1);
    put_desc(d, 1, PAGE_SIZE, 16, 0, 0);
    expect_wrong("something to read behind something to write");
    put_desc(d, 0, UINT64_MAX - 3, 16, 0, 0);
    expect_wrong("16 bytes at 0xfffffffffffffffc");
    put_desc(d, 0, PAGE_SIZE, UINT32_MAX, NEXT, 1);
    put_desc(d, 1, PAGE_SIZE, 1, 0, 0);
    expect_wrong("1 bytes at 0x1000");
    put_desc(d, 0, 14 * PAGE_SIZE, UINT32_MAX, 0, 0);
    expect_wrong("address 0x14000, where there is no RAM");
    put_desc(d, 0, RINGENV_HOLE * PAGE_SIZE - 1, 2, WRITE, 0);
    expect_wrong("address 0xd000, where there is no RAM");
    for (unsigned i = 0; i < 8; i++) {
        put_desc(d, i, 0, 13 * PAGE_SIZE, i < 7 ? NEXT : 0, i + 1);
    }
    put_desc(d, 7, table, 64 * 16, INDIRECT, 0);
    for (unsigned i = 0; i < 64; i++) {
        put_desc(table, i, 0, 13 * PAGE_SIZE, i < 63 ? NEXT : 0, i + 1);
    }
    expect_wrong("a chain of more than 260 pages");
    assert_in_range(ringenv.most_pins, 260, 263);
    /* Indirect tables. */
    put_desc(d, 0, table, 16, INDIRECT | NEXT, 1);
    expect_wrong("an indirect table where there may be none");
    put_desc(d, 0, table, 16, INDIRECT, 0);
    put_desc(table, 0, table, 16, INDIRECT, 0);
    expect_wrong("an indirect table where there may be none");
    put_desc(d, 0, table, 0, INDIRECT, 0);
    expect_wrong("an indirect table of 0 bytes at 0x4000");
    put_desc(d, 0, table, 17, INDIRECT, 0);
    expect_wrong("an indirect table of 17 bytes at 0x4000");
    put_desc(d, 0, UINT64_MAX - 15, 32, INDIRECT, 0);
    expect_wrong("an indirect table of 32 bytes at 0xfffffffffffffff0");
    put_desc(d, 0, RINGENV_HOLE * PAGE_SIZE, 32, INDIRECT, 0);
    expect_wrong("address 0xd000, where there is no RAM");
    put_desc(d, 0, table, 32, INDIRECT, 0);
    put_desc(table, 0, 0, 1, NEXT, 2);
    expect_wrong("descriptor 2 of 2");
    put_desc(table, 0, 0, 1, NEXT, 0);
    expect_wrong("a chain that is too long or loops");
    ring.indirect = false;
    expect_wrong("an indirect table where there may be none");
    /* More heads than there are places. */
    put16(ring.avail.gpa + 2, (uint16_t)(ring.next_avail + 8));
    expect_wrong("9 new heads in a ring of 8");
    put16(ring.avail.gpa + 2, (uint16_t)(ring.next_avail - 2));
    expect_wrong("65535 new heads in a ring of 8");
}

/* ---- Against the model ---- */

/* Some address: mostly RAM, sometimes at an edge, in the hole or nowhere. */
static uint64_t any_gpa(void)
{
    switch (rng_below(&rng, 12)) {
    case 0:
        return rng_next(&rng);
    case 1:
        return RINGENV_BYTES - rng_below(&rng, 64);
    case 2:
        return RINGENV_HOLE * PAGE_SIZE - 32 + rng_below(&rng, 64);
    default:
        return 5 * PAGE_SIZE + rng_below(&rng, 8 * PAGE_SIZE);
    }
}

static uint32_t any_len(void)
{
    switch (rng_below(&rng, 20)) {
    case 0:
        return (uint32_t)rng_next(&rng);
    case 1:
        return 0;
    case 2:
        return (uint32_t)rng_below(&rng, 3 * PAGE_SIZE);
    default:
        return (uint32_t)rng_below(&rng, 300);
    }
}

/* A table of descriptors, each chain's parts one behind the other, now and then with a lie. */
static void fill_table(uint64_t table, unsigned size, bool indirect, unsigned lies)
{
    bool write = false;

    for (unsigned i = 0; i < size; i++) {
        bool last = i + 1 == size || rng_below(&rng, 4) == 0;
        unsigned flags = last ? 0 : NEXT, next = i + 1;
        uint64_t gpa = 5 * PAGE_SIZE + rng_below(&rng, 8 * PAGE_SIZE - 300);
        uint32_t len = (uint32_t)rng_below(&rng, 300);

        write = write || rng_below(&rng, 3) == 0;
        flags |= write ? WRITE : 0;
        if (last && !indirect && rng_below(&rng, 3) == 0) {
            flags = INDIRECT;
            gpa = INDIRECT_PAGE * PAGE_SIZE + rng_below(&rng, 200);
            len = 16 * (1 + (uint32_t)rng_below(&rng, 200));
        }
        if (lies && rng_below(&rng, lies) == 0) {
            gpa = any_gpa();
        }
        if (lies && rng_below(&rng, lies) == 0) {
            len = any_len();
        }
        if (lies && rng_below(&rng, lies) == 0) {
            flags = (unsigned)rng_below(&rng, 8);
        }
        if (lies && rng_below(&rng, lies) == 0) {
            next = (unsigned)(rng_below(&rng, 4) ? rng_below(&rng, size + 1) : rng_next(&rng));
        }
        put_desc(table, i, gpa, len, flags, next);
        write = write && !last;
    }
}

static void compare(bool pin)
{
    static uint8_t want[RINGENV_BYTES * 20], have[RINGENV_BYTES * 20];
    struct model_chain model;
    uint16_t next = ring.next_avail;
    enum hv_err err;

    while ((err = vring_map(&ring)) == HV_EAGAIN || err == HV_ENOMEM) {
        assert_int_equal(ringenv.pins, 0);
        assert_true(ring.lacking.n < RINGENV_PAGES);
    }
    assert_int_equal(err, HV_OK);
    int mapped = ringenv.pins;
    enum model_result result = model_pop(&ring, next, pin, &model);
    while ((err = vring_pop(&ring, &chain, pin)) == HV_EAGAIN || err == HV_ENOMEM) {
        assert_int_equal(ringenv.pins, mapped);
        assert_int_equal(ring.next_avail, next);
        assert_true(ring.lacking.n < RINGENV_PAGES);
    }
    assert_true(ringenv.pins - mapped <= (int)VRING_PAGES_MAX);
    assert_int_equal(err, result == MODEL_NONE    ? HV_ENOENT
                          : result == MODEL_WRONG ? HV_EINVAL
                                                  : HV_OK);
    if (result == MODEL_CHAIN) {
        assert_int_equal(chain.head, model.head);
        assert_int_equal(chain.readable, model.readable);
        assert_int_equal(chain.writable, model.writable);
        assert_int_equal(chain.nr_segs, model.nr);
        assert_int_equal(ring.next_avail, (uint16_t)(next + 1));
    }
    if (result == MODEL_CHAIN && pin && model.readable + model.writable < sizeof want) {
        model_copy(&model, false, want);
        size_t got = 0, step;
        while ((step = vring_read(&chain, have + got, 1 + rng_below(&rng, 6000))) != 0) {
            got += step;
        }
        assert_int_equal(got, model.readable);
        assert_memory_equal(want, have, got);
        if (model.writable != 0) {
            vring_write_last(&chain, 0x77);
        }
        for (size_t i = 0; i < model.writable; i++) {
            have[i] = (uint8_t)rng_next(&rng);
        }
        /* The parts may overlap each other, the ring and its tables: order decides. */
        for (got = 0; (step = vring_write(&chain, have + got, 1 + rng_below(&rng, 6000))) != 0;) {
            got += step;
        }
        assert_int_equal(got, model.writable);
        uint8_t *before = malloc(RINGENV_BYTES);
        for (unsigned i = 0; i < RINGENV_PAGES; i++) {
            if (i != RINGENV_HOLE) {
                memcpy(before + i * PAGE_SIZE, ringenv.page[i], PAGE_SIZE);
            }
        }
        model_copy(&model, true, have);
        for (unsigned i = 0; i < RINGENV_PAGES; i++) {
            if (i != RINGENV_HOLE) {
                assert_memory_equal(before + i * PAGE_SIZE, ringenv.page[i], PAGE_SIZE);
            }
        }
        free(before);
    }
    if (result == MODEL_CHAIN) {
        uint64_t used = ring.used.gpa + 4 + 8 * (ring.next_used % ring.size);

        vring_release(&chain);
        vring_push(&ring, chain.head, chain.writable);
        assert_int_equal(get(ring.used.gpa + 2, 2), ring.next_used);
        assert_int_equal(get(used, 4), chain.head);
        assert_int_equal(get(used + 4, 4), chain.writable);
    }
    assert_int_equal(ringenv.pins, mapped);
    vring_unmap(&ring);
    if (result == MODEL_WRONG) {
        ring.next_avail = avail_index();
    }
}

static void test_random(void **state)
{
    unsigned chains = 0, wrong = 0;

    (void)state;
    rng_seed(&rng, env_seed("vring: random rings"));
    ringenv.random = rng_next(&rng);
    for (unsigned round = 0; round < 6000; round++) {
        unsigned lies = round % 3 == 0 ? 0 : 4 + (unsigned)rng_below(&rng, 60);
        uint16_t size = (uint16_t)(1u << rng_below(&rng, 8));

        ringenv.fail_one = round % 4 == 1 ? 40 + (unsigned)rng_below(&rng, 400) : 0;
        ring_at(size, PAGE_SIZE + 16 * rng_below(&rng, 256),
                16 * PAGE_SIZE + 2 * rng_below(&rng, 2000),
                18 * PAGE_SIZE + 4 * rng_below(&rng, 1000));
        ring.indirect = rng_below(&rng, 8) != 0;
        ring.next_avail = (uint16_t)rng_next(&rng);
        ring.next_used = (uint16_t)rng_next(&rng);
        put16(ring.avail.gpa + 2, ring.next_avail);
        for (unsigned i = 0; i < 12; i++) {
            if (i % 4 == 0) {
                fill_table(ring.desc.gpa, size, false, lies);
                fill_table(INDIRECT_PAGE * PAGE_SIZE + rng_below(&rng, 200), 200, true, lies);
            }
            offer((uint16_t)(lies && rng_below(&rng, lies) == 0 ? rng_next(&rng)
                                                                : rng_below(&rng, size)));
            if (lies && rng_below(&rng, 10 * lies) == 0) {
                put16(ring.avail.gpa + 2, (uint16_t)rng_next(&rng));
            }
            uint16_t before = ring.next_used;
            compare(rng_below(&rng, 8) != 0);
            chains += before != ring.next_used;
            wrong += before == ring.next_used;
        }
    }
    print_message("%u chains, %u wrong ones, %u pins failed\n", chains, wrong, ringenv.failures);
    assert_true(chains > 20000 && wrong > 5000 && ringenv.failures > 300);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_request), TEST(test_flags),  TEST(test_undo_and_wrap), TEST(test_indirect),
        TEST(test_ranges),  TEST(test_places), TEST(test_lies),          TEST(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
