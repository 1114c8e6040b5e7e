/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's local APIC in whichever mode it is in. Registers are named by their xAPIC offset; the
 * x2APIC MSR is 0x800 + offset / 16. Manual: AMD64 APM volume 2, "Advanced Programmable Interrupt
 * Controller".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define LAPIC_BASE 0xfee00000UL
#define LAPIC_ID 0x20U
#define LAPIC_VERSION 0x30U
#define LAPIC_TPR 0x80U
#define LAPIC_EOI 0xb0U
#define LAPIC_SVR 0xf0U
#define LAPIC_ICR_LOW 0x300U
#define LAPIC_ICR_HIGH 0x310U
#define LAPIC_LVT_TIMER 0x320U
#define LAPIC_TIMER_INITIAL 0x380U
#define LAPIC_TIMER_CURRENT 0x390U
#define LAPIC_TIMER_DIVIDE 0x3e0U
#define LAPIC_SELF_IPI 0x3f0U

#define LAPIC_DIVIDE_BY_1 0xbU
#define LAPIC_LVT_MASKED (1U << 16)
#define LAPIC_TIMER_PERIODIC (1U << 17)

#define LAPIC_ICR_INIT 0x500U
#define LAPIC_ICR_STARTUP 0x600U
#define LAPIC_ICR_ASSERT 0x4000U
#define LAPIC_ICR_SELF 0x40000U
#define LAPIC_ICR_OTHERS 0xc0000U

/* True when CPUID offers x2APIC. */
bool lapic_has_x2apic(void);

/* Software-enables the local APIC; also switches it to x2APIC mode when asked. */
void lapic_enable(bool x2apic);

/* Register access in the current mode. */
uint32_t lapic_read(uint32_t reg);
void lapic_write(uint32_t reg, uint32_t v);

/* Sends an interrupt; dest is an APIC id and is ignored with a shorthand. */
void lapic_ipi(uint32_t dest, uint32_t icr_low);

/* End of interrupt. */
void lapic_eoi(void);
