/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow pages: finding them by guest table and role, making them, taking them apart, and the order in
 * which they go when the overhead is at its limit. See shadow_internal.h.
 */
#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/shadow/shadow_internal.h"

#define EVICT_SHARE 16u  /* of the pages go at a time, */
#define EVICT_MOST 64ull /* and no more, for nobody else runs meanwhile */

/* ---- Entries ---- */

gfn_t entry_gfn(const struct shadow_page *sp, unsigned i)
{
    unsigned level = page_level(sp);
    uint64_t seen;

    if (page_direct(sp)) {
        return gfn_add(sp->gfn, (uint64_t)i << (LEVEL_BITS * level));
    }
    seen = sp->seen[i];
    if (page_mode(sp) <= GWALK_PSE) {
        if (level == 0) {
            return GFN((seen & 0xffffffffull) >> PAGE_SHIFT);
        }
        /* Half of 4 MiB, with address bits 39:32 in bits 20:13. */
        return GFN(((seen & 0xffc00000ull) | (seen >> 13 & 0xff) << 32) / PAGE_SIZE +
                   (i & 1) * REGION_PAGES);
    }
    return GFN((seen & SPT_ADDRESS) >> PAGE_SHIFT & ~(level == 0 ? 0ull : REGION_PAGES - 1));
}

void entry_clear(struct shadow *s, struct shadow_page *sp, unsigned i)
{
    unsigned level = page_level(sp);
    uint64_t was = __atomic_exchange_n(&sp->table[i], 0, __ATOMIC_ACQ_REL);

    sp->present[i / 64] &= ~BIT(i % 64);
    sp->nr_present--;
    s->steps++;
    if (entry_is_table(was, level)) {
        chain_del(s, &page_at(was & SPT_ADDRESS)->parents, slot_pa(sp, i));
    } else {
        gfn_t gfn = entry_gfn(sp, i);
        struct shadow_region *r = region_look(s, gfn);

        chain_del(s, level == 0 ? region_head(r, gfn) : &r->large, slot_pa(sp, i));
        s->leaves[level]--;
    }
    if (!MUTANT(shadow_clear_unnoted)) {
        shadow_note_removed(s);
    }
}

void entry_clear_chain(struct shadow *s, const uint64_t *head)
{
    struct chain_at at;
    uint64_t slot;

    while ((slot = chain_first(*head, &at)) != 0) {
        entry_clear(s, page_at(slot), slot_index(slot));
    }
}

/* ---- Finding and making ---- */

struct shadow_page *page_find(const struct shadow *s, gfn_t gfn, uint32_t role)
{
    struct shadow_page *sp = *bucket_of(s, gfn);

    while (sp != NULL && (sp->gfn.n != gfn.n || sp->role != role)) {
        sp = sp->next;
    }
    return sp;
}

void page_touch(struct shadow *s, struct shadow_page *sp)
{
    if (s->lru.next != &sp->lru) {
        list_del(&sp->lru);
        list_add(&s->lru, &sp->lru);
    }
}

static enum hv_err page_make(struct shadow *s, gfn_t gfn, uint32_t role, bool fast,
                             struct shadow_page **out)
{
    struct shadow_page *sp = shadow_object(s, &s->pages, fast);
    uint64_t *table, *seen = NULL;
    enum hv_err err;

    if (sp == NULL) {
        return fast ? HV_EAGAIN : HV_ENOMEM;
    }
    err = shadow_frame(s, BUDDY_ZERO, fast, (void **)&table);
    if (err == HV_OK && !(role & ROLE_DIRECT)) {
        err = shadow_frame(s, 0, fast, (void **)&seen);
        if (err != HV_OK) {
            buddy_free(env_ptr_frame(table), 0);
            s->frames--;
        }
    }
    if (err != HV_OK) {
        shadow_object_free(&s->pages, sp);
        return err;
    }
    *sp = (struct shadow_page){.gfn = gfn, .role = role, .table = table, .seen = seen};
    frame_of(env_ptr_frame(table))->gfn = (uint64_t)(uintptr_t)sp;
    list_init(&sp->unsync);
    list_add(&s->lru, &sp->lru);
    sp->next = *bucket_of(s, gfn);
    *bucket_of(s, gfn) = sp;
    s->nr_pages++;
    if (seen != NULL) {
        sync_adopt(s, sp);
    }
    *out = sp;
    return HV_OK;
}

enum hv_err page_get(struct shadow *s, gfn_t gfn, uint32_t role, bool fast,
                     struct shadow_page **out)
{
    struct shadow_page *sp = page_find(s, gfn, role);

    if (sp == NULL) {
        return page_make(s, gfn, role, fast, out);
    }
    /* While it was linked nowhere, or elsewhere, the guest needed no flush to change it for here. */
    if (MUTANT(shadow_link_without_sync)) {
        /* Neither. */
    } else if (page_level(sp) > 0 && !page_direct(sp)) {
        if (!sync_all(s, 0, fast)) {
            return HV_EAGAIN;
        }
    } else if (page_is_unsync(sp) && !sync_page(s, sp, sync_until(s, fast))) {
        return HV_EAGAIN;
    }
    page_touch(s, sp);
    *out = sp;
    return HV_OK;
}

/* ---- Taking apart ---- */

static void clear_entries(struct shadow *s, struct shadow_page *sp)
{
    for (unsigned w = 0; w < ARRAY_SIZE(sp->present); w++) {
        while (sp->present[w] != 0) {
            entry_clear(s, sp, w * 64 + (unsigned)__builtin_ctzll(sp->present[w]));
        }
    }
}

/* The last page of a table goes: the table is one no more. */
static void forget_table(struct shadow *s, gfn_t gfn)
{
    const struct shadow_page *sp;

    for (sp = *bucket_of(s, gfn); sp != NULL; sp = sp->next) {
        if (sp->gfn.n == gfn.n && !page_direct(sp)) {
            return;
        }
    }
    sync_untrace(s, gfn);
}

void page_zap(struct shadow *s, struct shadow_page *sp, struct flush_batch *b)
{
    struct shadow_page **link = bucket_of(s, sp->gfn);

    entry_clear_chain(s, &sp->parents);
    clear_entries(s, sp);
    while (*link != sp) {
        link = &(*link)->next;
    }
    *link = sp->next;
    list_del(&sp->lru);
    if (page_is_unsync(sp)) {
        list_del(&sp->unsync);
        s->nr_unsync--;
    }
    if (!page_direct(sp)) {
        forget_table(s, sp->gfn);
        flush_batch_free(b, env_ptr_frame(sp->seen), 0);
        s->frames--;
    }
    if (!MUTANT(shadow_table_freed_at_once)) {
        flush_batch_free(b, env_ptr_frame(sp->table), 0);
    } else {
        buddy_free(env_ptr_frame(sp->table), 0);
    }
    s->frames--;
    s->nr_pages--;
    shadow_object_free(&s->pages, sp);
}

bool page_evict(struct shadow *s, struct flush_batch *b)
{
    uint64_t left = MIN(s->nr_pages / EVICT_SHARE + 1, EVICT_MOST);
    bool any = false;
    struct list *pos = s->lru.prev;

    while (pos != &s->lru && left > 0) {
        struct shadow_page *sp = list_entry(pos, struct shadow_page, lru);

        pos = pos->prev;
        if (sp->roots == 0) {
            page_zap(s, sp, b);
            any = true;
            left--;
        }
    }
    return any;
}
