/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a PC's firmware leaves behind besides tables (bios.c).
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

/* Writes vectors, BIOS data area and the code at the reset vector into guest memory. May sleep. */
enum hv_err bios_write(struct vm *vm) __must_check;
