/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a translation cache (view) must offer. The nested view (mm/nested.c) fills EPT or NPT tables;
 * the shadow view (mm/shadow/) fills combined tables. Whatever is in a view may be dropped at any moment and
 * comes back by faults. Nothing outside a view touches its tables.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/flush.h"
#include "mm/types.h"

struct p2m;
struct view;
struct pt_format;

/* The guest's own paging, by value. */
struct guest_paging {
    uint64_t cr0, cr3, cr4, efer;
    uint64_t pdptr[4]; /* PAE only, where the hardware keeps them */
};

struct view_stats {
    uint64_t tables; /* frames of tables (overhead) */
    uint64_t
        tables_max; /* what they may come to by themselves; 0: no more than the p2m's leaves take */
    uint64_t leaves_4k, leaves_2m, leaves_1g;
    uint64_t fills;
};

/* How a page is being watched: by its accessed bit, or its translation is gone; in the latter case the
 * larger leaf that it was part of may have been spelt out for it. */
enum view_watch { WATCH_BIT, WATCH_GONE, WATCH_PIECE };
enum view_use { USE_NONE, USE_SEEN, USE_UNKNOWN };

/*
 * Each takes the view's lock by itself: locks below RANK_VIEW may be held, the p2m's among them, except where
 * it says otherwise. Thread context; on the fast path are `fault` with P2M_FAST and try_drop, which wait for
 * no lock. A batch is committed by the caller, later, with no lock held.
 */
struct view_ops {
    /*
     * Resolve a fault at gpa. `access` is P2M_READ|WRITE|EXEC, with P2M_WALK if the processor walked the
     * guest's tables, and what memwait_access or memwait_access_fast say (P2M_FAST, P2M_VCPU, P2M_LINE).
     * HV_OK: mapped, re-enter. HV_ENOENT: not RAM, emulate. HV_EAGAIN: leave the fast path (with P2M_FAST),
     * or sleep and restart. HV_ENOMEM, HV_EIO: as p2m_populate. Takes the p2m lock: no lock is held.
     */
    enum hv_err (*fault)(struct view *v, gpa_t gpa, uint32_t access);
    /* Remove every translation of the range. Who has changed what the p2m says of it holds the p2m lock from
     * that change until this has returned: p2m_settle and the audits rely on it. Who only empties the view
     * needs no lock. */
    void (*drop)(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b);
    /* As drop of one 4 KiB page, on the fast path, by the VM's only vCPU; p2m locked, the caller flushes
     * (flush_local). False: it would have to wait, or leave the fast path, and nothing was removed. */
    bool (*try_drop)(struct view *v, gfn_t gfn);
    /* Somebody is about to write to the page beside the guest, by a pin (p2m_get): a view that watches
     * for writes to it cannot rely on them from now on. The pin counts already, so who begins to watch
     * afterwards sees it; the p2m lock is not needed. NULL: of no concern. */
    void (*written)(struct view *v, gfn_t gfn);
    /* Take the right to write from every translation of the range. The p2m lock as with drop. */
    void (*protect)(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b);
    /* Test and clear use of the p2m's block around gfn. */
    bool (*age)(struct view *v, gfn_t gfn, struct flush_batch *b);
    /*
     * Sampling. From now on the next use of the 4 KiB page gfn shows: in its accessed bit, if by_bit
     * and the view has them, else by a translation that comes back by a fault. A larger leaf around it
     * is replaced by equal small ones but one. HV_ENOMEM: no table for that.
     */
    enum hv_err (*watch)(struct view *v, gfn_t gfn, bool by_bit, struct flush_batch *b,
                         enum view_watch *how);
    /* Was it used since? Unknown: the view has been changed by others. */
    enum view_use (*watched)(struct view *v, gfn_t gfn, enum view_watch how);
    /* A piece need not be watched any longer: the larger leaf comes back, unless others in it are. */
    void (*unwatch)(struct view *v, gfn_t gfn, struct flush_batch *b);
    /* Root for the hardware; HV_ENOTSUP: it depends on the guest's registers (mm/shadow/shadow.h). */
    enum hv_err (*root)(struct view *v, hpa_t *out);
    /* All of one moment, without waiting for the lock: false, and *out is as it was, if somebody has it. Any
     * context. */
    bool (*stats)(struct view *v, struct view_stats *out);
    /* Recount, and compare each translation with the p2m; logs disagreements, true if none. Takes the p2m
     * lock, which is not held, and keeps it and the view's for long. */
    bool (*audit)(struct view *v);
    /* Free everything, the view included; the p2m forgets it. No vCPU runs any more. Flushes: no lock is
     * held. */
    void (*destroy)(struct view *v);
};

struct view {
    const struct view_ops *ops;
    struct p2m *p2m;
};

/* A nested view of p2m in table format `fmt` (mm/pt/pt.h), charged to `owner`. */
enum hv_err nested_create(struct p2m *p2m, const struct pt_format *fmt, uint32_t owner,
                          struct view **out) __must_check;
