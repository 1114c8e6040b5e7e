/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeping up with the guest's tables. What a table's pages have was true when it was entered; the guest may
 * change its tables any time, and has to flush before it relies on that: then sync_all compares what
 * pages that are not in sync have with what the guest has now. Entries that are not there need no
 * comparison: the processor faults on them, and the walk finds the guest's.
 *
 *                 a write: untrace                  traced: writes fault,
 *        unsync <-------------------- traced         nothing to compare
 *           |                            ^
 *           +----------------------------+
 *             unchanged since last time: write-protect
 *
 * A VM of one vCPU traces on the spot, for its processor drops its translations before it goes on.
 * Otherwise some other may still be writing by an old one: shadow_tidy protects, has everybody
 * flush, and compares again. A page of which nothing is left, because the guest uses its table for something
 * else, is not traced but dropped there.
 */
#include "mm/shadow/shadow_internal.h"

#include "kernel/lib/mutant.h"
#include "mm/p2m_internal.h" /* pins: who holds a page writes to it without asking */

#define UNSYNC_MAX 12u /* more than these are tidied up */

/* ---- Comparing ---- */

/* The guest's entry that ours of index i was made from. */
static inline uint64_t guest_entry(const struct shadow_page *sp, const void *table, unsigned i)
{
    if (likely(page_mode(sp) > GWALK_PSE)) {
        return __atomic_load_n((const uint64_t *)table + i, __ATOMIC_RELAXED);
    }
    unsigned quadrant = sp->role >> ROLE_QUADRANT_SHIFT & 3;
    unsigned at = page_level(sp) == 0 ? quadrant * 512 + i : quadrant * 256 + i / 2;
    return __atomic_load_n((const uint32_t *)table + at, __ATOMIC_RELAXED);
}

/* Present entries among 64 that differ, the guest's being 64 bits wide. */
static inline uint64_t compare_64(const uint64_t *seen, const uint64_t *guest, uint64_t present,
                                  bool dense)
{
    uint64_t differ = 0;

    if (!dense) {
        for (uint64_t left = present; left != 0; left &= left - 1) {
            unsigned i = (unsigned)__builtin_ctzll(left);

            differ |= seen[i] != guest[i] ? left & -left : 0;
        }
        return differ;
    }
    for (unsigned i = 0; i < 64; i += 4) {
        if (unlikely(((seen[i] ^ guest[i]) | (seen[i + 1] ^ guest[i + 1]) |
                      (seen[i + 2] ^ guest[i + 2]) | (seen[i + 3] ^ guest[i + 3])) != 0)) {
            for (unsigned j = i; j < i + 4; j++) {
                differ |= seen[j] != guest[j] ? BIT(j) : 0;
            }
        }
    }
    return differ & present;
}

static uint64_t differing(const struct shadow_page *sp, const void *table, unsigned w)
{
    uint64_t differ = 0;

    if (table == NULL) {
        return sp->present[w];
    }
    if (page_mode(sp) > GWALK_PSE) {
        return compare_64(&sp->seen[w * 64], (const uint64_t *)table + w * 64, sp->present[w],
                          sp->nr_present > ENTRIES / 3);
    }
    for (uint64_t left = sp->present[w]; left != 0; left &= left - 1) {
        unsigned i = w * 64 + (unsigned)__builtin_ctzll(left);

        differ |= sp->seen[i] != guest_entry(sp, table, i) ? left & -left : 0;
    }
    return differ;
}

bool sync_page(struct shadow *s, struct shadow_page *sp, uint64_t until)
{
    const void *table = sp->nr_present != 0 ? p2m_peek(s->view.p2m, sp->gfn) : NULL;

    if (sp->nr_present == 0 || MUTANT(shadow_no_sync)) {
        return true;
    }
    for (unsigned w = 0; w < ARRAY_SIZE(sp->present); w++) {
        if (sp->present[w] == 0) {
            continue;
        }
        for (uint64_t left = differing(sp, table, w); left != 0; left &= left - 1) {
            if (unlikely(s->steps >= until)) {
                return false;
            }
            entry_clear(s, sp, w * 64 + (unsigned)__builtin_ctzll(left));
            sp->changed = true;
        }
    }
    return true;
}

