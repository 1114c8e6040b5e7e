/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers, sizes and `key=value` words out of text. Strict: the whole text must be the number, and
 * overflow is an error. Pure. Callers: configuration, host command line, shell.
 */
#pragma once

#include "kernel/lib/err.h"

/* Decimal, or hexadecimal after 0x. HV_EINVAL: not a number. HV_ERANGE: more than 64 bits. */
enum hv_err parse_u64(const char *text, uint64_t *out) __must_check;
/* A number with an optional suffix K, M, G or T (either case, optionally followed by `iB` or `B`) in
 * powers of 1024; without suffix it counts `unit` bytes. Errors as parse_u64. */
enum hv_err parse_size(const char *text, uint64_t unit, uint64_t *out) __must_check;
/*
 * Find the word `key=value` (or the bare word `key`, whose value is empty) in the blank-separated
 * words of `line` and copy its value, cut to fit; the last one wins. False if there is none.
 */
bool parse_option(const char *line, const char *key, char *out, size_t size);
/* Split `line` in place at blanks into at most `max` words, "quoted words" unquoted. Returns how
 * many; words beyond max are dropped. */
unsigned parse_words(char *line, char **words, unsigned max);
