/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this processor's VMX offers: the capability MSRs, bit by bit, and the controls that follow
 * from them ("VMX Capability Reporting Facility"). vmx_caps_choose and vmx_caps_missing are pure;
 * the entry doctor checks against the same structure.
 */
#pragma once

#include "kernel/lib/types.h"

/* Bits of a control word or register that must be set, and those that may be. */
struct vmx_allowed {
    uint64_t must, may;
};

struct vmx_controls {
    uint32_t pin, proc, proc2, exit, entry;
};

struct vmx_caps {
    uint32_t revision;
    uint32_t vmcs_bytes;
    bool string_info;  /* exit information tells the operands of INS and OUTS */
    bool addresses_32; /* VMX structures must lie below 4 GiB */
    struct vmx_allowed pin, proc, proc2, exit, entry, cr0, cr4;
    uint64_t ept_vpid;
    unsigned phys_bits;
    unsigned timer_shift;       /* the preemption timer counts at TSC rate divided by 2^this */
    struct vmx_controls chosen; /* for every VMCS; vmcs.c adds what depends on the vCPU */
};

/* What is chosen, in words of use. */
static inline bool vmx_has(uint64_t word, uint64_t bit)
{
    return (word & bit) != 0;
}

/* From the MSRs of this processor, controls chosen. */
void vmx_caps_read(struct vmx_caps *c);
/* The controls we want where offered, and what must be set. */
void vmx_caps_choose(struct vmx_caps *c);
/* Guests can run on tables of ours instead of nested ones. */
bool vmx_caps_software(const struct vmx_caps *c);
/* What we cannot do without and it lacks, in words; NULL: nothing. */
const char *vmx_caps_missing(const struct vmx_caps *c);
