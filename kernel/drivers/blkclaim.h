/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who uses which part of which disk: several may read, or one may write. Callers: the swap area, VMs'
 * disks (kernel/devices/vdisk.c). Any thread.
 */
#pragma once

#include "kernel/lib/err.h"

struct blk_disk;

/* Sectors of 512 bytes. HV_EBUSY: somebody has a part of it in a way that does not go with this. HV_ENOMEM:
 * too many claims. */
enum hv_err blkclaim_take(const struct blk_disk *d, uint64_t first, uint64_t nr,
                          bool write) __must_check;
/* Undo one that was taken with these very arguments. */
void blkclaim_drop(const struct blk_disk *d, uint64_t first, uint64_t nr, bool write);
/* Has anybody any part of it? */
bool blkclaim_any(const struct blk_disk *d, uint64_t first, uint64_t nr);
