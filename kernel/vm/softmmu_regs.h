/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the processor gets of a guest's control registers with the software MMU: the contract is in
 * backend.h. Pure; callers: vendor code, which adds what its own rules demand, and tests.
 */
#pragma once

#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"

struct softmmu_regs {
    uint64_t cr0, cr4, efer;
};

/* From the guest's values; `nx`: the processor has execute-disable. */
static inline struct softmmu_regs softmmu_regs(uint64_t cr0, uint64_t cr4, uint64_t efer, bool nx)
{
    bool paged = (cr0 & CR0_PG) != 0;
    struct softmmu_regs r = {
        .cr0 = (cr0 & ~(CR0_CD | CR0_NW)) | CR0_PG | CR0_WP,
        /* PSE means nothing beside PAE. */
        .cr4 = (cr4 & ~(CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_PKE | CR4_CET)) | CR4_PAE,
        .efer = (efer & ~(EFER_LME | EFER_LMA)) | (nx ? EFER_NXE : 0),
    };

    if (!paged) {
        r.cr4 &= ~(CR4_SMEP | CR4_SMAP);
    } else if (efer & EFER_LME) {
        r.efer |= EFER_LME | EFER_LMA;
    }
    return r;
}
