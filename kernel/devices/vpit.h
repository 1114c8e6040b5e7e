/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's 8254: three counters at ports 0x40-0x43 and the speaker port 0x61 that gates and reads
 * channel 2. Channel 0 is interrupt line 0. Manual: Intel 8254 data sheet.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vpit;

/* Registers its ports on vm->bus. HV_ENOMEM, HV_EEXIST. */
enum hv_err vpit_create(struct vm *vm, struct vpit **out) __must_check;
void vpit_destroy(struct vpit *p);
void vpit_reset(struct vpit *p);
