/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small objects: kmalloc/kfree over power-of-two size classes in single frames; larger sizes take
 * whole frames from the buddy allocator. Zeroed. Not for the guest fast path.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

/* Zeroed memory of at least `size` bytes, 16-byte aligned (page aligned from 4 KiB up), charged to
 * `owner` (OWNER_HOST or a VM id). NULL when there is none. */
void *kmalloc(size_t size, uint32_t owner) __must_check;
void kfree(void *ptr);
/* Bytes of the frames that now hold objects of `owner`. */
uint64_t kmalloc_bytes(uint32_t owner);
/* Check every slab's bookkeeping; logs and returns false if something is wrong. */
bool slab_audit(void);
