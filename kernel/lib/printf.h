/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formatting into a buffer: the C library's contract for d i u x X c s p %, the flags `-`, `0`, `+`,
 * blank and `#`, width and precision (also `*`), and the lengths hh h l ll z t j. No floating point,
 * no `n`. On the host the C library's own are used. Pure; callers: everyone.
 */
#pragma once

#include <stdarg.h>

#include "kernel/lib/types.h"

#ifdef BALLAST_HOST
#include <stdio.h>
#else
/* Returns the length that the whole text has, the NUL not counted; what does not fit is cut. */
int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap);
int snprintf(char *buf, size_t size, const char *fmt, ...) __printf_like(3, 4);
#endif

/* As snprintf, but returns the bytes stored (NUL not counted), so that calls can be chained. */
size_t vscnprintf(char *buf, size_t size, const char *fmt, va_list ap);
size_t scnprintf(char *buf, size_t size, const char *fmt, ...) __printf_like(3, 4);
