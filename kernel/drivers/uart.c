/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 16550 driver ("PC16550D Universal Asynchronous Receiver/Transmitter with FIFOs", registers).
 */
#include "kernel/drivers/uart.h"

#include "arch/x86_64/io.h"

enum uart_reg {
    REG_DATA = 0, /* divisor low while DLAB is set */
    REG_IER = 1,  /* divisor high while DLAB is set */
    REG_FCR = 2,  /* write; reads are IIR */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_SCRATCH = 7
};

#define IER_RX_AVAILABLE 0x01
#define FCR_ENABLE_CLEAR 0x07 /* FIFOs on and emptied, interrupt from the first byte */
#define IIR_FIFO_WORKS 0xc0
#define LCR_8N1 0x03
#define LCR_DLAB 0x80
#define MCR_DTR_RTS_OUT2 0x0b /* OUT2 lets the interrupt out on PCs */
#define MCR_LOOPBACK 0x1e
#define LSR_DATA_READY 0x01
#define LSR_THR_EMPTY 0x20
#define FIFO_BYTES 16u
#define DIVISOR_115200 1

/* A byte takes 87 us at 115200 baud; a register read about 1 us on real hardware. */
#define SEND_SPINS 1000000u

static uint8_t reg_read(const struct uart *u, enum uart_reg reg)
{
    if (u->mmio) {
        return mmio_read8(u->mmio + ((unsigned)reg << u->stride_shift));
    }
    return inb((uint16_t)(u->port + reg));
}

static void reg_write(const struct uart *u, enum uart_reg reg, uint8_t v)
{
    if (u->mmio) {
        mmio_write8(u->mmio + ((unsigned)reg << u->stride_shift), v);
    } else {
        outb((uint16_t)(u->port + reg), v);
    }
}

/* Something that keeps a scratch byte and, in loop-back mode, returns what it is sent. */
static bool answers(const struct uart *u)
{
    reg_write(u, REG_SCRATCH, 0x5a);
    if (reg_read(u, REG_SCRATCH) != 0x5a) {
        return false;
    }
    reg_write(u, REG_SCRATCH, 0xa5);
    if (reg_read(u, REG_SCRATCH) != 0xa5) {
        return false;
    }
    reg_write(u, REG_MCR, MCR_LOOPBACK);
    reg_write(u, REG_DATA, 0xae);
    for (unsigned i = 0; i < SEND_SPINS; i++) {
        if (reg_read(u, REG_LSR) & LSR_DATA_READY) {
            return reg_read(u, REG_DATA) == 0xae;
        }
    }
    return false;
}

static bool probe(struct uart *u)
{
    reg_write(u, REG_IER, 0);
    reg_write(u, REG_LCR, LCR_DLAB);
    reg_write(u, REG_DATA, DIVISOR_115200);
    reg_write(u, REG_IER, 0);
    reg_write(u, REG_LCR, LCR_8N1);
    reg_write(u, REG_FCR, FCR_ENABLE_CLEAR);
    if (!answers(u)) {
        return false;
    }
    reg_write(u, REG_MCR, MCR_DTR_RTS_OUT2);
    reg_write(u, REG_FCR, FCR_ENABLE_CLEAR);
    u->has_fifo = (reg_read(u, REG_FCR) & IIR_FIFO_WORKS) == IIR_FIFO_WORKS;
    u->present = true;
    return true;
}

bool uart_probe_port(struct uart *u, uint16_t port)
{
    *u = (struct uart){.port = port};
    return probe(u);
}

bool uart_probe_mmio(struct uart *u, volatile void *base, unsigned stride_shift)
{
    *u = (struct uart){.mmio = base, .stride_shift = stride_shift};
    return probe(u);
}

/* A port that did not drain in time is not waited for again until it has drained: what is written
 * meanwhile is lost. */
static bool wait_empty(struct uart *u)
{
    for (unsigned i = 0; i < (u->stalled ? 1 : SEND_SPINS); i++) {
        if (reg_read(u, REG_LSR) & LSR_THR_EMPTY) {
            u->stalled = false;
            return true;
        }
        __builtin_ia32_pause();
    }
    u->stalled = true;
    return false;
}

bool uart_ready(struct uart *u)
{
    return !u->present || u->stalled || (reg_read(u, REG_LSR) & LSR_THR_EMPTY);
}

void uart_write(struct uart *u, const char *s, size_t len)
{
    unsigned burst = u->has_fifo ? FIFO_BYTES : 1;

    for (size_t i = 0; u->present && i < len; i++) {
        if (i % burst == 0 && !wait_empty(u)) {
            return;
        }
        reg_write(u, REG_DATA, (uint8_t)s[i]);
    }
}

int uart_read(struct uart *u)
{
    if (!u->present) {
        return -1;
    }
    uint8_t status = reg_read(u, REG_LSR);

    if (status == 0xff || !(status & LSR_DATA_READY)) {
        return -1;
    }
    return reg_read(u, REG_DATA);
}

void uart_enable_rx_interrupt(struct uart *u)
{
    if (u->present) {
        reg_write(u, REG_IER, IER_RX_AVAILABLE);
    }
}
