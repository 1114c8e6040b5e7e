/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guest does to its translations: loading CR3 or changing how it pages, INVLPG, and the faults
 * that its processor takes on our tables. See shadow.h.
 *
 * A fault walks the guest's tables under the view's lock. Where a table or the page itself is not as
 * the access needs it (not there, shared, swapped out), the lock is let go, the p2m makes it so, and the
 * fault starts again.
 */
#include "kernel/lib/mutant.h"
#include "kernel/lib/string.h"
#include "mm/shadow/shadow_internal.h"

#define CR0_WP BIT(16)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER_NXE BIT(11)
#define PTE_P BIT(0)
#define PF_P 0x1u
#define PF_RSVD 0x8u
#define TRIES 16u       /* before the guest simply faults again */
#define UNSYNC_FAST 48u /* more pages than these are not compared on the fast path */

/* The view's lock. False on the fast path: it is taken, or there is too much to compare for a processor
 * that takes no interrupts meanwhile; off it shadow_tidy puts an end to that. */
static inline bool lock_view(struct shadow *s, bool fast)
{
    if (!fast) {
        spin_lock(&s->lock);
        return true;
    }
    return likely(__atomic_load_n(&s->nr_unsync, __ATOMIC_RELAXED) <= UNSYNC_FAST) &&
           spin_trylock(&s->lock);
}

/* ---- Roots ---- */

static uint32_t root_role(const struct guest_paging *p)
{
    bool wp = (p->cr0 & CR0_WP) != 0;
    enum gwalk_mode mode = gwalk_mode(p);

    return (mode == GWALK_LONG4 ? 3 : 1) | mode << ROLE_MODE_SHIFT | ACC_ALL << ROLE_ACCESS_SHIFT |
           (p->efer & EFER_NXE ? ROLE_NXE : 0) | (wp ? ROLE_WP : 0) |
           (!wp && (p->cr4 & CR4_SMEP) ? ROLE_SMEP : 0) |
           (!wp && (p->cr4 & CR4_SMAP) ? ROLE_SMAP : 0);
}

/* Top table i of four; *gfn and *role name it. False: there is none. */
static bool root_of(const struct guest_paging *p, unsigned i, gfn_t *gfn, uint32_t *role)
{
    *role = root_role(p);
    switch (gwalk_mode(p)) {
    case GWALK_LONG4:
        *gfn = GFN((p->cr3 & SPT_ADDRESS) >> PAGE_SHIFT);
        return i == 0;
    case GWALK_PAE:
        *gfn = GFN((p->pdptr[i] & SPT_ADDRESS) >> PAGE_SHIFT);
        return (p->pdptr[i] & PTE_P) != 0;
    case GWALK_NONE:
        *gfn = GFN((uint64_t)i << ORDER_1G);
        *role = ROLE_DIRECT | 1;
        return true;
    default:
        *gfn = GFN((p->cr3 & 0xffffffffull) >> PAGE_SHIFT);
        *role |= i << ROLE_QUADRANT_SHIFT;
        return true;
    }
}

static void drop_roots(struct shadow_page *root[4])
{
    for (unsigned i = 0; i < 4; i++) {
        if (root[i] != NULL) {
            root[i]->roots--;
            root[i] = NULL;
        }
    }
}

static enum hv_err take_roots(struct shadow *s, const struct guest_paging *p, bool fast,
                              struct shadow_page *root[4])
{
    bool many = gwalk_mode(p) != GWALK_LONG4;

    for (unsigned i = 0; i < (many ? 4u : 1u); i++) {
        uint32_t role;
        gfn_t gfn;

        if (!root_of(p, i, &gfn, &role)) {
            continue;
        }
        root[i] = page_find(s, gfn, role);
        if (unlikely(root[i] == NULL)) {
            enum hv_err err = page_get(s, gfn, role, fast, &root[i]);

            if (err != HV_OK) {
                root[i] = NULL;
                drop_roots(root);
                return err;
            }
        } else {
            page_touch(s, root[i]);
        }
        root[i]->roots++;
    }
    return HV_OK;
}

