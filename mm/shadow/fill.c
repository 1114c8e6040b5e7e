/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entering a translation: from the top table down, tables are found or made and linked, then the leaf
 * is entered. See shadow_internal.h.
 *
 *     guest:    table --> table --> entry of a large page
 *                 |         |         |
 *     shadow:   page  --> page  --> link, with the large page's rights --> direct page --> leaves
 *                                   or a leaf of 2 MiB, where the p2m has a block that large
 *
 * Links between pages of guest tables restrict nothing; what the levels allow together is in the
 * leaf, and in the role of the pages in between. Direct pages restrict nothing either, so where code must
 * not be in large leaves (env_large_code) they have none.
 */
#include "kernel/lib/mutant.h"
#include "mm/shadow/shadow_internal.h"

#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_NX BIT(63)

/* What is to be entered. */
struct entry_job {
    struct shadow *s;
    const struct shadow_fault *f;
    const struct p2m_entry *e;
    gfn_t gfn;
    int leaf_level;    /* of the guest's leaf; -1: paging is off */
    uint64_t entry[4]; /* the guest's entries, as they are after the walk */
    uint64_t rights;   /* SPT_W, SPT_U, SPT_NX of the leaf */
    bool fast;
};

static uint32_t access_of(const struct shadow_page *sp, uint64_t entry)
{
    uint32_t acc = sp->role >> ROLE_ACCESS_SHIFT & ACC_ALL;
    bool wide = page_mode(sp) > GWALK_PSE;

    return acc & ((entry & PTE_W ? ACC_W : 0) | (entry & PTE_U ? ACC_U : 0) |
                  (wide && (entry & PTE_NX) ? 0 : ACC_X));
}

/*
 * The rights of the leaf. With CR0.WP clear a supervisor may write where nobody may: then the entry is the
 * supervisor's alone, until a user's access fails on it and gets the other one.
 */
static enum hv_err leaf_rights(struct entry_job *j, const struct shadow_page *sp)
{
    uint32_t acc = access_of(sp, j->entry[j->leaf_level]);

    if ((j->f->access & (GWALK_WRITE | GWALK_USER)) == GWALK_WRITE && !(acc & ACC_W)) {
        if ((sp->role & ROLE_SMAP) && (acc & ACC_U)) {
            return HV_EPERM;
        }
        if ((sp->role & ROLE_SMEP) && (acc & ACC_U)) {
            acc &= ~ACC_X;
        }
        acc = (acc & ~ACC_U) | ACC_W;
    }
    /* The first write sets the dirty bit. */
    if (!(j->entry[j->leaf_level] & PTE_D) && !MUTANT(shadow_no_dirty)) {
        acc &= ~ACC_W;
    }
    j->rights = (acc & ACC_W ? SPT_W : 0) | (acc & ACC_U ? SPT_U : 0) |
                (!(acc & ACC_X) && j->s->cfg.nx ? SPT_NX : 0);
    return HV_OK;
}

/* ---- Leaves ---- */

static bool may_be_large(const struct entry_job *j, const struct shadow_page *sp)
{
    const struct shadow_region *r = region_look(j->s, j->gfn);

    return j->e->order >= ORDER_2M && j->s->cfg.max_order >= ORDER_2M &&
           (r == NULL || (r->traced == 0 && r->watched == 0)) &&
           (env_large_code() || (!page_direct(sp) && (j->rights & SPT_NX)));
}

static enum hv_err enter_leaf(struct entry_job *j, struct shadow_page *sp, unsigned i)
{
    struct shadow *s = j->s;
    unsigned level = page_level(sp);
    gfn_t gfn = level == 0 ? j->gfn : GFN(ALIGN_DOWN(j->gfn.n, (uint64_t)REGION_PAGES));
    uint64_t rights = page_direct(sp) ? SPT_W | SPT_U : j->rights;
    uint64_t pa = (j->e->mfn.n - (j->gfn.n - gfn.n)) << PAGE_SHIFT;
    struct shadow_region *r;
    enum hv_err err = region_get(s, gfn, level == 0, j->fast, &r);

