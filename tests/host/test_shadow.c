/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shadow view against a naive model of the guest's paging (refguest.c).
 *
 * Model processors run a random guest: it edits random page tables by writes through its own address
 * space, flushes as the manual wants, switches address spaces and modes of protection, and accesses
 * addresses; the host drops, protects, ages, watches and takes away pages meanwhile. The processors
 * keep every translation that they ever read from the shadow tables until they are told to flush.
 * Each access must get what the model says: the page, or the fault with its code; and set the accessed and
 * dirty bits that the model says and no others.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/gwalk.h"
#include "mm/p2m_internal.h"           /* pages are taken away as reclaim does it */
#include "mm/shadow/shadow_internal.h" /* how long chains are */
#include "mm/share/cow.h"
#include "tests/host/env.h"
#include "tests/host/refguest.h"

#define BASE MFN(0x200)
#define NR_FRAMES 32768ull
#define VM 7u
#define RAM_PAGES 6144ull /* 24 MiB */
#define WINDOW_PAGES 512u /* gfns that the guest maps to itself, to write to its tables */
#define FIRST_POOL 64u    /* gfns of the tables that are edited; below: those that stay */
#define PER_LEVEL 4u
#define NR_CPUS_MAX 2u
#define NR_GVAS 48u
#define TLB_SIZE 512u

struct translation {
    bool valid, writable, user, exec;
    uint64_t page; /* gva / 4 KiB */
    mfn_t mfn;
};

struct cpu_model {
    struct shadow_cpu cpu;
    struct ref_paging paging;
    bool smep, smap; /* as the processor has them: never while the guest's paging is off */
    hpa_t root;
    struct translation tlb[TLB_SIZE];
    uint8_t stale[NR_GVAS]; /* what the guest owes before it uses this address */
};

#define STALE_TABLES 1u /* an INVLPG of any address: only upper levels may be cached */
#define STALE_PAGE 2u   /* an INVLPG of this one */

static struct p2m *p2m;
static struct view *view;
static struct cpu_model cpus[NR_CPUS_MAX];
static unsigned nr_cpus;
static enum ref_mode mode;
static uint64_t gvas[NR_GVAS];
static bool scarce; /* memory may be refused */
static struct rng rng;
static struct {
    uint64_t accesses, faults, hidden, devices, emulated, edits, invlpgs, loads, nominated;
} seen;

static uint64_t below(uint64_t n)
{
    return rng_below(&rng, n);
}

static bool percent(unsigned p)
{
    return below(100) < p;
}

static void flush_all(struct flush_domain *d)
{
    (void)d;
    for (unsigned i = 0; i < NR_CPUS_MAX; i++) {
        memset(cpus[i].tlb, 0, sizeof(cpus[i].tlb));
    }
}

/* ---- Guest memory ---- */

static char *guest_page(uint64_t gfn)
{
    struct p2m_entry e;

    /* The model looks beside the view: what is not there is brought. */
    p2m_query(p2m, GFN(gfn), &e);
    if (e.state == P2M_HOLE) {
        return NULL;
    }
    while (!mfn_valid(e.mfn)) {
        assert_int_equal(p2m_populate(p2m, GFN(gfn), P2M_READ, &e), HV_OK);
    }
    return env_frame_ptr(e.mfn);
}

static bool is_wide(void)
{
    return mode >= REF_PAE;
}

static uint64_t read_entry(uint64_t table, unsigned index, bool wide)
{
    const char *page = guest_page(table >> PAGE_SHIFT);

    if (page == NULL) {
        return wide ? ~0ull : 0xffffffffull;
    }
    page += table & ~PAGE_MASK;
    return wide ? ((const uint64_t *)page)[index] : ((const uint32_t *)page)[index];
}

static void poke(uint64_t gfn, unsigned index, uint64_t entry)
{
    char *page;

    assert_int_equal(p2m_get(p2m, GFN(gfn), P2M_WRITE, (void **)&page), HV_OK);
    if (is_wide()) {
        ((uint64_t *)page)[index] = entry;
    } else {
        ((uint32_t *)page)[index] = (uint32_t)entry;
    }
    p2m_put(p2m, GFN(gfn), page);
}

/* ---- The processor ---- */

static struct translation *tlb_slot(struct cpu_model *c, uint64_t gva)
{
    return &c->tlb[(gva >> PAGE_SHIFT ^ gva >> 21 ^ gva >> 30) % TLB_SIZE];
}

static void invlpg_tlb(struct cpu_model *c, uint64_t gva)
{
    /* A large page's pieces go together. */
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        if (c->tlb[i].page >> 10 == gva >> 22) {
            c->tlb[i].valid = false;
        }
    }
}

