/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An image that many share, seen by one who may write: pages that he has written are copies of his own, the
 * rest is read where it lies. Charged to `owner`. One thread at a time. Caller: kernel/devices/vdisk.c.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct cowimage;

/* `base` stays as it is; `size` in bytes, neither need be aligned. HV_ENOMEM. */
enum hv_err cowimage_create(const void *base, uint64_t size, uint32_t owner,
                            struct cowimage **out) __must_check;
void cowimage_destroy(struct cowimage *c); /* NULL: nothing happens */

/* Where page `nr` of 4 KiB can be read; of the last one only what the image has. */
const void *cowimage_read(const struct cowimage *c, uint64_t nr);
/* Where it can be written. HV_ENOMEM: no frame for the copy. */
enum hv_err cowimage_write(struct cowimage *c, uint64_t nr, void **page) __must_check;
/* The whole page reads as zero from now on. HV_ENOMEM. */
enum hv_err cowimage_zero(struct cowimage *c, uint64_t nr) __must_check;
/* Frames that it has, for copies and tables, and those that may still be added. Any thread. */
uint64_t cowimage_frames(const struct cowimage *c);
uint64_t cowimage_frames_to_come(const struct cowimage *c);
