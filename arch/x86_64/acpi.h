/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the firmware's ACPI tables say about this machine, and the ways to switch it off or reset it.
 */
#pragma once

#include "arch/x86_64/acpi_tables.h"

struct boot_info;

/* Read the tables; without any the machine counts as one processor without I/O APIC. Boot processor,
 * after hostmap_init. */
void acpi_init(const struct boot_info *info);
/* Constant after acpi_init. */
const struct acpi_info *acpi_info(void);
/* The global system interrupt behind an ISA interrupt, overrides applied. */
void acpi_isa_line(unsigned isa_irq, struct acpi_override *out);
/* IOMMUs that the firmware left translating (0: none active). */
unsigned acpi_active_iommus(void);

/* Switch the machine off, by ACPI or the emulators' ports. Returns where nothing does that. */
void acpi_poweroff(void);
/* Reset the machine: FADT register, keyboard controller, port CF9, triple fault. Also from panic. */
void acpi_reset(void) __noreturn;