/* Walk our tables as hardware does: sets accessed bits. */
static bool hardware_walk(struct cpu_model *c, uint64_t gva, struct translation *out)
{
    bool four = mode == REF_LONG;
    uint64_t table = c->root.a;

    *out = (struct translation){true, true, true, true, gva >> PAGE_SHIFT, MFN_NONE};
    for (int level = four ? 3 : 2; level >= 0; level--) {
        unsigned index = (unsigned)(gva >> (12 + 9 * level)) & (!four && level == 2 ? 3 : 511);
        uint64_t *entry =
            (uint64_t *)((char *)env_frame_ptr(MFN(table >> 12)) + (table & 0xfff)) + index;
        uint64_t bits = *entry;

        if (!(bits & 1)) {
            return false;
        }
        if (four || level < 2) {
            *entry |= 0x20;
            out->writable &= (bits >> 1 & 1) != 0;
            out->user &= (bits >> 2 & 1) != 0;
            out->exec &= bits >> 63 == 0;
        } else {
            assert_int_equal(bits & 0x1fe, 0);
        }
        if (level == 0 || (bits >> 7 & 1)) {
            assert_true(level < 2);
            out->mfn =
                MFN(((bits & 0x000ffffffffff000ull) >> 12) + (level == 1 ? gva >> 12 & 511 : 0));
            return true;
        }
        table = bits & 0x000ffffffffff000ull;
    }
    return false;
}

/* Do the rights of a translation allow the access? The processor has CR0.WP set. */
static bool allows(const struct cpu_model *c, const struct translation *t, struct ref_access a)
{
    if (a.user) {
        return t->user && (t->writable || !a.write) && (t->exec || !a.exec);
    }
    if (a.exec) {
        return t->exec && !(t->user && c->smep);
    }
    return !(t->user && c->smap && !a.ac) && (t->writable || !a.write);
}

static uint32_t access_bits(struct ref_access a)
{
    return (a.write ? GWALK_WRITE : 0) | (a.user ? GWALK_USER : 0) | (a.exec ? GWALK_EXEC : 0) |
           (a.ac ? GWALK_AC : 0);
}

enum outcome { DONE, FAULT, DEVICE, EMULATE };

/* One access; *mfn is the frame it reached, *f what was said of a fault. */
static enum outcome touch(struct cpu_model *c, uint64_t gva, struct ref_access a, mfn_t *mfn,
                          struct shadow_fault *f)
{
    for (unsigned tries = 0; tries < 64; tries++) {
        struct translation *t = tlb_slot(c, gva), found;

        if (t->valid && t->page == gva >> PAGE_SHIFT && allows(c, t, a)) {
            *mfn = t->mfn;
            return DONE;
        }
        t->valid = t->valid && t->page != gva >> PAGE_SHIFT;
        if (hardware_walk(c, gva, &found) && allows(c, &found, a)) {
            *t = found;
            *mfn = found.mfn;
            return DONE;
        }
        *f = (struct shadow_fault){.gva = GVA(gva), .access = access_bits(a)};
        enum hv_err err = shadow_fault(view, &c->cpu, f, percent(50));
        switch (err) {
        case HV_OK:
            seen.hidden++;
            break;
        case HV_EFAULT:
            return FAULT;
        case HV_ENOENT:
            return DEVICE;
        case HV_EPERM:
            return EMULATE;
        case HV_ENOMEM:
            assert_true(scarce);
            test_env.fail_rate = 0;
            break;
        default:
            assert_int_equal(err, HV_EAGAIN);
            break;
        }
    }
    fail_msg("the access never ends");
    return FAULT;
}

static void paging_registers(const struct ref_paging *p, struct guest_paging *out)
{
    *out = (struct guest_paging){
        .cr0 = (p->mode == REF_NONE ? 0 : BIT(31)) | 1 | (p->wp ? BIT(16) : 0),
        .cr3 = p->cr3,
        .cr4 = (p->mode >= REF_PAE ? BIT(5) : 0) | (p->mode == REF_PSE ? BIT(4) : 0) |
               (p->smep ? BIT(20) : 0) | (p->smap ? BIT(21) : 0),
        .efer = (p->mode == REF_LONG ? BIT(8) | BIT(10) : 0) | (p->nxe ? BIT(11) : 0),
    };
    memcpy(out->pdptr, p->pdptr, sizeof(out->pdptr));
}

/* Nothing but CR3 differs from what is loaded: often the quick way, if the table is known. */
static bool load_quickly(struct cpu_model *c, const struct guest_paging *paging)
{
    const struct guest_paging *was = &c->cpu.paging;

    return mode == REF_LONG && c->cpu.root[0] != NULL && was->cr0 == paging->cr0 &&
           was->cr4 == paging->cr4 && was->efer == paging->efer && percent(70) &&
           shadow_switch(view, &c->cpu, paging->cr3, &c->root);
}

static enum hv_err load_paging(struct cpu_model *c, const struct guest_paging *paging)
{
    if (load_quickly(c, paging)) {
        return HV_OK;
    }
    enum hv_err err = shadow_load(view, &c->cpu, paging, percent(70), &c->root);
    return err == HV_EAGAIN ? shadow_load(view, &c->cpu, paging, false, &c->root) : err;
}

