/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of mm/share have in common. Nobody else includes this.
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "mm/share/share.h"

/* The content index, and who is a member. RANK_SHARE; held for short only. */
extern struct spinlock share_lock;

/* A member's salt; share_lock held. SHARE_NO_SALT for one that is gone. */
#define SHARE_NO_SALT UINT64_MAX
uint64_t share_member_salt(unsigned member);

/* The right to look for equal pages: one scan's slice or audit at a time, in the order in which they
 * asked; waits, relaxing. No lock held. */
void share_scan_enter(void);
bool share_scan_try_enter(void) __must_check;
void share_scan_leave(void);
/* Somebody waits for this held member to be released: the scan ends early. */
bool share_is_leaving(unsigned member);

/* The next seed of a scan's pass. */
uint64_t share_next_seed(void);

/* scan.c: what a scan remembers of a p2m. */
struct share_scan *scan_create(const struct p2m *p) __must_check;
void scan_destroy(struct share_scan *s);
