/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exceptions of the hypervisor itself. An exception at an instruction that the exception table
 * lists goes on at the place listed there; every other one is a broken invariant and panics with
 * registers and backtrace. NMI stops a processor in a panic; machine checks are decoded (mce.c).
 */
#pragma once

#include "arch/x86_64/irq.h"

/* "general protection", ... ; never NULL. */
const char *trap_name(uint64_t vector);
/* Called by trap.asm for every vector, interrupts off. */
void trap_dispatch(struct trap_frame *frame);
/* Called by trap_dispatch for vectors from 32 up (irq.c). */
void irq_dispatch(const struct trap_frame *frame);

/* Read 8 bytes that may not be mapped; false if they are not. */
bool trap_read64(uint64_t va, uint64_t *out) __must_check;

/* Continue with fn(arg), which never returns, on the stack ending at `top`; trap.asm. Its anchor has
 * been written. */
void stack_switch(uint64_t top, void (*fn)(void *arg), void *arg) __noreturn;
