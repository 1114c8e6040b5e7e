/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's IOAPIC: 24 lines at 0xfec00000, global interrupt numbers 0 to 23. Lines are set through
 * vioapic_set_line (kernel/devices/devices.h). Manual: Intel 82093AA I/O APIC data sheet.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;

#define VIOAPIC_BASE 0xfec00000ull
#define VIOAPIC_LINES 24

/* Allocates vm->ioapic and registers its page on vm->bus. */
enum hv_err vioapic_create(struct vm *vm) __must_check;
void vioapic_destroy(struct vm *vm);
void vioapic_reset(struct vm *vm);
/* A local APIC ended the service of a level-triggered `vector` (EOI broadcast). Any context. */
void vioapic_eoi(struct vm *vm, unsigned vector);
