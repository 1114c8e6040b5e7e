/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page sharing as the host runs it: start-up, the scanning thread with its rates, scans at the
 * operator's word.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/share/scan.h"

struct p2m;
struct vm;

/* Set page sharing up, before the first VM is built; without memory for it, say so and go on. After
 * the seed of randomness is known. */
void sharing_init(void);
/* Start the scanning thread. */
void sharing_start(void);

/* Memory is short: scan some of p's pages now, whatever the rates, but no more than a slice of work. Returns
 * how many became shared. */
uint64_t sharing_scan_now(struct p2m *p, uint64_t pages);
/* The same of all VMs, unless scanning is off (Mem.ShareScanGHz = 0). True: some became shared. */
bool sharing_scan_all(void);

/* Scan all of vm's pages now, whatever the rates. HV_ENOENT: it takes no part in sharing. Long; the
 * caller's thread gives way to others meanwhile. */
enum hv_err sharing_scan(struct vm *vm) __must_check;
/* What scanning has done for vm so far; zeros if it takes no part. */
void sharing_stats(struct vm *vm, struct scan_stats *out);
/* Pages that the thread scans of vm in 1,000 seconds, by the options and the other VMs. */
uint64_t sharing_rate(struct vm *vm);
/* vm's p2m, held as a member of sharing until share_release(*member); NULL: it is none. */
struct p2m *sharing_hold(struct vm *vm, unsigned *member) __must_check;
