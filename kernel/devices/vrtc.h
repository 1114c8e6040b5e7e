/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's CMOS clock and memory at ports 0x70/0x71: date and time, periodic, alarm and update
 * interrupts on line 8. Manual: Motorola MC146818A data sheet.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vrtc;

/* Registers its ports on vm->bus. HV_ENOMEM, HV_EEXIST. */
enum hv_err vrtc_create(struct vm *vm, struct vrtc **out) __must_check;
void vrtc_destroy(struct vrtc *r);
void vrtc_reset(struct vrtc *r);

/* Calendar fields of a count of seconds since 1970-01-01 00:00:00. Pure. */
struct vrtc_date {
    unsigned year, month, day, weekday; /* 2025, 1..12, 1..31, 1 (Sunday) .. 7 */
    unsigned hour, minute, second;
};
void vrtc_split(uint64_t unix_seconds, struct vrtc_date *out);
/* The reverse, for years from 1 on; a day that its month has not runs on into the next. Pure. */
uint64_t vrtc_join(const struct vrtc_date *d);
