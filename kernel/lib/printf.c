/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formatting into a buffer. Each conversion first becomes a struct spec (flags, width, precision,
 * length), then digits or text, then padding around it. Allocates nothing and uses little stack, so
 * it serves the NMI and double-fault stacks too.
 */
#include "kernel/lib/printf.h"

#include "kernel/lib/string.h"

#if !defined(BALLAST_HOST) || defined(PRINTF_UNDER_TEST)

struct sink {
    char *buf;
    size_t size;
    size_t len; /* of the whole text, stored or not */
};

struct spec {
    bool left, zero, plus, blank, alt;
    int width;
    int precision; /* -1: none given */
    unsigned bits; /* of the integer argument */
    char conv;
};

static void put(struct sink *s, char c)
{
    if (s->len + 1 < s->size) {
        s->buf[s->len] = c;
    }
    s->len++;
}

static void put_repeated(struct sink *s, char c, int n)
{
    for (int i = 0; i < n; i++) {
        put(s, c);
    }
}

static void put_text(struct sink *s, const struct spec *sp, const char *text, size_t max)
{
    int n = (int)strnlen(text, max);
    int pad = sp->width - n;

    if (!sp->left) {
        put_repeated(s, ' ', pad);
    }
    for (int i = 0; i < n; i++) {
        put(s, text[i]);
    }
    if (sp->left) {
        put_repeated(s, ' ', pad);
    }
}

/* prefix (sign or 0x), zeros up to the precision or width, digits. */
static void put_number(struct sink *s, const struct spec *sp, const char *prefix, uint64_t v,
                       unsigned base)
{
    const char *alphabet = sp->conv == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    char digits[24];
    int n = 0;

    for (; v != 0; v /= base) {
        digits[n++] = alphabet[v % base];
    }
    int prefix_len = (int)strlen(prefix);
    int precision = sp->precision < 0 ? 1 : sp->precision;
    int zeros = MAX(precision - n, 0);

    if (sp->zero && !sp->left && sp->precision < 0) {
        zeros = MAX(zeros, sp->width - prefix_len - n);
    }
    int pad = sp->width - prefix_len - zeros - n;

    if (!sp->left) {
        put_repeated(s, ' ', pad);
    }
    for (int i = 0; i < prefix_len; i++) {
        put(s, prefix[i]);
    }
    put_repeated(s, '0', zeros);
    while (n > 0) {
        put(s, digits[--n]);
    }
    if (sp->left) {
        put_repeated(s, ' ', pad);
    }
}

static const char *parse_flags(const char *p, struct spec *sp)
{
    for (;; p++) {
        switch (*p) {
        case '-':
            sp->left = true;
            break;
        case '0':
            sp->zero = true;
            break;
        case '+':
            sp->plus = true;
            break;
        case ' ':
            sp->blank = true;
            break;
        case '#':
            sp->alt = true;
            break;
        default:
            return p;
        }
    }
}

/* A decimal number or `*`. The caller's va_list travels by pointer in a struct. */
struct args {
    va_list ap;
};

static const char *parse_count(const char *p, struct args *a, int *out)
{
    if (*p == '*') {
        *out = va_arg(a->ap, int);
        return p + 1;
    }
    int v = 0;

    for (; char_is_digit(*p); p++) {
        v = v * 10 + (*p - '0');
    }
    *out = v;
    return p;
}

static const char *parse_length(const char *p, unsigned *bits)
{
    switch (*p) {
    case 'h':
        *bits = p[1] == 'h' ? 8 : 16;
        return p[1] == 'h' ? p + 2 : p + 1;
    case 'l':
        *bits = 64;
        return p[1] == 'l' ? p + 2 : p + 1;
    case 'z':
    case 't':
    case 'j':
        *bits = 64;
        return p + 1;
    default:
        *bits = 32;
        return p;
    }
}

