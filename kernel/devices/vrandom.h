/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio entropy device of a VM: numbers out of a stream of its own. */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vmmio;
struct vrandom;

/* *out is NULL where the configuration wants none; set also after an error, for vrandom_destroy. */
enum hv_err vrandom_create(struct vm *vm, struct vrandom **out) __must_check;
void vrandom_destroy(struct vrandom *d);
/* NULL: d is NULL. */
struct vmmio *vrandom_transport(struct vrandom *d);
