/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the firmware switched off, or left on, that a hypervisor minds; each with the name of the
 * set-up option to look for. For the start screen.
 */
#pragma once

#include "kernel/lib/types.h"

struct boot_info;

/* Note how the firmware left the processor. Boot processor, before lapic_init changes it. */
void firmware_probe(void);
/* Call fn once per remark, in words. After acpi_init. Returns how many. */
unsigned firmware_remarks(const struct boot_info *info, void (*fn)(const char *text));
