/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small terminal ("ECMA-48 Control Functions for Coded Character Sets", the parts named in term.h).
 */
#include "kernel/drivers/term.h"

#include "kernel/lib/string.h"

static char *row_cells(struct term *t, unsigned row)
{
    return t->cells[(t->top + row) % t->rows];
}

const char *term_row(const struct term *t, unsigned row)
{
    return t->cells[(t->top + row) % t->rows];
}

static void erase(struct term *t, unsigned row, unsigned from, unsigned to)
{
    memset(row_cells(t, row) + from, ' ', to - from);
}

void term_init(struct term *t, unsigned columns, unsigned rows)
{
    *t = (struct term){.columns = MIN(columns, TERM_MAX_COLUMNS), .rows = MIN(rows, TERM_MAX_ROWS)};
    for (unsigned r = 0; r < t->rows; r++) {
        erase(t, r, 0, t->columns);
    }
}

static void line_feed(struct term *t)
{
    if (t->y + 1 < t->rows) {
        t->y++;
        return;
    }
    t->top = (t->top + 1) % t->rows;
    erase(t, t->rows - 1, 0, t->columns);
}

static void print(struct term *t, char c)
{
    if (t->x >= t->columns) {
        t->x = 0;
        line_feed(t);
    }
    row_cells(t, t->y)[t->x++] = char_is_print(c) ? c : '?';
}

static void text_byte(struct term *t, char c)
{
    switch (c) {
    case '\n':
        line_feed(t);
        break;
    case '\r':
        t->x = 0;
        break;
    case '\b':
        t->x = MIN(t->x, t->columns - 1);
        t->x -= t->x > 0;
        break;
    case '\t':
        t->x = MIN((t->x / 8 + 1) * 8, t->columns - 1);
        break;
    default:
        /* Of a UTF-8 sequence only its first byte shows, as one '?'. */
        if ((uint8_t)c >= ' ' && ((uint8_t)c & 0xc0) != 0x80 && c != 0x7f) {
            print(t, c);
        }
        break;
    }
}

static void escape_byte(struct term *t, char c)
{
    t->state = TERM_TEXT;
    if (c == '[') {
        t->state = TERM_CSI;
        t->nr_params = 0;
        memset(t->params, 0, sizeof(t->params));
    } else if (c == ']' || c == 'P') {
        t->state = TERM_STRING;
    } else if (c == 'c') {
        term_init(t, t->columns, t->rows);
    }
}

static void erase_display(struct term *t, unsigned how)
{
    unsigned first = how == 0 ? t->y + 1 : 0;
    unsigned last = how == 1 ? t->y : t->rows;

    for (unsigned r = first; r < last; r++) {
        erase(t, r, 0, t->columns);
    }
}

static void erase_line(struct term *t, unsigned how)
{
    unsigned x = MIN(t->x, t->columns);

    erase(t, t->y, how == 0 ? x : 0, how == 1 ? MIN(x + 1, t->columns) : t->columns);
}

static void csi_final(struct term *t, char c)
{
    unsigned n = MAX(t->params[0], 1u);

    switch (c) {
    case 'A':
        t->y -= MIN(n, t->y);
        break;
    case 'B':
        t->y = MIN(t->y + n, t->rows - 1);
        break;
    case 'C':
        t->x = MIN(t->x + n, t->columns - 1);
        break;
    case 'D':
        t->x -= MIN(n, t->x);
        break;
    case 'G':
        t->x = MIN(n, t->columns) - 1;
        break;
    case 'H':
    case 'f':
        t->y = MIN(n, t->rows) - 1;
        t->x = MIN(MAX(t->params[1], 1u), t->columns) - 1;
        break;
    case 'J':
        erase_display(t, t->params[0]);
        if (t->params[0] < 2) {
            erase_line(t, t->params[0]);
        }
        break;
    case 'K':
        erase_line(t, t->params[0]);
        break;
    default:
        break;
    }
}

static void csi_byte(struct term *t, char c)
{
    if (char_is_digit(c)) {
        unsigned *p = &t->params[MIN(t->nr_params, (unsigned)ARRAY_SIZE(t->params) - 1)];

        *p = MIN(*p * 10 + (unsigned)(c - '0'), 9999u);
    } else if (c == ';') {
        t->nr_params++;
    } else if (c >= 0x40 && c <= 0x7e) {
        t->state = TERM_TEXT;
        csi_final(t, c);
    }
}

static void term_byte(struct term *t, char c)
{
    if (c == '\x1b') { /* a new sequence, whatever was not finished */
        t->state = TERM_ESCAPE;
        return;
    }
    switch (t->state) {
    case TERM_TEXT:
        text_byte(t, c);
        break;
    case TERM_ESCAPE:
        escape_byte(t, c);
        break;
    case TERM_CSI:
        csi_byte(t, c);
        break;
    case TERM_STRING: /* ended by BEL or by ESC backslash */
        if (c == '\a') {
            t->state = TERM_TEXT;
        }
        break;
    }
}

void term_write(struct term *t, const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        term_byte(t, s[i]);
    }
}
