/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shadow view as a view: what the p2m, sharing, sampling and reclaim ask of any view, by guest
 * frame; and its beginning and end. See shadow.h and shadow_internal.h.
 *
 * Translations that the guest's own flushes took out of the tables may live on in the TLBs of other vCPUs,
 * which is the guest's business until their frame goes: so who removes a page here flushes also if
 * anything was removed since the last flush (removed_epoch).
 */
#include "mm/shadow/shadow.h"

#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/shadow/shadow_internal.h"
#include "mm/slab.h"

#define BUCKET_BITS_LEAST 9u
#define FRAMES_PER_BUCKET 8u /* a page takes two frames and more: a bucket has few */

/* Somebody looks for translations to remove or weaken: see above. */
static void join(struct shadow *s, struct flush_batch *b)
{
    if (b->domain != NULL && !MUTANT(shadow_no_join) &&
        !flush_has_passed(b->domain, s->removed_epoch)) {
        flush_batch_touch(b);
    }
    flush_batch_join(b);
}

/* Call fn for every region that meets [first, first + nr), with the part of it that does. */
typedef void (*region_fn)(struct shadow *s, struct shadow_region *r, gfn_t first, uint64_t nr);

static void for_regions(struct shadow *s, gfn_t first, uint64_t nr, region_fn fn)
{
    uint64_t end = MIN(first.n + nr, s->nr_regions * REGION_PAGES);

    for (uint64_t at = first.n; at < end;) {
        uint64_t next = MIN(end, ALIGN_DOWN(at, (uint64_t)REGION_PAGES) + REGION_PAGES);
        struct shadow_region *r = region_look(s, GFN(at));

        if (r != NULL) {
            fn(s, r, GFN(at), next - at);
        } else {
            /* Neither are the others of its frame. */
            uint64_t span = REGIONS_PER_FRAME * REGION_PAGES;

            next = MIN(end, ALIGN_DOWN(at, span) + span);
        }
        at = next;
    }
}

static void protect_chain(struct shadow *s, uint64_t head)
{
    struct chain_at at;

    for (uint64_t slot = chain_first(head, &at); slot != 0; slot = chain_next(&at)) {
        uint64_t *entry = &page_at(slot)->table[slot_index(slot)];

        if (spt_load(entry) & SPT_W) {
            __atomic_fetch_and(entry, ~SPT_W, __ATOMIC_ACQ_REL);
            if (!MUTANT(shadow_protect_unnoted)) {
                shadow_note_removed(s);
            }
        }
    }
}

/* Accessed bits of a chain: were any set? `clear` them: with a flush, for which nobody waits. */
static bool chain_used(uint64_t head, bool clear)
{
    struct chain_at at;
    bool used = false;

    for (uint64_t slot = chain_first(head, &at); slot != 0; slot = chain_next(&at)) {
        uint64_t *entry = &page_at(slot)->table[slot_index(slot)];

        if (spt_load(entry) & SPT_A) {
            used = true;
            if (clear) {
                __atomic_fetch_and(entry, ~SPT_A, __ATOMIC_ACQ_REL);
            }
        }
    }
    return used;
}

/* ---- Dropping and protecting ---- */

static void drop_region(struct shadow *s, struct shadow_region *r, gfn_t first, uint64_t nr)
{
    entry_clear_chain(s, &r->large);
    for (uint64_t i = 0; r->heads != NULL && i < nr; i++) {
        gfn_t gfn = gfn_add(first, i);

        entry_clear_chain(s, region_head(r, gfn));
        /* What comes in its place may be something else. */
        if (!MUTANT(shadow_drop_without_untrace)) {
            sync_untrace(s, gfn);
        }
    }
}

static void protect_region(struct shadow *s, struct shadow_region *r, gfn_t first, uint64_t nr)
{
    protect_chain(s, r->large);
    for (uint64_t i = 0; r->heads != NULL && i < nr; i++) {
        protect_chain(s, *region_head(r, gfn_add(first, i)));
    }
}

static void shadow_drop(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b)
{
    struct shadow *s = shadow_of(v);

    spin_lock(&s->lock);
    for_regions(s, first, nr, drop_region);
    if (!MUTANT(shadow_drop_without_flush)) {
        join(s, b);
    }
    spin_unlock(&s->lock);
}

static bool shadow_try_drop(struct view *v, gfn_t gfn)
{
    struct shadow *s = shadow_of(v);

    if (!spin_trylock(&s->lock)) {
        return false;
    }
    for_regions(s, gfn, 1, drop_region);
    spin_unlock(&s->lock);
    return true;
}

static void shadow_protect(struct view *v, gfn_t first, uint64_t nr, struct flush_batch *b)
{
    struct shadow *s = shadow_of(v);

    spin_lock(&s->lock);
    for_regions(s, first, nr, protect_region);
    if (!MUTANT(shadow_protect_without_flush)) {
        join(s, b);
    }
    spin_unlock(&s->lock);
}