/* Load c->paging. */
static void load(struct cpu_model *c)
{
    struct guest_paging paging;

    if (mode == REF_PAE) {
        for (unsigned i = 0; i < 4; i++) {
            /* Reserved bits, which accessed bits may have set there, would fail the load. */
            c->paging.pdptr[i] = read_entry(c->paging.cr3 & 0xffffffe0, i, true) & ~0x1e6ull;
        }
    }
    paging_registers(&c->paging, &paging);
    assert_int_equal(load_paging(c, &paging), HV_OK);
    c->smep = c->paging.smep && mode != REF_NONE;
    c->smap = c->paging.smap && mode != REF_NONE;
    memset(c->tlb, 0, sizeof(c->tlb));
    memset(c->stale, 0, sizeof(c->stale));
    seen.loads++;
    shadow_tidy(view);
}

static void invlpg(struct cpu_model *c, unsigned gva)
{
    if (shadow_invlpg(view, &c->cpu, GVA(gvas[gva]), true) != HV_OK) {
        assert_int_equal(shadow_invlpg(view, &c->cpu, GVA(gvas[gva]), false), HV_OK);
    }
    if (nr_cpus == 1) {
        memset(c->tlb, 0, sizeof(c->tlb));
    } else {
        invlpg_tlb(c, gvas[gva]);
    }
    c->stale[gva] = 0;
    for (unsigned i = 0; i < NR_GVAS; i++) {
        c->stale[i] = c->stale[i] == STALE_TABLES ? 0 : c->stale[i];
    }
    seen.invlpgs++;
}

/* ---- The guest's address spaces ---- */

/* Addresses that are used are all combinations of few indices. */
static const unsigned top_index[][2] = {
    [REF_32] = {0, 513}, [REF_PSE] = {0, 513}, [REF_PAE] = {0, 2}, [REF_LONG] = {0, 300}};

static unsigned top_level(void)
{
    return mode == REF_LONG ? 3 : mode == REF_PAE ? 2 : 1;
}

static unsigned index_at(unsigned level, unsigned choice)
{
    static const unsigned low[] = {0, 1, 255, 511, 512, 1023};
    static const unsigned mid[] = {0, 7};

    if (level == top_level()) {
        return top_index[mode][choice % 2];
    }
    if (level == 0) {
        return low[choice % (is_wide() ? 4 : 6)];
    }
    return mid[choice % 2];
}

static uint64_t make_gva(unsigned n)
{
    unsigned bits = is_wide() ? 9 : 10;
    uint64_t gva = 0;

    for (unsigned level = 0; level <= top_level(); level++) {
        gva |= (uint64_t)index_at(level, n) << (12 + bits * level);
        n /= level == 0 ? (is_wide() ? 4 : 6) : 2;
    }
    return mode == REF_LONG ? (uint64_t)((int64_t)(gva << 16) >> 16) : gva;
}

static uint64_t pool(unsigned level, unsigned i)
{
    return FIRST_POOL + level * PER_LEVEL + i;
}

/* Where the guest sees its first gfns. */
static uint64_t window(void)
{
    switch (mode) {
    case REF_LONG:
        return 0xffff800000000000ull;
    case REF_PAE:
        return 0xc0000000ull;
    case REF_NONE:
        return 0;
    default:
        return 0xffc00000ull;
    }
}

#define RW_SUPERVISOR 0x63u /* present, writable, accessed, dirty */

/* The window in a root: through tables that stay as they are, by small or large pages. */
static void make_window(uint64_t root, bool large)
{
    unsigned bits = is_wide() ? 9 : 10;
    uint64_t va = window();
    uint64_t table = root;
    uint64_t at = 1 + below(2) * 8; /* two sets of gfns for these tables */

    for (unsigned level = top_level(); level > 0; level--) {
        unsigned index = (unsigned)(va >> (12 + bits * level)) & ((1u << bits) - 1);

        if (level == 1 && large && mode != REF_32) {
            poke(table, index, RW_SUPERVISOR | 0x80);
            return;
        }
        poke(table, index, at << 12 | (mode == REF_PAE && level == 2 ? 1 : RW_SUPERVISOR));
        table = at++;
    }
    for (unsigned i = 0; i < WINDOW_PAGES; i++) {
        poke(table, i, (uint64_t)i << 12 | RW_SUPERVISOR);
    }
}

static uint64_t large_frame(unsigned level)
{
    if (level == 2) {
        return 0;
    }
    return is_wide() ? below(12) << 21 : below(6) << 22;
}

