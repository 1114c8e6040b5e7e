/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log ring: order, wrapping, survival of a reset, corruption.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/rng.h"
#include "kernel/logring.h"

#define SIZE 4096

static uint8_t buf[SIZE] __aligned(8);
static uint8_t other[2 * SIZE] __aligned(8);

static void append(struct logring *r, unsigned i)
{
    char text[300];
    int n = snprintf(text, sizeof(text), "line %u %.*s", i, (int)(i * 7 % 90),
                     "......................................................................."
                     "...................");

    logring_append(r, (uint8_t)(i % 4), (uint8_t)i, i * 1000, text, (size_t)n);
}

struct seen {
    unsigned first, last, count;
};

static bool note(const struct log_entry *e, void *arg)
{
    struct seen *s = arg;
    unsigned i;

    assert_int_equal(sscanf(e->text, "line %u", &i), 1);
    assert_int_equal(e->time_ns, i * 1000);
    assert_int_equal(e->level, i % 4);
    assert_int_equal(strlen(e->text), e->len);
    if (s->count == 0) {
        s->first = i;
    } else {
        assert_true(i > s->last);
    }
    s->last = i;
    s->count++;
    return true;
}

static void test_reading(void **state)
{
    struct logring r;
    struct log_entry e;
    uint64_t pos = 0;

    (void)state;
    logring_init(&r, buf, SIZE);
    assert_false(logring_read(&r, &pos, false, &e));
    for (unsigned i = 0; i < 5000; i++) {
        append(&r, i);
        assert_true(logring_read(&r, &pos, false, &e));
        struct seen s = {0};
        note(&e, &s);
        assert_int_equal(s.last, i);
        assert_false(logring_read(&r, &pos, false, &e));
    }
}

static void test_wrapping(void **state)
{
    struct logring r;

    (void)state;
    for (unsigned total = 1; total < 400; total += 3) {
        struct seen s = {0};

        logring_init(&r, buf, SIZE);
        for (unsigned i = 0; i < total; i++) {
            append(&r, i);
        }
        memcpy(other, buf, SIZE); /* what a reset leaves */
        unsigned count = logring_scan(other, SIZE, note, &s);

        assert_int_equal(count, s.count);
        assert_int_equal(s.last, total - 1);
        assert_int_equal(s.count, s.last - s.first + 1);
        assert_true(s.first == 0 || s.count > 25);

        /* A reader who starts over sees the same. */
        struct seen again = {0};
        struct log_entry e;
        uint64_t pos = 0;

        while (logring_read(&r, &pos, false, &e)) {
            note(&e, &again);
        }
        assert_memory_equal(&s, &again, sizeof(s));
    }
}

static void test_long_text(void **state)
{
    char text[1000];
    struct logring r;
    struct log_entry e;
    uint64_t pos = 0;

    (void)state;
    memset(text, 'x', sizeof(text));
    logring_init(&r, buf, SIZE);
    logring_append(&r, 0, 0, 0, text, sizeof(text));
    assert_true(logring_read(&r, &pos, false, &e));
    assert_int_equal(e.len, LOGRING_TEXT_MAX);
    logring_append(&r, 0, 0, 0, "", 0);
    assert_true(logring_read(&r, &pos, false, &e));
    assert_string_equal(e.text, "");
}

static void test_moving(void **state)
{
    (void)state;
    for (unsigned total = 0; total < 300; total += 7) {
        struct logring r;
        struct seen before = {0};
        struct seen after = {0};

        logring_init(&r, buf, SIZE);
        for (unsigned i = 0; i < total; i++) {
            append(&r, i);
        }
        logring_scan(buf, SIZE, note, &before);
        memset(other, 0x77, sizeof(other));
        logring_move(&r, other, sizeof(other));
        logring_scan(other, sizeof(other), note, &after);
        assert_memory_equal(&before, &after, sizeof(before));
        append(&r, total);
        after = (struct seen){0};
        logring_scan(other, sizeof(other), note, &after);
        assert_int_equal(after.count, before.count + 1);
        assert_int_equal(after.last, total);
    }
}

static bool check_sane(const struct log_entry *e, void *arg)
{
    (void)arg;
    assert_true(e->len <= LOGRING_TEXT_MAX);
    assert_int_equal(e->text[e->len], '\0');
    return true;
}

/* Damage loses records, never sense; pure garbage holds none. */
static void test_corruption(void **state)
{
    struct logring r;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 5);
    for (unsigned round = 0; round < 300; round++) {
        struct seen s = {0};

        logring_init(&r, buf, SIZE);
        for (unsigned i = 0; i < 20 + round; i++) {
            append(&r, i);
        }
        unsigned damage = (unsigned)rng_below(&rng, 30);

        for (unsigned i = 0; i < damage; i++) {
            buf[rng_below(&rng, SIZE)] ^= (uint8_t)(1 + rng_below(&rng, 255));
        }
        logring_scan(buf, SIZE, note, &s);
        for (unsigned i = 0; i < SIZE; i++) {
            buf[i] = (uint8_t)rng_next(&rng);
        }
        assert_int_equal(logring_scan(buf, SIZE, check_sane, NULL), 0);
    }
    memset(buf, 0xff, SIZE);
    assert_int_equal(logring_scan(buf, SIZE, check_sane, NULL), 0);
}

/* A record that is reserved and not yet there holds the reader up, unless it is told to skip it; one that
 * was overwritten does not, and the reader is told how much he missed. */
static void test_unfinished(void **state)
{
    struct logring r;
    struct log_entry e;
    uint64_t pos = 0, hole;
    uint8_t kept[32];

    (void)state;
    logring_init(&r, buf, SIZE);
    append(&r, 0);
    hole = r.head;
    append(&r, 1);
    uint64_t behind = r.head;
    append(&r, 2);
    memcpy(kept, buf + hole, sizeof(kept));
    memset(buf + hole, 0, sizeof(kept)); /* the writer of line 1 is still at it */

    assert_true(logring_read(&r, &pos, false, &e));
    assert_false(logring_read(&r, &pos, false, &e));
    assert_int_equal(pos, hole);
    uint64_t skipping = pos;
    assert_true(logring_read(&r, &skipping, true, &e));
    assert_true(e.pos == behind && e.lost == behind - hole);
    memcpy(buf + hole, kept, sizeof(kept));
    assert_true(logring_read(&r, &pos, false, &e));
    assert_true(e.pos == hole && e.lost == 0);

    for (unsigned i = 3; i < 500; i++) {
        append(&r, i);
    }
    assert_true(logring_read(&r, &pos, false, &e));
    assert_true(e.lost > SIZE && e.pos == behind + e.lost && e.pos >= r.head - SIZE);
    struct seen s = {0};
    do {
        note(&e, &s);
    } while (logring_read(&r, &pos, false, &e));
    assert_int_equal(s.last, 499);

    memset(buf + (r.head & (SIZE - 1)), 0, 32);
    append(&r, 500);
    memset(buf + (pos & (SIZE - 1)), 0,
           MIN(32u, SIZE - (pos & (SIZE - 1)))); /* the last one never comes */
    assert_false(logring_read(&r, &pos, false, &e));
    assert_true(pos < r.committed);
    assert_false(logring_read(&r, &pos, true, &e));
    assert_int_equal(pos, r.committed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reading),    cmocka_unit_test(test_wrapping),
        cmocka_unit_test(test_long_text),  cmocka_unit_test(test_moving),
        cmocka_unit_test(test_corruption), cmocka_unit_test(test_unfinished),
    };
    return cmocka_run_group_tests_name("logring", tests, NULL, NULL);
}
