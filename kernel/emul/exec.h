/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The groups of instructions that can be executed on memory outside RAM. Each function takes the
 * decoded instruction and answers HV_ENOTSUP if it is not of its group. HV_OK: executed, step over it;
 * HV_EBUSY: nothing more to do, run the guest at the same RIP (a slice of a repeated instruction was
 * done, or the bytes changed under us). Others as emul_mmio.
 */
#pragma once

#include "kernel/emul/operand.h"

/* emul.c: the bytes at RIP, decoded; HV_ENOTSUP: no instruction. Others as guestmem_fetch. */
struct bytes {
    uint8_t b[INSN_MAX_BYTES];
    unsigned len;
};
enum hv_err emul_fetch(struct vcpu *v, bool fast, struct bytes *bytes,
                       struct insn *in) __must_check;
void emul_describe(const struct bytes *bytes, char *text, size_t len);
/* `err` of a group: HV_OK: step over; HV_EBUSY: done, run on where RIP is. */
enum hv_err emul_finish(struct vcpu *v, const struct insn *in, enum hv_err err) __must_check;

/* Loads and stores: also on the fast path. */
enum hv_err exec_mov(const struct emul *e, gpa_t gpa) __must_check;
/* Read-modify-write, compare, exchange, bit operations; and hints, which do nothing. */
enum hv_err exec_alu(const struct emul *e, gpa_t gpa) __must_check;
/* MOVS, CMPS, STOS, LODS, SCAS with REP. */
enum hv_err exec_string(const struct emul *e) __must_check;
/* PUSH and POP, of memory, and of registers where the stack is not RAM. */
enum hv_err exec_stack(const struct emul *e) __must_check;
/* The register and direction of a move to or from a control or debug register, of CLTS, LMSW or SMSW. */
struct exit_cr emul_cr_of(const struct insn *in);
/* INS and OUTS with REP. */
enum hv_err exec_string_io(const struct emul *e, uint16_t port, unsigned exit_size,
                           bool in) __must_check;

/*
 * The rest is for code that the processor cannot run (step.c): e->all is set, so are operands in
 * registers possible, and the groups above are asked too.
 */

/* Arithmetic, shifts, flags and moves of registers. */
enum hv_err exec_calc(const struct emul *e) __must_check;
/* PUSHA, POPA, ENTER, LEAVE. */
enum hv_err exec_frame(const struct emul *e) __must_check;
/* Segment and descriptor-table registers. */
enum hv_err exec_seg(const struct emul *e) __must_check;
/* Jumps, calls, returns, software interrupts, IRET, PUSHF, POPF, CLI, STI. */
enum hv_err exec_flow(const struct emul *e) __must_check;

/* A far pointer of `size` bytes of offset in memory. */
enum hv_err exec_pointer(const struct emul *e, unsigned size, uint64_t *offset,
                         uint64_t *selector) __must_check;
/* The instruction is done, and holds events off until the next one is. Returns HV_EBUSY. */
enum hv_err exec_done_in_shadow(const struct emul *e) __must_check;

/* Through the interrupt table: `error` is pushed if has_error, RIP is what is returned to; `soft`: by an
 * INT instruction. HV_ENOTSUP: a task gate, or another privilege level. */
struct exec_interrupt {
    uint8_t vector;
    bool soft, has_error;
    uint32_t error;
    uint64_t rip;
};
enum hv_err exec_deliver(const struct emul *e, const struct exec_interrupt *what) __must_check;

#define STACK_VALUES 8u
/* Bytes that PUSH and POP move: 64-bit code has no way to say 4. */
unsigned stack_size(const struct emul *e);
/* Push nr values (at most STACK_VALUES) of `size` bytes; values[0] is on top afterwards. */
enum hv_err stack_push(const struct emul *e, unsigned size, uint64_t *values,
                       unsigned nr) __must_check;
/* The nr values on top, the top first; RSP stays. */
enum hv_err stack_peek(const struct emul *e, unsigned size, uint64_t *values,
                       unsigned nr) __must_check;
/* RSP moves up. */
void stack_drop(const struct emul *e, unsigned bytes);
