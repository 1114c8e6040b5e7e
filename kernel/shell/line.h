/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A line editor as a state machine: typed bytes in, terminal text out. It needs no more of the
 * terminal than carriage return and backspace; cursor keys, Home, End and Delete are understood in
 * the usual escape sequences. Emacs keys: Ctrl-B/F (cursor), Ctrl-E (end), Ctrl-D (delete), Ctrl-K
 * and Ctrl-U (cut to the end, whole line), Ctrl-W (word), Ctrl-L (clear screen), Ctrl-P/N (history),
 * Ctrl-C (give up the line). Ctrl-A is QEMU's. Pure; the owner names the lock.
 */
#pragma once

#include "kernel/lib/types.h"

#define LINE_BYTES 68u /* with the prompt, one row of 80 columns */
#define LINE_HISTORY 32u
#define LINE_COMPLETIONS 64u
#define LINE_WORD_BYTES 64u

/* What a completer collects: words that may stand in place of the one being typed. */
struct line_completions {
    char words[LINE_COMPLETIONS][LINE_WORD_BYTES];
    unsigned nr;
    const char *prefix; /* what is typed of the word */
};
/* Offer `word`; ignored unless it begins with the prefix. */
void line_offer(struct line_completions *c, const char *word);

/* `line` is the text before the word; fills c by line_offer. */
typedef void (*line_completer_t)(const char *line, struct line_completions *c);

enum line_escape { LINE_ESC_NONE, LINE_ESC_SEEN, LINE_ESC_CSI };

struct line {
    const char *prompt;
    void (*write)(const char *s, size_t len);
    line_completer_t complete; /* may be NULL */

    char buf[LINE_BYTES]; /* NUL-terminated */
    unsigned len, cursor;
    bool visible;

    enum line_escape escape;
    unsigned escape_param;
    bool last_was_cr;

    char history[LINE_HISTORY][LINE_BYTES];
    unsigned nr_history;    /* lines ever added */
    unsigned browse;        /* how far back Up has gone; 0: the line being typed */
    char saved[LINE_BYTES]; /* the line being typed while browsing */
    struct line_completions completions;
};

/* Empty, without history; `prompt` stays where it is. */
void line_init(struct line *l, const char *prompt, void (*write)(const char *s, size_t len),
               line_completer_t complete);
/* Print the prompt and an empty line. */
void line_start(struct line *l);
/* One typed byte. True: Enter; the text is in l->buf until line_start. */
bool line_feed(struct line *l, char c);
/* Take the line off the screen, and put it back, around other output. */
void line_hide(struct line *l);
void line_show(struct line *l);