    if (err != HV_OK) {
        return err;
    }
    uint64_t *head = level == 0 ? region_head(r, gfn) : &r->large;
    err = chain_make_room(s, head, j->fast);
    if (err != HV_OK) {
        return err;
    }
    if (level == 0 && unlikely(*head & SHADOW_TRACED) && (rights & SPT_W)) {
        if ((j->f->access & GWALK_WRITE) && !MUTANT(shadow_no_untrace)) {
            sync_untrace(s, gfn);
        } else if (!(j->f->access & GWALK_WRITE)) {
            rights &= ~SPT_W;
        }
    }
    if (!j->e->writable) {
        rights &= ~SPT_W;
    }
    uint64_t entry = pa | rights | SPT_P | SPT_A | SPT_D | (level == 0 ? 0 : SPT_PS);
    if (entry_present(sp, i) &&
        (entry_is_table(sp->table[i], level) || entry_gfn(sp, i).n != gfn.n)) {
        entry_clear(s, sp, i);
    }
    if (!entry_present(sp, i)) {
        chain_add(s, head, slot_pa(sp, i));
        entry_mark(sp, i);
        s->leaves[level]++;
    }
    if (sp->seen != NULL) {
        sp->seen[i] = j->entry[j->leaf_level];
    }
    /* What stood there may be in TLBs with rights or a frame that the next protect or drop will not find. */
    uint64_t was = __atomic_exchange_n(&sp->table[i], entry, __ATOMIC_ACQ_REL);
    if ((was & SPT_P) && ((was & ~entry & SPT_W) || ((was ^ entry) & SPT_ADDRESS)) &&
        !MUTANT(shadow_enter_unnoted)) {
        shadow_note_removed(s);
    }
    s->fills++;
    return HV_OK;
}

/* ---- Links ---- */

static bool links_to(const struct shadow_page *sp, unsigned i, const struct shadow_page *child)
{
    return entry_present(sp, i) && entry_is_table(sp->table[i], page_level(sp)) &&
           page_at(sp->table[i] & SPT_ADDRESS) == child;
}

static enum hv_err link(struct entry_job *j, struct shadow_page *sp, unsigned i,
                        struct shadow_page *child, uint64_t bits, uint64_t seen)
{
    if (!links_to(sp, i, child)) {
        enum hv_err err = chain_make_room(j->s, &child->parents, j->fast);

        if (err != HV_OK) {
            return err;
        }
        if (entry_present(sp, i)) {
            entry_clear(j->s, sp, i);
        }
        chain_add(j->s, &child->parents, slot_pa(sp, i));
        entry_mark(sp, i);
    }
    if (sp->seen != NULL) {
        sp->seen[i] = seen;
    }
    spt_store(&sp->table[i], page_pa(child) | bits);
    return HV_OK;
}

/* The page below a guest's entry that refers to a table. */
static enum hv_err descend_guest(struct entry_job *j, struct shadow_page *sp, unsigned i,
                                 struct shadow_page **child)
{
    unsigned level = page_level(sp);
    uint64_t entry = j->entry[level];

    /* The same entry leads to the same page. */
    if (likely(entry_present(sp, i) && sp->seen[i] == entry &&
               entry_is_table(sp->table[i], level))) {
        *child = page_at(sp->table[i] & SPT_ADDRESS);
        return HV_OK;
    }
    uint32_t keep = ROLE_NXE | ROLE_WP | ROLE_SMEP | ROLE_SMAP | 7u << ROLE_MODE_SHIFT;
    uint32_t role = (sp->role & keep) | (level - 1) | access_of(sp, entry) << ROLE_ACCESS_SHIFT;
    uint64_t mask = page_mode(sp) > GWALK_PSE ? SPT_ADDRESS : 0xfffff000ull;
    if (page_mode(sp) <= GWALK_PSE) {
        role |= (i & 1) << ROLE_QUADRANT_SHIFT;
    }
    enum hv_err err = page_get(j->s, GFN((entry & mask) >> PAGE_SHIFT), role, j->fast, child);
    if (err != HV_OK) {
        return err;
    }
    return link(j, sp, i, *child, SPT_TABLE, entry);
}

/* The direct page below a large page's entry, or below a direct page. */
static enum hv_err descend_direct(struct entry_job *j, struct shadow_page *sp, unsigned i,
                                  struct shadow_page **child)
{
    unsigned level = page_level(sp);
    uint64_t base = ALIGN_DOWN(j->gfn.n, 1ull << (LEVEL_BITS * level));
    enum hv_err err = page_get(j->s, GFN(base), ROLE_DIRECT | (level - 1), j->fast, child);

