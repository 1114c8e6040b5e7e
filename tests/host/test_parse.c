/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kernel/lib/parse.c: numbers, sizes, options, words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/lib/parse.h"

static void test_numbers(void **state)
{
    uint64_t v = 5;

    (void)state;
    assert_int_equal(parse_u64("0", &v), HV_OK);
    assert_true(v == 0);
    assert_int_equal(parse_u64("18446744073709551615", &v), HV_OK);
    assert_true(v == UINT64_MAX);
    assert_int_equal(parse_u64("18446744073709551616", &v), HV_ERANGE);
    assert_int_equal(parse_u64("0xDeadBeef", &v), HV_OK);
    assert_true(v == 0xdeadbeef);
    assert_int_equal(parse_u64("0x10000000000000000", &v), HV_ERANGE);
    static const char *const bad[] = {"", "x", "-1", "+1", "1 ", " 1", "0x", "12a", "1.5"};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(parse_u64(bad[i], &v), HV_EINVAL);
    }
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"256", MIB(256)}, {"4K", KIB(4)},     {"1M", MIB(1)},    {"2g", GIB(2)},
                {"1T", GIB(1024)}, {"64MiB", MIB(64)}, {"64MB", MIB(64)}, {"0x10M", MIB(16)}};
    uint64_t v;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(parse_size(good[i].text, MIB(1), &v), HV_OK);
        assert_true(v == good[i].bytes);
    }
    assert_int_equal(parse_size("12Q", MIB(1), &v), HV_EINVAL);
    assert_int_equal(parse_size("M", MIB(1), &v), HV_EINVAL);
    assert_int_equal(parse_size("1MM", MIB(1), &v), HV_EINVAL);
    assert_int_equal(parse_size("1M ", MIB(1), &v), HV_EINVAL);
    assert_int_equal(parse_size("99999999999T", MIB(1), &v), HV_ERANGE);
}

static void test_options(void **state)
{
    const char *line = "  quiet seed=7 seedling=9  console=com1,display seed=8 x=";
    char v[8];

    (void)state;
    assert_true(parse_option(line, "seed", v, sizeof(v)));
    assert_string_equal(v, "8");
    assert_true(parse_option(line, "quiet", v, sizeof(v)));
    assert_string_equal(v, "");
    assert_true(parse_option(line, "console", v, sizeof(v)));
    assert_string_equal(v, "com1,di");
    assert_true(parse_option(line, "x", v, sizeof(v)));
    assert_string_equal(v, "");
    assert_false(parse_option(line, "qui", v, sizeof(v)));
    assert_false(parse_option("", "x", v, sizeof(v)));
}

static void test_words(void **state)
{
    char line[] = "  vm \"a b\" start\t x  ";
    char *words[3];

    (void)state;
    assert_int_equal(parse_words(line, words, 3), 3);
    assert_string_equal(words[0], "vm");
    assert_string_equal(words[1], "a b");
    assert_string_equal(words[2], "start");
    char empty[] = "   ";
    assert_int_equal(parse_words(empty, words, 3), 0);
    char open[] = "\"never closed";
    assert_int_equal(parse_words(open, words, 3), 1);
    assert_string_equal(words[0], "never closed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests_name("parse", tests, NULL, NULL);
}
