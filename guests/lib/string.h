/* SPDX-License-Identifier: BSD-2-Clause */
/* The few string functions that the guests and the compiler ask for. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

void *memset(void *dst, int c, size_t n);
void *memcpy(void *dst, const void *src, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);

/* True when both strings are equal. */
bool string_equal(const char *a, const char *b);
