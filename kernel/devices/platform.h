/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ports of the guest platform that are not a device of their own: power-off, reset, the test
 * exit, and controllers that are not there but must answer.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

#define PLATFORM_SLEEP_CONTROL 0x600
#define PLATFORM_SLEEP_STATUS 0x601
#define PLATFORM_SLEEP_TYPE_S5 5
#define PLATFORM_RESET_PORT 0xcf9
#define PLATFORM_RESET_VALUE 0x06

/* Registers the ports on vm->bus; there is no state to reset or free. */
enum hv_err platform_create(struct vm *vm) __must_check;
