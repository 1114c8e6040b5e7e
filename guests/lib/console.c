/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * COM1 by polling. An absent UART reads as all ones, which looks like "transmitter empty": output is
 * lost then, but nothing hangs.
 */
#include "guests/lib/console.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "guests/lib/arch.h"
#include "guests/lib/string.h"

#define COM1 0x3f8
#define UART_DATA (COM1 + 0)
#define UART_IER (COM1 + 1)
#define UART_FCR (COM1 + 2)
#define UART_LCR (COM1 + 3)
#define UART_MCR (COM1 + 4)
#define UART_LSR (COM1 + 5)
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

void console_init(void)
{
    outb(UART_IER, 0);
    outb(UART_LCR, 0x80);
    outb(UART_DATA, 1); /* divisor 1: 115200 baud */
    outb(UART_IER, 0);
    outb(UART_LCR, 0x03);
    outb(UART_FCR, 0x07);
    outb(UART_MCR, 0x03);
}

static void send(char c)
{
    while (!(inb(UART_LSR) & LSR_THRE)) {
        cpu_pause();
    }
    outb(UART_DATA, (uint8_t)c);
}

void console_putc(char c)
{
    if (c == '\n') {
        send('\r');
    }
    send(c);
}

void console_drain(void)
{
    while (!(inb(UART_LSR) & LSR_TEMT)) {
        cpu_pause();
    }
}

struct spec {
    bool left, zero;
    int width, longs;
};

static void pad(int n, char c)
{
    while (n-- > 0) {
        console_putc(c);
    }
}

static void put_string(const char *s, const struct spec *sp)
{
    int fill = sp->width - (int)strlen(s);
    if (!sp->left) {
        pad(fill, ' ');
    }
    while (*s) {
        console_putc(*s++);
    }
    if (sp->left) {
        pad(fill, ' ');
    }
}

static void put_number(uint64_t v, unsigned int base, bool negative, const struct spec *sp)
{
    char buf[24];
    int n = sizeof buf;
    buf[--n] = 0;
    do {
        buf[--n] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    if (sp->zero) {
        for (int have = (int)sizeof buf - 1 - n; have < sp->width && n > 1; have++) {
            buf[--n] = '0';
        }
    }
    if (negative) {
        buf[--n] = '-';
    }
    put_string(buf + n, sp);
}

static const char *parse_spec(const char *f, struct spec *sp)
{
    *sp = (struct spec){0};
    for (;; f++) {
        if (*f == '-') {
            sp->left = true;
        } else if (*f == '0') {
            sp->zero = true;
        } else {
            break;
        }
    }
    while (*f >= '0' && *f <= '9') {
        sp->width = sp->width * 10 + (*f++ - '0');
    }
    while (*f == 'l' || *f == 'z') {
        sp->longs++;
        f++;
    }
    return f;
}

void console_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    for (; *fmt; fmt++) {
        struct spec sp;
        if (*fmt != '%') {
            console_putc(*fmt);
            continue;
        }
        fmt = parse_spec(fmt + 1, &sp);
        switch (*fmt) {
        case 'c':
            console_putc((char)va_arg(ap, int));
            break;
        case 's':
            put_string(va_arg(ap, const char *), &sp);
            break;
        case 'd': {
            int64_t v = sp.longs ? va_arg(ap, long) : va_arg(ap, int);
            put_number(v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0, &sp);
            break;
        }
        case 'u':
        case 'x':
            put_number(sp.longs ? va_arg(ap, unsigned long) : va_arg(ap, unsigned int),
                       *fmt == 'x' ? 16 : 10, false, &sp);
            break;
        case 'p':
            put_number((uint64_t)va_arg(ap, void *), 16, false, &sp);
            break;
        case 0:
            va_end(ap);
            return;
        default:
            console_putc(*fmt);
        }
    }
    va_end(ap);
}
