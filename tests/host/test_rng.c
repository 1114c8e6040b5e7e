/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kernel/lib/rng.c: known values, repeatability, uniformity.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/lib/random.h"

/* The reference implementations of xoshiro256** with the state 1, 2, 3, 4. */
static void test_known_values(void **state)
{
    static const uint64_t expected[] = {11520,
                                        0,
                                        1509978240,
                                        1215971899390074240,
                                        1216172134540287360,
                                        607988272756665600,
                                        16172922978634559625ull,
                                        8476171486693032832};
    struct rng r = {{1, 2, 3, 4}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_true(rng_next(&r) == expected[i]);
    }
    rng_seed(&r, 0); /* splitmix64 of 0 */
    assert_true(r.s[0] == 0xe220a8397b1dcdafull);
    assert_true(r.s[1] == 0x6e789e6aa1b965f4ull);
}

static void test_repeats(void **state)
{
    struct rng a, b, c;
    unsigned same = 0;

    (void)state;
    rng_seed(&a, 42);
    rng_seed(&b, 42);
    rng_seed(&c, 43);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t v = rng_next(&a);

        assert_true(v == rng_next(&b));
        same += v == rng_next(&c);
    }
    assert_int_equal(same, 0);
}

static void test_below(void **state)
{
    struct rng r;
    unsigned counts[10] = {0};

    (void)state;
    rng_seed(&r, 7);
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t v = rng_below(&r, 10);

        assert_true(v < 10);
        counts[v]++;
    }
    for (unsigned i = 0; i < 10; i++) {
        assert_in_range(counts[i], 9500, 10500);
    }
    assert_true(rng_below(&r, 1) == 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(rng_below(&r, (1ull << 63) + 1) <= 1ull << 63);
    }
}

/* Streams repeat under their seed, and differ by seed, purpose and name. */
static void test_streams(void **state)
{
    static const char *const names[][2] = {
        {"a", "b"}, {"a", ""}, {"ab", ""}, {"", "ab"}, {"b", "a"}};
    uint64_t first[5][2];
    struct rng r;

    (void)state;
    for (unsigned seed = 0; seed < 2; seed++) {
        random_set_seed(seed);
        for (unsigned i = 0; i < 5; i++) {
            random_stream(&r, names[i][0], names[i][1]);
            first[i][seed] = rng_next(&r);
            for (unsigned k = 0; k < i; k++) {
                assert_true(first[k][seed] != first[i][seed]);
            }
        }
    }
    for (unsigned i = 0; i < 5; i++) {
        assert_true(first[i][0] != first[i][1]);
        random_stream(&r, names[i][0], names[i][1]);
        assert_true(rng_next(&r) == first[i][1]);
    }
}

static uint64_t drawn(void)
{
    static uint64_t n;

    return ++n << 32;
}

/* Secrets are the stream's words, and where there is entropy, each has its own. */
static void test_secrets(void **state)
{
    struct rng a, b;

    (void)state;
    random_set_seed(5);
    random_stream(&a, "secret", "");
    b = a;
    assert_true(random_secret(&a) == rng_next(&b));
    random_add_entropy(drawn);
    assert_true((random_secret(&a) ^ rng_next(&b)) == 1ULL << 32);
    assert_true((random_secret(&a) ^ rng_next(&b)) == 2ULL << 32);
    random_add_entropy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values), cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_below),        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_secrets),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
