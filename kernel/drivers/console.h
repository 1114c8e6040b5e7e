/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host console: output to every back-end that exists (16550 serial, VGA text or framebuffer),
 * input from serial and the PS/2 keyboard.
 *
 * The host option `console=` lists what is used: com1 .. com4, pci (the first PCI serial port),
 * display. Without it: com1, or a PCI port where there is no com1, and the display.
 */
#pragma once

#include "kernel/lib/err.h"

struct boot_info;
struct waitq;

/* First thing at boot: serial port at 0x3f8 by polling, no memory needed. */
void console_early_init(void);
/* Framebuffer or VGA text, and the serial ports that `console=` names; after hostmap. */
void console_init_display(const struct boot_info *info);
/* Keyboard and serial interrupts, after irq and sched; what has no interrupt is polled. */
void console_init_input(void);

/* Write bytes to all back-ends; '\n' becomes CR LF. Any context. */
void console_write(const char *s, size_t len);
/* In panic: no locks any more. */
void console_panic_mode(void);
bool console_in_panic(void);

/* Next input byte; sleeps the calling thread until there is one. */
int console_getc(void);
/* Next input byte or -1. Any thread. */
int console_poll(void);
/* Is there any? */
bool console_has_input(void);
/* Put a byte back in front of what waits, unless the queue is full: console_poll took it. */
void console_unget(char c);
/* Woken whenever input has arrived; for threads that wait for something else as well. */
struct waitq *console_input_waitq(void);
/* Is the serial port at this base address one of the console's? */
bool console_has_port(uint16_t base);
/* For input drivers, any context: `len` bytes were typed. */
void console_input(const char *s, size_t len);
