/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sixteen interrupt lines of a PC's ISA devices: each reaches the 8259 pair and the IOAPIC, whose
 * pin has the same number, but for line 0, which has pin 2 (the MADT and the MP table say so). While
 * the HPET replaces the legacy timers, lines 0 and 8 are its own.
 */
#pragma once

#include "kernel/lib/types.h"

struct vm;

#define ISA_IRQ_PIT 0u
#define ISA_IRQ_KEYBOARD 1u
#define ISA_IRQ_COM1 4u
#define ISA_IRQ_RTC 8u
#define ISA_IRQ_SCI 9u
#define IOAPIC_PIN_PIT 2u

/* Set a line. Any context. */
void isa_irq_set(struct vm *vm, unsigned irq, bool level);
/* The same for lines 0 and 8, by PIT and clock: nothing while the HPET has them. */
void isa_irq_set_timer(struct vm *vm, unsigned irq, bool level);
