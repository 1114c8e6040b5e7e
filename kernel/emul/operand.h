/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operands of an emulated instruction: guest registers by number and size, memory by linear address.
 * Memory is resolved first and accessed later, so that faults come before the first effect. Callers:
 * the files of kernel/emul.
 */
#pragma once

#include "kernel/emul/decode.h"

/* What one emulation works on. */
struct emul {
    struct vcpu *v;
    const struct insn *in;
    bool fast;
};

/* Registers: sizes 1, 2, 4, 8; without REX, byte registers 4 to 7 are AH, CH, DH, BH; 32-bit writes
 * clear the upper half. */
uint64_t operand_reg_get(const struct emul *e, unsigned reg, unsigned size);
void operand_reg_set(const struct emul *e, unsigned reg, unsigned size, uint64_t value);

static inline uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : BIT(8 * size) - 1;
}

static inline uint64_t sign_extend(uint64_t value, unsigned size)
{
    unsigned unused = 64 - 8 * size;

    return (uint64_t)((int64_t)(value << unused) >> unused);
}

/* Linear address of the ModRM (or direct) operand, plus `extra` bytes. */
gva_t operand_linear(const struct emul *e, int64_t extra);
/* Linear address of seg:offset. */
gva_t segment_linear(const struct emul *e, unsigned seg, uint64_t offset);

/* A resolved memory operand: guest-physical, in two parts if it crosses a page. */
struct operand {
    gpa_t part[2];
    unsigned size, first; /* bytes in all, and in the first part */
};

/*
 * Resolve by walking the guest's tables. HV_EFAULT: a fault is queued. On the fast path HV_EAGAIN.
 */
enum hv_err operand_resolve(const struct emul *e, gva_t gva, unsigned size, bool write,
                            struct operand *out) __must_check;
/*
 * Resolve the one memory operand of the instruction that exited at `gpa`, without a walk where the exit
 * tells all. HV_EBUSY: the bytes do not belong to this exit (another vCPU changed them); run the guest.
 */
enum hv_err operand_resolve_exit(const struct emul *e, gva_t gva, gpa_t gpa, unsigned size,
                                 bool write, struct operand *out) __must_check;
/* Move the data: RAM, the local APIC or the bus, per part. HV_EAGAIN only on the fast path, with nothing
 * done. */
enum hv_err operand_access(const struct emul *e, const struct operand *o, bool write,
                           uint64_t *value) __must_check;