static hpa_t root_address(struct shadow *s, const struct shadow_cpu *cpu)
{
    uint64_t *entry = &s->pae[cpu->id * 4];

    if (gwalk_mode(&cpu->paging) == GWALK_LONG4) {
        return HPA(page_pa(cpu->root[0]));
    }
    for (unsigned i = 0; i < 4; i++) {
        spt_store(&entry[i], cpu->root[i] != NULL ? page_pa(cpu->root[i]) | SPT_P : 0);
    }
    return HPA(mfn_hpa(env_ptr_frame(s->pae)).a + cpu->id * 4 * sizeof(uint64_t));
}

/* What the guest has changed in its tables counts from a load on. False: too much for the fast path. */
static inline bool catch_up(struct shadow *s, bool fast)
{
    if (s->nr_unsync != 0) {
        if (!sync_all(s, 0, fast)) {
            return false;
        }
        /* The only processor that could write by an old translation drops them all. */
        if (env_flush_is_local(p2m_flush_domain(s->view.p2m)) || MUTANT(shadow_load_traces)) {
            sync_trace_clean(s, 0);
        }
    }
    return true;
}

static enum hv_err load_locked(struct shadow *s, struct shadow_cpu *cpu,
                               const struct guest_paging *paging, bool fast)
{
    struct shadow_page *root[4] = {NULL};
    enum hv_err err;

    if (!catch_up(s, fast)) {
        return HV_EAGAIN;
    }
    err = take_roots(s, paging, fast, root);
    if (err == HV_OK) {
        drop_roots(cpu->root);
        memcpy(cpu->root, root, sizeof(root));
        cpu->paging = *paging;
    }
    return err;
}

/* Make room. False: everything is in use. */
static bool make_room(struct shadow *s)
{
    struct flush_batch batch;
    bool any;

    flush_batch_init(&batch, p2m_flush_domain(s->view.p2m));
    spin_lock(&s->lock);
    any = page_evict(s, &batch);
    spin_unlock(&s->lock);
    flush_batch_commit(&batch);
    return any;
}

enum hv_err shadow_load(struct view *v, struct shadow_cpu *cpu, const struct guest_paging *paging,
                        bool fast, hpa_t *root)
{
    struct shadow *s = shadow_of(v);
    enum hv_err err;

    do {
        if (!lock_view(s, fast)) {
            return HV_EAGAIN;
        }
        err = load_locked(s, cpu, paging, fast);
        if (err == HV_OK) {
            *root = root_address(s, cpu);
        }
        spin_unlock(&s->lock);
    } while (err == HV_ENOMEM && !fast && make_room(s));
    return err;
}

bool shadow_switch(struct view *v, struct shadow_cpu *cpu, uint64_t cr3, hpa_t *root)
{
    struct shadow *s = shadow_of(v);
    struct shadow_page *was = cpu->root[0];
    struct shadow_page *sp = NULL;

    if (!lock_view(s, true)) {
        return false;
    }
    if (likely(catch_up(s, true))) {
        sp = page_find(s, GFN((cr3 & SPT_ADDRESS) >> PAGE_SHIFT), was->role);
    }
    if (likely(sp != NULL)) {
        page_touch(s, sp);
        was->roots--;
        sp->roots++;
        cpu->root[0] = sp;
        cpu->paging.cr3 = cr3;
        *root = HPA(page_pa(sp));
    }
    spin_unlock(&s->lock);
    return sp != NULL;
}

void shadow_unload(struct view *v, struct shadow_cpu *cpu)
{
    struct shadow *s = shadow_of(v);

    spin_lock(&s->lock);
    drop_roots(cpu->root);
    spin_unlock(&s->lock);
}

/* ---- INVLPG ---- */

/* Is our entry, and where a large page of the guest's has two of ours the other, still the guest's? */
static bool check_entry(struct shadow *s, struct shadow_page *sp, unsigned i)
{
    if (page_direct(sp) || !page_is_unsync(sp)) {
        return entry_present(sp, i);
    }
    sync_entry(s, sp, i);
    if (page_level(sp) == 1 && page_mode(sp) == GWALK_PSE && entry_present(sp, i ^ 1)) {
        sync_entry(s, sp, i ^ 1);
    }
    return entry_present(sp, i);
}

