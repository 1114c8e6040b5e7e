/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end: panic() itself is declared in kernel/log.h. `panic=halt` (default) or `panic=reboot` on
 * the host command line says what follows the report; the log stays in its ring for the next boot.
 */
#pragma once

#include "arch/x86_64/irq.h"

/* As panic(), with the registers and the backtrace of the interrupted code. */
void panic_trap(const struct trap_frame *frame, const char *fmt, ...)
    __printf_like(2, 3) __noreturn;
/* Read `panic=` from the host command line; an unknown word is reported and ignored. */
void panic_configure(const char *cmdline);
/* Some processor is panicking: NMIs and machine checks park. */
bool panic_active(void);
/* Stop this processor for ever, quietly. */
void panic_park(void) __noreturn;
/* Stop the machine because of its surroundings, not of a bug: message, no backtrace, then halt. */
void panic_unusable(const char *fmt, ...) __printf_like(1, 2) __noreturn;
