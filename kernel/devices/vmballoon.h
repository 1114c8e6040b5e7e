/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host's side of VMware's memory balloon, port 0x5670, as Linux's unmodified vmw_balloon module
 * uses it; only for VMs with identity = vmware. Public interface: Linux drivers/misc/vmw_balloon.c.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vmballoon;

/* NULL in *out: the VM has none. */
enum hv_err vmballoon_create(struct vm *vm, struct vmballoon **out) __must_check;
void vmballoon_destroy(struct vmballoon *d);
/* The VM's power-on: no driver has started. */
void vmballoon_reset(struct vm *vm, struct vmballoon *d);
