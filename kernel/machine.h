/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One screen at start: what the machine offers, and what its firmware hides.
 */
#pragma once

#include "kernel/lib/types.h"

struct boot_info;

/* Print it. After smp_start and backend_select (whatever that said). */
void machine_report(const struct boot_info *info);
/* No backend can run guests here: say what is missing and where to look, then halt. */
void machine_refuse(const struct boot_info *info) __attribute__((noreturn));
