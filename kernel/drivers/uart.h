/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 16550-compatible serial ports behind I/O ports or memory. Polled output, input by polling or by
 * interrupt. A port that stops draining is not waited for: what is written to it is lost. The caller serialises;
 * in a panic nobody does, and the worst is mixed text. Callers: console.c, kernel/telemetry.c.
 */
#pragma once

#include "kernel/lib/types.h"

struct uart {
    bool present;
    bool has_fifo; /* 16 bytes may follow each other */
    bool stalled;  /* did not drain in time */
    uint16_t port; /* I/O port of the first register, if mmio is NULL */
    volatile uint8_t *mmio;
    unsigned stride_shift; /* registers are 1 << stride_shift bytes apart (memory) */
};

#define UART_COM1 0x3f8
#define UART_COM2 0x2f8
#define UART_COM3 0x3e8
#define UART_COM4 0x2e8

/* Look for a port there; if one answers, set it to 115200 8N1 with FIFOs and no interrupts. */
bool uart_probe_port(struct uart *u, uint16_t port);
bool uart_probe_mmio(struct uart *u, volatile void *base, unsigned stride_shift);

/* Would uart_write send a FIFO's worth without waiting? Also true if it would not wait, but lose it. */
bool uart_ready(struct uart *u);
/* Waits up to about a second for the port to drain. */
void uart_write(struct uart *u, const char *s, size_t len);
/* The next received byte, or -1. */
int uart_read(struct uart *u);
/* Raise the interrupt line for received bytes. */
void uart_enable_rx_interrupt(struct uart *u);
