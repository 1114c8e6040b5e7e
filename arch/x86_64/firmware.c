/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Remarks on the firmware's settings. Registers: "IA32_FEATURE_CONTROL", "VM_CR MSR", "IA32_APIC_BASE".
 */
#include "arch/x86_64/firmware.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "boot/bootinfo.h"

static bool x2apic_at_entry; /* constant after firmware_probe */

void firmware_probe(void)
{
    uint64_t base;

    x2apic_at_entry = rdmsr_safe(MSR_APIC_BASE, &base) && (base & APIC_BASE_X2APIC) != 0;
}

static const char *svm_remark(void)
{
    uint64_t vm_cr;

    if (!cpu_features.svm) {
        return cpu_features.vendor == CPU_VENDOR_AMD
                   ? "SVM is absent or hidden; set-up option: SVM Mode (AMD-V, Secure Virtual "
                     "Machine)"
                   : NULL;
    }
    if (rdmsr_safe(MSR_VM_CR, &vm_cr) && (vm_cr & VM_CR_SVMDIS) != 0) {
        return (vm_cr & VM_CR_LOCK) != 0
                   ? "SVM is switched off and locked (VM_CR.SVMDIS); set-up option: SVM Mode "
                     "(AMD-V, Secure Virtual Machine)"
                   : "SVM is switched off (VM_CR.SVMDIS), not locked";
    }
    if (!cpu_features.npt) {
        return "nested paging is absent or hidden; set-up option: Nested Paging (RVI, NPT)";
    }
    return NULL;
}

static const char *vmx_remark(void)
{
    uint64_t control;

    if (!cpu_features.vmx) {
        return cpu_features.vendor == CPU_VENDOR_INTEL
                   ? "VT-x is absent or hidden; set-up option: Intel Virtualization Technology "
                     "(VT-x, VMX)"
                   : NULL;
    }
    if (rdmsr_safe(MSR_FEATURE_CONTROL, &control) && (control & FEATURE_CONTROL_LOCK) != 0 &&
        (control & FEATURE_CONTROL_VMX) == 0) {
        return "VT-x is locked off (IA32_FEATURE_CONTROL); set-up option: Intel Virtualization "
               "Technology (VT-x, VMX), then a cold start";
    }
    return NULL;
}

unsigned firmware_remarks(const struct boot_info *info, void (*fn)(const char *text))
{
    const char *remarks[] = {
        svm_remark(),
        vmx_remark(),
        x2apic_at_entry ? "local APICs are in x2APIC mode already (set-up option: X2APIC, "
                          "Local APIC Mode); used as it is"
                        : NULL,
        acpi_active_iommus() != 0
            ? "an IOMMU translates device accesses already; device drivers may fail (set-up "
              "option: VT-d, AMD IOMMU, DMA Protection)"
            : NULL,
        info->secure_boot == BOOT_SECURE_ON
            ? "Secure Boot is on; Ballast is not signed (set-up option: Secure Boot)"
            : NULL,
        cpu_features.invariant_tsc || cpu_features.hypervisor
            ? NULL
            : "no invariant TSC: time may drift where the processor changes "
              "its frequency (set-up options: C-states, power saving)",
    };
    unsigned n = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(remarks); i++) {
        if (remarks[i] != NULL) {
            fn(remarks[i]);
            n++;
        }
    }
    return n;
}
