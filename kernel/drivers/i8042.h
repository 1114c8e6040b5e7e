/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PS/2 keyboard behind an i8042 controller. What is typed goes to console_input. Caller:
 * console.c.
 */
#pragma once

#include "kernel/lib/types.h"

/* Find and start the controller's first port. False: there is none. */
bool i8042_init(void);
/* Take what the keyboard has sent; interrupt handler, or polled (then by one caller at a time). */
void i8042_service(void *unused);
