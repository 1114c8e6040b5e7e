/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The text of ballast.conf: bytes into logical lines, and the pieces of a line. Pure. Callers: the
 * parser in kernel/vm/config.c, kernel/vm/start.c.
 */
#pragma once

#include "kernel/lib/types.h"

#define CONFIG_LINE_BYTES_MAX 4096u /* of a logical line, its NUL included */

enum config_line {
    CONFIG_LINE_OK,
    CONFIG_LINE_TOO_LONG, /* cut to fit */
    CONFIG_LINE_NUL,      /* contains NUL bytes, which are left out */
    CONFIG_LINE_END       /* there is none */
};

struct config_text {
    const char *next, *end; /* not yet read */
    unsigned next_line;     /* number of the line at `next` */
    unsigned line;          /* number of the (first) line in `buf` */
    char buf[CONFIG_LINE_BYTES_MAX];
};

/* Begin with the `len` bytes at `text`, which stay where they are; a byte order mark is skipped. */
void config_text_init(struct config_text *t, const char *text, size_t len);
/* The next logical line into t->buf, NUL-terminated; lines ended by a backslash are joined. */
enum config_line config_text_read(struct config_text *t);

/* All of the following work in place. */

/* Without blanks at either end; returns where it starts now. */
char *config_trim(char *s);
bool config_is_comment(char c); /* begins one */
/* Cut a comment that stands at the start or behind a blank. */
void config_cut_comment(char *s);
/* Undo the quotes of a value that begins with one. False: no closing quote, or something other than
 * a comment behind it. */
bool config_unquote(char *s);
/* Take the next item off a list "NAME ARGUMENTS, NAME ARGUMENTS" (*list; NULL: it is at its end): its name,
 * and in *args what follows, maybe empty. Items without a name are passed over. NULL: there is no more. */
char *config_next_item(char **list, char **args);
