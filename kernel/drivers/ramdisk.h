/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk in machine memory, for runs that must repeat exactly and for machines without a disk that may
 * be written. Caller: kernel/drivers/swaparea.c.
 */
#pragma once

#include "kernel/drivers/blk.h"

/* A disk of `bytes` (rounded up to 2 MiB), all zero. Its frames are the host's for ever. HV_ENOMEM. Boot
 * thread. */
enum hv_err ramdisk_create(uint64_t bytes, struct blk_disk **out) __must_check;
