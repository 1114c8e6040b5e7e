/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Operands of an emulated instruction: guest registers by number and size, memory by linear address.
 * Memory is resolved and pinned first and accessed later, so that faults and waits come before the first
 * effect. Callers: the files of kernel/emul.
 */
#pragma once

#include "kernel/emul/decode.h"

/* What one emulation works on. */
struct emul {
    struct vcpu *v;
    const struct insn *in;
    bool fast;
    bool ram; /* the access that exited was one to RAM */
    bool
        reads; /* the access that exited was a read: the guest's tables have not been asked about writes */
    /* The guest's code is executed here because the processor cannot (step.c): no exit came before, and
     * operands may be registers. */
    bool all;
    /* A task switch (task.c): what a selector that cannot be loaded raises, else 0: #GP; and whether error
     * codes say that an event was being delivered. */
    uint8_t refusal;
    bool external;
};

/* Queue the fault for an operand that segment `seg` cannot reach; returns HV_EFAULT. */
enum hv_err operand_segment_fault(const struct emul *e, unsigned seg) __must_check;

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

/* A memory operand as the instruction names it. */
struct mem_ref {
    uint8_t seg; /* enum seg_reg */
    uint64_t offset;
};

/* The ModRM (or direct) operand, `extra` bytes further. */
struct mem_ref operand_ref(const struct emul *e, int64_t extra);

/* Its linear address, unchecked. */
gva_t operand_linear(const struct emul *e, struct mem_ref ref);

/* Resolved: guest-physical, in two parts if it crosses a page. RAM is pinned. Or a register. */
struct operand {
    gpa_t part[2];
    void *ram[2];         /* the bytes, pinned; NULL: a device */
    unsigned size, first; /* bytes in all, and in the first part */
    bool pinned;          /* one of ram[] is there: operand_release */
    bool is_reg;
    uint8_t reg;
};

/*
 * Check the segment, walk the guest's tables and pin what is RAM, so that nothing can fail or have to wait
 * behind the instruction's first effect. HV_EFAULT: a fault is queued. HV_EAGAIN, HV_ENOMEM as
 * guestmem_pin_by; on the fast path always HV_EAGAIN. Released by operand_release if HV_OK.
 */
enum hv_err operand_resolve(const struct emul *e, struct mem_ref ref, unsigned size, bool write,
                            struct operand *out) __must_check;
/* The same without a segment: `access` is GVA_*, and GVA_SUPERVISOR for the processor's own accesses. */
enum hv_err operand_resolve_linear(const struct emul *e, gva_t gva, unsigned size, uint32_t access,
                                   struct operand *out) __must_check;
/* The ModRM operand, in memory or, with e->all, a register; `extra` as operand_ref. */
enum hv_err operand_resolve_rm(const struct emul *e, int64_t extra, unsigned size, bool write,
                               struct operand *out) __must_check;
/*
 * Resolve the one memory operand (operand_ref, `extra` bytes further) of the instruction that exited at
 * `gpa`, without checks or a walk where the exit tells all; with e->all as operand_resolve_rm. HV_EBUSY:
 * the bytes do not belong to this exit (another vCPU changed them); run the guest.
 */
enum hv_err operand_resolve_exit(const struct emul *e, int64_t extra, gpa_t gpa, unsigned size,
                                 bool write, struct operand *out) __must_check;
/* Also after a failed resolution, if *o was zero before. */
void operand_release(const struct emul *e, struct operand *o);
/* Move the data, 1 to 8 bytes: RAM, the local APIC or the bus, per part. HV_EAGAIN only on the fast path,
 * with nothing done. */
enum hv_err operand_access(const struct emul *e, const struct operand *o, bool write,
                           uint64_t *value) __must_check;
