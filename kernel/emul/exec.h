/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The groups of instructions that can be executed on memory outside RAM. Each function takes the
 * decoded instruction and answers HV_ENOTSUP if it is not of its group. HV_OK: executed, step over it;
 * HV_EBUSY: nothing more to do, run the guest at the same RIP (a slice of a repeated instruction was
 * done, or the bytes changed under us). Others as emul_mmio.
 */
#pragma once

#include "kernel/emul/operand.h"

/* Loads and stores: also on the fast path. */
enum hv_err exec_mov(const struct emul *e, gpa_t gpa) __must_check;
/* Read-modify-write, compare, exchange, bit operations; and hints, which do nothing. */
enum hv_err exec_alu(const struct emul *e, gpa_t gpa) __must_check;
/* MOVS, STOS, LODS with REP. */
enum hv_err exec_string(const struct emul *e) __must_check;
/* INS and OUTS with REP. */
enum hv_err exec_string_io(const struct emul *e, uint16_t port, bool in) __must_check;
