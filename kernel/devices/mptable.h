/* SPDX-License-Identifier: BSD-2-Clause */
/* The MP tables, by which kernels without ACPI find processors, IOAPIC and interrupt wiring. */
#pragma once

#include "kernel/lib/err.h"

struct vm;

/* Write them into the VM's firmware area. Errors as guestmem_write. */
enum hv_err mptable_write(struct vm *vm) __must_check;
