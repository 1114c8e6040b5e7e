/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Symbolised backtraces over frame pointers. Reads memory safely, takes no locks: usable in NMI and
 * panic. Callers: kernel/panic.c.
 */
#pragma once

#include "kernel/lib/types.h"

/* Log one line per caller, starting from frame pointer `rbp`; `rip` (0: none) is shown first. */
void backtrace_log(uint64_t rip, uint64_t rbp);
