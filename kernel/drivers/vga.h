/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VGA text mode as the firmware or loader left it. Caller: display.c.
 */
#pragma once

#include "kernel/drivers/display.h"

/* The text buffer, if there is one; NULL otherwise. After hostmap. */
const struct display_ops *vga_init(const struct boot_info *info, unsigned *columns, unsigned *rows);
