/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What random guests (test_shadow.c) seldom or never meet, each case by itself on the machine of shadowenv.h: flushes
 * of addresses that were never mapped, processors that meet within an operation, and bounds on what the fast
 * path does at once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/gwalk.h"
#include "mm/p2m_balloon.h"
#include "mm/p2m_internal.h"           /* a page is taken away as reclaim does it */
#include "mm/shadow/shadow_internal.h" /* how long chains are, where tables stand */
#include "mm/share/cow.h"
#include "tests/host/env.h"
#include "tests/host/shadowenv.h"

static mfn_t frame_behind(uint64_t gfn)
{
    struct p2m_entry e;

    (void)shadowenv_guest_page(gfn);
    p2m_query(shadowenv.p2m, GFN(gfn), &e);
    return e.mfn;
}

static enum hv_err fault(struct shadowenv_cpu *c, struct shadow_fault *f, uint32_t how)
{
    f->how = how;
    return shadow_fault(shadowenv.view, &c->cpu, f);
}

/* Read gva, which must lead to gfn. */
static void expect(struct shadowenv_cpu *c, uint64_t gva, uint64_t gfn)
{
    struct shadow_fault f;
    mfn_t mfn;

    assert_int_equal(shadowenv_touch(c, gva, (struct ref_access){.ac = true}, &mfn, &f), DONE);
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
    struct shadowenv_cpu *c = &shadowenv.cpus[0];

    (void)state;
    rng_seed(&shadowenv.rng, 1);
    shadowenv_start(REF_LONG, 1, false, 100000);
    shadowenv_poke(ROOT, 0, PDPT << 12 | rw);
    shadowenv_poke(PDPT, 0, PD << 12 | rw);
    shadowenv_poke(PD, 0, T1 << 12 | rw);
    shadowenv_poke(PD, 7, T1 << 12 | rw);
    shadowenv_poke(T1, 1, 1000ull << 12 | rw);
    shadowenv_poke(T2, 0, 2000ull << 12 | rw);
    c->paging = (struct ref_paging){.mode = REF_LONG, .cr3 = ROOT << 12, .wp = true};
    shadowenv_load(c);
    expect(c, 0x1000, 1000);
    shadowenv_poke(PD, 0, T2 << 12 | rw);
    shadowenv_poke(T1, 0, 3000ull << 12 | rw);
    expect(c, slot7, 3000);
    assert_int_equal(shadow_invlpg(shadowenv.view, &c->cpu, GVA(0x5000000), true), HV_OK);
    memset(c->tlb, 0, sizeof(c->tlb));
    expect(c, 0, 2000);
    shadowenv_stop();
}

/* Tables of a second address space, by the entries of one directory. */
enum { ROOT = 64, PDPT, PD, TABLES };

static void make_space(unsigned nr_tables, uint64_t gfn)
{
    const uint64_t rw = 0x67;

    shadowenv_poke(ROOT, 0, PDPT << 12 | rw);
    shadowenv_poke(PDPT, 0, PD << 12 | rw);
    for (uint64_t i = 0; i < nr_tables; i++) {
        shadowenv_poke(PD, (unsigned)i, (TABLES + i) << 12 | rw);
        for (unsigned j = 0; j < 512; j++) {
            shadowenv_poke(TABLES + i, j, gfn << 12 | rw);
        }
    }
    for (unsigned i = 0; i < shadowenv.nr_cpus; i++) {
        shadowenv.cpus[i].cpu.id = i;
        shadowenv.cpus[i].paging =
            (struct ref_paging){.mode = REF_LONG, .cr3 = ROOT << 12, .wp = true};
        shadowenv_load(&shadowenv.cpus[i]);
    }
}

static unsigned chain_slots(uint64_t gfn)
{
    const struct shadow_region *r = region_look(shadow_of(shadowenv.view), GFN(gfn));
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
    rng_seed(&shadowenv.rng, 5);
    shadowenv_start(REF_LONG, 1, false, 100000);
    make_space(NR, GFN_MAPPED);
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(&shadowenv.cpus[0], page << 12, GFN_MAPPED);
        longest = MAX(longest, chain_slots(GFN_MAPPED));
    }
    assert_in_range(longest, 180, 210);
    assert_true(shadowenv.view->ops->audit(shadowenv.view));
    for (uint64_t page = 0; page < NR * 512; page += 7) {
        expect(&shadowenv.cpus[0], page << 12, GFN_MAPPED);
    }
    shadowenv_stop();
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
        shadow_tidy(shadowenv.view);
        ((uint64_t *)shadowenv_guest_page(meanwhile.table))[3] = meanwhile.entry;
    }
    shadowenv_flush_all(d);
}

