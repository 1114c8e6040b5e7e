/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small terminal: bytes in, a grid of character cells out. Understands what the shell and a Linux
 * console print (CR, LF, BS, TAB, the CSI sequences for cursor and erasing) and swallows other
 * sequences. Scrolling turns a row index and moves nothing; whoever draws compares each cell with
 * what he drew last. Pure; the owner names the lock.
 */
#pragma once

#include "kernel/lib/types.h"

#define TERM_MAX_COLUMNS 256u
#define TERM_MAX_ROWS 128u

enum term_state { TERM_TEXT, TERM_ESCAPE, TERM_CSI, TERM_STRING };

/* Ends whatever a program may have left a terminal in: a string that was never closed, colours, a hidden
 * cursor. */
#define TERM_SANE "\x1b\\\x1b[0m\x1b[?25h"

struct term {
    unsigned columns, rows;
    unsigned x, y; /* cursor; x == columns: the next character wraps first */
    unsigned top;  /* row of `cells` that is shown first */
    enum term_state state;
    unsigned params[4];
    unsigned nr_params;
    char cells[TERM_MAX_ROWS][TERM_MAX_COLUMNS];
};

/* Blank, of at most TERM_MAX_COLUMNS and TERM_MAX_ROWS. */
void term_init(struct term *t, unsigned columns, unsigned rows);
/* What a terminal would do with these bytes; unknown sequences are swallowed. */
void term_write(struct term *t, const char *s, size_t len);
/* The characters of visible row `row`, `columns` of them. */
const char *term_row(const struct term *t, unsigned row);
