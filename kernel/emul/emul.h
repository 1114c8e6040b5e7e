/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Decode (library) and execute guest instructions that touch devices. Decoding is a pure function of
 * at most 15 bytes and the mode, cached per processor; effects are separate. What happened is told
 * by the exit, never by the bytes: bytes give length and operands only.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/vm/backend.h"

struct vcpu;

enum emul_mode { EMUL_16, EMUL_32, EMUL_64 };

/* Length of the instruction in bytes[0..len), 0 if it is none or incomplete. Pure but for the cache. */
unsigned emul_length(const uint8_t *bytes, unsigned len, enum emul_mode mode);
enum emul_mode emul_mode_of(struct vcpu *v);

/*
 * Execute the MMIO instruction at RIP that faulted at `gpa` against the VM's bus, and step over it.
 * `fast`: on the guest fast path; HV_EAGAIN means call again off it, nothing has happened yet.
 * HV_EFAULT: a guest exception was queued. HV_ENOTSUP: cannot be emulated (bytes in *text).
 */
enum hv_err emul_mmio(struct vcpu *v, const struct exit_memory *mem, bool fast, char *text,
                      size_t text_len) __must_check;
/* The string port instruction (INS, OUTS, with REP in bounded slices) at RIP. Same results. */
enum hv_err emul_string_io(struct vcpu *v, const struct exit_port *port, bool fast, char *text,
                           size_t text_len) __must_check;
/* Move to or from a control/debug register or CLTS/LMSW: fills gpr, direction and length by decoding. */
enum hv_err emul_decode_cr(struct vcpu *v, struct exit_cr *cr, bool fast, uint8_t *insn_len,
                           uint64_t *lmsw_value) __must_check;
