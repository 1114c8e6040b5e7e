/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VMware call port 0x5658, as far as a guest needs it to know its clock; only for VMs with
 * identity = vmware. Public interface: VMware's open-vm-tools and Linux arch/x86/kernel/cpu/vmware.c.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

/* Nothing with another identity. There is no state to reset or free. */
enum hv_err vmware_create(struct vm *vm) __must_check;
