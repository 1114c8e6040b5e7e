/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI's fixed hardware: power-management event and control registers, the PM timer. The ports and the
 * sleep type of S5 are those of QEMU's machines, so that kernels which know no ACPI switch off here as
 * they do there. Manual: ACPI 6.3, "ACPI Hardware Specification".
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vpm;

#define VPM_EVENT_PORT 0x600
#define VPM_EVENT_LENGTH 4
#define VPM_CONTROL_PORT 0x604
#define VPM_CONTROL_LENGTH 2
#define VPM_TIMER_PORT 0x608
#define VPM_TIMER_LENGTH 4
#define VPM_SLEEP_TYPE_S5 0

/* Registers its ports on vm->bus. HV_ENOMEM, HV_EEXIST. */
enum hv_err vpm_create(struct vm *vm, struct vpm **out) __must_check;
void vpm_destroy(struct vpm *p);
void vpm_reset(struct vpm *p);
