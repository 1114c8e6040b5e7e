/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which VMs share pages: salts as numbers. Pages are merged only among VMs of equal number.
 */
#pragma once

#include "kernel/lib/types.h"

struct vm;

/* The number of vm's salt, by its configuration and Mem.ShareForceSalting as it is now. Thread
 * context. */
uint32_t salt_of(const struct vm *vm);
/* May other VMs have this number? */
bool salt_is_common(uint32_t salt);
