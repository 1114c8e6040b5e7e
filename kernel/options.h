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
    OPT_SAMPLE_PERIOD,
    OPT_SAMPLE_SIZE,
    OPT_SAMPLE_METHOD,
    OPT_SAMPLE_ACTIVE_PCT_MIN,
    OPT_IDLE_TAX,
    OPT_IDLE_TAX_TYPE,
    OPT_BALANCE_PERIOD,
    OPT_MEM_STATES,
    OPT_MEM_MIN_FREE_PCT,
    OPT_CTL_MAX_PERCENT,
    OPT_MEM_ZIP_ENABLE,
    OPT_MEM_ZIP_MAX_PCT,
    OPT_PAGE_REPORT_DELAY,
    OPT_PAGE_REPORT_ORDER,
    OPT_ALLOC_GUEST_LARGE_PAGE,
    OPT_LPAGE_DEFRAG_ENABLE,
    OPT_LPAGE_ALWAYS_TRY_FOR_NPT,
    OPT_LPAGE_MAX_SHARED_PAGES,
    OPT_LPAGE_MAX_SWAPPED_PAGES,
    NR_OPTIONS
};

struct option {
    const char *name;
    uint64_t low, high, standard;
    const char *help;  /* with the unit */
    const char *words; /* names of the values from `low` on, separated by '|'; NULL: numbers */
};

/* Indexed by enum option_id. */
extern const struct option options_table[NR_OPTIONS];

/* NR_OPTIONS: there is none of that name. */
enum option_id options_find(const char *name);
uint64_t options_get(enum option_id id);
/* A value as a text: its word, or a number. HV_EINVAL: neither. HV_ERANGE: out of range. */
enum hv_err options_parse(enum option_id id, const char *text, uint64_t *value) __must_check;
#define OPTIONS_TEXT_MAX 64u
/* And back. */
void options_print(enum option_id id, uint64_t value, char text[OPTIONS_TEXT_MAX]);
/* What options_parse accepts. */
void options_accepted(enum option_id id, char text[OPTIONS_TEXT_MAX]);
/* Grows with every options_set. */
uint64_t options_changes(void);
/* HV_ERANGE: outside of its range; nothing changes. */
enum hv_err options_set(enum option_id id, uint64_t value) __must_check;
