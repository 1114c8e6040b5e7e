/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory and string functions. Copies and fills move eight bytes at a time with `rep movsq` and
 * `rep stosq`, then the rest by bytes: that is near the best of general registers on silicon, and an
 * eighth of the instructions of a byte loop where an emulator counts each repetition.
 *
 * The compiler may recognise a loop that is one of these functions and call the function from inside
 * itself; an empty asm statement in such loops prevents that.
 */
#include "kernel/lib/string.h"

#if !defined(BALLAST_HOST) || defined(STRING_UNDER_TEST)

#ifndef STRING_UNDER_TEST
#undef memcpy
#undef memmove
#undef memset
#undef memcmp
#undef strlen
#endif

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
    void *d = dst;
    size_t words = n / 8;
    size_t rest = n % 8;

    __asm__ volatile("rep movsq" : "+D"(d), "+S"(src), "+c"(words)::"memory");
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(rest)::"memory");
    return dst;
}

void *memmove(void *dst, const void *src, size_t n)
{
    if ((uintptr_t)dst - (uintptr_t)src >= n) {
        return memcpy(dst, src, n);
    }
    /* dst lies inside (src, src + n): from the end. Not with DF set, which is slow everywhere. */
    uint8_t *d = dst;
    const uint8_t *s = src;

    while (n >= 8) {
        uint64_t word;

        n -= 8;
        __builtin_memcpy(&word, s + n, 8);
        __asm__ volatile("" ::: "memory");
        __builtin_memcpy(d + n, &word, 8);
    }
    while (n > 0) {
        n--;
        d[n] = s[n];
        __asm__ volatile("" ::: "memory");
    }
    return dst;
}

void *memset(void *dst, int c, size_t n)
{
    void *d = dst;
    size_t words = n / 8;
    size_t rest = n % 8;
    uint64_t pattern = (uint8_t)c * 0x0101010101010101ULL;

    __asm__ volatile("rep stosq" : "+D"(d), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(rest) : "a"(pattern) : "memory");
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    while (n >= 8) {
        uint64_t u, v;

        __builtin_memcpy(&u, x, 8);
        __builtin_memcpy(&v, y, 8);
        if (u != v) {
            break;
        }
        x += 8;
        y += 8;
        n -= 8;
    }
    for (size_t i = 0; i < n; i++) {
        if (x[i] != y[i]) {
            return x[i] - y[i];
        }
    }
    return 0;
}

void *memchr(const void *s, int c, size_t n)
{
    const uint8_t *p = s;

    for (size_t i = 0; i < n; i++) {
        if (p[i] == (uint8_t)c) {
            return (void *)(uintptr_t)(p + i);
        }
    }
    return NULL;
}

size_t strlen(const char *s)
{
    size_t n = 0;

    while (s[n]) {
        n++;
        __asm__ volatile("" : "+r"(n));
    }
    return n;
}

size_t strnlen(const char *s, size_t max)
{
    size_t n = 0;

    while (n < max && s[n]) {
        n++;
    }
    return n;
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (uint8_t)*a - (uint8_t)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (a[i] != b[i] || !a[i]) {
            return (uint8_t)a[i] - (uint8_t)b[i];
        }
    }
    return 0;
}

char *strchr(const char *s, int c)
{
    for (; *s != (char)c; s++) {
        if (!*s) {
            return NULL;
        }
    }
    return (char *)(uintptr_t)s;
}

char *strrchr(const char *s, int c)
{
    const char *found = NULL;

    for (;; s++) {
        if (*s == (char)c) {
            found = s;
        }
        if (!*s) {
            return (char *)(uintptr_t)found;
        }
    }
}

char *strstr(const char *s, const char *what)
{
    size_t n = strlen(what);

    for (;; s++) {
        if (strncmp(s, what, n) == 0) {
            return (char *)(uintptr_t)s;
        }
        if (!*s) {
            return NULL;
        }
    }
}

#endif

bool str_copy_n(char *dst, size_t size, const char *src, size_t len)
{
    if (size == 0) {
        return false;
    }
    size_t n = MIN(len, size - 1);

    memcpy(dst, src, n);
    dst[n] = '\0';
    return n == len;
}

bool mem_is_zero(const void *p, size_t n)
{
    const uint8_t *bytes = p;

    return bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0;
}

bool str_copy(char *dst, size_t size, const char *src)
{
    return str_copy_n(dst, size, src, strlen(src));
}

bool str_equal(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

bool str_starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool char_is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool char_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool char_is_print(char c)
{
    return c >= 0x20 && c <= 0x7e;
}