void sync_entry(struct shadow *s, struct shadow_page *sp, unsigned i)
{
    const void *table;

    if (!entry_present(sp, i)) {
        return;
    }
    table = p2m_peek(s->view.p2m, sp->gfn);
    if (table == NULL || guest_entry(sp, table, i) != sp->seen[i]) {
        entry_clear(s, sp, i);
        sp->changed = true;
    }
}

bool sync_all(struct shadow *s, unsigned level, bool fast)
{
    uint64_t until = sync_until(s, fast);
    struct list *pos;

    list_for_each (pos, &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync);

        if (page_level(sp) >= level && unlikely(!sync_page(s, sp, until))) {
            return false;
        }
    }
    return true;
}

/* ---- Tracing ---- */

/* The next page of that table in its bucket, from `sp` on. */
static struct shadow_page *table_next(struct shadow_page *sp, gfn_t gfn)
{
    while (sp != NULL && (sp->gfn.n != gfn.n || page_direct(sp))) {
        sp = sp->next;
    }
    return sp;
}

#define for_each_page_of(sp, s, gfn) \
    for (sp = table_next(*bucket_of(s, gfn), gfn); sp != NULL; sp = table_next(sp->next, gfn))

bool sync_is_traced(const struct shadow *s, gfn_t gfn)
{
    const struct shadow_region *r = region_look(s, gfn);

    return r != NULL && r->heads != NULL && (*region_head(r, gfn) & SHADOW_TRACED) != 0;
}

void sync_adopt(struct shadow *s, struct shadow_page *sp)
{
    struct shadow_page *other;

    for_each_page_of (other, s, sp->gfn) {
        sp->tracing |= other->tracing;
    }
    if (sp->tracing || !sync_is_traced(s, sp->gfn)) {
        list_add(&s->unsync, &sp->unsync);
        s->nr_unsync++;
    }
}

void sync_untrace(struct shadow *s, gfn_t gfn)
{
    struct shadow_page *sp;

    if (!sync_is_traced(s, gfn)) {
        return;
    }
    struct shadow_region *r = region_look(s, gfn);
    *region_head(r, gfn) &= ~SHADOW_TRACED;
    r->traced--;
    for_each_page_of (sp, s, gfn) {
        sp->tracing = false;
        sp->changed = true;
        if (!page_is_unsync(sp)) {
            list_add(&s->unsync, &sp->unsync);
            s->nr_unsync++;
        }
    }
}

/* Write-protect every translation of the table, for a flush that everybody else joins or that nobody can miss: the
 * batch's that begin_tidy has touched before it lets the lock go, or that of the only vCPU, which drops all before
 * it enters again. HV_ENOMEM: no room to note that it is traced. */
static enum hv_err protect_table(struct shadow *s, gfn_t gfn, bool fast)
{
    struct shadow_region *r;
    struct chain_at at;
    uint64_t slot;
    enum hv_err err = region_get(s, gfn, true, fast, &r);

    if (err != HV_OK) {
        return err;
    }
    *region_head(r, gfn) |= SHADOW_TRACED;
    r->traced++;
    if (MUTANT(shadow_no_trace)) {
        return HV_OK;
    }
    entry_clear_chain(s, &r->large);
    for (slot = chain_first(*region_head(r, gfn), &at); slot != 0; slot = chain_next(&at)) {
        __atomic_fetch_and(&page_at(slot)->table[slot_index(slot)], ~SPT_W, __ATOMIC_ACQ_REL);
    }
    return HV_OK;
}

static bool is_pinned(const struct shadow *s, gfn_t gfn)
{
    struct p2m_entry e;

    p2m_query(s->view.p2m, gfn, &e);
    return !mfn_valid(e.mfn) || (e.state == P2M_PRIVATE && p2m_pin_record(&e)->refs != 0);
}