static uint64_t random_entry(unsigned level)
{
    bool wide = is_wide();
    unsigned often = level == 0 ? 80 : 94; /* rights of all levels go together */
    uint64_t e = (percent(often + 5) ? 1 : 0) | (percent(often) ? 2 : 0) |
                 (percent(often) ? 4 : 0) | (percent(60) ? 0x20 : 0) | (percent(60) ? 0x40 : 0) |
                 (below(8) << 9);
    bool leaf = level == 0;

    if (mode == REF_PAE && level == 2) {
        return (e & 1) | pool(1, (unsigned)below(PER_LEVEL)) << 12;
    }
    if (wide && percent(level == 0 ? 15 : 4)) {
        e |= BIT(63);
    }
    if (wide && percent(1)) {
        e |= BIT(45);
    }
    if (level > 0 && level < 3 && percent(25)) {
        e |= 0x80;
        leaf = mode != REF_32;
    }
    if (!leaf) {
        unsigned child = percent(6) ? (unsigned)below(top_level() + 1) : level - 1;

        return e | pool(child, (unsigned)below(PER_LEVEL)) << 12;
    }
    if (level > 0) {
        return e | large_frame(level) | (percent(3) ? BIT(mode == REF_PSE ? 21 : 13) : 0);
    }
    if (percent(5)) {
        return e | (RAM_PAGES + below(64)) << 12;
    }
    return e | (percent(10) ? pool((unsigned)below(top_level()), (unsigned)below(PER_LEVEL))
                            : 512 + below(RAM_PAGES - 512))
                   << 12;
}

static void walk(const struct cpu_model *c, uint64_t gva, struct ref_access a,
                 struct ref_result *out)
{
    ref_guest_walk(&c->paging, gva, a, read_entry, out);
}

/* Mark every address that goes through this entry now as one that the processor must flush. */
static void mark_stale(uint64_t gfn, unsigned index)
{
    for (unsigned n = 0; n < nr_cpus; n++) {
        for (unsigned g = 0; g < NR_GVAS; g++) {
            struct ref_result r;

            walk(&cpus[n], gvas[g], (struct ref_access){.ac = true}, &r);
            for (unsigned i = 0; i < r.nr; i++) {
                if (r.step[i].table >> 12 == gfn && r.step[i].index == index) {
                    uint8_t owed = r.fault && !(r.error & 1) ? STALE_TABLES : STALE_PAGE;

                    cpus[n].stale[g] = MAX(cpus[n].stale[g], owed);
                }
            }
        }
    }
}

/* The guest writes to one of its tables. */
static void edit(struct cpu_model *c)
{
    unsigned level = (unsigned)below(top_level() + 1);
    uint64_t gfn = pool(level, (unsigned)below(PER_LEVEL));
    unsigned index = index_at(level, (unsigned)below(6));
    uint64_t was = read_entry(gfn << 12, index, is_wide());
    uint64_t entry = percent(30) ? was ^ (2ull << below(6)) : random_entry(level);
    struct shadow_fault f;
    mfn_t mfn;

    /* From not present to present nothing has to be flushed. */
    if ((was & 1) || (mode == REF_PAE && level == 2)) {
        mark_stale(gfn, index);
    }
    if (percent(5)) {
        /* A device writes to it: it pins the page, and writes a while later. */
        poke(gfn, index, entry);
        return;
    }
    assert_int_equal(
        touch(c, window() + (gfn << 12), (struct ref_access){.write = true, .ac = true}, &mfn, &f),
        DONE);
    char *page = env_frame_ptr(mfn);
    assert_ptr_equal(page, guest_page(gfn));
    if (is_wide()) {
        ((uint64_t *)page)[index] = entry;
    } else {
        ((uint32_t *)page)[index] = (uint32_t)entry;
    }
    seen.edits++;
}

/* The guest looks at, and the model with it. */
static void access_once(struct cpu_model *c)
{
    unsigned g = (unsigned)below(NR_GVAS);
    uint64_t gva = gvas[g];
    struct ref_access a = {.write = percent(40), .user = percent(50), .ac = percent(50)};
    struct ref_result want, after;
    struct shadow_fault f = {.error = 0};
    struct p2m_entry e;
    mfn_t mfn = MFN_NONE;

    if (!a.write) {
        a.exec = percent(30);
    }
    if (a.user) {
        a.ac = false;
    }
    if (c->stale[g] != 0) {
        if (percent(50)) {
            return;
        }
        if (c->stale[g] == STALE_TABLES) {
            invlpg(c, (unsigned)below(NR_GVAS));
        } else if (percent(95)) {
            invlpg(c, g);
        } else {
            load(c);
        }
    }
    walk(c, gva, a, &want);
    enum outcome got = touch(c, gva, a, &mfn, &f);
    walk(c, gva, a, &after);
    seen.accesses++;
    if (want.fault) {
        seen.faults++;
        assert_int_equal(got, FAULT);
        assert_int_equal(f.error, want.error);
        assert_memory_equal(&want, &after, sizeof(want));
        return;
    }
    assert_int_not_equal(got, FAULT);
    p2m_query(p2m, GFN(want.gpa >> 12), &e);
    if (got == DEVICE || got == EMULATE) {
        assert_int_equal(f.gpa.a & PAGE_MASK, want.gpa & PAGE_MASK);
        assert_true(got == EMULATE || e.state == P2M_HOLE);
        seen.devices += got == DEVICE;
        seen.emulated += got == EMULATE;
        assert_true(got == DEVICE || (!c->paging.wp && c->paging.smap && a.write && !a.user));
    } else {
        assert_int_equal(mfn.n, e.mfn.n);
        assert_true(!a.write || e.writable);
    }
    for (unsigned i = 0; i < want.nr; i++) {
        bool loaded = want.step[i].table == ~0ull;
        uint64_t set = loaded ? 0 : 0x20;

        /* A table that leads to itself has one entry in two places. */
        for (unsigned j = i; j < want.nr; j++) {
            if (j + 1 == want.nr && a.write && want.step[i].table == want.step[j].table &&
                want.step[i].index == want.step[j].index) {
                set |= 0x40;
            }
        }
        assert_int_equal(after.step[i].entry, want.step[i].entry | set);
    }
}