static uint64_t fetch(struct args *a, unsigned bits, bool is_signed)
{
    if (bits == 64) {
        return va_arg(a->ap, uint64_t);
    }
    uint32_t v = va_arg(a->ap, uint32_t);

    if (bits == 8) {
        return is_signed ? (uint64_t)(int8_t)v : (uint8_t)v;
    }
    if (bits == 16) {
        return is_signed ? (uint64_t)(int16_t)v : (uint16_t)v;
    }
    return is_signed ? (uint64_t)(int32_t)v : v;
}

static void put_signed(struct sink *s, const struct spec *sp, struct args *a)
{
    int64_t v = (int64_t)fetch(a, sp->bits, true);
    const char *sign = v < 0 ? "-" : sp->plus ? "+" : sp->blank ? " " : "";

    put_number(s, sp, sign, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10);
}

static void put_hex(struct sink *s, const struct spec *sp, struct args *a)
{
    uint64_t v = fetch(a, sp->bits, false);
    const char *prefix = !sp->alt || v == 0 ? "" : sp->conv == 'X' ? "0X" : "0x";

    put_number(s, sp, prefix, v, 16);
}

static void put_pointer(struct sink *s, struct spec *sp, struct args *a)
{
    sp->precision = 16;
    put_number(s, sp, "0x", va_arg(a->ap, uint64_t), 16);
}

static void put_string(struct sink *s, const struct spec *sp, struct args *a)
{
    const char *text = va_arg(a->ap, const char *);

    put_text(s, sp, text ? text : "(null)", sp->precision < 0 ? SIZE_MAX : (size_t)sp->precision);
}

static void put_char(struct sink *s, const struct spec *sp, struct args *a)
{
    char c = (char)va_arg(a->ap, int);

    put_repeated(s, ' ', sp->left ? 0 : sp->width - 1);
    put(s, c);
    put_repeated(s, ' ', sp->left ? sp->width - 1 : 0);
}

/* One conversion; p stands behind the `%`. Returns where the text goes on. */
static const char *convert(struct sink *s, const char *p, struct args *a)
{
    struct spec sp = {.precision = -1};

    p = parse_flags(p, &sp);
    p = parse_count(p, a, &sp.width);
    if (sp.width < 0) {
        sp.left = true;
        sp.width = -sp.width;
    }
    if (*p == '.') {
        p = parse_count(p + 1, a, &sp.precision);
        sp.precision = MAX(sp.precision, -1);
    }
    p = parse_length(p, &sp.bits);
    sp.conv = *p;
    switch (sp.conv) {
    case 'd':
    case 'i':
        put_signed(s, &sp, a);
        break;
    case 'u':
        put_number(s, &sp, "", fetch(a, sp.bits, false), 10);
        break;
    case 'x':
    case 'X':
        put_hex(s, &sp, a);
        break;
    case 'p':
        put_pointer(s, &sp, a);
        break;
    case 's':
        put_string(s, &sp, a);
        break;
    case 'c':
        put_char(s, &sp, a);
        break;
    case '%':
        put(s, '%');
        break;
    case '\0':
        return p;
    default: /* unknown: shown as it stands */
        put(s, '%');
        put(s, sp.conv);
        break;
    }
    return p + 1;
}

int vsnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
    struct sink s = {.buf = buf, .size = size};
    struct args a;

    va_copy(a.ap, ap);
    while (*fmt) {
        if (*fmt == '%') {
            fmt = convert(&s, fmt + 1, &a);
        } else {
            put(&s, *fmt++);
        }
    }
    va_end(a.ap);
    if (size > 0) {
        buf[MIN(s.len, size - 1)] = '\0';
    }
    return (int)s.len;
}

int snprintf(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(buf, size, fmt, ap);
    va_end(ap);
    return n;
}

#endif

size_t vscnprintf(char *buf, size_t size, const char *fmt, va_list ap)
{
    if (size == 0) {
        return 0;
    }
    int n = vsnprintf(buf, size, fmt, ap);

    return n < 0 ? 0 : MIN((size_t)n, size - 1);
}

size_t scnprintf(char *buf, size_t size, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    size_t n = vscnprintf(buf, size, fmt, ap);
    va_end(ap);
    return n;
}
