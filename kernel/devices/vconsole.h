/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio console of a VM: what is typed goes to it, and what it prints comes where the serial port's
 * output does. */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vmmio;
struct vuart;
struct vconsole;

/* *out is NULL where the configuration wants the serial port only; set also after an error, for
 * vconsole_destroy. The VM has its console and its serial port. */
enum hv_err vconsole_create(struct vm *vm, struct vuart *uart, struct vconsole **out) __must_check;
void vconsole_destroy(struct vconsole *d);
/* NULL: d is NULL. */
struct vmmio *vconsole_transport(struct vconsole *d);
