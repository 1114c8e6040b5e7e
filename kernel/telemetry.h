/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread that gives the memory numbers their tick once a second, and the telemetry stream: the same
 * numbers as JSON lines on a serial port of their own (docs/telemetry.md). A port that nobody reads
 * holds nobody up: lines that have no room are dropped whole, and counted.
 */
#pragma once

#include "kernel/lib/types.h"

/* Values of the option, in the order of ballast.conf's choices (kernel/vm/config.c); NULL ends them. */
extern const char *const telemetry_ports[];

/* Start, with the port that `where` names, one of telemetry_ports (auto: com2, if it is there and not the
 * console's). Errors are logged; the numbers get their tick in any case. Once, before the first VM. */
void telemetry_start(const char *where);
