/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kernel/lib/printf.c against the C library's vsnprintf.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PRINTF_UNDER_TEST
#define vsnprintf ours_vsnprintf
#define snprintf ours_snprintf
int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap);
#include "kernel/lib/printf.c"
#undef vsnprintf
#undef snprintf

/* The same arguments through both, for every buffer size that cuts the text. */
static void check(const char *fmt, ...)
{
    char want[200];
    char got[200];
    va_list ap;

    va_start(ap, fmt);
    int want_len = vsnprintf(want, sizeof(want), fmt, ap);
    va_end(ap);
    for (size_t size = 0; size <= (size_t)want_len + 2; size++) {
        memset(got, 'z', sizeof(got));
        va_start(ap, fmt);
        int len = ours_vsnprintf(got, size, fmt, ap);
        va_end(ap);
        assert_int_equal(len, want_len);
        assert_int_equal(got[size], 'z');
        if (size > 0) {
            size_t kept = (size_t)want_len < size ? (size_t)want_len : size - 1;

            assert_memory_equal(got, want, kept);
            assert_int_equal(got[kept], '\0');
        }
    }
}

static void test_integers(void **state)
{
    (void)state;
    check("%d %i %u", 0, -1, 4000000000u);
    check("%d %d", INT32_MIN, INT32_MAX);
    check("%ld %lld %lu", INT64_MIN, (long long)INT64_MAX, UINT64_MAX);
    check("%zu %zd %jd %td", SIZE_MAX, (ssize_t)-5, (intmax_t)-6, (ptrdiff_t)7);
    check("%hhd %hhu %hd %hu", 300, 300, 70000, 70000);
    check("%x %X %lx %#x %#X %#x", 0xbeefu, 0xBEEFu, UINT64_MAX, 255u, 255u, 0u);
}

static void test_fields(void **state)
{
    (void)state;
    check("[%5d] [%-5d] [%05d] [%+d] [% d] [%+05d]", 42, 42, 42, 42, 42, 42);
    check("[%5d] [%05d] [%.3d] [%6.3d] [%-6.3d] [%06.3d]", -42, -42, -4, -4, -4, -4);
    check("[%08lx] [%#010x] [%16llx] [%.0d] [%.0x]", 0xabcul, 0x1234u, 0xffull, 0, 0u);
    check("[%*d] [%-*d] [%.*d] [%*d]", 6, 1, 6, 2, 4, 3, -6, 4);
    check("[%3s] [%-8s] [%8s] [%.2s] [%.*s] [%s]", "long", "left", "right", "cut", 1, "x", "");
    check("[%c] [%3c] [%-3c] %% 100%%", 'a', 'b', 'c');
}

static void test_ours(void **state)
{
    char buf[64];

    (void)state;
    ours_snprintf(buf, sizeof(buf), "%p", (void *)0xffff800000001000ull);
    assert_string_equal(buf, "0xffff800000001000");
    ours_snprintf(buf, sizeof(buf), "%s|%q|%", (char *)NULL);
    assert_string_equal(buf, "(null)|%q|");
    assert_int_equal(scnprintf(buf, 4, "abcdef"), 3);
    assert_string_equal(buf, "abc");
    assert_int_equal(scnprintf(buf, 0, "abcdef"), 0);
    assert_int_equal(scnprintf(buf, 8, "ab"), 2);
}

static void test_random(void **state)
{
    static const char *const lengths[] = {"hh", "h", "", "l", "ll", "z"};
    static const char conversions[] = "duxXi";

    (void)state;
    srand(1);
    for (int i = 0; i < 20000; i++) {
        char fmt[40];
        char flags[6];
        unsigned n = 0;

        for (unsigned f = 0; f < 5; f++) {
            if (rand() % 3 == 0) {
                flags[n++] = "-0+ #"[f];
            }
        }
        flags[n] = '\0';
        char conv = conversions[rand() % 5];
        const char *length = lengths[rand() % 6];

        if (rand() % 2) {
            snprintf(fmt, sizeof(fmt), "<%%%s%d.%d%s%c>", flags, rand() % 20, rand() % 12, length,
                     conv);
        } else {
            snprintf(fmt, sizeof(fmt), "<%%%s%d%s%c>", flags, rand() % 20, length, conv);
        }
        check(fmt, (uint64_t)rand() * (uint64_t)rand() >> (rand() % 60));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_ours),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("printf", tests, NULL, NULL);
}
