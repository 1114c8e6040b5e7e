/* SPDX-License-Identifier: BSD-2-Clause */
/* See shadowenv.h. */
#include "tests/host/shadowenv.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/gwalk.h"
#include "mm/p2m_internal.h" /* pages are taken away as reclaim does it */
#include "mm/share/cow.h"
#include "tests/host/env.h"

#define BASE MFN(0x200)
#define NR_FRAMES 32768ull

struct shadowenv shadowenv;

static bool percent(unsigned p)
{
    return rng_below(&shadowenv.rng, 100) < p;
}

void shadowenv_flush_all(struct flush_domain *d)
{
    (void)d;
    for (unsigned i = 0; i < NR_CPUS_MAX; i++) {
        memset(shadowenv.cpus[i].tlb, 0, sizeof(shadowenv.cpus[i].tlb));
    }
}

/* ---- Guest memory ---- */

char *shadowenv_guest_page(uint64_t gfn)
{
    struct p2m_entry e;

    /* The model looks beside the view: what is not there is brought. */
    p2m_query(shadowenv.p2m, GFN(gfn), &e);
    if (e.state == P2M_HOLE) {
        return NULL;
    }
    while (!mfn_valid(e.mfn)) {
        assert_int_equal(p2m_populate(shadowenv.p2m, GFN(gfn), P2M_READ, &e), HV_OK);
    }
    return env_frame_ptr(e.mfn);
}

bool shadowenv_is_wide(void)
{
    return shadowenv.mode >= REF_PAE;
}

uint64_t shadowenv_read_entry(uint64_t table, unsigned index, bool wide)
{
    const char *page = shadowenv_guest_page(table >> PAGE_SHIFT);

    if (page == NULL) {
        return wide ? ~0ull : 0xffffffffull;
    }
    page += table & ~PAGE_MASK;
    return wide ? ((const uint64_t *)page)[index] : ((const uint32_t *)page)[index];
}

void shadowenv_poke(uint64_t gfn, unsigned index, uint64_t entry)
{
    char *page;

    assert_int_equal(p2m_get(shadowenv.p2m, GFN(gfn), P2M_WRITE, (void **)&page), HV_OK);
    if (shadowenv_is_wide()) {
        ((uint64_t *)page)[index] = entry;
    } else {
        ((uint32_t *)page)[index] = (uint32_t)entry;
    }
    p2m_put(shadowenv.p2m, GFN(gfn), page);
}

/* ---- The processor ---- */

static struct shadowenv_translation *tlb_slot(struct shadowenv_cpu *c, uint64_t gva)
{
    return &c->tlb[(gva >> PAGE_SHIFT ^ gva >> 21 ^ gva >> 30) % TLB_SIZE];
}

static void invlpg_tlb(struct shadowenv_cpu *c, uint64_t gva)
{
    /* A large page's pieces go together. */
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        if (c->tlb[i].page >> 10 == gva >> 22) {
            c->tlb[i].valid = false;
        }
    }
}

