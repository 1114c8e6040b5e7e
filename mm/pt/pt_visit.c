/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Visiting all leaves of page tables, and the audit that recounts them.
 */
#include "mm/pt/pt.h"

#include "mm/env.h"
#include "mm/frame.h"
#include "mm/pt/pt_internal.h"

struct visit_job {
    const struct pt *pt;
    bool (*leaf)(const struct pt_leaf *leaf, void *ctx);
    bool (*table)(mfn_t table, void *ctx); /* NULL: not wanted */
    void *ctx;
};

/* The address as software writes it. */
static uint64_t canonical(const struct pt *pt, uint64_t va)
{
    unsigned unused = 64 - (PAGE_SHIFT + LEVEL_ORDER * pt->fmt->levels);

    return pt->fmt->sign_extended ? (uint64_t)((int64_t)(va << unused) >> unused) : va;
}

static bool visit_table(const struct visit_job *job, mfn_t mfn, unsigned level, uint64_t va)
{
    const uint64_t *table = env_frame_ptr(mfn);

    if (job->table != NULL && !job->table(mfn, job->ctx)) {
        return false;
    }
    for (unsigned i = 0; i < PT_ENTRIES; i++, va += level_span(level)) {
        uint64_t entry = entry_load(&table[i]);

        if (!is_present(job->pt, entry)) {
            continue;
        }
        if (is_table(job->pt, entry, level)) {
            if (!visit_table(job, entry_table(job->pt, entry), level - 1, va)) {
                return false;
            }
        } else {
            struct pt_leaf leaf = pt_describe(job->pt, entry, level, canonical(job->pt, va));

            if (!job->leaf(&leaf, job->ctx)) {
                return false;
            }
        }
    }
    return true;
}

bool pt_visit(const struct pt *pt, bool (*fn)(const struct pt_leaf *leaf, void *ctx), void *ctx)
{
    const struct visit_job job = {.pt = pt, .leaf = fn, .ctx = ctx};

    return visit_table(&job, pt->root, pt->fmt->levels - 1, 0);
}

struct audit_job {
    const struct pt *pt;
    uint64_t tables;
    uint64_t leaves[PT_MAX_LEVELS];
};

static bool audit_leaf(const struct pt_leaf *leaf, void *ctx)
{
    struct audit_job *job = ctx;

    job->leaves[leaf->order / LEVEL_ORDER]++;
    return true;
}

static bool audit_table(mfn_t table, void *ctx)
{
    struct audit_job *job = ctx;
    const struct frame *f = frame_of(table);

    job->tables++;
    if (f->use != job->pt->use || f->owner != job->pt->owner || f->order != 0) {
        env_log("audit: page table %#llx has use %u owner %u", (unsigned long long)table.n, f->use,
                f->owner);
        return false;
    }
    return true;
}

bool pt_audit(const struct pt *pt)
{
    struct audit_job sum = {.pt = pt};
    const struct visit_job job = {.pt = pt, .leaf = audit_leaf, .table = audit_table, .ctx = &sum};
    bool ok = visit_table(&job, pt->root, pt->fmt->levels - 1, 0);

    ok &= sum.tables == pt->tables;
    for (unsigned level = 0; level < PT_MAX_LEVELS; level++) {
        ok &= sum.leaves[level] == pt->leaves[level];
    }
    if (!ok) {
        env_log("audit: page tables (%s) of owner %u disagree with their counters", pt->fmt->name,
                pt->owner);
    }
    return ok;
}
