/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Machine checks: taken, decoded and reported. What the processor marks as lost state panics; the
 * rest is logged, cleared and survived.
 */
#pragma once

#include "arch/x86_64/irq.h"

/* Enable this processor's banks; log and clear what they hold from before. */
void mce_init_cpu(void);
/* The #MC handler; returns if execution may go on. */
void mce_handle(const struct trap_frame *frame);
