/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Symbolised backtraces over frame pointers. Reads memory safely, takes no locks: usable in NMI and
 * panic. Callers: kernel/panic.c.
 */
#pragma once

#include "kernel/lib/types.h"

/* Log one line per caller, starting from frame pointer `rbp`. */
void backtrace_log(uint64_t rbp);
/* The same for interrupted code, whose own place is shown first; after a jump into nowhere the
 * caller is taken from the top of its stack. */
void backtrace_log_trap(uint64_t rip, uint64_t rsp, uint64_t rbp);
