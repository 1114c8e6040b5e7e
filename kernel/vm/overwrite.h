/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests that write whole pages over what is compressed or on the disk: nobody reads first what nobody
 * will see. Caller: fault.c.
 */
#pragma once

#include "kernel/lib/types.h"

struct vcpu;
struct vm_exit;

/* The instruction at RIP wants to write to a page that is away. True: it is REP STOS or REP MOVS over
 * all of the page, and has been carried out for this page; the guest runs on. False: bring the page. Off
 * the fast path; no lock held; may sleep. */
bool overwrite_page(struct vcpu *v, const struct vm_exit *exit);
