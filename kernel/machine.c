/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The start screen. Reads what the other rooms found out; decides nothing.
 */
#include "kernel/machine.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/firmware.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/ioapic.h"
#include "arch/x86_64/lapic.h"
#include "arch/x86_64/mitigate.h"
#include "arch/x86_64/percpu.h"
#include "boot/bootinfo.h"
#include "kernel/lib/printf.h"
#include "kernel/log.h"
#include "kernel/memory.h"
#include "kernel/panic.h"
#include "kernel/vm/backend.h"
#include "mm/buddy.h"

struct feature {
    const char *name;
    bool present;
};

/* "present ones; without: absent ones". */
static void log_features(const char *label, const struct feature *f, size_t n)
{
    char line[200];
    size_t used = 0;
    bool absent = false;

    for (size_t i = 0; i < n; i++) {
        if (f[i].present) {
            used += scnprintf(line + used, sizeof(line) - used, " %s", f[i].name);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!f[i].present) {
            used += scnprintf(line + used, sizeof(line) - used, "%s %s",
                              absent ? "" : (used != 0 ? "; without" : " without"), f[i].name);
            absent = true;
        }
    }
    log_info("  %-11s%s", label, line);
}

static const char *page_name(unsigned order)
{
    return order >= ORDER_1G ? "1 GiB" : order >= ORDER_2M ? "2 MiB" : "4 KiB";
}

static void report_processor(void)
{
    const struct cpu_features *f = &cpu_features;
    const struct acpi_info *acpi = acpi_info();
    const struct feature protection[] = {
        {"NX", f->nx}, {"SMEP", f->smep}, {"SMAP", f->smap}, {"UMIP", f->umip}};
    const struct feature state[] = {{"XSAVE", f->xsave},     {"AVX", f->avx},
                                    {"AVX-512", f->avx512f}, {"AES", f->aes},
                                    {"RDRAND", f->rdrand},   {"machine-check banks", f->mca}};

    log_info("  processor   %s (%s family %u model %u stepping %u)",
             f->brand[0] != '\0' ? f->brand : "unnamed", f->vendor_id, f->family, f->model,
             f->stepping);
    log_info("  processors  %u running, %u enabled by the firmware%s", nr_cpus(),
             MAX(acpi->nr_cpus, 1u), acpi->nr_cpus_dropped != 0 ? " (more than we use)" : "");
    if (f->max_hypervisor != 0) {
        log_info("  nested      under another hypervisor: '%s'", f->hypervisor_id);
    }
    log_features("protection", protection, ARRAY_SIZE(protection));
    log_features("state", state, ARRAY_SIZE(state));
}

static void report_virtualisation(void)
{
    const struct backend_caps *c = &hv_caps;
    const struct feature assists[] = {
        {"next-RIP", c->next_rip},         {"decode assists", c->decode_assists},
        {"flush by tag", c->flush_by_tag}, {"clean bits", c->clean_bits},
        {"pause filter", c->pause_filter},
    };

    if (!c->present) {
        log_info("  guests      none possible: %s", c->missing);
        return;
    }
    log_info("  guests      %s, %s, pages up to %s, %u address-space tags", c->name,
             c->nested_paging ? "nested paging" : "no nested paging",
             page_name(c->nested_max_order), c->nr_tags);
    log_features("assists", assists, ARRAY_SIZE(assists));
    log_info("  between VMs branch predictors %s; L1 data %s; buffers %s",
             mitigate_state_name(mitigate_plan()->predictors),
             mitigate_state_name(mitigate_plan()->l1_data),
             mitigate_state_name(mitigate_plan()->buffers));
    if (mitigate_plan()->small_code) {
        log_info("  large pages hold data only; code is in pages of 4 KiB, for this processor may "
                 "stop when the size of a page changes that it executes");
    }
}

static void report_memory(const struct boot_info *info)
{
    struct memory_summary m;
    struct buddy_stats s;

    memory_summary(info, &m);
    buddy_stats(&s);
    log_info(
        "  memory      %llu MiB in %u ranges, %llu MiB above 4 GiB; %llu MiB free, frame table "
        "%llu KiB; %u address bits",
        (unsigned long long)(m.usable_bytes >> 20), m.nr_ranges,
        (unsigned long long)(m.above_4g_bytes >> 20),
        (unsigned long long)(s.free >> (20 - PAGE_SHIFT)),
        (unsigned long long)(s.table_bytes >> 10), cpu_features.phys_bits);
}

static void report_platform(const struct boot_info *info)
{
    const struct acpi_info *acpi = acpi_info();

    log_info("  interrupts  %s local APICs, %u I/O APIC%s; timer %llu MHz%s",
             lapic_is_x2apic() ? "x2APIC" : "xAPIC", ioapic_count(), ioapic_count() == 1 ? "" : "s",
             (unsigned long long)(lapic_timer_hz() / 1000000),
             cpu_features.tsc_deadline ? ", TSC deadline" : "");
    log_info("  clock       TSC %llu.%03llu MHz by %s%s",
             (unsigned long long)(clock_tsc_hz() / 1000000),
             (unsigned long long)(clock_tsc_hz() / 1000 % 1000), clock_source(),
             cpu_features.invariant_tsc ? ", invariant" : "");
    if (acpi->found) {
        log_info("  ACPI        %u tables, %u bad; power-off %s, IOMMUs: %u (%u active)",
                 acpi->nr_tables, acpi->nr_bad, acpi->have_s5 ? "known" : "unknown",
                 acpi->nr_iommus, acpi_active_iommus());
    } else {
        log_info("  ACPI        none");
    }
    log_info("  firmware    %s, Secure Boot %s; loaded by %s with %u module%s",
             info->firmware == BOOT_FIRMWARE_UEFI ? "UEFI" : "BIOS",
             info->secure_boot == BOOT_SECURE_ON    ? "on"
             : info->secure_boot == BOOT_SECURE_OFF ? "off"
                                                    : "unknown",
             info->loader[0] != '\0' ? info->loader : "an unnamed loader", info->nr_modules,
             info->nr_modules == 1 ? "" : "s");
}

static void log_remark(const char *text)
{
    log_warn("firmware: %s", text);
}

void machine_report(const struct boot_info *info)
{
    log_info("This machine:");
    report_processor();
    report_virtualisation();
    report_memory(info);
    report_platform(info);
    (void)firmware_remarks(info, log_remark);
}

void machine_refuse(const struct boot_info *info)
{
    machine_report(info);
    panic_unusable("this processor cannot run guests: %s", hv_caps.missing);
}
