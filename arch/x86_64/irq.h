/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host interrupt vectors and their handlers. Handlers run on the interrupted thread's stack with
 * interrupts off, may take irqsave locks, and never sleep.
 */
#pragma once

#include "kernel/lib/err.h"

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* Fixed vectors of ours. */
#define VEC_DEVICE_FIRST \
    0x30 /* IOAPIC lines, IOAPIC lines and messages, allocated by irq_route_isa and irq_alloc_msi */
#define VEC_DEVICE_LAST 0xdf
#define VEC_TIMER 0xf0 /* local APIC timer */
#define VEC_KICK 0xf1  /* leave guest mode, reschedule; the handler itself does nothing */
#define VEC_CALL 0xf2  /* cross-processor calls */
#define VEC_LOG 0xf3   /* to oneself: the log has lines for the console */
#define VEC_ERROR 0xfe /* local APIC error */
#define VEC_SPURIOUS 0xff

typedef void (*irq_handler_t)(void *arg);

/* Install the handler of one vector. HV_EBUSY if taken. EOI is sent by the dispatcher. */
enum hv_err irq_install(unsigned vector, irq_handler_t fn, void *arg) __must_check;
/* Take a free device vector for message-signalled interrupts: the function that gets *address and *data
 * interrupts the boot processor. HV_EBUSY: no vector left. HV_ENOTSUP: the processor's APIC id does not
 * fit a message: the caller polls. */
enum hv_err irq_alloc_msi(irq_handler_t fn, void *arg, uint32_t *address,
                          uint32_t *data) __must_check;
/* Route an ISA interrupt (MADT overrides applied) through the IOAPIC to the boot processor, unmasked.
 * HV_ENOENT: no IOAPIC serves it: the caller polls. */
enum hv_err irq_route_isa(unsigned isa_irq, irq_handler_t fn, void *arg) __must_check;
