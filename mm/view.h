/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a translation cache (view) must offer. The nested view (mm/nested.c) fills EPT or NPT tables;
 * the shadow view will fill combined tables. Whatever is in a view may be dropped at any moment and
 * comes back by faults. Nothing outside a view touches its tables.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/flush.h"
#include "mm/types.h"

struct p2m;
struct view;
struct pt_format;

/* The guest's own paging, by value; a nested view ignores it. */
struct guest_paging {
    uint64_t cr0, cr3, cr4, efer;
    uint64_t pdptr[4]; /* PAE only, where the hardware keeps them */
};

struct view_stats {
    uint64_t tables; /* frames of tables (overhead) */
    uint64_t leaves_4k, leaves_2m, leaves_1g;
    uint64_t fills;
};

struct view_ops {
    /*
     * Resolve a fault at gpa. `access` is P2M_READ|WRITE|EXEC, with P2M_FAST on the fast path.
     * HV_OK: mapped, re-enter. HV_ENOENT: not RAM, emulate. HV_EAGAIN: leave the fast path (with
     * P2M_FAST), or sleep and restart. HV_ENOMEM: no frame.
     */
    enum hv_err (*fault)(struct view *v, gpa_t gpa, uint32_t access);
    /* Remove or write-protect every translation of the range; the caller commits the batch. */
    void (*drop)(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b);
    /* As drop of one 4 KiB page, on the fast path; the caller flushes. False: it would have to wait,
     * and nothing was removed. */
    bool (*try_drop)(struct view *v, gfn_t gfn);
    void (*protect)(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b);
    /* Test and clear use. */
    bool (*age)(struct view *v, gfn_t gfn, struct flush_batch *b);
    /* Root for the hardware. */
    enum hv_err (*root)(struct view *v, const struct guest_paging *paging, hpa_t *out);
    void (*invlpg)(struct view *v, const struct guest_paging *paging, gva_t gva);
    void (*stats)(struct view *v, struct view_stats *out);
    bool (*audit)(struct view *v);
    void (*destroy)(struct view *v);
};

struct view {
    const struct view_ops *ops;
    struct p2m *p2m;
};

/* A nested view of p2m in table format `fmt` (mm/pt/pt.h), charged to `owner`. */
enum hv_err nested_create(struct p2m *p2m, const struct pt_format *fmt, uint32_t owner,
                          struct view **out) __must_check;
