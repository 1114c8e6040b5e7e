/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading ACPI tables: the parser proper, pure, without any assumption that firmware is sane. Every
 * length is checked, every checksum verified; a table that fails is reported, left out, and what
 * depended on it stays at its default. Callers: arch/x86_64/acpi.c, tests/host/test_acpi.c.
 */
#pragma once

#include "kernel/lib/err.h"

#define ACPI_MAX_CPUS 256
#define ACPI_MAX_IOAPICS 16
#define ACPI_MAX_OVERRIDES 16 /* one for each ISA interrupt */
#define ACPI_MAX_IOMMUS 32
#define ACPI_DEFAULT_LAPIC 0xfee00000u

/* Generic Address Structure, as far as we use it. */
enum acpi_space { ACPI_SPACE_MEMORY = 0, ACPI_SPACE_IO = 1, ACPI_SPACE_PCI = 2 };
struct acpi_register {
    bool present;
    uint8_t space; /* enum acpi_space */
    uint64_t address;
};

struct acpi_cpu {
    uint32_t apic_id;
    uint32_t uid;
};

struct acpi_ioapic {
    uint64_t pa;
    uint32_t gsi_base;
};

struct acpi_override {
    uint8_t isa_irq;
    uint32_t gsi;
    bool level, active_low;
};

enum acpi_iommu_kind { ACPI_IOMMU_DMAR, ACPI_IOMMU_IVRS };

struct acpi_info {
    bool found;         /* a root table was read */
    unsigned nr_tables; /* tables accepted */
    unsigned nr_bad;    /* tables left out: unreadable, bad length or checksum */

    uint64_t lapic_pa;
    bool legacy_pic;          /* MADT PCAT_COMPAT */
    unsigned nr_cpus;         /* enabled processors, firmware's order */
    unsigned nr_cpus_dropped; /* beyond ACPI_MAX_CPUS */
    struct acpi_cpu cpus[ACPI_MAX_CPUS];
    unsigned nr_ioapics;
    struct acpi_ioapic ioapics[ACPI_MAX_IOAPICS];
    unsigned nr_overrides;
    struct acpi_override overrides[ACPI_MAX_OVERRIDES];

    bool have_fadt, hw_reduced;
    uint32_t smi_cmd;
    uint8_t acpi_enable;
    struct acpi_register pm1a_control, pm1b_control, pm_timer, sleep_control;
    bool pm_timer_32bit;
    struct acpi_register reset;
    uint8_t reset_value;
    bool have_s5;
    uint8_t s5_type_a, s5_type_b;

    bool have_hpet;
    uint64_t hpet_pa;
    unsigned nr_iommus;
    struct {
        enum acpi_iommu_kind kind;
        uint64_t pa; /* register base */
    } iommus[ACPI_MAX_IOMMUS];
};

struct acpi_source {
    /* `size` bytes of physical memory at `pa`, or NULL if they cannot be read. */
    const void *(*map)(void *arg, uint64_t pa, uint64_t size);
    /* One problem, in words; may be called often. */
    void (*report)(void *arg, const char *message);
    void *arg;
};

/*
 * Find the RSDP in the BIOS areas of the first MiB ("Finding the RSDP on IA-PC Systems").
 * HV_ENOENT: none whose checksum is right.
 */
enum hv_err acpi_find_rsdp(const struct acpi_source *src, uint64_t *pa) __must_check;

/*
 * Read everything we use, starting from the RSDP in the `rsdp_size` bytes at `rsdp`. Always leaves
 * `out` usable. HV_ENOENT: no usable root table; HV_OK otherwise, however many tables were bad.
 */
enum hv_err acpi_parse(const struct acpi_source *src, const void *rsdp, size_t rsdp_size,
                       struct acpi_info *out) __must_check;
