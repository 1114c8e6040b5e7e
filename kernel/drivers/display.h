/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The screen: a terminal (term.c) shown by VGA text or by a linear framebuffer. Writing only changes
 * cells; drawing compares them with what the screen shows and touches only those that differ, so a
 * burst of scrolling costs one redraw. Caller: console.c.
 */
#pragma once

#include "kernel/lib/types.h"

struct boot_info;

/* How a back-end shows one character; inverse for the cursor. */
struct display_ops {
    const char *name;
    void (*draw)(unsigned x, unsigned y, char c, bool inverse);
};

/* Find a screen. False: there is none. After hostmap. */
bool display_init(const struct boot_info *info);
/* Change cells; the caller serialises. */
void display_write(const char *s, size_t len);
/* Bring the screen up to date. Any number of callers: one draws, the others leave it to him. */
void display_draw(void);
