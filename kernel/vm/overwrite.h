/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests that write whole pages over what is compressed or on the disk: nobody reads first what nobody
 * will see. Callers: fault.c, softmmu.c.
 */
#pragma once

#include "kernel/lib/types.h"
#include "mm/types.h"

struct vcpu;

/* The instruction at RIP wants to write to a page that is away. True: it is REP STOS or REP MOVS over
 * all of the page, and has been carried out for this page, or the guest has its fault; the guest runs on.
 * False: bring the page. Off the fast path; no lock held; may sleep. */
bool overwrite_page(struct vcpu *v, gpa_t gpa);
/* The same by the linear address, for a page that may be away. */
bool overwrite_linear(struct vcpu *v, gva_t gva);
