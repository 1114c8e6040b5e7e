/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's pair of 8259A interrupt controllers at ports 0x20/0xa0, with the edge/level registers at
 * 0x4d0. Their output is the INTR line: it goes to every local APIC's LINT0, which passes it to its
 * processor as an external interrupt, as one of its own, or not at all. Manual: Intel 8259A data sheet;
 * "ELCR" of the 82371 (PIIX) data sheet.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

/* Allocates vm->pic and registers its ports on vm->bus. */
enum hv_err vpic_create(struct vm *vm) __must_check;
void vpic_destroy(struct vm *vm);
void vpic_reset(struct vm *vm);
/* Set input `irq` (0 to 15; 2 is the cascade and ignored). Any context. */
void vpic_set_line(struct vm *vm, unsigned irq, bool level);
/* The processor takes the interrupt that INTR announces (both INTA cycles): its vector, or -1 if
 * there is none any more. Any context. */
int vpic_acknowledge(struct vm *vm);
