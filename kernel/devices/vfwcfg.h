/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The firmware configuration interface at ports 0x510/0x511, which test kernels ask for the number of
 * processors, the memory map and the command line. Manual: QEMU's docs/specs/fw_cfg.rst; of it the
 * traditional interface, read-only.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vfwcfg;

/* Registers its ports on vm->bus. HV_ENOMEM, HV_EEXIST. */
enum hv_err vfwcfg_create(struct vm *vm, struct vfwcfg **out) __must_check;
void vfwcfg_destroy(struct vfwcfg *f);
void vfwcfg_reset(struct vfwcfg *f);
