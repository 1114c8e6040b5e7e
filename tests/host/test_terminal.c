/* SPDX-License-Identifier: BSD-2-Clause */
/* Answers of a terminal told from keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/shell/terminal.h"

/* The events of a text's bytes: '.', 'S' and 'K'. */
static const char *feed(struct terminal *t, const char *text)
{
    static char out[64];
    size_t n = 0;

    for (; *text != '\0'; text++) {
        out[n++] = ".SK"[terminal_feed(t, *text)];
    }
    out[n] = '\0';
    return out;
}

static void sizes(void **state)
{
    struct terminal t = {.columns = 0};

    (void)state;
    assert_string_equal(feed(&t, "\x1b[50;132R"), "........S");
    assert_int_equal(t.rows, 50);
    assert_int_equal(t.columns, 132);
    assert_string_equal(feed(&t, "\x1b[24;80R\x1b[7;9R"), ".......S.....S");
    assert_int_equal(t.rows, 7);
    assert_int_equal(t.columns, 9);
    /* Absurd numbers are bounded, half answers mean nothing. */
    assert_string_equal(feed(&t, "\x1b[99999999999999;1R"), "..................S");
    assert_int_equal(t.rows, 9999);
    assert_string_equal(feed(&t, "\x1b[5R"), "....");
    assert_string_equal(feed(&t, "\x1b[0;0R"), "......");
    assert_string_equal(feed(&t, "\x1b[1;2;3R"), "........");
    assert_int_equal(t.rows, 9999);
}

static void keys(void **state)
{
    struct terminal t = {.columns = 0};

    (void)state;
    assert_string_equal(feed(&t, "q"), "K");
    assert_string_equal(feed(&t, "\x1b[A"), "..K");
    assert_string_equal(feed(&t, "\x1bOP"), "..K");
    assert_string_equal(feed(&t, "\x1b[15~x"), "....KK");
    assert_string_equal(feed(&t, "\x1bx"), ".K");
    /* Escape alone is known by what does not follow. */
    assert_string_equal(feed(&t, "\x1b"), ".");
    assert_true(terminal_idle(&t));
    assert_false(terminal_idle(&t));
    assert_string_equal(feed(&t, "\x1b[5"), "...");
    assert_false(terminal_idle(&t));
    assert_string_equal(feed(&t, "q"), "K");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
