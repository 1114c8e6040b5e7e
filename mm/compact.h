/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction: a 2 MiB block of machine memory is emptied by moving the guest pages in it elsewhere, so
 * that a large page can be had where free memory is in pieces. Only private, unpinned 4 KiB pages of
 * members of sharing move; shared frames, tables and the hypervisor's own stay where they are.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct compact_stats {
    uint64_t blocks; /* emptied */
    uint64_t moved;  /* pages moved for them */
    uint64_t failed; /* blocks given up half-way */
};

/*
 * Empty one block, and give its 512 frames to `owner` as guest memory in one piece. HV_ENOMEM: there is
 * none that is worth it. HV_EBUSY: one was begun, and something in it did not move; try again later.
 * Thread context, no lock held; one thread at a time.
 */
enum hv_err compact_block(uint32_t owner, mfn_t *out) __must_check;
void compact_stats(struct compact_stats *out);
