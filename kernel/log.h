/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: levels, a ring in RAM that survives a warm reset, and output to the host console.
 * Safe from any context, NMI and panic included; never sleeps.
 */
#pragma once

#include "kernel/lib/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_msg(enum log_level level, const char *fmt, ...) __printf_like(2, 3);

#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)

/* Stop everything: all processors, a backtrace, the reason; then halt (or reboot by `panic=`). */
void panic(const char *fmt, ...) __printf_like(1, 2) __noreturn;
