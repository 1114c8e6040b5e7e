/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The keyboard controller (8042) with a keyboard on which nobody types: ports 0x60 and 0x64, interrupt 1.
 * Manual: IBM PC AT Technical Reference, "Keyboard Controller", "Keyboard".
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vkbd;

/* Registers its ports on vm->bus. HV_ENOMEM. */
enum hv_err vkbd_create(struct vm *vm, struct vkbd **out) __must_check;
/* NULL is accepted. */
void vkbd_destroy(struct vkbd *k);
/* Power-on state, self-test passed. */
void vkbd_reset(struct vkbd *k);
