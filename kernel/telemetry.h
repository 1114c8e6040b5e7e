/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread that gives the memory numbers their tick once a second, and the telemetry stream: the same
 * numbers as JSON lines on a serial port of their own (docs/telemetry.md). A port that nobody reads
 * holds nobody up: lines that have no room are dropped whole, and counted.
 */
#pragma once

#include "kernel/lib/types.h"

/* A value of the option by name; numbers are as in the choices of kernel/vm/config_keys.c. False: there is
 * none of that name. */
bool telemetry_find(const char *name, unsigned *out);

/* Start, with the port of choice 0 (auto: com2, if it is there and not the console's) or another. Errors are
 * logged; the numbers get their tick in any case. Once, before the first VM. */
void telemetry_start(unsigned choice);
