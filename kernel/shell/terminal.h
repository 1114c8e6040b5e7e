/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operator's terminal as far as a screen that is refreshed in place needs it: its size, which it is
 * asked for ("ECMA-48 Control Functions", DSR and CPR), and keys told from its answers. Pure.
 */
#pragma once

#include "kernel/lib/types.h"

struct terminal {
    unsigned columns, rows; /* 0: not known */
    enum { TERMINAL_PLAIN, TERMINAL_ESC, TERMINAL_CSI } state;
    unsigned number[2], nr_numbers;
};

/* Put the cursor as far down and right as it goes, ask where it is, and put it back. */
#define TERMINAL_ASK "\x1b[s\x1b[999;999H\x1b[6n\x1b[u"
#define TERMINAL_HOME "\x1b[H"
#define TERMINAL_END_LINE "\x1b[K"
#define TERMINAL_END_SCREEN "\x1b[J"

enum terminal_event {
    TERMINAL_NOTHING, /* part of a sequence, or one that means nothing here */
    TERMINAL_SIZE,    /* columns and rows are up to date */
    TERMINAL_KEY      /* somebody pressed a key */
};
/* One byte that came in. A sequence of a cursor or function key counts as a key at its end. */
enum terminal_event terminal_feed(struct terminal *t, char c);
/* Nothing came for a while: was the sequence that seemed to begin the Escape key? */
bool terminal_idle(struct terminal *t);
