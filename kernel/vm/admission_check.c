/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The arithmetic of admission control, and its words; see admission.h.
 */
#include "kernel/lib/printf.h"
#include "kernel/vm/admission.h"

#define TABLE_WORDS 512u
/* Beside full tables: the root; below it one for each 512 GiB, at most three; and for each of the two ranges of
 * RAM, up to the hole below 4 GiB and above it, a table of 2 MiB and one of 1 GiB that it fills in part only. */
#define TREE_ENDS 8u

static unsigned long long mb(uint64_t bytes)
{
    return (bytes + MIB(1) - 1) / MIB(1);
}

enum hv_err admission_check(const struct admission_host *host, const struct admission_claim *claim,
                            char why[ADMISSION_TEXT_MAX])
{
    uint64_t overhead = host->others.overhead + claim->overhead;
    uint64_t mins = host->others.min + claim->min + overhead;
    uint64_t maxs = host->others.max + claim->max + overhead;

    if (mins > host->memory) {
        scnprintf(why, ADMISSION_TEXT_MAX,
                  "its %s of %llu MB and overhead of %llu MB do not fit: with the %llu MB that are "
                  "guaranteed to others %llu MB are needed, and the machine has %llu MB for VMs",
                  claim->unswapped ? "max (its min, for swap = off)" : "min", mb(claim->min),
                  mb(claim->overhead), mb(host->others.min + host->others.overhead), mb(mins),
                  mb(host->memory));
        return HV_ENOMEM;
    }
    if (!host->unbacked && maxs > host->memory + host->swap) {
        scnprintf(why, ADMISSION_TEXT_MAX,
                  "with its max of %llu MB and overhead of %llu MB all VMs may need %llu MB; the "
                  "machine has %llu MB for VMs and %llu MB of swap, so %llu MB lack. More swap, a "
                  "smaller max or overcommit = unbacked would do",
                  mb(claim->max), mb(claim->overhead), mb(maxs), mb(host->memory), mb(host->swap),
                  mb(maxs - host->memory - host->swap));
        return HV_ENOMEM;
    }
    return HV_OK;
}

uint64_t admission_tree_tables(uint64_t bytes)
{
    uint64_t leaves = (bytes >> PAGE_SHIFT) / TABLE_WORDS;

    return leaves + leaves / TABLE_WORDS + TREE_ENDS;
}
