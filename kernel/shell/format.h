/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers as the operator reads them. Pure. Callers: the shell's commands.
 */
#pragma once

#include "kernel/lib/types.h"

/* Large enough for every function here. */
#define FORMAT_MAX 24

/* "512K", "256M", "1.5G": three digits at most before the suffix, one behind the point where it
 * says something. Returns buf. */
const char *format_size(char buf[FORMAT_MAX], uint64_t bytes);
/* "12.345s". Returns buf. */
const char *format_seconds(char buf[FORMAT_MAX], uint64_t ns);
/* MB with one decimal, as esxtop prints memory: "256.0". Returns buf. */
const char *format_mb(char buf[FORMAT_MAX], uint64_t bytes);
