/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `swap test`: exercise a disk in the pages that its swap area keeps for that, while it may be in use.
 * Caller: the shell.
 */
#pragma once

#include "kernel/lib/err.h"

struct swaparea;

struct swaptest_result {
    uint64_t pages, requests;
    uint64_t failed;    /* requests that the disk failed */
    uint64_t wrong;     /* pages that came back different */
    uint64_t first_bad; /* page of the area, of either kind; valid if there is one */
    uint64_t write_ns, read_ns;
};

/* One round: every page written, in runs of random length and order with many in flight, then read back
 * in other runs and compared. `a` carries our signature. HV_ENOMEM. HV_EIO: something failed or was
 * wrong. */
enum hv_err swaptest_round(const struct swaparea *a, uint64_t round,
                           struct swaptest_result *out) __must_check;
