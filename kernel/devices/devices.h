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
/* No device's thread uses the VM's memory from now on until a vCPU runs again. Before memory is replaced
 * or freed; also for a VM that is only half built. May sleep. */
void devices_quiesce(struct vm *vm);
/* Frames that devices have taken for vm beside their objects, and may still take: what it writes to a disk of
 * its own. Any thread. */
uint64_t devices_frames(const struct vm *vm);
uint64_t devices_frames_to_come(const struct vm *vm);
/* A line about the virtio device number `index` of vm, from 0 on, for operators; false: it has no more. Any
 * thread that holds a reference to vm. */
bool devices_describe(const struct vm *vm, unsigned index, char *text, size_t len) __must_check;
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