    if (err != HV_OK) {
        return err;
    }
    if (page_direct(sp)) {
        return link(j, sp, i, *child, SPT_TABLE, 0);
    }
    return link(j, sp, i, *child, SPT_P | SPT_A | j->rights, j->entry[j->leaf_level]);
}

static enum hv_err enter_from(struct entry_job *j, struct shadow_page *sp)
{
    for (;;) {
        unsigned level = page_level(sp);
        unsigned i = (unsigned)(j->f->gva.a >> (PAGE_SHIFT + LEVEL_BITS * level)) % ENTRIES;
        enum hv_err err = HV_OK;

        if (!page_direct(sp) && (int)level == j->leaf_level) {
            err = leaf_rights(j, sp);
        }
        if (err != HV_OK) {
            return err;
        }
        if ((int)level > j->leaf_level && !page_direct(sp)) {
            err = descend_guest(j, sp, i, &sp);
        } else if (level == 0 || (level == 1 && may_be_large(j, sp))) {
            page_touch(j->s, sp);
            return enter_leaf(j, sp, i);
        } else {
            err = descend_direct(j, sp, i, &sp);
        }
        if (err != HV_OK) {
            return err;
        }
    }
}

enum hv_err shadow_enter(struct shadow *s, struct shadow_cpu *cpu, const struct shadow_fault *f,
                         const struct gwalk_result *res, const struct p2m_entry *e, bool fast)
{
    enum gwalk_mode mode = gwalk_mode(&cpu->paging);
    struct entry_job j = {
        .s = s, .f = f, .e = e, .gfn = gpa_gfn(res->gpa), .leaf_level = -1, .fast = fast};
    unsigned quarter = mode == GWALK_LONG4 ? 0 : (unsigned)(f->gva.a >> 30) & 3;

    if (mode != GWALK_NONE) {
        j.leaf_level = (int)res->leaf_level;
        for (unsigned l = res->leaf_level; l < ARRAY_SIZE(j.entry); l++) {
            j.entry[l] = res->entry[l] | PTE_A;
        }
        if (f->access & GWALK_WRITE) {
            j.entry[j.leaf_level] |= PTE_D;
        }
    }
    if (cpu->root[quarter] == NULL) {
        /* The guest changed its top-level entries, and did not load them. */
        return HV_EFAULT;
    }
    return enter_from(&j, cpu->root[quarter]);
}

/* ---- Spelling large leaves out ---- */

static enum hv_err fill_direct(const struct entry_job *j, struct shadow_page *sp)
{
    uint64_t first = ALIGN_DOWN(j->e->mfn.n, (uint64_t)REGION_PAGES);
    struct p2m_entry e = *j->e;
    struct entry_job piece = *j;

    piece.e = &e;
    for (unsigned i = 0; i < ENTRIES; i++) {
        piece.gfn = gfn_add(sp->gfn, i);
        e.mfn = MFN(first + i);
        if (!entry_present(sp, i)) {
            enum hv_err err = enter_leaf(&piece, sp, i);

            if (err != HV_OK) {
                return err;
            }
        }
    }
    return HV_OK;
}

enum hv_err shadow_spread(struct shadow *s, gfn_t gfn, const struct p2m_entry *e)
{
    const struct shadow_fault none = {.access = 0};
    struct entry_job j = {.s = s, .f = &none, .e = e, .gfn = gfn, .leaf_level = 1};
    struct shadow_region *r = region_look(s, gfn);
    struct shadow_page *child;
    struct chain_at at;
    uint64_t slot;
    enum hv_err err =
        page_get(s, GFN(ALIGN_DOWN(gfn.n, (uint64_t)REGION_PAGES)), ROLE_DIRECT, false, &child);

    if (err == HV_OK) {
        err = fill_direct(&j, child);
    }
    while (err == HV_OK && (slot = chain_first(r->large, &at)) != 0) {
        struct shadow_page *sp = page_at(slot);
        unsigned i = slot_index(slot);
        uint64_t rights = page_direct(sp) ? SPT_W | SPT_U : sp->table[i] & SPT_RIGHTS;

        j.gfn = gfn;
        err = link(&j, sp, i, child, SPT_P | SPT_A | rights, sp->seen != NULL ? sp->seen[i] : 0);
    }
    return err;
}
