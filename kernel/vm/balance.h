/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reclaimer as the host runs it (mm/reclaim/reclaim.h): the thread that looks at memory, samples,
 * balances and carries, with the host's options; and how VMs take part.
 */
#pragma once

#include "kernel/lib/err.h"

struct p2m;
struct vm;

/* Boot, in this order: before the first VM is built, options known; then the thread. */
void balance_init(void);
void balance_start(void);

/* p, with RAM and view, is vm's memory: it takes part from now on. HV_ENOMEM, HV_EBUSY. */
enum hv_err balance_join(struct vm *vm, struct p2m *p) __must_check;
/* vm is given other guarantees; from the next moment on. They must have been admitted (admission.h). */
void balance_change(struct vm *vm);
/* Look now: somebody waits for memory. Any context. */
void balance_wake(void);