/* ---- The host ---- */

/* Nobody writes there by an old translation. */
static void check_no_writer(mfn_t mfn)
{
    for (unsigned n = 0; n < nr_cpus; n++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            const struct translation *t = &cpus[n].tlb[i];

            assert_false(t->valid && t->writable && t->mfn.n == mfn.n);
        }
    }
}

/* Another frame with the same contents, as compaction and sharing do; the batch is still to be flushed. */
static bool move_frame(gfn_t gfn, struct flush_batch *batch)
{
    struct p2m_entry e;
    mfn_t copy;

    p2m_query(p2m, gfn, &e);
    if (!cow_nominate(p2m, gfn, &e, batch)) {
        return false;
    }
    flush_batch_commit(batch);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &copy), HV_OK);
    env_copy_page(env_frame_ptr(copy), env_frame_ptr(e.mfn));
    spin_lock(&p2m->lock);
    mfn_t old = e.mfn;
    frame_of(copy)->gfn = gfn.n;
    p2m_change(&e, word_next(e.seq, P2M_PRIVATE, copy));
    view->ops->drop(view, gfn, 1, batch);
    flush_batch_free_block(batch, old, 0);
    spin_unlock(&p2m->lock);
    return true;
}

static void host_event(void)
{
    gfn_t gfn = GFN(percent(30) ? FIRST_POOL + below(16) : below(RAM_PAGES));
    struct flush_batch batch;
    enum view_watch how;
    struct p2m_entry e;

    flush_batch_init(&batch, p2m_flush_domain(p2m));
    switch (below(6)) {
    case 0:
        view->ops->drop(view, gfn, 1 + below(600), &batch);
        break;
    case 1:
        (void)view->ops->age(view, gfn, &batch);
        break;
    case 2:
        if (view->ops->watch(view, gfn, percent(50), &batch, &how) == HV_OK) {
            (void)view->ops->watched(view, gfn, how);
            flush_batch_commit(&batch);
            if (how == WATCH_PIECE) {
                view->ops->unwatch(view, gfn, &batch);
            }
        }
        break;
    case 3:
        /* As if it were to be shared: the next write makes it plainly private again. */
        p2m_query(p2m, gfn, &e);
        if (cow_nominate(p2m, gfn, &e, &batch)) {
            flush_batch_commit(&batch);
            check_no_writer(e.mfn);
            seen.nominated++;
        }
        break;
    case 4:
        (void)move_frame(gfn, &batch);
        break;
    default:
        shadow_tidy(view);
        break;
    }
    flush_batch_commit(&batch);
}

/* ---- Runs ---- */

static void start(enum ref_mode m, unsigned cpus_wanted, bool large, uint64_t overhead)
{
    const struct p2m_config cfg = {
        .owner = VM, .large_pages = large, .max_order = large ? ORDER_2M : ORDER_4K};
    const struct shadow_config scfg = {.owner = VM,
                                       .max_order = large ? ORDER_2M : ORDER_4K,
                                       .phys_bits = 40,
                                       .nx = true,
                                       .nr_gfns = RAM_PAGES + 2000,
                                       .overhead_frames = overhead};

    env_start(BASE, NR_FRAMES, cpus_wanted);
    test_env.on_flush = flush_all;
    mode = m;
    nr_cpus = cpus_wanted;
    memset(cpus, 0, sizeof(cpus));
    memset(&seen, 0, sizeof(seen));
    assert_int_equal(p2m_create(&cfg, &p2m), HV_OK);
    assert_int_equal(shadow_create(p2m, &scfg, &view), HV_OK);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), RAM_PAGES), HV_OK);
    for (unsigned i = 0; i < NR_GVAS; i++) {
        gvas[i] = mode == REF_NONE ? below(RAM_PAGES + 64) << 12 : make_gva(i);
    }
}

static void stop(void)
{
    assert_true(view->ops->audit(view));
    for (unsigned i = 0; i < nr_cpus; i++) {
        shadow_unload(view, &cpus[i].cpu);
    }
    assert_true(p2m_audit(p2m));
    p2m_destroy(p2m);
    assert_true(mm_audit_gone(VM));
    env_stop();
}

static void build_tables(void)
{
    for (unsigned level = 0; level <= top_level(); level++) {
        for (unsigned i = 0; i < PER_LEVEL; i++) {
            for (unsigned choice = 0; choice < 6; choice++) {
                poke(pool(level, i), index_at(level, choice), random_entry(level));
            }
            if (level == top_level()) {
                make_window(pool(level, i), percent(50));
            }
        }
    }
}

