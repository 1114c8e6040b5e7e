/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are born shared: what a loader puts into guests of one salt from one file starts on
 * common frames, instead of being copied for each and merged later.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct p2m;

/*
 * Put the 4 KiB at `data` (any alignment) behind the untouched page gfn: on the shared frame that has
 * these contents, or on a new one that others will find; zeros on the zero frame. HV_EBUSY: the page
 * has been touched. HV_ENOTSUP: p is no member of sharing. HV_ENOENT: no RAM. HV_ENOMEM: no frame, or
 * no room in the index. Thread context, no lock held.
 */
enum hv_err born_page(struct p2m *p, gfn_t gfn, const void *data) __must_check;
