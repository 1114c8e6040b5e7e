/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's local APIC, xAPIC by MMIO or x2APIC by MSR, chosen at boot.
 */
#pragma once

#include "kernel/lib/err.h"

/* Boot processor, after hostmap_init and acpi_init: choose the mode, map the registers. HV_ENOTSUP:
 * no local APIC. HV_ENOMEM. */
enum hv_err lapic_init(void) __must_check;
/* Each processor: mode as chosen, everything masked but NMI and errors. */
void lapic_enable(void);
uint32_t lapic_id(void);
bool lapic_is_x2apic(void);
void lapic_eoi(void);
void lapic_ipi(uint32_t apic_id, unsigned vector); /* fixed, edge */
void lapic_nmi(uint32_t apic_id);
void lapic_init_ipi(uint32_t apic_id);
void lapic_startup_ipi(uint32_t apic_id, unsigned page);

/* Measure the timer against the TSC. Boot processor, after clock_init and lapic_enable. */
void lapic_timer_calibrate(void);
/* Arm this processor's one-shot timer to raise VEC_TIMER at TSC value `tsc` (past: at once). Never
 * late but for rounding; it may fire early (long waits exceed its counter), so whoever takes the
 * interrupt looks at the TSC and arms again. Interrupts off. */
void lapic_timer_arm(uint64_t tsc);
/* Local APIC timer input frequency, Hz, as calibrated. */
uint64_t lapic_timer_hz(void);