static void new_settings(struct cpu_model *c)
{
    c->paging = (struct ref_paging){
        .mode = mode,
        .cr3 = mode == REF_NONE ? 0 : pool(top_level(), (unsigned)below(PER_LEVEL)) << 12,
        .wp = percent(60),
        .smep = percent(40),
        .smap = percent(40),
        .nxe = is_wide() && percent(70),
    };
}

static void walk_randomly(unsigned steps)
{
    if (mode != REF_NONE) {
        build_tables();
    }
    for (unsigned i = 0; i < nr_cpus; i++) {
        cpus[i].cpu.id = i + 3;
        new_settings(&cpus[i]);
        load(&cpus[i]);
    }
    for (unsigned i = 0; i < steps; i++) {
        struct cpu_model *c = &cpus[below(nr_cpus)];
        unsigned what = (unsigned)below(1000);

        if (what < 150 && mode != REF_NONE) {
            edit(c);
        } else if (what < 153 && mode != REF_NONE) {
            c->paging.cr3 = pool(top_level(), (unsigned)below(PER_LEVEL)) << 12;
            load(c);
        } else if (what < 156) {
            new_settings(c);
            load(c);
        } else if (what < 176) {
            host_event();
        } else {
            access_once(c);
        }
        if (i % 4096 == 0) {
            assert_true(view->ops->audit(view));
        }
    }
}

static void run(enum ref_mode m, unsigned steps)
{
    static const uint64_t limits[] = {100000, 60};

    for (unsigned i = 0; i < 8; i++) {
        rng_seed(&rng, env_seed("shadow") * 1000 + m * 16 + i);
        start(m, i & 1 ? 2 : 1, (i & 2) != 0, limits[i >> 2 & 1]);
        walk_randomly(steps);
        printf("mode %d cpus %u: %llu accesses, %llu faults, %llu hidden, %llu devices, "
               "%llu emulated, %llu edits, %llu invlpg, %llu loads\n",
               m, nr_cpus, (unsigned long long)seen.accesses, (unsigned long long)seen.faults,
               (unsigned long long)seen.hidden, (unsigned long long)seen.devices,
               (unsigned long long)seen.emulated, (unsigned long long)seen.edits,
               (unsigned long long)seen.invlpgs, (unsigned long long)seen.loads);
        stop();
    }
}

#define STEPS 12000u

static void oracle_unpaged(void **state)
{
    (void)state;
    run(REF_NONE, STEPS);
}

static void oracle_32(void **state)
{
    (void)state;
    run(REF_32, STEPS);
}

static void oracle_pse(void **state)
{
    (void)state;
    run(REF_PSE, STEPS);
}

static void oracle_pae(void **state)
{
    (void)state;
    run(REF_PAE, STEPS);
}

static void oracle_long(void **state)
{
    (void)state;
    run(REF_LONG, STEPS);
}

static mfn_t frame_behind(uint64_t gfn)
{
    struct p2m_entry e;

    (void)guest_page(gfn);
    p2m_query(p2m, GFN(gfn), &e);
    return e.mfn;
}

/* Read gva, which must lead to gfn. */
static void expect(struct cpu_model *c, uint64_t gva, uint64_t gfn)
{
    struct shadow_fault f;
    mfn_t mfn;

    assert_int_equal(touch(c, gva, (struct ref_access){.ac = true}, &mfn, &f), DONE);
    assert_int_equal(mfn.n, frame_behind(gfn).n);
}

/*
 * INVLPG of any address drops what is kept of upper levels: once it is done, no address goes on through a
 * table that is not linked there any more, though nothing of that address was ever mapped.
 */
static void invlpg_drops_upper_levels(void **state)
{
    enum { ROOT = 64, PDPT, PD, T1, T2 };
    const uint64_t rw = 0x67, slot7 = 7ull << 21;
    struct cpu_model *c = &cpus[0];

    (void)state;
    rng_seed(&rng, 1);
    start(REF_LONG, 1, false, 100000);
    poke(ROOT, 0, PDPT << 12 | rw);
    poke(PDPT, 0, PD << 12 | rw);
    poke(PD, 0, T1 << 12 | rw);
    poke(PD, 7, T1 << 12 | rw);
    poke(T1, 1, 1000ull << 12 | rw);
    poke(T2, 0, 2000ull << 12 | rw);
    c->paging = (struct ref_paging){.mode = REF_LONG, .cr3 = ROOT << 12, .wp = true};
    load(c);
    expect(c, 0x1000, 1000);
    poke(PD, 0, T2 << 12 | rw);
    poke(T1, 0, 3000ull << 12 | rw);
    expect(c, slot7, 3000);
    assert_int_equal(shadow_invlpg(view, &c->cpu, GVA(0x5000000), true), HV_OK);
    memset(c->tlb, 0, sizeof(c->tlb));
    expect(c, 0, 2000);
    stop();
}

/* Tables of a second address space, by the entries of one directory. */
enum { ROOT = 64, PDPT, PD, TABLES };

