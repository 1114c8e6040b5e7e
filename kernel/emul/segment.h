/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading segment registers in software, as the processor does in real mode and at CPL 0 in protected
 * mode. Manual: "Protected-Mode Memory Management", "Real-Address Mode". Callers: kernel/emul.
 */
#pragma once

#include "kernel/emul/operand.h"

#define SEG_CODE BIT(3)       /* attributes of struct segment, among type bits */
#define SEG_CONFORMING BIT(2) /* of code */
#define SEG_WRITABLE BIT(1)   /* of data; readable, of code */
#define SEG_ACCESSED BIT(0)
#define SEG_S BIT(4) /* code or data */
#define SEG_DPL(attr) ((attr) >> 5 & 3u)
#define SEG_P BIT(7)

#define SELECTOR_RPL 3u
#define SELECTOR_LOCAL 4u
#define SELECTOR_ERROR 0xfffcu /* what of it is an error code */

/* Real or virtual-8086 mode: segments are paragraphs. */
bool segment_is_real(const struct emul *e);
/* Where the selector's descriptor is, and that descriptor. Faults as those of a load. */
enum hv_err segment_locate(const struct emul *e, uint16_t selector, gva_t *at) __must_check;
enum hv_err segment_fetch(const struct emul *e, uint16_t selector, gva_t *at, uint64_t *raw,
                          struct segment *out) __must_check;
/* Load a data or stack segment register. HV_EFAULT: a fault is queued. HV_EAGAIN, HV_ENOMEM as
 * operand_resolve. Nothing is changed unless HV_OK. */
enum hv_err segment_load(const struct emul *e, enum seg_reg seg, uint16_t selector) __must_check;
/* LDTR or TR, in protected mode. */
enum hv_err segment_load_system(const struct emul *e, enum seg_reg seg,
                                uint16_t selector) __must_check;
/* What CS becomes by a far transfer to `selector` at the same privilege level; hv->set_seg is up to the
 * caller. HV_ENOTSUP: a gate, a task, or another privilege level. */
enum hv_err segment_code(const struct emul *e, uint16_t selector, struct segment *out) __must_check;
/* Queue a fault; real mode knows no error codes. Returns HV_EFAULT. */
enum hv_err segment_fault(const struct emul *e, uint8_t vector, uint32_t error) __must_check;
