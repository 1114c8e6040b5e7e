/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host console: output to every back-end that exists (16550 serial, VGA text or framebuffer),
 * input from serial and the PS/2 keyboard. Back-ends register themselves in a table.
 */
#pragma once

#include "kernel/lib/err.h"

struct boot_info;

/* First thing at boot: serial port at 0x3f8 by polling, no memory needed. */
void console_early_init(void);
/* Framebuffer or VGA text, after hostmap; keyboard and serial interrupts, after irq and sched. */
void console_init_display(const struct boot_info *info);
void console_init_input(void);

/* Write bytes to all back-ends; '\n' becomes CR LF. Any context. */
void console_write(const char *s, size_t len);
/* In panic: no locks any more. */
void console_panic_mode(void);

/* Next input byte; sleeps the calling thread until there is one. */
int console_getc(void);
/* Next input byte or -1. */
int console_poll(void);
