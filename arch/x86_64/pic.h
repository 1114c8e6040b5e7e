/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The legacy 8259 pair: moved off the exception vectors and masked for good. Late spurious
 * interrupts of it arrive at PIC_VECTOR_FIRST .. PIC_VECTOR_LAST and want no EOI.
 */
#pragma once

#include "kernel/lib/types.h"

#define PIC_VECTOR_FIRST 0x20u
#define PIC_VECTOR_LAST 0x2fu

/* Boot, interrupts off; once. */
void pic_disable(void);
