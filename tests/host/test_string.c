/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * kernel/lib/string.c against the C library's functions, under its own names and all alignments.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STRING_UNDER_TEST
#define memcpy ours_memcpy
#define memmove ours_memmove
#define memset ours_memset
#define memcmp ours_memcmp
#define memchr ours_memchr
#define strlen ours_strlen
#define strnlen ours_strnlen
#define strcmp ours_strcmp
#define strncmp ours_strncmp
#define strchr ours_strchr
#define strrchr ours_strrchr
#define strstr ours_strstr
void *memcpy(void *restrict dst, const void *restrict src, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strncmp(const char *a, const char *b, size_t n);
#include "kernel/lib/string.c"
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef memchr
#undef strlen
#undef strnlen
#undef strcmp
#undef strncmp
#undef strchr
#undef strrchr
#undef strstr

#define SIZE 160

static uint8_t a[SIZE], b[SIZE];

static void fill(void)
{
    for (unsigned i = 0; i < SIZE; i++) {
        a[i] = b[i] = (uint8_t)(i * 7 + 1);
    }
}

static void test_copies(void **state)
{
    (void)state;
    for (unsigned from = 0; from < 24; from++) {
        for (unsigned to = 0; to < 24; to++) {
            for (unsigned n = 0; n < 40; n++) {
                fill();
                assert_ptr_equal(ours_memmove(a + to, a + from, n), a + to);
                memmove(b + to, b + from, n);
                assert_memory_equal(a, b, SIZE);
                ours_memcpy(a + 80 + to, a + from, n);
                memcpy(b + 80 + to, b + from, n);
                assert_memory_equal(a, b, SIZE);
            }
        }
    }
}

static void test_fill_and_compare(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 16; at++) {
        for (unsigned n = 0; n < 64; n++) {
            fill();
            ours_memset(a + at, 0x1a5, n);
            memset(b + at, 0xa5, n);
            assert_memory_equal(a, b, SIZE);
            assert_int_equal(ours_memcmp(a + at, b + at, n), 0);
            if (n > 0) {
                a[at + n - 1]++;
                assert_true(ours_memcmp(a + at, b + at, n) > 0);
                assert_true(ours_memcmp(b + at, a + at, n) < 0);
                assert_ptr_equal(ours_memchr(a + at, 0xa6, n), a + at + n - 1);
            }
        }
    }
}

static void test_strings(void **state)
{
    (void)state;
    assert_int_equal(ours_strlen(""), 0);
    assert_int_equal(ours_strlen("ballast"), 7);
    assert_int_equal(ours_strnlen("ballast", 3), 3);
    assert_true(ours_strcmp("a", "b") < 0 && ours_strcmp("\xff", "a") > 0);
    assert_int_equal(ours_strcmp("same", "same"), 0);
    assert_int_equal(ours_strncmp("same1", "same2", 4), 0);
    assert_true(ours_strncmp("sa", "same", 4) < 0);
    const char *s = "key=value=x";
    assert_ptr_equal(ours_strchr(s, '='), s + 3);
    assert_ptr_equal(ours_strrchr(s, '='), s + 9);
    assert_ptr_equal(ours_strchr(s, '\0'), s + 11);
    assert_null(ours_strchr(s, 'q'));
    assert_ptr_equal(ours_strstr(s, "value"), s + 4);
    assert_null(ours_strstr(s, "values"));
}

static void test_str_copy(void **state)
{
    char buf[4] = "xyz";

    (void)state;
    assert_false(str_copy(buf, 0, "a"));
    assert_string_equal(buf, "xyz");
    assert_true(str_copy(buf, sizeof(buf), "abc"));
    assert_string_equal(buf, "abc");
    assert_false(str_copy(buf, sizeof(buf), "defg"));
    assert_string_equal(buf, "def");
    assert_true(str_copy_n(buf, sizeof(buf), "ghijk", 2));
    assert_string_equal(buf, "gh");
    assert_true(str_starts("kernel=x", "kernel") && !str_starts("ker", "kernel"));
    assert_true(char_is_space('\t') && !char_is_space('a') && char_is_digit('0'));
    assert_true(char_is_print('~') && !char_is_print('\x7f') && !char_is_print('\xc3'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_fill_and_compare),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_str_copy),
    };
    return cmocka_run_group_tests_name("string", tests, NULL, NULL);
}
