/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machine checks: taken, decoded and reported. What the processor marks as lost state panics; the
 * rest is logged, cleared and survived, and bad memory is noted for kernel/vm/badmem.c.
 */
#pragma once

#include "arch/x86_64/irq.h"
#include "mm/types.h"

/* Enable this processor's banks; log and clear what they hold from before. */
void mce_init_cpu(void);
/* The #MC handler; returns if execution may go on. */
void mce_handle(const struct trap_frame *frame);
/* Hand over one address of memory that a machine check reported bad. False: no more. Any context but
 * the handler itself. */
bool mce_take_bad_memory(hpa_t *out) __must_check;