static void two_tidy_up(void **state)
{
    enum { NR = 40 };

    (void)state;
    rng_seed(&shadowenv.rng, 6);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    for (uint64_t i = 0; i < NR; i++) {
        expect(&shadowenv.cpus[0], i << 21 | 3ull << 12, 3000);
    }
    assert_true(shadow_is_untidy(shadowenv.view));
    memset(&meanwhile, 0, sizeof(meanwhile));
    meanwhile.table = TABLES + 20;
    meanwhile.entry = 4000ull << 12 | 0x67;
    test_env.on_flush = write_meanwhile;
    shadow_tidy(shadowenv.view);
    assert_true(meanwhile.flushes > 0);
    assert_false(shadow_is_untidy(shadowenv.view));
    test_env.on_flush = shadowenv_flush_all;
    shadowenv_load(&shadowenv.cpus[0]);
    expect(&shadowenv.cpus[0], 20ull << 21 | 3ull << 12, 4000);
    shadowenv_stop();
}

/* Nobody writes to a page's new frame while others may read its old one. */
static void flush_before_writing(void **state)
{
    struct shadow_fault f = {.gva = GVA(3 << 12), .access = GWALK_AC | GWALK_WRITE};
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct flush_batch batch;

    (void)state;
    rng_seed(&shadowenv.rng, 9);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    assert_true(shadowenv_move_frame(GFN(3000), &batch));
    assert_int_equal(fault(c, &f, P2M_FAST), HV_EAGAIN);
    uint64_t flushes = p2m_flush_domain(shadowenv.p2m)->epoch;
    assert_int_equal(fault(c, &f, P2M_VCPU), HV_OK);
    assert_true(p2m_flush_domain(shadowenv.p2m)->epoch > flushes);
    flush_batch_commit(&batch);
    assert_int_equal(fault(c, &f, P2M_FAST), HV_OK);
    /* Nor while somebody is between the change of a word and what it takes from the view. */
    shadowenv.view->ops->drop(shadowenv.view, GFN(3000), 1, &batch);
    flush_batch_commit(&batch);
    spin_lock(&shadowenv.p2m->lock);
    assert_int_equal(fault(c, &f, P2M_FAST), HV_EAGAIN);
    spin_unlock(&shadowenv.p2m->lock);
    assert_int_equal(fault(c, &f, P2M_FAST), HV_OK);
    shadowenv_stop();
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
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct flush_batch batch;
    uint64_t *old;

    (void)state;
    rng_seed(&shadowenv.rng, 10);
    shadowenv_start(REF_LONG, 1, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    shadowenv_poke(TABLES, 5, 3001ull << 12 | rw);
    expect(c, 4 << 12, 3000); /* the walk remembers the table's frame */
    moving.armed = true;
    moving.gfn = GFN(TABLES);
    expect(c, 5 << 12, 3001);
    assert_false(moving.armed);
    old = env_frame_ptr(moving.old);
    assert_int_equal(old[5], 3001ull << 12 | rw);
    assert_int_equal(((uint64_t *)shadowenv_guest_page(TABLES))[5], 3001ull << 12 | rw | 0x20);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    shadowenv.view->ops->drop(shadowenv.view, GFN(TABLES), 1, &batch);
    flush_batch_free_block(&batch, moving.old, 0);
    flush_batch_commit(&batch);
    shadowenv_stop();
}

/* A fault exchanges an entry for one that may not be written any more, which the guest has not flushed; who
 * protects the page then finds nothing to protect, and flushes all the same. */
static void weakened_by_a_fault(void **state)
{
    const uint64_t kernel_rw = 0x63, user_ro = 0x65;
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct flush_batch batch;
    struct shadow_fault f;
    struct p2m_entry e;
    mfn_t mfn;

    (void)state;
    rng_seed(&shadowenv.rng, 11);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(1, 3000);
    shadowenv_poke(TABLES, 3, 3001ull << 12 | kernel_rw);
    assert_int_equal(shadowenv_touch(c, 3 << 12, (struct ref_access){.write = true}, &mfn, &f),
                     DONE);
    shadowenv_poke(TABLES, 3, 3001ull << 12 | user_ro);
    assert_int_equal(
        shadowenv_touch(&shadowenv.cpus[1], 3 << 12, (struct ref_access){.user = true}, &mfn, &f),
        DONE);
    p2m_query(shadowenv.p2m, GFN(3001), &e);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    assert_true(cow_nominate(shadowenv.p2m, GFN(3001), &e, &batch));
    flush_batch_commit(&batch);
    shadowenv_check_no_writer(e.mfn);
    shadowenv_stop();
}

/* A page that is used again after its accessed bit went is seen to be, however its use is found out. */
static void every_use_is_seen(void **state)
{
    static const struct {
        bool by_bit;
        enum view_watch how;
    } ways[] = {{true, WATCH_BIT}, {false, WATCH_GONE}};
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    const struct view_ops *ops;
    struct flush_batch batch;
    enum view_watch how;

    (void)state;
    rng_seed(&shadowenv.rng, 12);
    shadowenv_start(REF_LONG, 1, false, 100000);
    ops = shadowenv.view->ops;
    make_space(1, 3000);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    for (unsigned i = 0; i < 2; i++) {
        expect(c, 3 << 12, 3000);
        assert_true(ops->age(shadowenv.view, GFN(3000), &batch));
        flush_batch_commit(&batch);
        assert_false(ops->age(shadowenv.view, GFN(3000), &batch));
        flush_batch_commit(&batch);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        expect(c, 3 << 12, 3000);
        assert_int_equal(ops->watch(shadowenv.view, GFN(3000), ways[i].by_bit, &batch, &how),
                         HV_OK);
        assert_int_equal(how, ways[i].how);
        flush_batch_commit(&batch);
        assert_int_equal(ops->watched(shadowenv.view, GFN(3000), how), USE_NONE);
        expect(c, 3 << 12, 3000);
        assert_int_equal(ops->watched(shadowenv.view, GFN(3000), how), USE_SEEN);
    }
    shadowenv_stop();
}

/* A large page that was taken to pieces to watch one of them is whole again at the next touch of any. */
static void large_page_comes_back(void **state)
{
    enum { GFN_LARGE = 1024 };
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    const struct shadow_region *r;
    struct flush_batch batch;
    enum view_watch how;

    (void)state;
    rng_seed(&shadowenv.rng, 16);
    shadowenv_start(REF_LONG, 2, true, 100000);
    make_space(1, 3000);
    shadowenv_poke(PD, 7, (uint64_t)GFN_LARGE << 12 | 0xe7);
    expect(c, 7ull << 21, GFN_LARGE);
    r = region_look(shadow_of(shadowenv.view), GFN(GFN_LARGE));
    assert_int_not_equal(r->large, 0);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    assert_int_equal(
        shadowenv.view->ops->watch(shadowenv.view, GFN(GFN_LARGE + 5), true, &batch, &how), HV_OK);
    assert_int_equal(how, WATCH_PIECE);
    flush_batch_commit(&batch);
    expect(c, 7ull << 21 | 5ull << 12, GFN_LARGE + 5);
    assert_int_equal(r->large, 0);
    shadowenv.view->ops->unwatch(shadowenv.view, GFN(GFN_LARGE + 5), &batch);
    flush_batch_commit(&batch);
    expect(c, 7ull << 21 | 5ull << 12, GFN_LARGE + 5);
    assert_int_not_equal(r->large, 0);
    shadowenv_stop();
}

/* What is dropped is gone from TLBs too, whether or not its frame becomes free. */
static void nobody_keeps_what_is_dropped(void **state)
{
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct flush_batch batch;

    (void)state;
    rng_seed(&shadowenv.rng, 15);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    shadowenv.view->ops->drop(shadowenv.view, GFN(3000), 1, &batch);
    flush_batch_commit(&batch);
    for (unsigned i = 0; i < TLB_SIZE; i++) {
        assert_false(c->tlb[i].valid && c->tlb[i].mfn.n == frame_behind(3000).n);
    }
    shadowenv_stop();
}

/* A processor may stand in a table of ours, by what it keeps of upper levels: the frame is the table's until
 * everybody has flushed. */
static struct {
    mfn_t table[16];
    unsigned looked_at;
} zapped;

static void look_at_tables(struct flush_domain *d)
{
    for (unsigned i = 0; i < ARRAY_SIZE(zapped.table); i++) {
        assert_int_equal(frame_look(zapped.table[i]).use, FRAME_VIEW);
        zapped.looked_at++;
    }
    shadowenv_flush_all(d);
}

static void table_waits_for_the_flush(void **state)
{
    enum { NR = ARRAY_SIZE(zapped.table) };
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    const struct shadow_page *sp;
    struct flush_batch batch;

    (void)state;
    rng_seed(&shadowenv.rng, 13);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    for (uint64_t i = 0; i < NR; i++) {
        expect(c, i << 21 | 3ull << 12, 3000);
    }
    sp = c->cpu.root[0];
    for (unsigned level = 3; level > 1; level--) {
        sp = page_at(sp->table[0] & SPT_ADDRESS);
    }
    for (unsigned i = 0; i < NR; i++) {
        zapped.table[i] = hpa_mfn(HPA(sp->table[i] & SPT_ADDRESS));
    }
    /* Nothing is left in them: they are no tables any more, which tidying up finds out. */
    flush_batch_init(&batch, p2m_flush_domain(shadowenv.p2m));
    shadowenv.view->ops->drop(shadowenv.view, GFN(3000), 1, &batch);
    flush_batch_commit(&batch);
    assert_true(shadow_is_untidy(shadowenv.view));
    zapped.looked_at = 0;
    test_env.on_flush = look_at_tables;
    shadow_tidy(shadowenv.view);
    test_env.on_flush = shadowenv_flush_all;
    assert_int_equal(zapped.looked_at, NR);
    for (unsigned i = 0; i < NR; i++) {
        assert_int_equal(frame_look(zapped.table[i]).use, FRAME_FREE);
    }
    expect(c, 3ull << 12, 3000);
    shadowenv_stop();
}

/* The page of a table in use goes, and what comes in its place is empty: what was made from the old one does
 * not outlive the guest's next flush. */
static void traced_table_is_given_up(void **state)
{
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct p2m_balloon_batch batch;
    struct shadow_fault f;
    mfn_t mfn;

    (void)state;
    rng_seed(&shadowenv.rng, 14);
    shadowenv_start(REF_LONG, 1, false, 100000);
    make_space(1, 3000);
    expect(c, 3 << 12, 3000);
    shadowenv_load(c);
    assert_true(sync_is_traced(shadow_of(shadowenv.view), GFN(TABLES)));
    p2m_balloon_begin(&batch, shadowenv.p2m);
    assert_int_equal(p2m_balloon(&batch, GFN(TABLES), ORDER_4K), HV_OK);
    p2m_balloon_end(&batch);
    shadowenv_load(c);
    assert_int_equal(shadowenv_touch(c, 3 << 12, (struct ref_access){.ac = true}, &mfn, &f), FAULT);
    shadowenv_stop();
}

/* What would take long is left to the slow path, which puts an end to it. */
static void too_much_to_compare(void **state)
{
    enum { NR = 100 };
    struct shadow_fault f = {.gva = GVA(0x1000), .access = GWALK_AC};
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct guest_paging paging;

    (void)state;
    rng_seed(&shadowenv.rng, 7);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    for (uint64_t i = 0; i < NR; i++) {
        expect(c, i << 21 | 3ull << 12, 3000);
    }
    shadowenv_paging_registers(&c->paging, &paging);
    assert_int_equal(shadow_load(shadowenv.view, &c->cpu, &paging, true, &c->root), HV_EAGAIN);
    assert_int_equal(shadow_invlpg(shadowenv.view, &c->cpu, GVA(0), true), HV_EAGAIN);
    assert_int_equal(fault(c, &f, P2M_FAST), HV_EAGAIN);
    assert_int_equal(fault(c, &f, P2M_VCPU), HV_OK);
    shadow_tidy(shadowenv.view);
    assert_int_equal(shadow_load(shadowenv.view, &c->cpu, &paging, true, &c->root), HV_OK);
    shadowenv_stop();
}

static void map_each(unsigned nr_tables, uint64_t gfn)
{
    for (uint64_t i = 0; i < nr_tables; i++) {
        for (unsigned j = 0; j < 512; j++) {
            shadowenv_poke(TABLES + i, j, (gfn + j) << 12 | 0x67);
        }
    }
}

/* Nor is all taken out there that a guest has changed meanwhile. */
static void too_much_that_differs(void **state)
{
    enum { NR = 6 };
    struct shadowenv_cpu *c = &shadowenv.cpus[0];
    struct guest_paging paging;
    unsigned tries = 0;

    (void)state;
    rng_seed(&shadowenv.rng, 8);
    shadowenv_start(REF_LONG, 2, false, 100000);
    make_space(NR, 3000);
    map_each(NR, 3000);
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(c, page << 12, 3000 + page % 512);
    }
    map_each(NR, 4000);
    shadowenv_paging_registers(&c->paging, &paging);
    while (shadow_load(shadowenv.view, &c->cpu, &paging, true, &c->root) == HV_EAGAIN) {
        tries++;
    }
    assert_in_range(tries, 2, NR);
    memset(c->tlb, 0, sizeof(c->tlb));
    for (uint64_t page = 0; page < NR * 512; page++) {
        expect(c, page << 12, 4000 + page % 512);
    }
    shadowenv_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(invlpg_drops_upper_levels),
        cmocka_unit_test(one_page_everywhere),
        cmocka_unit_test(two_tidy_up),
        cmocka_unit_test(flush_before_writing),
        cmocka_unit_test(table_moves_under_a_walk),
        cmocka_unit_test(weakened_by_a_fault),
        cmocka_unit_test(every_use_is_seen),
        cmocka_unit_test(large_page_comes_back),
        cmocka_unit_test(nobody_keeps_what_is_dropped),
        cmocka_unit_test(table_waits_for_the_flush),
        cmocka_unit_test(traced_table_is_given_up),
        cmocka_unit_test(too_much_to_compare),
        cmocka_unit_test(too_much_that_differs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