static void shadow_written(struct view *v, gfn_t gfn)
{
    struct shadow *s = shadow_of(v);

    spin_lock(&s->lock);
    if (!MUTANT(shadow_written_without_untrace)) {
        sync_untrace(s, gfn);
    }
    spin_unlock(&s->lock);
}

/* ---- Use ---- */

static bool age_region(struct shadow_region *r, gfn_t first, uint64_t nr)
{
    bool used = chain_used(r->large, true);

    for (uint64_t i = 0; r->heads != NULL && i < nr; i++) {
        used |= chain_used(*region_head(r, gfn_add(first, i)), true);
    }
    return used;
}

static bool shadow_age(struct view *v, gfn_t gfn, struct flush_batch *b)
{
    struct shadow *s = shadow_of(v);
    struct p2m_entry e;
    bool used = false;

    p2m_query(v->p2m, gfn, &e);
    gfn_t first = GFN(ALIGN_DOWN(gfn.n, BIT(e.order)));
    spin_lock(&s->lock);
    for (uint64_t at = 0; at < BIT(e.order); at += REGION_PAGES) {
        struct shadow_region *r = region_look(s, gfn_add(first, at));

        if (r != NULL) {
            used |= age_region(r, gfn_add(first, at), MIN(BIT(e.order), (uint64_t)REGION_PAGES));
        }
    }
    if (used && !MUTANT(shadow_age_without_flush)) {
        flush_batch_age(b);
    }
    spin_unlock(&s->lock);
    return used;
}

static uint64_t chain_of(const struct shadow_region *r, gfn_t gfn)
{
    return r != NULL && r->heads != NULL ? *region_head(r, gfn) : 0;
}

static bool chain_is_empty(uint64_t head)
{
    return (head & ~SHADOW_FLAGS) == 0;
}

static enum hv_err watch_locked(struct shadow *s, gfn_t gfn, bool by_bit, enum view_watch *how)
{
    struct shadow_region *r;
    struct p2m_entry e;
    enum hv_err err = region_get(s, gfn, true, false, &r);

    p2m_query(s->view.p2m, gfn, &e);
    if (err == HV_OK && e.order >= ORDER_2M && mfn_valid(e.mfn)) {
        *how = WATCH_PIECE;
        if (!chain_is_empty(r->large)) {
            err = shadow_spread(s, gfn, &e);
        }
        if (err == HV_OK) {
            r->watched++;
            entry_clear_chain(s, region_head(r, gfn));
        }
        return err;
    }
    *how = WATCH_GONE;
    if (err == HV_OK && by_bit && !chain_is_empty(chain_of(r, gfn))) {
        *how = WATCH_BIT;
        (void)chain_used(chain_of(r, gfn), true);
    } else if (err == HV_OK) {
        entry_clear_chain(s, region_head(r, gfn));
    }
    return err;
}

static enum hv_err shadow_watch(struct view *v, gfn_t gfn, bool by_bit, struct flush_batch *b,
                                enum view_watch *how)
{
    struct shadow *s = shadow_of(v);
    enum hv_err err;

    spin_lock(&s->lock);
    err = watch_locked(s, gfn, by_bit, how);
    if (err == HV_OK && *how == WATCH_BIT) {
        if (!MUTANT(shadow_watch_bit_without_flush)) {
            flush_batch_age(b);
        }
    } else if (!MUTANT(shadow_watch_without_flush)) {
        join(s, b);
    }
    spin_unlock(&s->lock);
    return err;
}

static enum view_use shadow_watched(struct view *v, gfn_t gfn, enum view_watch how)
{
    struct shadow *s = shadow_of(v);
    enum view_use use = USE_NONE;

    spin_lock(&s->lock);
    const struct shadow_region *r = region_look(s, gfn);
    uint64_t head = chain_of(r, gfn);
    if (r != NULL && !chain_is_empty(r->large)) {
        use = USE_UNKNOWN;
    } else if (!chain_is_empty(head) && (how != WATCH_BIT || chain_used(head, false))) {
        use = USE_SEEN;
    }
    spin_unlock(&s->lock);
    return use;
}

static void shadow_unwatch(struct view *v, gfn_t gfn, struct flush_batch *b)
{
    struct shadow *s = shadow_of(v);

    spin_lock(&s->lock);
    struct shadow_region *r = region_look(s, gfn);
    if (r != NULL && r->watched > 0 && --r->watched == 0 && r->traced == 0) {
        /* Its pieces go: the next fault enters the large page again. */
        struct shadow_page *sp =
            page_find(s, GFN(ALIGN_DOWN(gfn.n, (uint64_t)REGION_PAGES)), ROLE_DIRECT);

        if (sp != NULL) {
            entry_clear_chain(s, &sp->parents);
        }
    }
    if (!MUTANT(shadow_unwatch_without_flush)) {
        join(s, b);
    }
    spin_unlock(&s->lock);
}

