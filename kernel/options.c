/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of host options; see options.h.
 */
#include "kernel/options.h"

#include "kernel/lib/string.h"

const struct option options_table[NR_OPTIONS] = {
    /* ESX's begins at 10; less is for tests. */
    [OPT_SHARE_SCAN_TIME] = {"Mem.ShareScanTime", 1, 600, 60,
                             "minutes in which a whole VM is scanned for pages to share"},
    /* ESX's standard is 4. Here scanning waits for the operator until it has been in use longer. */
    [OPT_SHARE_SCAN_GHZ] = {"Mem.ShareScanGHz", 0, 32, 0,
                            "MB/s scanned per GHz of the host at most; 0: only by `share scan`"},
    [OPT_SHARE_RATE_MAX] = {"Mem.ShareRateMax", 0, 32768, 1024,
                            "pages/s scanned of one VM at most"},
    [OPT_SHARE_FORCE_SALTING] = {"Mem.ShareForceSalting", 0, 2, 2,
                                 "which VMs share, from their next start: 0 all, 1 those of equal "
                                 "`salt` or none, 2 those of equal `salt`"},
};

/* What differs from the table: value plus one, 0 for the standard (atomic). */
static uint64_t changed[NR_OPTIONS];

enum option_id options_find(const char *name)
{
    for (unsigned i = 0; i < NR_OPTIONS; i++) {
        if (str_equal(options_table[i].name, name)) {
            return (enum option_id)i;
        }
    }
    return NR_OPTIONS;
}

uint64_t options_get(enum option_id id)
{
    uint64_t value = __atomic_load_n(&changed[id], __ATOMIC_RELAXED);

    return value != 0 ? value - 1 : options_table[id].standard;
}

enum hv_err options_set(enum option_id id, uint64_t value)
{
    if (value < options_table[id].low || value > options_table[id].high) {
        return HV_ERANGE;
    }
    __atomic_store_n(&changed[id], value + 1, __ATOMIC_RELAXED);
    return HV_OK;
}
