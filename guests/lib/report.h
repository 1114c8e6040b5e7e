/* SPDX-License-Identifier: BSD-2-Clause */
/* Results of a guest's checks, one line each, read by the boot tests. */
#pragma once

#include <stdbool.h>

/* Prints "PASS name", or "FAIL name: why" with the formatted reason. Counts both. */
void report_check(bool ok, const char *name, const char *why);

/* Number of failed checks so far. */
unsigned int report_failures(void);

/* Prints "SUMMARY passed N failed M". */
void report_summary(void);
