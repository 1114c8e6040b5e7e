/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * esxtop's memory screen: header lines about the host, then the VMs' numbers in as many tables as the
 * width asks for. Its numbers and their names come from kernel/vm/memstat.h. Caller: cmd_mem.c.
 */
#pragma once

#include "kernel/lib/types.h"

#define MEM_SCREEN_WIDTH 80u /* of a terminal that is not known */
#define MEM_SCREEN_HEIGHT 24u
#define MEM_SCREEN_MIN_WIDTH 40u
#define MEM_SCREEN_MAX_WIDTH 400u
#define MEM_SCREEN_MIN_HEIGHT 8u
#define MEM_SCREEN_MAX_HEIGHT 200u

/* All of it, once, in lines of at most `width`. */
void mem_screen_print(unsigned width);
/* From the screen's upper left corner, in `width` columns, and no more than `height` rows. */
void mem_screen_draw(unsigned width, unsigned height);