static bool invlpg_locked(struct shadow *s, const struct shadow_cpu *cpu, gva_t gva, bool fast)
{
    bool wide = gwalk_mode(&cpu->paging) == GWALK_LONG4;
    struct shadow_page *sp = cpu->root[wide ? 0 : (gva.a >> 30) & 3];

    while (sp != NULL) {
        unsigned level = page_level(sp);
        unsigned i = (unsigned)(gva.a >> (PAGE_SHIFT + LEVEL_BITS * level)) % ENTRIES;

        if (!check_entry(s, sp, i) || !entry_is_table(sp->table[i], level)) {
            break;
        }
        sp = page_at(sp->table[i] & SPT_ADDRESS);
    }
    /* It also drops whatever the processor keeps of upper levels, of any address. */
    return MUTANT(shadow_invlpg_leaf_only) || sync_all(s, 1, fast);
}

enum hv_err shadow_invlpg(struct view *v, struct shadow_cpu *cpu, gva_t gva, bool fast)
{
    struct shadow *s = shadow_of(v);
    enum hv_err err = HV_OK;

    if (!lock_view(s, fast)) {
        return HV_EAGAIN;
    }
    if (s->nr_unsync != 0 && !MUTANT(shadow_no_invlpg)) {
        err = invlpg_locked(s, cpu, gva, fast) ? HV_OK : HV_EAGAIN;
        /* Upper levels were compared as a whole. */
        if (err == HV_OK &&
            (env_flush_is_local(p2m_flush_domain(v->p2m)) || MUTANT(shadow_invlpg_traces))) {
            sync_trace_clean(s, 1);
        }
    }
    spin_unlock(&s->lock);
    return err;
}

/* ---- Faults ---- */

/* One walk of the guest's tables; what it lacked is in `need`. */
struct walk {
    struct p2m *p2m;
    struct shadow_peek *peek;
    gfn_t need;
    uint32_t access;  /* P2M_*; 0: nothing is lacking */
    bool flush;       /* it takes a flush (p2m_settle) */
    uint64_t flushed; /* for the page of this word, after which that was done */
    unsigned nr;
    gfn_t gfn[4]; /* of the tables walked, and where they are */
    const void *page[4];
};

/* Under the view's lock an unchanged word means the same frame, with what the guest has in it. */
static void *walk_peek(void *ctx, gfn_t gfn)
{
    struct walk *w = ctx;
    struct shadow_peek *known = &w->peek[gfn.n % SHADOW_NR_PEEKS];

    if (unlikely(known->key != gfn.n + 1 ||
                 __atomic_load_n(known->word, __ATOMIC_ACQUIRE) != known->seq)) {
        struct p2m_entry e;

        p2m_query(w->p2m, gfn, &e);
        if (unlikely(!mfn_valid(e.mfn))) {
            w->need = gfn;
            w->access = P2M_READ | P2M_WALK;
            return NULL;
        }
        *known = (struct shadow_peek){gfn.n + 1, e.word, e.seq, env_frame_ptr(e.mfn)};
    }
    w->gfn[w->nr] = gfn;
    w->page[w->nr++] = known->page;
    return known->page; /* written to only where walk_own agrees */
}

/* Nobody reads an old frame of the page, or a flush is what the walk lacks. */
static bool may_write(struct walk *w, const struct p2m_entry *e)
{
    if (likely(e->seq == w->flushed || p2m_settled(w->p2m)) || MUTANT(shadow_fill_before_flush)) {
        return true;
    }
    w->flush = true;
    w->flushed = e->seq;
    return false;
}

/* Asked for entries that lack a bit. */
static void *walk_own(void *ctx, void *slot)
{
    struct walk *w = ctx;
    struct p2m_entry e;
    unsigned i = 0;

    while (i + 1 < w->nr && (uintptr_t)w->page[i] != ((uintptr_t)slot & PAGE_MASK)) {
        i++;
    }
    p2m_query(w->p2m, w->gfn[i], &e);
    if (unlikely(!e.writable)) {
        w->need = w->gfn[i];
        w->access = P2M_WRITE | P2M_WALK;
        return NULL;
    }
    /* It may stand elsewhere by now; who takes it from there next waits for the view's lock. */
    if (env_frame_ptr(e.mfn) != w->page[i] && !MUTANT(shadow_walk_old_frame)) {
        return NULL;
    }
    return may_write(w, &e) ? slot : NULL;
}

