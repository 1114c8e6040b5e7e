/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of host options; see options.h.
 */
#include "kernel/options.h"

#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"

const struct option options_table[NR_OPTIONS] = {
    /* ESX's begins at 10; less is for tests. */
    [OPT_SHARE_SCAN_TIME] = {.name = "Mem.ShareScanTime",
                             .low = 1,
                             .high = 600,
                             .standard = 60,
                             .help = "minutes in which a whole VM is scanned for pages to share"},
    [OPT_SHARE_SCAN_GHZ] =
        {.name = "Mem.ShareScanGHz",
         .low = 0,
         .high = 32,
         .standard = 4,
         .help = "MB/s scanned per GHz of the host at most; 0: only by `share scan`"},
    [OPT_SHARE_RATE_MAX] = {.name = "Mem.ShareRateMax",
                            .low = 0,
                            .high = 32768,
                            .standard = 1024,
                            .help = "pages/s scanned of one VM at most"},
    [OPT_SHARE_FORCE_SALTING] = {.name = "Mem.ShareForceSalting",
                                 .low = 0,
                                 .high = 2,
                                 .standard = 2,
                                 .help = "which VMs share, from their next start: 0 all, 1 those "
                                         "of equal `salt` or none, 2 those of equal `salt`"},
    [OPT_SAMPLE_PERIOD] = {.name = "Mem.SamplePeriod",
                           .low = 1,
                           .high = 600,
                           .standard = 60,
                           .help = "seconds of a VM's time in which its samples are replaced once"},
    [OPT_SAMPLE_SIZE] = {.name = "Mem.SampleSize",
                         .low = 0,
                         .high = 480,
                         .standard = 100,
                         .help = "pages of a VM that are watched at a time; 0: none"},
    [OPT_SAMPLE_METHOD] =
        {.name = "Mem.SampleMethod",
         .low = 0,
         .high = 2,
         .standard = 0,
         .help = "how a touch is noticed; auto: by accessed bits where there are some",
         .words = "auto|fault|abit"},
    [OPT_SAMPLE_ACTIVE_PCT_MIN] = {.name = "Mem.SampleActivePctMin",
                                   .low = 0,
                                   .high = 10,
                                   .standard = 1,
                                   .help = "% of its memory that a VM is taken to use at least"},
    [OPT_IDLE_TAX] = {.name = "Mem.IdleTax",
                      .low = 0,
                      .high = 99,
                      .standard = 75,
                      .help = "% of its idle memory that a VM may lose"},
    [OPT_IDLE_TAX_TYPE] = {.name = "Mem.IdleTaxType",
                           .low = 0,
                           .high = 1,
                           .standard = 1,
                           .help = "flat, or less for the first idle pages",
                           .words = "flat|variable"},
    [OPT_BALANCE_PERIOD] = {.name = "Mem.BalancePeriod",
                            .low = 1,
                            .high = 600,
                            .standard = 15,
                            .help = "seconds after which memory is divided anew at the latest"},
    [OPT_MEM_STATES] = {.name = "Mem.States",
                        .low = 0,
                        .high = 1,
                        .standard = 0,
                        .help = "the table of memory states",
                        .words = "classic|esx6"},
    [OPT_MEM_MIN_FREE_PCT] = {.name = "Mem.MemMinFreePct",
                              .low = 0,
                              .high = 50,
                              .standard = 0,
                              .help = "% of memory free below which it is short; 0: 6 %, with esx6 "
                                      "less of what is beyond 4 GiB"},
    [OPT_CTL_MAX_PERCENT] = {.name = "Mem.CtlMaxPercent",
                             .low = 0,
                             .high = 99,
                             .standard = 65,
                             .help = "% of a VM's memory that its balloon may hold; 0: none"},
    [OPT_MEM_ZIP_ENABLE] = {.name = "Mem.MemZipEnable",
                            .low = 0,
                            .high = 1,
                            .standard = 1,
                            .help =
                                "compress pages that would be swapped, if that saves half of them"},
    [OPT_MEM_ZIP_MAX_PCT] = {.name = "Mem.MemZipMaxPct",
                             .low = 5,
                             .high = 100,
                             .standard = 10,
                             .help = "% of a VM's memory that its compressed pages may take"},
    /* These two are not ESX's. */
    [OPT_PAGE_REPORT_DELAY] = {.name = "Mem.PageReportDelay",
                               .low = 0,
                               .high = 60000,
                               .standard = 0,
                               .help = "ms that a guest's report of free pages waits before they "
                                       "are taken"},
    [OPT_PAGE_REPORT_ORDER] = {.name = "Mem.PageReportOrder",
                               .low = 0,
                               .high = 9,
                               .standard = 0,
                               .help = "reported ranges of fewer than 2^this pages are left alone"},
    [OPT_ALLOC_GUEST_LARGE_PAGE] = {.name = "Mem.AllocGuestLargePage",
                                    .low = 0,
                                    .high = 1,
                                    .standard = 1,
                                    .help = "back guest memory with 2 MiB pages"},
    [OPT_LPAGE_DEFRAG_ENABLE] = {.name = "LPage.LPageDefragEnable",
                                 .low = 0,
                                 .high = 1,
                                 .standard = 1,
                                 .help = "move frames so that 2 MiB are free in one piece"},
    [OPT_LPAGE_ALWAYS_TRY_FOR_NPT] =
        {.name = "LPage.LPageAlwaysTryForNPT",
         .low = 0,
         .high = 1,
         .standard = 1,
         .help = "make 2 MiB pages of small ones when memory is plentiful"},
    [OPT_LPAGE_MAX_SHARED_PAGES] =
        {.name = "LPage.MaxSharedPages",
         .low = 0,
         .high = 512,
         .standard = 510,
         .help = "shared pages of 512 that may get frames of their own for a 2 MiB page"},
    [OPT_LPAGE_MAX_SWAPPED_PAGES] =
        {.name = "LPage.MaxSwappedPagesInitVal",
         .low = 0,
         .high = 512,
         .standard = 10,
         .help = "compressed or swapped pages of 512 that may be brought back for a 2 MiB page"},
};

