/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host options: one table of name, range, default and meaning, and their present values. Names and
 * meanings are ESX's. Set by ballast.conf (`Mem.ShareScanTime = 60` before the first section) and by
 * the shell's `set`; read by whoever acts on them, at any time and without a lock.
 */
#pragma once

#include "kernel/lib/err.h"

enum option_id {
    OPT_SHARE_SCAN_TIME,
    OPT_SHARE_SCAN_GHZ,
    OPT_SHARE_RATE_MAX,
    OPT_SHARE_FORCE_SALTING,
    NR_OPTIONS
};

struct option {
    const char *name;
    uint64_t low, high, standard;
    const char *help; /* with the unit */
};

/* Indexed by enum option_id. */
extern const struct option options_table[NR_OPTIONS];

/* NR_OPTIONS: there is none of that name. */
enum option_id options_find(const char *name);
uint64_t options_get(enum option_id id);
/* HV_ERANGE: outside of its range; nothing changes. */
enum hv_err options_set(enum option_id id, uint64_t value) __must_check;
