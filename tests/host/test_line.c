/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The line editor: typed bytes in, screen and line out, judged on a model terminal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/drivers/term.h"
#include "kernel/lib/rng.h"
#include "kernel/shell/line.h"

static struct term term;
static struct line line;

static void on_screen(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\n') {
            term_write(&term, "\r", 1);
        }
        term_write(&term, &s[i], 1);
    }
}

static void complete(const char *before, struct line_completions *c)
{
    static const char *const commands[] = {"vm", "vms", "version", "console"};

    if (strcmp(before, "") == 0) {
        for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
            line_offer(c, commands[i]);
        }
    } else if (strcmp(before, "vm ") == 0) {
        line_offer(c, "linux1");
        line_offer(c, "linux2");
        line_offer(c, "linux1");
    }
}

static int setup(void **state)
{
    (void)state;
    term_init(&term, 80, 10);
    line_init(&line, "> ", on_screen, complete);
    line_start(&line);
    return 0;
}

/* The screen shows prompt and line, and the cursor where the editor believes it. */
static void check_screen(void)
{
    char want[81];
    const char *row = term_row(&term, term.y);

    memset(want, ' ', 80);
    want[80] = '\0';
    memcpy(want, "> ", 2);
    memcpy(want + 2, line.buf, line.len);
    assert_memory_equal(row, want, 80);
    assert_int_equal(term.x, 2 + line.cursor);
    assert_int_equal(strlen(line.buf), line.len);
}

/* Type; true if the last byte ended the line. */
static bool type(const char *s)
{
    bool done = false;

    for (; *s; s++) {
        done = line_feed(&line, *s);
        if (!done) {
            check_screen();
        }
    }
    return done;
}

static void expect(const char *text, unsigned cursor)
{
    assert_string_equal(line.buf, text);
    assert_int_equal(line.cursor, cursor);
}

static void test_editing(void **state)
{
    (void)state;
    type("helo\x1b[Dl");
    expect("hello", 4);
    type("\x1b[H#\x1b[F!");
    expect("#hello!", 7);
    type("\x1b[1~\x1b[3~\x1b[4~\x7f");
    expect("hello", 5);
    type(" two words\x17\x17");
    expect("hello ", 6);
    type("\x02\x02\x0b");
    expect("hell", 4);
    type("\x1bOD\x06\x05\x04\x15");
    expect("", 0);
    type("abc\x02\x04");
    expect("ab", 2);
    assert_true(type("c\r"));
    expect("abc", 3);
}

static void test_enter(void **state)
{
    (void)state;
    assert_true(type("one\r"));
    line_start(&line);
    assert_false(type("\n")); /* of the same Enter */
    assert_true(type("two\n"));
    assert_string_equal(line.buf, "two");
    line_start(&line);
    type("given up\x03");
    expect("", 0);
}

static void test_full(void **state)
{
    (void)state;
    for (unsigned i = 0; i < LINE_BYTES + 10; i++) {
        type("x");
    }
    assert_int_equal(line.len, LINE_BYTES - 1);
    type("\x1b[Hy");
    assert_int_equal(line.len, LINE_BYTES - 1);
    assert_int_equal(line.buf[0], 'x');
}

static void enter(const char *s)
{
    type(s);
    assert_true(type("\r"));
    line_start(&line);
}

static void test_history(void **state)
{
    (void)state;
    type("\x1b[A");
    expect("", 0);
    enter("one");
    enter("two");
    enter("two");
    enter("");
    type("dra\x1b[A");
    expect("two", 3);
    type("\x1b[A\x10");
    expect("one", 3);
    type("!\x1b[B");
    expect("two", 3);
    type("\x0e");
    expect("dra", 3);
    for (unsigned i = 0; i < LINE_HISTORY + 5; i++) {
        char text[3] = {(char)('A' + i / 10), (char)('0' + i % 10), '\0'};

        type("\x15");
        enter(text);
    }
    for (unsigned i = 0; i < LINE_HISTORY + 5; i++) {
        type("\x1b[A");
    }
    expect("A5", 2);
}

static void test_completion(void **state)
{
    (void)state;
    type("c\t");
    expect("console ", 8);
    type("\x15v\t");
    expect("v", 1);
    assert_memory_equal(term_row(&term, term.y - 1), "vm       vms      version  ", 26);
    type("m\t");
    expect("vm", 2);
    type(" l\t");
    expect("vm linux", 8);
    type("2\t");
    expect("vm linux2 ", 10);
    type("\t");
    expect("vm linux2 ", 10);
    type("\x15zz\t");
    expect("zz", 2);
    type("\x15 x\x1b[D\x1b[D"
         "con\t");
    expect("console  x", 8);
}

static void test_hide_and_show(void **state)
{
    (void)state;
    type("half a com\x1b[D\x1b[D");
    line_hide(&line);
    on_screen("log line\n", 9);
    line_show(&line);
    check_screen();
    assert_memory_equal(term_row(&term, term.y - 1), "log line    ", 12);
    type("\x0c");
    check_screen();
    assert_int_equal(term.y, 0);
}

static void test_garbage(void **state)
{
    static const char keys[] = "ab \x1b[ABCDHF~3\t\x7f\x02\x06\x0b\x15\x17\x10\x0e\x04";
    struct rng r;

    (void)state;
    rng_seed(&r, 3);
    for (unsigned i = 0; i < 200000; i++) {
        char c = i % 3 ? keys[rng_below(&r, sizeof(keys) - 1)] : (char)rng_next(&r);

        if (line_feed(&line, c)) {
            line_start(&line);
        }
        check_screen();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_editing, setup),
        cmocka_unit_test_setup(test_enter, setup),
        cmocka_unit_test_setup(test_full, setup),
        cmocka_unit_test_setup(test_history, setup),
        cmocka_unit_test_setup(test_completion, setup),
        cmocka_unit_test_setup(test_hide_and_show, setup),
        cmocka_unit_test_setup(test_garbage, setup),
    };
    return cmocka_run_group_tests_name("line", tests, NULL, NULL);
}
