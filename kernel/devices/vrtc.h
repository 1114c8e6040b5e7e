/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's CMOS clock at ports 0x70/0x71: reads the date and time, never updates in progress,
 * raises no interrupt. Manual: Motorola MC146818A data sheet.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;
struct vrtc;

enum hv_err vrtc_create(struct vm *vm, struct vrtc **out) __must_check;
void vrtc_destroy(struct vrtc *r);
void vrtc_reset(struct vrtc *r);

/* Calendar fields of a count of seconds since 1970-01-01 00:00:00. Pure. */
struct vrtc_date {
    unsigned year, month, day, weekday; /* 2025, 1..12, 1..31, 1 (Sunday) .. 7 */
    unsigned hour, minute, second;
};
void vrtc_split(uint64_t unix_seconds, struct vrtc_date *out);
