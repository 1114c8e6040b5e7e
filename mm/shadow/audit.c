/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The audit of a shadow view: everything that is counted or chained is recounted, and no entry leads
 * elsewhere than the p2m does or lets be written what may not be.
 */
#include "mm/shadow/shadow_internal.h"

struct sums {
    uint64_t pages, unsync, leaves[2], links, slots;
    bool ok;
};

static void complain(struct sums *sum, const struct shadow_page *sp, unsigned i, const char *what)
{
    sum->ok = false;
    env_log("audit: shadow of gfn %#llx role %#x entry %u (%#llx): %s",
            (unsigned long long)sp->gfn.n, sp->role, i, (unsigned long long)sp->table[i], what);
}

static bool in_chain(uint64_t head, uint64_t slot)
{
    struct chain_at at;
    uint64_t found = chain_first(head, &at);

    while (found != 0 && found != slot) {
        found = chain_next(&at);
    }
    return found == slot;
}

static uint64_t chain_length(uint64_t head)
{
    struct chain_at at;
    uint64_t n = 0;

    for (uint64_t slot = chain_first(head, &at); slot != 0; slot = chain_next(&at)) {
        n++;
    }
    return n;
}

static void audit_leaf(struct shadow *s, const struct shadow_page *sp, unsigned i, struct sums *sum)
{
    unsigned level = page_level(sp);
    uint64_t entry = spt_load(&sp->table[i]);
    gfn_t gfn = entry_gfn(sp, i);
    const struct shadow_region *r = region_look(s, gfn);
    struct p2m_entry e;

    sum->leaves[level]++;
    if (r == NULL || (level == 0 && r->heads == NULL) ||
        !in_chain(level == 0 ? *region_head(r, gfn) : r->large, slot_pa(sp, i))) {
        complain(sum, sp, i, "not in its page's chain");
        return;
    }
    p2m_query(s->view.p2m, gfn, &e);
    if (!mfn_valid(e.mfn) || e.order < LEVEL_BITS * level ||
        e.mfn.n != (entry & SPT_ADDRESS) >> PAGE_SHIFT) {
        complain(sum, sp, i, "the p2m has something else");
    }
    if ((entry & SPT_W) &&
        (!e.writable || (level == 0 ? sync_is_traced(s, gfn) : r->traced != 0))) {
        complain(sum, sp, i, "may be written, and must not");
    }
    if (level != 0 && !(entry & SPT_NX) && !env_large_code()) {
        complain(sum, sp, i, "is too large to be executed");
    }
}

static void audit_page(struct shadow *s, const struct shadow_page *sp, struct sums *sum)
{
    unsigned present = 0;

    sum->pages++;
    sum->unsync += page_is_unsync(sp);
    sum->slots += chain_length(sp->parents);
    if (page_find(s, sp->gfn, sp->role) != sp || page_at(page_pa(sp)) != sp) {
        complain(sum, sp, 0, "cannot be found");
    }
    if (!page_direct(sp) && !page_is_unsync(sp) && !sync_is_traced(s, sp->gfn)) {
        complain(sum, sp, 0, "neither traced nor to be compared");
    }
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (!entry_present(sp, i)) {
            if (sp->table[i] != 0) {
                complain(sum, sp, i, "is there, and must not");
            }
            continue;
        }
        present++;
        if (!(sp->table[i] & SPT_P)) {
            complain(sum, sp, i, "is not there");
        } else if (entry_is_table(sp->table[i], page_level(sp))) {
            sum->links++;
            if (!in_chain(page_at(sp->table[i] & SPT_ADDRESS)->parents, slot_pa(sp, i))) {
                complain(sum, sp, i, "not in its table's chain");
            }
        } else {
            audit_leaf(s, sp, i, sum);
        }
    }
    if (present != sp->nr_present) {
        complain(sum, sp, 0, "number of entries");
    }
}

static uint64_t mapped_slots(const struct shadow *s)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < s->nr_regions; i++) {
        const struct shadow_region *r = region_look(s, GFN(i * REGION_PAGES));

        if (r == NULL) {
            continue;
        }
        n += chain_length(r->large);
        for (unsigned j = 0; r->heads != NULL && j < REGION_PAGES; j++) {
            n += chain_length(r->heads[j]);
        }
    }
    return n;
}

bool shadow_audit(struct view *v)
{
    struct shadow *s = shadow_of(v);
    struct sums sum = {.ok = true};
    struct list *pos;

    p2m_freeze(v->p2m);
    spin_lock(&s->lock);
    list_for_each (pos, &s->lru) {
        audit_page(s, list_entry(pos, struct shadow_page, lru), &sum);
    }
    if (sum.pages != s->nr_pages || sum.unsync != s->nr_unsync || sum.leaves[0] != s->leaves[0] ||
        sum.leaves[1] != s->leaves[1] || sum.links != sum.slots ||
        sum.leaves[0] + sum.leaves[1] != mapped_slots(s)) {
        sum.ok = false;
        env_log("audit: shadow tables of owner %u disagree with their counters", s->cfg.owner);
    }
    spin_unlock(&s->lock);
    p2m_thaw(v->p2m);
    return sum.ok;
}
