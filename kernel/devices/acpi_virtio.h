/* SPDX-License-Identifier: BSD-2-Clause */
/* The table that describes a VM's virtio devices. Caller: acpi_tables.c. */
#pragma once

#include "kernel/lib/types.h"

struct vm;

/* The body of an SSDT, behind its header: the devices that vm has. Returns its length, at most
 * ACPI_VIRTIO_MAX; 0: there are none. */
#define ACPI_VIRTIO_MAX 640u
size_t acpi_virtio_body(const struct vm *vm, uint8_t *out);
