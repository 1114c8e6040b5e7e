/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's I/O APICs, as the MADT lists them. All lines start masked. Lock: none of its own; the
 * caller (irq.c) holds the interrupt routing lock.
 */
#pragma once

#include "kernel/lib/err.h"

struct acpi_info;

/* Map every I/O APIC and mask its lines. Boot processor, after hostmap_init and acpi_init. */
void ioapic_init(const struct acpi_info *info);
/* Deliver global system interrupt `gsi` as `vector` to processor `apic_id`, unmasked.
 * HV_ENOENT: no I/O APIC has that line. HV_ERANGE: apic_id does not fit the entry's eight bits. */
enum hv_err ioapic_route(uint32_t gsi, unsigned vector, uint32_t apic_id, bool level,
                         bool active_low) __must_check;
unsigned ioapic_count(void);
