/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended processor state (x87, SSE, AVX, ...) of vCPUs, and its use by the hypervisor itself.
 *
 * A vCPU's state is loaded before that vCPU enters the guest unless it is still in the registers of
 * this very processor, and saved when its thread leaves the processor. So it stays across service
 * threads, and a different vCPU never finds it (nothing is restored lazily). Saving and restoring
 * cover every component that the host enables, whatever the guest's XCR0 says: a guest may switch a
 * component off while it still holds data.
 */
#pragma once

#include "kernel/lib/err.h"

struct fpu_state;

/* Each processor, after cpu_init: XCR0 takes everything guests may be offered. */
void fpu_init_cpu(void);
/* Components that guests may be offered in XCR0 (0 without XSAVE); in IA32_XSS there are none. */
uint64_t fpu_xcr0_mask(void);

/* A state with reset values, charged to `owner`; NULL when memory is short. */
struct fpu_state *fpu_alloc(uint32_t owner) __must_check;
/* Its vCPU is on no processor. NULL is accepted. */
void fpu_free(struct fpu_state *st);
/* Back to reset values; takes effect at the next fpu_load. Its vCPU is not inside the guest. */
void fpu_reset(struct fpu_state *st);

/* Make the registers of this processor hold `st`; cheap if they do. Before each fast-path section,
 * by the vCPU's thread. */
void fpu_load(struct fpu_state *st);
/* Bring `st` in memory up to date if its values live in this processor's registers. When the vCPU's
 * thread leaves the processor, and before looking at the area. Interrupts may be off. */
void fpu_save(struct fpu_state *st);

/* The guest's XSETBV(0). HV_EINVAL: the manual's rules forbid it (#GP). By the vCPU's thread while
 * `st` is loaded, fast path included. */
enum hv_err fpu_set_xcr0(struct fpu_state *st, uint64_t value) __must_check;
uint64_t fpu_get_xcr0(struct fpu_state *st);

/* Bracket code of ours that uses vector or AES instructions. Thread context, no sleeping and no
 * nesting between them, not on the guest fast path. */
void fpu_begin(void);
void fpu_end(void);