static void make_space(unsigned nr_tables, uint64_t gfn)
{
    const uint64_t rw = 0x67;

    poke(ROOT, 0, PDPT << 12 | rw);
    poke(PDPT, 0, PD << 12 | rw);
    for (uint64_t i = 0; i < nr_tables; i++) {
        poke(PD, (unsigned)i, (TABLES + i) << 12 | rw);
        for (unsigned j = 0; j < 512; j++) {
            poke(TABLES + i, j, gfn << 12 | rw);
        }
    }
    for (unsigned i = 0; i < nr_cpus; i++) {
        cpus[i].cpu.id = i;
        cpus[i].paging = (struct ref_paging){.mode = REF_LONG, .cr3 = ROOT << 12, .wp = true};
        load(&cpus[i]);
    }
}

static unsigned chain_slots(uint64_t gfn)
{
    const struct shadow_region *r = region_look(shadow_of(view), GFN(gfn));
    struct chain_at at;
    unsigned n = 0;

    for (uint64_t slot = chain_first(*region_head(r, GFN(gfn)), &at); slot != 0;
         slot = chain_next(&at)) {
        n++;
    }
    return n;
}

/* However often a guest maps one page, no removal has to look through more than a bounded chain. */
static void one_page_everywhere(void **state)
{
    enum { NR = 12, GFN_MAPPED = 3000 };
    unsigned longest = 0;

    (void)state;
    rng_seed(&rng, 5);
    start(REF_LONG, 1, false, 100000);
    make_space(NR, GFN_MAPPED);
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(&cpus[0], page << 12, GFN_MAPPED);
        longest = MAX(longest, chain_slots(GFN_MAPPED));
    }
    assert_in_range(longest, 180, 210);
    assert_true(view->ops->audit(view));
    for (uint64_t page = 0; page < NR * 512; page += 7) {
        expect(&cpus[0], page << 12, GFN_MAPPED);
    }
    stop();
}

/* While one vCPU's flush is under way, another comes to tidy up as well, and a third still writes to a
 * table by an old translation: what it wrote counts at the next flush of the guest's. */
static struct {
    unsigned flushes;
    uint64_t table, entry;
} meanwhile;

static void write_meanwhile(struct flush_domain *d)
{
    if (meanwhile.flushes++ == 0) {
        shadow_tidy(view);
        ((uint64_t *)guest_page(meanwhile.table))[3] = meanwhile.entry;
    }
    flush_all(d);
}

static void two_tidy_up(void **state)
{
    enum { NR = 40 };

    (void)state;
    rng_seed(&rng, 6);
    start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    for (uint64_t i = 0; i < NR; i++) {
        expect(&cpus[0], i << 21 | 3ull << 12, 3000);
    }
    assert_true(shadow_is_untidy(view));
    memset(&meanwhile, 0, sizeof(meanwhile));
    meanwhile.table = TABLES + 20;
    meanwhile.entry = 4000ull << 12 | 0x67;
    test_env.on_flush = write_meanwhile;
    shadow_tidy(view);
    assert_true(meanwhile.flushes > 0);
    assert_false(shadow_is_untidy(view));
    test_env.on_flush = flush_all;
    load(&cpus[0]);
    expect(&cpus[0], 20ull << 21 | 3ull << 12, 4000);
    stop();
}

/* Nobody writes to a page's new frame while others may read its old one. */
static void flush_before_writing(void **state)
{
    struct shadow_fault f = {.gva = GVA(3 << 12), .access = GWALK_AC | GWALK_WRITE};
    struct cpu_model *c = &cpus[0];
    struct flush_batch batch;

    (void)state;
    rng_seed(&rng, 9);
    start(REF_LONG, 2, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    flush_batch_init(&batch, p2m_flush_domain(p2m));
    assert_true(move_frame(GFN(3000), &batch));
    assert_int_equal(shadow_fault(view, &c->cpu, &f, true), HV_EAGAIN);
    uint64_t flushes = p2m_flush_domain(p2m)->epoch;
    assert_int_equal(shadow_fault(view, &c->cpu, &f, false), HV_OK);
    assert_true(p2m_flush_domain(p2m)->epoch > flushes);
    flush_batch_commit(&batch);
    assert_int_equal(shadow_fault(view, &c->cpu, &f, true), HV_OK);
    stop();
}

/* While a walk stands on a table's frame the table gets another one: an accessed bit must not go into the
 * old one, where other pages may be. */
static struct {
    bool armed;
    gfn_t gfn;
    mfn_t old;
} moving;

void __real_p2m_query(struct p2m *p, gfn_t gfn, struct p2m_entry *out);
void __wrap_p2m_query(struct p2m *p, gfn_t gfn, struct p2m_entry *out);

void __wrap_p2m_query(struct p2m *p, gfn_t gfn, struct p2m_entry *out)
{
    if (moving.armed && gfn.n == moving.gfn.n) {
        mfn_t copy;

        /* As another processor does, up to where it waits for the view's lock. */
        moving.armed = false;
        __real_p2m_query(p, gfn, out);
        moving.old = out->mfn;
        assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &copy), HV_OK);
        env_copy_page(env_frame_ptr(copy), env_frame_ptr(out->mfn));
        frame_of(copy)->gfn = gfn.n;
        p2m_change(out, word_next(out->seq, P2M_PRIVATE, copy));
    }
    __real_p2m_query(p, gfn, out);
}

