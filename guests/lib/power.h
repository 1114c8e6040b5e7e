/* SPDX-License-Identifier: BSD-2-Clause */
/* Ways for a guest to end. None of these returns. */
#pragma once

#include <stdint.h>

/* ACPI S5 through Ballast's sleep control port; falls back to the PM1a port of QEMU's machines. */
_Noreturn void power_off(void);

/* Reset through port 0xcf9. */
_Noreturn void power_reset(void);

/* Ends the VM with code (v << 1) | 1 through the debug-exit port; powers off where there is none. */
_Noreturn void power_exit(uint8_t v);

/* Halts with interrupts on for ever. */
_Noreturn void power_halt(void);

/*
 * Ends as "end=" on the command line says: poweroff (default); reset, keyboard, outputport, port92 and
 * triple, which are ways to reset a PC; halt; or exit, which gives 0 when no check failed and 1 otherwise
 * (report.h).
 */
_Noreturn void power_end(void);
