/* SPDX-License-Identifier: BSD-2-Clause */
/* The guest's SMBIOS tables, by which stock drivers recognise their platform. */
#pragma once

#include "kernel/lib/err.h"

struct vm;

/* Write the entry point and the structures into 0xf0000-0xfffff of the guest. */
enum hv_err smbios_write(struct vm *vm) __must_check;
