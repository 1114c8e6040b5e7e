/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtio disk of a VM. */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vmmio;
struct vblk;

/* *out is NULL where the configuration names no disk; set also after an error, for vblk_destroy. Errors as
 * vdisk_open. */
enum hv_err vblk_create(struct vm *vm, struct vblk **out) __must_check;
void vblk_destroy(struct vblk *d);
/* NULL: d is NULL. */
struct vmmio *vblk_transport(struct vblk *d);
/* For operators: what is behind it, as "; image, 64 MiB". d may be NULL: nothing. Any thread. */
void vblk_describe(const struct vblk *d, char *text, size_t len);
/* Frames that the VM's own pages of the disk take, and may still come to take. Any thread; d may be NULL. */
uint64_t vblk_frames(const struct vblk *d);
uint64_t vblk_frames_to_come(const struct vblk *d);
