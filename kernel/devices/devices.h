/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest platform: which devices a VM gets. One line per device in a table; each device's file
 * knows the rest.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vcpu;

/* Build bus, IOAPIC, UART, timers, platform ports of the VM. */
enum hv_err devices_create(struct vm *vm) __must_check;
void devices_destroy(struct vm *vm);
/* Power-on state of all devices. */
void devices_reset(struct vm *vm);

/* Per-vCPU local APIC (kernel/devices/vlapic.h). */
enum hv_err vlapic_create(struct vcpu *v) __must_check;
void vlapic_destroy(struct vcpu *v);
void vlapic_reset(struct vcpu *v);

/* Write RSDP, XSDT, FADT, MADT, DSDT and SMBIOS tables into guest memory; *rsdp is the RSDP's
 * guest-physical address. */
enum hv_err acpi_tables_write(struct vm *vm, gpa_t *rsdp) __must_check;

/* Raise / lower / pulse a line of the IOAPIC (any context). */
void vioapic_set_line(struct vm *vm, unsigned gsi, bool level);