/* ---- The rest of a view ---- */

/* A page is made resident; translations come with the guest's faults. */
static enum hv_err shadow_view_fault(struct view *v, gpa_t gpa, uint32_t access)
{
    struct p2m_entry e;

    return p2m_populate(v->p2m, gpa_gfn(gpa), access, &e);
}

static enum hv_err shadow_root(struct view *v, hpa_t *out)
{
    (void)v;
    (void)out;
    return HV_ENOTSUP;
}

static bool shadow_stats(struct view *v, struct view_stats *out)
{
    struct shadow *s = shadow_of(v);

    if (!spin_trylock(&s->lock)) {
        return false;
    }
    *out = (struct view_stats){
        .tables = s->frames,
        .tables_max = s->cfg.overhead_frames,
        .leaves_4k = s->leaves[0],
        .leaves_2m = s->leaves[1],
        .fills = s->fills,
    };
    spin_unlock(&s->lock);
    return true;
}

static void free_frame(struct shadow *s, void *frame)
{
    if (frame != NULL) {
        buddy_free(env_ptr_frame(frame), 0);
        s->frames--;
    }
}

static void free_all(struct shadow *s)
{
    uint64_t nr_frames = (s->nr_regions + REGIONS_PER_FRAME - 1) / REGIONS_PER_FRAME;

    for (uint64_t i = 0; i < nr_frames; i++) {
        for (unsigned j = 0; s->regions[i] != NULL && j < REGIONS_PER_FRAME; j++) {
            free_frame(s, s->regions[i][j].heads);
        }
        free_frame(s, s->regions[i]);
    }
    shadow_pool_destroy(s, &s->pages);
    shadow_pool_destroy(s, &s->nodes);
    free_frame(s, s->pae);
    kfree(s->bucket);
    kfree(s->regions);
    kfree(s);
}

static void shadow_destroy(struct view *v)
{
    struct shadow *s = shadow_of(v);
    struct flush_batch batch;
    struct list *pos;

    p2m_set_view(v->p2m, NULL);
    flush_batch_init(&batch, p2m_flush_domain(v->p2m));
    spin_lock(&s->lock);
    while ((pos = list_first(&s->lru)) != NULL) {
        page_zap(s, list_entry(pos, struct shadow_page, lru), &batch);
    }
    spin_unlock(&s->lock);
    flush_batch_commit(&batch);
    free_all(s);
}

static const struct view_ops shadow_ops = {
    .fault = shadow_view_fault,
    .drop = shadow_drop,
    .try_drop = shadow_try_drop,
    .protect = shadow_protect,
    .written = shadow_written,
    .age = shadow_age,
    .watch = shadow_watch,
    .watched = shadow_watched,
    .unwatch = shadow_unwatch,
    .root = shadow_root,
    .stats = shadow_stats,
    .audit = shadow_audit,
    .destroy = shadow_destroy,
};

enum hv_err shadow_create(struct p2m *p2m, const struct shadow_config *cfg, struct view **out)
{
    struct shadow *s = kmalloc(sizeof(*s), cfg->owner);
    enum hv_err err;

    if (s == NULL) {
        return HV_ENOMEM;
    }
    s->view = (struct view){&shadow_ops, p2m};
    spin_init(&s->lock, RANK_VIEW, "shadow view");
    s->cfg = *cfg;
    s->nr_regions = (cfg->nr_gfns + REGION_PAGES - 1) / REGION_PAGES;
    s->pages = (struct shadow_pool){.size = sizeof(struct shadow_page), .frames = MFN_NONE};
    s->nodes = (struct shadow_pool){.size = sizeof(struct chain_node), .frames = MFN_NONE};
    list_init(&s->lru);
    list_init(&s->unsync);
    s->regions = kmalloc((s->nr_regions / REGIONS_PER_FRAME + 1) * sizeof(void *), cfg->owner);
    s->multiplier = 0x9e3779b97f4a7c15ull ^ cfg->seed << 1; /* stays odd */
    s->bucket_bits = BUCKET_BITS_LEAST;
    while (BIT(s->bucket_bits) < cfg->overhead_frames / FRAMES_PER_BUCKET) {
        s->bucket_bits++;
    }
    s->bucket = kmalloc(BIT(s->bucket_bits) * sizeof(void *), cfg->owner);
    err = s->regions == NULL || s->bucket == NULL
              ? HV_ENOMEM
              : shadow_frame(s, BUDDY_ZERO | BUDDY_LOW, false, (void **)&s->pae);
    if (err != HV_OK) {
        kfree(s->bucket);
        kfree(s->regions);
        kfree(s);
        return err;
    }
    p2m_set_view(p2m, &s->view);
    *out = &s->view;
    return HV_OK;
}
