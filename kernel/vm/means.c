/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See means.h. The balloon's is ballooning.c; those here turn the carrier's orders into work of the
 * sharing scan and of the swapping thread.
 */
#include "kernel/vm/means.h"

#include "kernel/options.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/swapping.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/share.h"

/* ---- Sharing: its part is done when the order returns ---- */

static void share_order(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    if (o->excess == 0) {
        return;
    }
    if (share_member(p) == 0) {
        a->why = "it takes no part in page sharing";
    } else if (options_get(OPT_SHARE_SCAN_GHZ) == 0) {
        a->why = "page sharing is off (Mem.ShareScanGHz)";
    } else {
        /* Few of the pages looked at are found to be equal: more are looked at than are wanted. */
        a->taken = sharing_scan_now(p, 4 * o->excess);
        a->why = a->taken == 0 ? "no equal pages were found" : NULL;
    }
}

static const struct reclaim_means sharing_means = {
    .name = "share",
    .action = MEM_DO_SHARE,
    .order = share_order,
};

/* ---- Compression and swapping: the thread takes what is owed ---- */

static void page_order(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a)
{
    if (o->excess == 0) {
        swapping_order(p, 0);
        return;
    }
    if (!swapping_possible(p)) {
        a->why = "its pages are not compressed or swapped";
        a->deaf = true;
        return;
    }
    if (swapping_is_dry(p)) {
        a->why = "none of its pages can be compressed or swapped now";
    } else {
        a->pending = o->excess;
    }
    swapping_order(p, o->excess);
}

static const struct reclaim_means paging_means = {
    .name = "compress and swap",
    .action = MEM_DO_COMPRESS | MEM_DO_SWAP,
    .for_the_deaf = true,
    .order = page_order,
};

void means_register(void)
{
    reclaim_register(&sharing_means);
    reclaim_register(&ballooning_means);
    reclaim_register(&paging_means);
}
