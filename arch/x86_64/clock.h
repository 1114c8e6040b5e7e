/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock: TSC, calibrated at boot from what the machine has (CPUID 15H/16H or 40000010H, PIT
 * channel 2, HPET, ACPI PM timer).
 */
#pragma once

#include "kernel/lib/err.h"

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return ((uint64_t)hi << 32) | lo;
}

/* Boot processor, after hostmap_init and acpi_init. HV_ENOTSUP: the machine has nothing to calibrate
 * the TSC with. */
enum hv_err clock_init(void) __must_check;
uint64_t clock_tsc_hz(void);
const char *clock_source(void);           /* what calibrated it, for the start screen */
uint64_t clock_now_ns(void);              /* since clock_init, monotonic */
uint64_t clock_ns_to_tsc(uint64_t ns);    /* a duration */
uint64_t clock_tsc_to_ns(uint64_t ticks); /* a duration */
void clock_delay_us(uint64_t us);         /* busy wait */
