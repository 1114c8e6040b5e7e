/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The screen's terminal and the keyboard's map.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/drivers/keymap.h"
#include "kernel/drivers/term.h"
#include "kernel/lib/rng.h"

static struct term t;

static void put(const char *s)
{
    term_write(&t, s, strlen(s));
}

static void row_is(unsigned row, const char *want)
{
    char line[TERM_MAX_COLUMNS + 1];

    memset(line, ' ', sizeof(line));
    memcpy(line, want, strlen(want));
    assert_memory_equal(term_row(&t, row), line, t.columns);
}

static void test_text(void **state)
{
    (void)state;
    term_init(&t, 10, 3);
    put("one\r\ntwo\tx\b\by\r\n0123456789");
    row_is(0, "one");
    row_is(1, "two    yx");
    row_is(2, "0123456789");
    assert_int_equal(t.x, 10);
    put("AB"); /* wraps, scrolls */
    row_is(1, "0123456789");
    row_is(2, "AB");
    put("\r\n\xc3\xa9!");
    row_is(2, "?!");
}

/* Wherever a guest left it, what the shell prints afterwards is seen. */
static void test_sane(void **state)
{
    static const char *const left[] = {"",         "\x1b",         "\x1b[",      "\x1b[12;3",
                                       "\x1bP1;2", "\x1b]0;title", "\x1b]0;\x1b"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(left); i++) {
        term_init(&t, 20, 3);
        put(left[i]);
        put(TERM_SANE "\r\nseen");
        row_is(0, "");
        row_is(1, "seen");
    }
}

static void test_sequences(void **state)
{
    (void)state;
    term_init(&t, 10, 3);
    put("abcdefgh\x1b[5D\x1b[K");
    row_is(0, "abc");
    put("\x1b[2;3Hx\x1b[1A\x1b[1Cy\x1b[m\x1b[1;31mz");
    row_is(0, "abc yz");
    row_is(1, "  x");
    put("\x1b]0;title\a!\x1b[G=\x1b[1K");
    row_is(0, "  c yz!");
    put("\x1b[2J\x1b[H.");
    row_is(0, ".");
    row_is(1, "");
    put("\x1b[99;99H*\x1b[99A\x1b[99D#\x1b[99B\x1b[99C");
    row_is(2, "         *");
    row_is(0, "#");
    put("\x1b[0J\x1b[1J");
    row_is(0, "");
}

static void test_garbage(void **state)
{
    static const char alphabet[] = "\x1b[;0123456789ABCDGHJKfm\r\n\b\tx]\a";
    struct rng r;

    (void)state;
    rng_seed(&r, 4);
    term_init(&t, 256, 128);
    term_init(&t, 7, 5);
    for (unsigned i = 0; i < 500000; i++) {
        char c = i % 4 ? alphabet[rng_below(&r, sizeof(alphabet) - 1)] : (char)rng_next(&r);

        term_write(&t, &c, 1);
        assert_true(t.x <= t.columns && t.y < t.rows && t.top < t.rows);
    }
}

static void keys(const uint8_t *codes, size_t n, const char *want)
{
    struct keymap k = {0};
    char got[64];
    size_t len = 0;

    for (size_t i = 0; i < n; i++) {
        len += keymap_scancode(&k, codes[i], got + len);
    }
    got[len] = '\0';
    assert_string_equal(got, want);
}
#define KEYS(want, ...) \
    keys((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), want)

static void test_keys(void **state)
{
    (void)state;
    KEYS("a", 0x1e, 0x9e);
    KEYS("Ab", 0x2a, 0x1e, 0x9e, 0xaa, 0x30, 0xb0);
    KEYS("!?", 0x36, 0x02, 0x82, 0x35, 0xb5, 0xb6);
    KEYS("A1aB", 0x3a, 0xba, 0x1e, 0x02, 0x2a, 0x1e, 0xaa, 0x30);
    KEYS("\x1d\x15", 0x1d, 0x1b, 0x9b, 0x16, 0x9d);
    KEYS("\x0c", 0xe0, 0x1d, 0x26, 0xe0, 0x9d);
    KEYS("\x1b[A\x1b[3~\r", 0xe0, 0x48, 0xe0, 0xc8, 0xe0, 0x53, 0xe0, 0x1c);
    KEYS("a", 0xe0, 0x2a, 0x1e);
    KEYS("\x7f\t 7.", 0x0e, 0x0f, 0x39, 0x47, 0x53);
    KEYS("", 0x3b, 0x54, 0x7f, 0xfa, 0xff, 0x00);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text), cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_sane), cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests_name("term", tests, NULL, NULL);
}