static uint32_t p2m_access(uint32_t access)
{
    return access & GWALK_WRITE ? P2M_WRITE : access & GWALK_EXEC ? P2M_EXEC : P2M_READ;
}

/* HV_EBUSY: `w` says what is needed first. */
static enum hv_err fault_locked(struct shadow *s, struct shadow_cpu *cpu, struct shadow_fault *f,
                                bool fast, struct walk *w)
{
    struct gwalk_result res;
    struct p2m_entry e;
    const struct gwalk_request req = {.paging = &cpu->paging,
                                      .gva = f->gva,
                                      .access = f->access | GWALK_SET_AD,
                                      .phys_bits = s->cfg.phys_bits,
                                      .page1gb = s->cfg.page1gb,
                                      .loaded_pdptr = true,
                                      .peek = walk_peek,
                                      .own = walk_own,
                                      .ctx = w};
    enum hv_err err = gwalk(&req, &res);

    if (unlikely(err == HV_EFAULT)) {
        f->error = res.error;
        return err;
    }
    if (unlikely(err != HV_OK)) {
        /* A table is not there, or an entry has changed under the walk. */
        return HV_EBUSY;
    }
    f->gpa = res.gpa;
    p2m_query(s->view.p2m, gpa_gfn(res.gpa), &e);
    if (e.writable && !may_write(w, &e)) {
        return HV_EBUSY;
    }
    if (unlikely(e.state == P2M_HOLE)) {
        return HV_ENOENT;
    }
    if (unlikely(!mfn_valid(e.mfn) || ((f->access & GWALK_WRITE) && !e.writable))) {
        w->need = gpa_gfn(res.gpa);
        w->access = p2m_access(f->access);
        return HV_EBUSY;
    }
    return shadow_enter(s, cpu, f, &res, &e, fast);
}

/* Have the p2m make a page as the walk needs it. */
static enum hv_err provide(struct shadow *s, const struct shadow_cpu *cpu, struct shadow_fault *f,
                           const struct walk *w)
{
    const struct gwalk_request req = {.paging = &cpu->paging, .access = f->access};
    struct p2m_entry e;
    enum hv_err err = p2m_populate(s->view.p2m, w->need, w->access | f->how, &e);

    f->gfn = w->need;
    if (err == HV_ENOENT) {
        /* A table where no RAM is: it reads as all ones, whose reserved bits fault. */
        f->error = gwalk_error(&req, PF_P | PF_RSVD);
        return HV_EFAULT;
    }
    return err;
}

enum hv_err shadow_fault(struct view *v, struct shadow_cpu *cpu, struct shadow_fault *f)
{
    struct shadow *s = shadow_of(v);
    bool fast = (f->how & P2M_FAST) != 0;
    uint64_t flushed = 0;

    for (unsigned i = 0; i < TRIES; i++) {
        struct walk w;
        enum hv_err err;

        w.p2m = v->p2m;
        w.peek = cpu->peek;
        w.access = 0;
        w.nr = 0;
        w.flush = false;
        w.flushed = flushed;

        if (!lock_view(s, fast)) {
            return HV_EAGAIN;
        }
        err = fault_locked(s, cpu, f, fast, &w);
        spin_unlock(&s->lock);
        if (err == HV_ENOMEM && !fast && make_room(s)) {
            continue;
        }
        if (likely(err != HV_EBUSY)) {
            return err;
        }
        if (unlikely(w.flush)) {
            if (fast) {
                return HV_EAGAIN;
            }
            p2m_settle(v->p2m);
            flushed = w.flushed;
        }
        if (w.access != 0) {
            err = provide(s, cpu, f, &w);
            if (err != HV_OK) {
                return err;
            }
        }
    }
    return HV_OK;
}
