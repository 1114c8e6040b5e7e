/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests that write whole pages over what is compressed or on the disk: nobody reads first what nobody
 * will see. Callers: fault.c, softmmu.c.
 */
#pragma once

#include "kernel/lib/types.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/types.h"

/* May v, which asks for pages with `how`, begin it? Not while others come first for frames, nor for a write that
 * delivers an event. */
static inline bool overwrite_may_begin(const struct vcpu *v, uint32_t how)
{
    return !(how & P2M_LINE) && v->interrupted.type == EVENT_NONE;
}

/* The instruction at RIP wants to write to a page that is away. True: it is REP STOS or REP MOVS over
 * all of the page, and has been carried out for this page, or the guest has its fault; the guest runs on.
 * False: bring the page. Off the fast path; no lock held; may sleep. */
bool overwrite_page(struct vcpu *v, gpa_t gpa);
/* The same by the linear address, for a page that may be away. */
bool overwrite_linear(struct vcpu *v, gva_t gva);
