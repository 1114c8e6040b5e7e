/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory and string functions. The names and meanings of the C library; in the image the compiler
 * may expand small constant sizes in place, and the rest uses the processor's string instructions,
 * which need no vector registers. On the host the C library's own are used. Pure; callers: everyone.
 */
#pragma once

#include "kernel/lib/types.h"

#ifdef BALLAST_HOST
#include <string.h>
#else

void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *s, int c, size_t n);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t max);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *s, int c);
char *strrchr(const char *s, int c);
char *strstr(const char *s, const char *what);

/* -ffreestanding forbids the compiler to know these names; this allows it. */
#define memcpy(d, s, n) __builtin_memcpy(d, s, n)
#define memmove(d, s, n) __builtin_memmove(d, s, n)
#define memset(d, c, n) __builtin_memset(d, c, n)
#define memcmp(a, b, n) __builtin_memcmp(a, b, n)
#define strlen(s) __builtin_strlen(s)

#endif

/* Are the n bytes at p, n > 0, all zero? */
bool mem_is_zero(const void *p, size_t n);

/*
 * Copy `src` into `dst` of `size` bytes, cut to fit, always NUL-terminated (size 0: nothing). True
 * if all of it fitted.
 */
bool str_copy(char *dst, size_t size, const char *src);
/* The same for the first `len` bytes of `src`, which need no NUL. */
bool str_copy_n(char *dst, size_t size, const char *src, size_t len);
bool str_equal(const char *a, const char *b);
bool str_starts(const char *s, const char *prefix);
/* ASCII classes, whatever the locale. */
bool char_is_space(char c); /* blank, tab, CR, LF, VT, FF */
bool char_is_digit(char c);
bool char_is_print(char c); /* 0x20 .. 0x7e */
