/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who may start. Two promises are kept to every VM that runs:
 *
 *     its min and its overhead are in memory      all mins + overheads        <=  memory for VMs
 *     up to its max, its pages are somewhere      all maxs + overheads        <=  memory for VMs + swap
 *
 * Memory for VMs is what the hypervisor does not use itself, less minFree. A VM whose pages may not be
 * swapped (`swap = off`) counts with its max as its min (config_guaranteed). `overcommit = unbacked` waives
 * the second. A stopped VM is promised nothing, but counts with what it still holds.
 *
 * The arithmetic (admission_check) is pure. Callers: life.c, startup.c, the shell.
 */
#pragma once

#include "kernel/lib/err.h"

struct vm;

struct admission_claim { /* bytes */
    uint64_t min, max, overhead;
    bool unswapped; /* min is its max, for swap = off: the words of a refusal say so */
};

struct admission_host { /* bytes */
    uint64_t memory;    /* for VMs */
    uint64_t swap;
    bool unbacked;
    struct admission_claim others; /* sums of those admitted */
};

#define ADMISSION_TEXT_MAX 256u
/* HV_ENOMEM: `why` says the numbers. */
enum hv_err admission_check(const struct admission_host *host, const struct admission_claim *claim,
                            char why[ADMISSION_TEXT_MAX]) __must_check;

/* The most tables of 4 KiB that a tree of 512-way tables, p2m or nested, takes for a guest's RAM of so many bytes,
 * each 4 KiB page having a word of its own. Pure. */
uint64_t admission_tree_tables(uint64_t bytes);

/* The host option `overcommit`. Boot. */
void admission_init(bool unbacked);
/* Admit vm, which is about to start, until admission_end. HV_ENOMEM: refused; the numbers are logged.
 * Thread context, no lock held. */
enum hv_err admission_begin(struct vm *vm) __must_check;
/* vm does not run any more. Any thread; idempotent. */
void admission_end(struct vm *vm);
/* Give vm other guarantees, in bytes, and shares; refused as above, with the reason in `why`. HV_ERANGE: not
 * min <= max <= memory. */
enum hv_err admission_change(struct vm *vm, uint64_t min, uint64_t max, uint64_t shares,
                             char why[ADMISSION_TEXT_MAX]) __must_check;
