/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's 16550A at COM1 (ports 0x3f8-0x3ff, IRQ 4). Transmission takes no time; output and input
 * go through the VM's guestconsole. Manual: National Semiconductor PC16550D data sheet.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vuart;

/* Registers its ports on vm->bus and its input callback on vm->console. */
enum hv_err vuart_create(struct vm *vm, struct vuart **out) __must_check;
void vuart_destroy(struct vuart *u);
void vuart_reset(struct vuart *u);
/* Show what another device of the VM prints among what this one does. Thread context, no device's lock
 * held; the VM has a console. */
void vuart_print(struct vuart *u, const char *data, size_t n);
