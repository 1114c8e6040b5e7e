/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The entry doctor: the manual's conditions for VMLAUNCH and VMRESUME (Software Developer's Manual,
 * Volume 3, "VM Entries"), checked in software. Pure but for the callbacks; callers: vmx.c,
 * host tests.
 */
#pragma once

#include "kernel/vm/doctor.h"
#include "vmx/vmx_caps.h"

/* The value of a VMCS field (enum vmcs_field). Fields whose control is off are not asked for. */
typedef uint64_t (*vmx_doctor_read_t)(void *arg, uint32_t field);

/* What experiments may overwrite: names and encodings. */
#define VMX_DOCTOR_FIELDS 16
extern const struct doctor_field vmx_doctor_fields[VMX_DOCTOR_FIELDS];

/* The rules of guest segments, tables and RIP alone: what a guest whose code is emulated may break for a
 * while, without unrestricted guests. Number of violations, which nobody is told. */
unsigned vmx_doctor_enterable(const struct vmx_caps *caps, vmx_doctor_read_t read, void *arg);

/* Number of violations. `arg` goes to both callbacks. */
unsigned vmx_doctor_check(const struct vmx_caps *caps, vmx_doctor_read_t read,
                          doctor_report_t report, void *arg);