/* Walk our tables as hardware does: sets accessed bits. */
static bool hardware_walk(struct shadowenv_cpu *c, uint64_t gva, struct shadowenv_translation *out)
{
    bool four = shadowenv.mode == REF_LONG;
    uint64_t table = c->root.a;

    *out = (struct shadowenv_translation){true, true, true, true, gva >> PAGE_SHIFT, MFN_NONE};
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
static bool allows(const struct shadowenv_cpu *c, const struct shadowenv_translation *t,
                   struct ref_access a)
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

enum shadowenv_outcome shadowenv_touch(struct shadowenv_cpu *c, uint64_t gva, struct ref_access a,
                                       mfn_t *mfn, struct shadow_fault *f)
{
    for (unsigned tries = 0; tries < 64; tries++) {
        struct shadowenv_translation *t = tlb_slot(c, gva), found;

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
        *f = (struct shadow_fault){
            .gva = GVA(gva), .access = access_bits(a), .how = percent(50) ? P2M_FAST : P2M_VCPU};
        enum hv_err err = shadow_fault(shadowenv.view, &c->cpu, f);
        switch (err) {
        case HV_OK:
            shadowenv.seen.hidden++;
            break;
        case HV_EFAULT:
            return FAULT;
        case HV_ENOENT:
            return DEVICE;
        case HV_EPERM:
            return EMULATE;
        case HV_ENOMEM:
            assert_true(shadowenv.scarce);
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

void shadowenv_paging_registers(const struct ref_paging *p, struct guest_paging *out)
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
static bool load_quickly(struct shadowenv_cpu *c, const struct guest_paging *paging)
{
    const struct guest_paging *was = &c->cpu.paging;

    return shadowenv.mode == REF_LONG && c->cpu.root[0] != NULL && was->cr0 == paging->cr0 &&
           was->cr4 == paging->cr4 && was->efer == paging->efer && percent(70) &&
           shadow_switch(shadowenv.view, &c->cpu, paging->cr3, &c->root);
}

static enum hv_err load_paging(struct shadowenv_cpu *c, const struct guest_paging *paging)
{
    if (load_quickly(c, paging)) {
        return HV_OK;
    }
    enum hv_err err = shadow_load(shadowenv.view, &c->cpu, paging, percent(70), &c->root);
    return err == HV_EAGAIN ? shadow_load(shadowenv.view, &c->cpu, paging, false, &c->root) : err;
}

void shadowenv_load(struct shadowenv_cpu *c)
{
    struct guest_paging paging;

    if (shadowenv.mode == REF_PAE) {
        for (unsigned i = 0; i < 4; i++) {
            /* Reserved bits, which accessed bits may have set there, would fail the load. */
            c->paging.pdptr[i] =
                shadowenv_read_entry(c->paging.cr3 & 0xffffffe0, i, true) & ~0x1e6ull;
        }
    }
    shadowenv_paging_registers(&c->paging, &paging);
    assert_int_equal(load_paging(c, &paging), HV_OK);
    c->smep = c->paging.smep && shadowenv.mode != REF_NONE;
    c->smap = c->paging.smap && shadowenv.mode != REF_NONE;
    memset(c->tlb, 0, sizeof(c->tlb));
    memset(c->stale, 0, sizeof(c->stale));
    shadowenv.seen.loads++;
    shadow_tidy(shadowenv.view);
}

void shadowenv_invlpg(struct shadowenv_cpu *c, unsigned gva)
{
    if (shadow_invlpg(shadowenv.view, &c->cpu, GVA(shadowenv.gvas[gva]), true) != HV_OK) {
        assert_int_equal(shadow_invlpg(shadowenv.view, &c->cpu, GVA(shadowenv.gvas[gva]), false),
                         HV_OK);
    }
    if (shadowenv.nr_cpus == 1) {
        memset(c->tlb, 0, sizeof(c->tlb));
    } else {
        invlpg_tlb(c, shadowenv.gvas[gva]);
    }
    c->stale[gva] = 0;
    for (unsigned i = 0; i < NR_GVAS; i++) {
        c->stale[i] = c->stale[i] == STALE_TABLES ? 0 : c->stale[i];
    }
    shadowenv.seen.invlpgs++;
}

/* ---- The host ---- */

void shadowenv_check_no_writer(mfn_t mfn)
{
    for (unsigned n = 0; n < shadowenv.nr_cpus; n++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            const struct shadowenv_translation *t = &shadowenv.cpus[n].tlb[i];

            assert_false(t->valid && t->writable && t->mfn.n == mfn.n);
        }
    }
}

bool shadowenv_move_frame(gfn_t gfn, struct flush_batch *batch)
{
    struct p2m_entry e;
    mfn_t copy;

    p2m_query(shadowenv.p2m, gfn, &e);
    if (!cow_nominate(shadowenv.p2m, gfn, &e, batch)) {
        return false;
    }
    flush_batch_commit(batch);
    assert_int_equal(buddy_alloc(0, FRAME_GUEST, VM, 0, &copy), HV_OK);
    env_copy_page(env_frame_ptr(copy), env_frame_ptr(e.mfn));
    spin_lock(&shadowenv.p2m->lock);
    mfn_t old = e.mfn;
    frame_of(copy)->gfn = gfn.n;
    p2m_change(&e, word_next(e.seq, P2M_PRIVATE, copy));
    shadowenv.view->ops->drop(shadowenv.view, gfn, 1, batch);
    flush_batch_free_block(batch, old, 0);
    spin_unlock(&shadowenv.p2m->lock);
    return true;
}

/* ---- Runs ---- */

void shadowenv_start(enum ref_mode m, unsigned cpus_wanted, bool large, uint64_t overhead)
{
    const struct p2m_config cfg = {
        .owner = VM, .large_pages = large, .max_order = large ? ORDER_2M : ORDER_4K};
    const struct shadow_config scfg = {.owner = VM,
                                       .max_order = large ? ORDER_2M : ORDER_4K,
                                       .phys_bits = 40,
                                       .page1gb = shadowenv.page1gb,
                                       .nx = true,
                                       .nr_gfns = RAM_PAGES + 2000,
                                       .overhead_frames = overhead};

    env_start(BASE, NR_FRAMES, cpus_wanted);
    test_env.on_flush = shadowenv_flush_all;
    shadowenv.mode = m;
    shadowenv.nr_cpus = cpus_wanted;
    memset(shadowenv.cpus, 0, sizeof(shadowenv.cpus));
    memset(&shadowenv.seen, 0, sizeof(shadowenv.seen));
    assert_int_equal(p2m_create(&cfg, &shadowenv.p2m), HV_OK);
    assert_int_equal(shadow_create(shadowenv.p2m, &scfg, &shadowenv.view), HV_OK);
    assert_int_equal(p2m_add_ram(shadowenv.p2m, GFN(0), RAM_PAGES), HV_OK);
}

void shadowenv_stop(void)
{
    assert_true(shadowenv.view->ops->audit(shadowenv.view));
    for (unsigned i = 0; i < shadowenv.nr_cpus; i++) {
        shadow_unload(shadowenv.view, &shadowenv.cpus[i].cpu);
    }
    assert_true(p2m_audit(shadowenv.p2m));
    p2m_destroy(shadowenv.p2m);
    assert_true(mm_audit_gone(VM));
    env_stop();
}