/* Is it a table worth tracing: in use, and nobody has changed it lately? */
static bool is_quiet(const struct shadow *s, gfn_t gfn, unsigned level)
{
    struct shadow_page *sp;
    bool used = false;

    for_each_page_of (sp, s, gfn) {
        if (sp->changed || sp->tracing || page_level(sp) < level) {
            return false;
        }
        used |= sp->nr_present != 0 || sp->roots != 0;
    }
    return used && !is_pinned(s, gfn);
}

/* All pages of the table are in sync from now on. */
static void settle(struct shadow *s, gfn_t gfn)
{
    struct shadow_page *sp;

    for_each_page_of (sp, s, gfn) {
        s->nr_unsync -= page_is_unsync(sp);
        list_del(&sp->unsync);
        sp->tracing = false;
    }
}

void sync_trace_clean(struct shadow *s, unsigned level)
{
    struct list *pos = s->unsync.next;

    while (pos != &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync);
        gfn_t gfn = sp->gfn;

        /* Past all that this may take out of the list. */
        do {
            pos = pos->next;
        } while (pos != &s->unsync && list_entry(pos, struct shadow_page, unsync)->gfn.n == gfn.n);
        if (!sp->changed && is_quiet(s, gfn, level) && protect_table(s, gfn, true) == HV_OK) {
            settle(s, gfn);
        }
    }
    list_for_each (pos, &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync);

        sp->changed = sp->changed && page_level(sp) < level;
    }
}

/* ---- Tidying ---- */

bool shadow_is_untidy(const struct view *v)
{
    return __atomic_load_n(&container_of(v, const struct shadow, view)->nr_unsync,
                           __ATOMIC_RELAXED) > UNSYNC_MAX;
}

/* Protect the quiet ones, drop those of which nothing is left. */
static void begin_tidy(struct shadow *s, struct flush_batch *b)
{
    struct list *pos, *next;

    list_for_each_safe (pos, next, &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync);

        if (sp->nr_present == 0 && sp->roots == 0) {
            page_zap(s, sp, b);
        }
    }
    list_for_each (pos, &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync);
        struct shadow_page *other;

        if (!sp->tracing && !is_pinned(s, sp->gfn) && protect_table(s, sp->gfn, false) == HV_OK) {
            for_each_page_of (other, s, sp->gfn) {
                other->tracing = true;
            }
            if (!MUTANT(shadow_tidy_without_flush)) {
                flush_batch_touch(b);
            }
        }
    }
}

/* Nobody writes by an old translation any more. */
static void end_tidy(struct shadow *s)
{
    struct list *pos = s->unsync.next;

    while (pos != &s->unsync) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, unsync), *other;
        gfn_t gfn = sp->gfn;

        do {
            pos = pos->next;
        } while (pos != &s->unsync && list_entry(pos, struct shadow_page, unsync)->gfn.n == gfn.n);
        if (sp->tracing) {
            for_each_page_of (other, s, gfn) {
                (void)!sync_page(s, other, UINT64_MAX);
            }
            settle(s, gfn);
        }
    }
}

void shadow_tidy(struct view *v)
{
    struct shadow *s = shadow_of(v);
    struct flush_batch batch;

    if (!shadow_is_untidy(v)) {
        return;
    }
    flush_batch_init(&batch, p2m_flush_domain(v->p2m));
    spin_lock(&s->lock);
    /* Another's end would trace what this one has not flushed yet. */
    bool mine = !s->tidying || MUTANT(shadow_tidy_together);
    if (mine) {
        s->tidying = true;
        begin_tidy(s, &batch);
    }
    spin_unlock(&s->lock);
    if (!mine) {
        return;
    }
    flush_batch_commit(&batch);
    spin_lock(&s->lock);
    end_tidy(s);
    s->tidying = false;
    spin_unlock(&s->lock);
}
