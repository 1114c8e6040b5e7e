/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is behind a VM's disk: a boot module that VMs share, each with the pages that it has written of
 * its own, or a disk or partition of the host. What a VM wrote to a module's copy lasts as long as the
 * VM: over its resets, not over `destroy`. The calls are made by one thread at a time, which may sleep.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vdisk;
struct vring_chain;

/*
 * Open what vm's configuration names. Errors are logged with the reason. HV_ENOENT: there is none of that
 * name. HV_EBUSY: the host swaps there, or another VM writes there (or it is to be written here, and
 * another VM reads it). HV_ENOMEM, HV_EIO.
 */
enum hv_err vdisk_open(struct vm *vm, struct vdisk **out) __must_check;
/* NULL: nothing happens. */
void vdisk_close(struct vdisk *d);

uint64_t vdisk_bytes(const struct vdisk *d); /* a multiple of 512 */
/* By `disk_readonly`, or because the host's disk is. */
bool vdisk_read_only(const struct vdisk *d);
/* Does vdisk_zero give frames back? */
bool vdisk_can_discard(const struct vdisk *d);
/* Frames that the VM's own pages take, and may still come to take. Any thread. */
uint64_t vdisk_frames(const struct vdisk *d);
uint64_t vdisk_frames_to_come(const struct vdisk *d);

/* `len` bytes at `offset`, both multiples of 512 and on the disk, into what the chain's driver reads, and
 * out of what it writes. HV_EIO: the host's disk. HV_ENOMEM: a page of its own lacks; part may be done. */
enum hv_err vdisk_read(struct vdisk *d, uint64_t offset, uint64_t len,
                       struct vring_chain *c) __must_check;
enum hv_err vdisk_write(struct vdisk *d, uint64_t offset, uint64_t len,
                        struct vring_chain *c) __must_check;
/* From now on it reads as zero. */
enum hv_err vdisk_zero(struct vdisk *d, uint64_t offset, uint64_t len) __must_check;
/* What was written lasts. */
enum hv_err vdisk_flush(struct vdisk *d) __must_check;
