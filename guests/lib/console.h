/* SPDX-License-Identifier: BSD-2-Clause */
/* Output of a guest: a polled 16550 at COM1 and a small printf. */
#pragma once

/* Prepares COM1: 8n1, FIFO on, interrupts off. Called by boot.c. */
void console_init(void);

/* Sends one character; a line feed is preceded by a carriage return. */
void console_putc(char c);

/* Waits until the last character has left the transmitter. */
void console_drain(void);

/* printf with %s %c %d %u %x %p %%, the l, ll and z modifiers, a width and the 0 and - flags. */
void console_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
