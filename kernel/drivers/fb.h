/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Characters on a linear framebuffer, in the font that tools/gen_font.py takes from a Debian console
 * font. Caller: display.c.
 */
#pragma once

#include "kernel/drivers/display.h"

/* Map the framebuffer the loader set up; NULL if there is none that we can draw on. After hostmap. */
const struct display_ops *fb_init(const struct boot_info *info, unsigned *columns, unsigned *rows);
