/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ports of the guest platform that are not a device of their own: reset, the test exit, and controllers that are not there but must answer.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

#define PLATFORM_RESET_PORT 0xcf9
#define PLATFORM_RESET_VALUE 0x06

/* Registers the ports on vm->bus; there is no state to reset or free. */
enum hv_err platform_create(struct vm *vm) __must_check;
