/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's console: what is kept, typed input, lines for the log.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/guestconsole.h"
#include "mm/slab.h"

static char logged[1000];
static unsigned typed;

void *kmalloc(size_t size, uint32_t owner)
{
    (void)owner;
    return calloc(1, size);
}

void kfree(void *ptr)
{
    free(ptr);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    size_t n = strlen(logged);
    va_list ap;

    (void)level;
    va_start(ap, fmt);
    vsnprintf(logged + n, sizeof(logged) - n - 1, fmt, ap);
    va_end(ap);
    strcat(logged, "|");
}

static bool behind;

bool log_is_behind(void)
{
    return behind;
}

struct cpu *this_cpu(void)
{
    static struct cpu cpu;

    return &cpu;
}

void thread_wake(struct thread *t)
{
    (void)t;
    fail();
}

void thread_sleep_ns(uint64_t ns)
{
    (void)ns;
    fail();
}

static void on_input(void *arg)
{
    assert_ptr_equal(arg, &typed);
    typed++;
}

static struct guestconsole *create(bool to_log)
{
    struct guestconsole *c;

    assert_int_equal(guestconsole_create("vm", to_log, 1, &c), HV_OK);
    logged[0] = '\0';
    return c;
}

static void test_kept(void **state)
{
    struct guestconsole *c = create(false);
    static char data[3 * 65536];
    char got[700];
    uint64_t pos = 0;

    (void)state;
    guestconsole_output(c, "hello", 5);
    assert_int_equal(guestconsole_copy(c, &pos, got, 3), 3);
    assert_int_equal(guestconsole_copy(c, &pos, got + 3, sizeof(got)), 2);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(guestconsole_copy(c, &pos, got, sizeof(got)), 0);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (char)(i * 31 / 7);
    }
    guestconsole_output(c, data, sizeof(data));
    assert_int_equal(guestconsole_written(c), 5 + sizeof(data));
    size_t total = 0;
    size_t n;

    while ((n = guestconsole_copy(c, &pos, got, sizeof(got))) > 0) {
        assert_memory_equal(got, data + pos - n - 5, n);
        total += n;
    }
    assert_in_range(total, 65536 - 1024, 65536);
    assert_true(pos == 5 + sizeof(data));
    guestconsole_destroy(c);
}

static void test_input(void **state)
{
    struct guestconsole *c = create(false);
    char data[300];

    (void)state;
    typed = 0;
    guestconsole_set_input_ready(c, on_input, &typed);
    assert_false(guestconsole_input_pending(c));
    assert_int_equal(guestconsole_type(c, "ls\r", 3), 3);
    assert_int_equal(typed, 1);
    assert_true(guestconsole_input_pending(c));
    assert_int_equal(guestconsole_read(c, data, 2), 2);
    assert_memory_equal(data, "ls", 2);
    assert_int_equal(guestconsole_read(c, data, 2), 1);
    assert_false(guestconsole_input_pending(c));
    memset(data, 'x', sizeof(data));
    assert_int_equal(guestconsole_type(c, data, sizeof(data)), 256);
    assert_int_equal(guestconsole_type(c, data, 1), 0);
    assert_int_equal(guestconsole_read(c, data, sizeof(data)), 256);
    guestconsole_destroy(c);
}

static void test_log_lines(void **state)
{
    struct guestconsole *c = create(true);
    char wide[200];

    (void)state;
    guestconsole_output(c, "one", 3);
    assert_string_equal(logged, "");
    guestconsole_output(c, " more\r\n\n\x1b\xc3two\tx\nrest", 19);
    assert_string_equal(logged, "[vm] one more|[vm] two\tx|");
    memset(wide, 'w', sizeof(wide));
    guestconsole_output(c, wide, sizeof(wide));
    assert_int_equal(strlen(logged), strlen("[vm] one more|[vm] two\tx|[vm] |") + 160);
    guestconsole_destroy(c);
    guestconsole_destroy(NULL);
}

/* Who writes to the log waits for it, others do not. */
static void test_full(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct guestconsole *c = create(i & 1);

        behind = i & 2;
        assert_int_equal(guestconsole_is_full(c), i == 3);
        guestconsole_destroy(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_input),
        cmocka_unit_test(test_log_lines),
    };
    return cmocka_run_group_tests_name("guestconsole", tests, NULL, NULL);
}
