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

/* Allocate the processors' decode caches. Thread context, once all processors are up; later calls do
 * nothing. Without it decoding works, uncached. */
enum hv_err emul_init(void) __must_check;

/* Length of the instruction in bytes[0..len), 0 if it is none or incomplete. Pure but for the cache.
 * Not for the address space of two processors at once: the caller does not sleep inside. */
unsigned emul_length(const uint8_t *bytes, unsigned len, enum emul_mode mode);
enum emul_mode emul_mode_of(struct vcpu *v);

/*
 * Execute the MMIO instruction at RIP that faulted at `gpa` against the VM's bus, and step over it.
 * `fast`: on the guest fast path; HV_EAGAIN means call again off it, nothing has happened yet.
 * HV_EFAULT: a guest exception was queued. HV_ENOTSUP: cannot be emulated (bytes in *text).
 * Repeated string instructions do a bounded number of iterations and leave RIP where it is until they
 * are finished.
 */
enum hv_err emul_mmio(struct vcpu *v, const struct exit_memory *mem, bool fast, char *text,
                      size_t text_len) __must_check;
/* The string port instruction (INS, OUTS, with REP in bounded slices) at RIP. Same results. */
enum hv_err emul_string_io(struct vcpu *v, const struct exit_port *port, bool fast, char *text,
                           size_t text_len) __must_check;
/*
 * The operands of a control- or debug-register instruction, by decoding. Moves: cr->decoded is true,
 * cr->cr, cr->write and cr->gpr are filled (for debug registers cr->cr is their number). CLTS and
 * LMSW: cr->decoded is false, cr->cr 0, cr->write true, and *lmsw_value is the whole value that CR0
 * is to get. SMSW: cr->decoded and cr->write are false, and the store has been done (off the fast
 * path only). HV_EAGAIN, HV_EFAULT as above; HV_ENOTSUP: none of these.
 */
enum hv_err emul_decode_cr(struct vcpu *v, struct exit_cr *cr, bool fast, uint8_t *insn_len,
                           uint64_t *lmsw_value) __must_check;
/* The linear address that the INVLPG at RIP names, and its length. HV_EAGAIN, HV_EFAULT as above. */
enum hv_err emul_decode_invlpg(struct vcpu *v, bool fast, uint8_t *insn_len,
                               gva_t *gva) __must_check;
/*
 * Execute the instruction at RIP for a guest that the processor cannot run in its state (hv->emulation).
 * HV_OK: done, if exit->kind is EXIT_NONE; else it is one that the processor would exit for, as `exit`
 * says, and nothing has happened. HV_EFAULT: a guest exception was queued. HV_EAGAIN, HV_ENOMEM: nothing
 * has happened; call again. HV_ENOTSUP: cannot be emulated (bytes in *text). Not in a section.
 */
enum hv_err emul_step(struct vcpu *v, struct vm_exit *exit, char *text,
                      size_t text_len) __must_check;
/* Deliver `ev` in software; same results. */
enum hv_err emul_event(struct vcpu *v, const struct event *ev) __must_check;
/*
 * Switch to another task, as the processor would have (TSS, busy bits, link, registers, CR3, segments).
 * `insn_len`: of the instruction that asked for it, 0 if how->by_insn is not set. HV_OK: the new task runs.
 * HV_EFAULT: a fault is queued, which is the old task's, and nothing has happened, or the new one's, as the
 * manual has it. HV_EAGAIN, HV_ENOMEM: nothing has happened; call again. Not in a section.
 */
enum hv_err emul_task_switch(struct vcpu *v, const struct exit_task *how,
                             unsigned insn_len) __must_check;