static void table_moves_under_a_walk(void **state)
{
    const uint64_t rw = 0x7;
    struct cpu_model *c = &cpus[0];
    struct flush_batch batch;
    uint64_t *old;

    (void)state;
    rng_seed(&rng, 10);
    start(REF_LONG, 1, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    poke(TABLES, 5, 3001ull << 12 | rw);
    expect(c, 4 << 12, 3000); /* the walk remembers the table's frame */
    moving.armed = true;
    moving.gfn = GFN(TABLES);
    expect(c, 5 << 12, 3001);
    assert_false(moving.armed);
    old = env_frame_ptr(moving.old);
    assert_int_equal(old[5], 3001ull << 12 | rw);
    assert_int_equal(((uint64_t *)guest_page(TABLES))[5], 3001ull << 12 | rw | 0x20);
    flush_batch_init(&batch, p2m_flush_domain(p2m));
    view->ops->drop(view, GFN(TABLES), 1, &batch);
    flush_batch_free_block(&batch, moving.old, 0);
    flush_batch_commit(&batch);
    stop();
}

/* What would take long is left to the slow path, which puts an end to it. */
static void too_much_to_compare(void **state)
{
    enum { NR = 100 };
    struct shadow_fault f = {.gva = GVA(0x1000), .access = GWALK_AC};
    struct cpu_model *c = &cpus[0];
    struct guest_paging paging;

    (void)state;
    rng_seed(&rng, 7);
    start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    for (uint64_t i = 0; i < NR; i++) {
        expect(c, i << 21 | 3ull << 12, 3000);
    }
    paging_registers(&c->paging, &paging);
    assert_int_equal(shadow_load(view, &c->cpu, &paging, true, &c->root), HV_EAGAIN);
    assert_int_equal(shadow_invlpg(view, &c->cpu, GVA(0), true), HV_EAGAIN);
    assert_int_equal(shadow_fault(view, &c->cpu, &f, true), HV_EAGAIN);
    assert_int_equal(shadow_fault(view, &c->cpu, &f, false), HV_OK);
    shadow_tidy(view);
    assert_int_equal(shadow_load(view, &c->cpu, &paging, true, &c->root), HV_OK);
    stop();
}

static void map_each(unsigned nr_tables, uint64_t gfn)
{
    for (uint64_t i = 0; i < nr_tables; i++) {
        for (unsigned j = 0; j < 512; j++) {
            poke(TABLES + i, j, (gfn + j) << 12 | 0x67);
        }
    }
}

/* Nor is all taken out there that a guest has changed meanwhile. */
static void too_much_that_differs(void **state)
{
    enum { NR = 6 };
    struct cpu_model *c = &cpus[0];
    struct guest_paging paging;
    unsigned tries = 0;

    (void)state;
    rng_seed(&rng, 8);
    start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    map_each(NR, 3000);
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(c, page << 12, 3000 + page % 512);
    }
    map_each(NR, 4000);
    paging_registers(&c->paging, &paging);
    while (shadow_load(view, &c->cpu, &paging, true, &c->root) == HV_EAGAIN) {
        tries++;
    }
    assert_in_range(tries, 2, NR);
    memset(c->tlb, 0, sizeof(c->tlb));
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(c, page << 12, 4000 + page % 512);
    }
    stop();
}

/* Allocations that fail leave everything whole; the slow path makes room by evicting. */
static void scarcity(void **state)
{
    uint64_t failures = 0;

    (void)state;
    for (unsigned n = 0; n < 40; n++) {
        rng_seed(&rng, env_seed("shadow scarcity") * 100 + n);
        start((enum ref_mode)(REF_32 + n % 4), 1, true, 100000);
        build_tables();
        cpus[0].cpu.id = 0;
        new_settings(&cpus[0]);
        load(&cpus[0]);
        rng_seed(&test_env.rng, n + 1);
        test_env.fail_site = "shadow.frame";
        scarce = true;
        for (unsigned i = 0; i < 200; i++) {
            test_env.fail_rate = i % 3 ? 2 : 0;
            access_once(&cpus[0]);
        }
        scarce = false;
        failures += test_env.failures;
        test_env.fail_rate = 0;
        stop();
    }
    assert_true(failures > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oracle_unpaged),
        cmocka_unit_test(oracle_32),
        cmocka_unit_test(oracle_pse),
        cmocka_unit_test(oracle_pae),
        cmocka_unit_test(oracle_long),
        cmocka_unit_test(invlpg_drops_upper_levels),
        cmocka_unit_test(one_page_everywhere),
        cmocka_unit_test(two_tidy_up),
        cmocka_unit_test(flush_before_writing),
        cmocka_unit_test(table_moves_under_a_walk),
        cmocka_unit_test(too_much_to_compare),
        cmocka_unit_test(too_much_that_differs),
        cmocka_unit_test(scarcity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
