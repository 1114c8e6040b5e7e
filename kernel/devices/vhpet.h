/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's high precision event timer: a counter of 100 MHz and three comparators, at 0xfed00000.
 * With legacy replacement the first two drive ISA interrupts 0 and 8 in place of PIT and clock.
 * Manual: IA-PC HPET Specification 1.0a.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vhpet;

#define VHPET_BASE 0xfed00000ull
#define VHPET_PERIOD_FS 10000000ull
#define VHPET_TIMERS 3
/* The low half of the capabilities register, which the ACPI table repeats: its maker, legacy routes, 64
 * bits, revision 1. */
#define VHPET_BLOCK_ID (0x8086a001u | ((VHPET_TIMERS - 1u) << 8))

/* Registers its page on vm->bus. HV_ENOMEM, HV_EEXIST. */
enum hv_err vhpet_create(struct vm *vm, struct vhpet **out) __must_check;
void vhpet_destroy(struct vhpet *h);
void vhpet_reset(struct vhpet *h);
