/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See terminal.h. Callers: mem_screen.c, tests.
 */
#include "kernel/shell/terminal.h"

#define ESCAPE '\x1b'
#define SIZE_MAX_CELLS 9999u

static enum terminal_event csi_end(struct terminal *t, char c)
{
    t->state = TERMINAL_PLAIN;
    if (c != 'R') {
        return TERMINAL_KEY;
    }
    if (t->nr_numbers != 1 || t->number[0] == 0 || t->number[1] == 0) {
        return TERMINAL_NOTHING;
    }
    t->rows = t->number[0];
    t->columns = t->number[1];
    return TERMINAL_SIZE;
}

static enum terminal_event csi(struct terminal *t, char c)
{
    if (c >= '0' && c <= '9') {
        unsigned *n = &t->number[MIN(t->nr_numbers, 1u)];

        *n = MIN(*n * 10 + (unsigned)(c - '0'), SIZE_MAX_CELLS);
        return TERMINAL_NOTHING;
    }
    if (c == ';') {
        t->nr_numbers++;
        return TERMINAL_NOTHING;
    }
    return c >= '@' && c <= '~' ? csi_end(t, c) : TERMINAL_NOTHING;
}

enum terminal_event terminal_feed(struct terminal *t, char c)
{
    if (t->state == TERMINAL_CSI) {
        return csi(t, c);
    }
    if (c == ESCAPE) {
        t->state = TERMINAL_ESC;
        return TERMINAL_NOTHING;
    }
    if (t->state == TERMINAL_ESC && c == '[') {
        t->state = TERMINAL_CSI;
        t->number[0] = t->number[1] = t->nr_numbers = 0;
        return TERMINAL_NOTHING;
    }
    if (t->state == TERMINAL_ESC && c == 'O') {
        return TERMINAL_NOTHING; /* SS3: the next byte is the key */
    }
    t->state = TERMINAL_PLAIN;
    return TERMINAL_KEY;
}

bool terminal_idle(struct terminal *t)
{
    bool key = t->state == TERMINAL_ESC;

    t->state = TERMINAL_PLAIN;
    return key;
}