/* What differs from the table: value plus one, 0 for the standard (atomic). */
static uint64_t changed[NR_OPTIONS];
static uint64_t changes; /* atomic */

uint64_t options_changes(void)
{
    return __atomic_load_n(&changes, __ATOMIC_RELAXED);
}

enum option_id options_find(const char *name)
{
    for (unsigned i = 0; i < NR_OPTIONS; i++) {
        if (str_equal(options_table[i].name, name)) {
            return (enum option_id)i;
        }
    }
    return NR_OPTIONS;
}

/* ---- Values as texts ---- */

/* Word `nr` of o's; its length, 0: there are fewer. */
static size_t word_of(const struct option *o, uint64_t nr, const char **word)
{
    const char *at = o->words;

    while (at != NULL && nr-- > 0) {
        at = strchr(at, '|');
        at = at != NULL ? at + 1 : NULL;
    }
    *word = at;
    if (at == NULL) {
        return 0;
    }
    return strchr(at, '|') != NULL ? (size_t)(strchr(at, '|') - at) : strlen(at);
}

enum hv_err options_parse(enum option_id id, const char *text, uint64_t *value)
{
    const struct option *o = &options_table[id];
    const char *word;
    size_t len;

    for (uint64_t nr = 0; (len = word_of(o, nr, &word)) != 0; nr++) {
        if (strlen(text) == len && memcmp(text, word, len) == 0) {
            *value = o->low + nr;
            return HV_OK;
        }
    }
    if (parse_u64(text, value) != HV_OK) {
        return HV_EINVAL;
    }
    return *value < o->low || *value > o->high ? HV_ERANGE : HV_OK;
}

void options_print(enum option_id id, uint64_t value, char text[OPTIONS_TEXT_MAX])
{
    const struct option *o = &options_table[id];
    const char *word;
    size_t len = value >= o->low ? word_of(o, value - o->low, &word) : 0;

    if (len != 0) {
        str_copy(text, MIN(len + 1, (size_t)OPTIONS_TEXT_MAX), word);
    } else {
        scnprintf(text, OPTIONS_TEXT_MAX, "%llu", (unsigned long long)value);
    }
}

void options_accepted(enum option_id id, char text[OPTIONS_TEXT_MAX])
{
    const struct option *o = &options_table[id];
    size_t n = 0;

    text[0] = '\0';
    if (o->words == NULL) {
        scnprintf(text, OPTIONS_TEXT_MAX, "a number from %llu to %llu", (unsigned long long)o->low,
                  (unsigned long long)o->high);
        return;
    }
    for (uint64_t v = o->low; v <= o->high; v++) {
        char word[OPTIONS_TEXT_MAX];

        options_print(id, v, word);
        n += scnprintf(text + n, OPTIONS_TEXT_MAX - n, "%s%s", v != o->low ? ", " : "", word);
    }
}

/* ---- Present values ---- */

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
    __atomic_fetch_add(&changes, 1, __ATOMIC_RELEASE);
    return HV_OK;
}
