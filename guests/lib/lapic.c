/* SPDX-License-Identifier: BSD-2-Clause */
/* Local APIC access through memory or through MSRs. */
#include "guests/lib/lapic.h"

#include "guests/lib/arch.h"

#define APIC_BASE_ENABLE (1UL << 11)
#define APIC_BASE_X2APIC (1UL << 10)
#define CPUID_1_ECX_X2APIC (1U << 21)
#define MSR_X2APIC 0x800U
#define MSR_X2APIC_ICR 0x830U
#define SVR_ENABLE 0x1ffU

static bool in_x2apic(void)
{
    return rdmsr(MSR_APIC_BASE) & APIC_BASE_X2APIC;
}

bool lapic_has_x2apic(void)
{
    return cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC;
}

void lapic_enable(bool x2apic)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;
    wrmsr(MSR_APIC_BASE, x2apic ? base | APIC_BASE_X2APIC : base);
    lapic_write(LAPIC_SVR, SVR_ENABLE);
    lapic_write(LAPIC_TPR, 0);
}

uint32_t lapic_read(uint32_t reg)
{
    if (in_x2apic()) {
        return (uint32_t)rdmsr(MSR_X2APIC + reg / 16);
    }
    return mmio_read32(LAPIC_BASE + reg);
}

void lapic_write(uint32_t reg, uint32_t v)
{
    if (in_x2apic()) {
        wrmsr(MSR_X2APIC + reg / 16, v);
    } else {
        mmio_write32(LAPIC_BASE + reg, v);
    }
}

void lapic_ipi(uint32_t dest, uint32_t icr_low)
{
    if (in_x2apic()) {
        wrmsr(MSR_X2APIC_ICR, ((uint64_t)dest << 32) | icr_low);
    } else {
        mmio_write32(LAPIC_BASE + LAPIC_ICR_HIGH, dest << 24);
        mmio_write32(LAPIC_BASE + LAPIC_ICR_LOW, icr_low);
    }
}

void lapic_eoi(void)
{
    lapic_write(LAPIC_EOI, 0);
}
