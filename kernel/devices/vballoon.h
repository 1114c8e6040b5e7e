/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio balloon of a VM, a driver's device behind mm/reclaim/balloon.h. */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vmmio;
struct vballoon;

/* *out is NULL where the configuration wants another balloon; set also after an error, for
 * vballoon_destroy. */
enum hv_err vballoon_create(struct vm *vm, struct vballoon **out) __must_check;
void vballoon_destroy(struct vballoon *d);
/* NULL: d is NULL. */
struct vmmio *vballoon_transport(struct vballoon *d);
