/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names of the image's functions, for backtraces. The table is generated at build time by
 * tools/gen_symbols.py from the first link and added by the second. Read-only; no locks; safe in a
 * panic. Callers: the backtrace.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SYMBOL_NAME_BYTES 64 /* longer names are cut */

/*
 * Name of the function that contains virtual address `addr`; false if no function of the image does.
 * `*offset` receives the distance from the function's start, in bytes. Both untouched if false.
 */
bool symbols_lookup(uint64_t addr, char name[SYMBOL_NAME_BYTES], uint64_t *offset);
