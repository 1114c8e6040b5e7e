/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bringing processors up, and cross-processor calls.
 */
#pragma once

#include "kernel/lib/err.h"

struct boot_info;

/* Choose the page below 1 MiB where processors start. Boot processor, before that memory is given
 * to anybody; it stays ours. */
void smp_reserve_page(const struct boot_info *info);
/* Start every enabled processor of the MADT (at most MAX_CPUS; `maxcpus=` limits). A processor that
 * does not answer is reported and left out. Boot processor, after sched_init and lapic_enable. */
void smp_start(unsigned max);
/* Run fn(arg) on every other online processor, in interrupt context there, and wait until all have
 * finished. Not with interrupts off, not holding a lock that fn or an irq handler takes. */
void smp_call_others(void (*fn)(void *arg), void *arg);
/* The same on processor `cpu` alone, which may be this one. */
void smp_call(unsigned cpu, void (*fn)(void *arg), void *arg);
/* Interrupt processor `cpu` (VEC_KICK): it leaves guest mode and looks at need_resched. */
void smp_kick(unsigned cpu);
/* One turn of a loop that waits for another processor. */
void smp_relax(void);
/* Stop all other processors by NMI, for panic. */
void smp_stop_others(void);
