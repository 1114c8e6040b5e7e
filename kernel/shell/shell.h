/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The operator's shell on the host console: one thread, a line editor and a table of commands.
 * Callers: kernel/main.c; the commands use the rest.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/shell/line.h"

/* Start the shell's thread; without memory for it, say so. After console_init_input and
 * startup_vms. */
/* `cmdline`: the host's; shell=COMMAND in it is what the operator finds running. */
void shell_start(const char *cmdline);

#define SHELL_ARGS_MAX 8

struct shell_command {
    const char *name;
    const char *args; /* for help: "NAME [start|pause]" */
    const char *help; /* one line */
    unsigned min_args, max_args;
    /* args[0] is the command's name; nr counts it. Prints its own errors by shell_error. */
    void (*run)(unsigned nr, char **args);
    /* Offer words for argument `index` (1: the first); may be NULL. */
    void (*complete)(unsigned index, struct line_completions *c);
};

/* The table; its last entry has no name. */
extern const struct shell_command shell_commands[];

/* To the console, at most 511 bytes at a time. */
void shell_print(const char *fmt, ...) __printf_like(1, 2);
/* "COMMAND: ..." as an error line. */
void shell_error(const char *command, const char *fmt, ...) __printf_like(2, 3);
/* While true, the console belongs to a guest: log lines start on a line of their own. */
void shell_set_attached(bool attached);

/* Completers. */
void shell_offer_vms(struct line_completions *c); /* existing and configured */
void shell_offer_list(struct line_completions *c, const char *const *words, unsigned nr);
