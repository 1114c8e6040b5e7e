/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PS/2 scan codes (set 1, as the i8042 translates) into what a terminal would send: US layout with
 * Shift, Ctrl and Caps Lock; cursor keys become escape sequences. Pure. Caller: i8042.c.
 */
#pragma once

#include "kernel/lib/types.h"

struct keymap {
    bool shift, ctrl, caps;
    bool extended; /* the last byte was 0xe0 */
};

#define KEYMAP_MAX_BYTES 4

/* Feed one scan code; returns how many bytes of `out` were filled. */
size_t keymap_scancode(struct keymap *k, uint8_t code, char out[KEYMAP_MAX_BYTES]);
