/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ballooned pages against an array: two guests of one salt write, read, pin, give up and take back
 * pages of both sizes while they are shared, through model TLBs that keep every translation until
 * their VM's recorded flush. A page that was given up reads as zero, whatever it was before.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m.h"
#include "mm/p2m_balloon.h"
#include "mm/p2m_large.h"
#include "mm/pt/fmt_x86.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define NR_VMS 2u
#define NR_CPUS 2u
#define PAGES 2560ull /* RAM but for [HOLE, HOLE_END); regions 1 to 4 are whole */
#define HOLE 0xa0ull
#define HOLE_END 0x100ull
#define REGION 512ull

struct tlb_entry {
    bool valid, writable;
    mfn_t mfn;
};

struct vm {
    struct p2m *p2m;
    struct view *view;
    uint64_t value[PAGES]; /* of every word */
    bool ballooned[PAGES];
    uint64_t popped;
    void *pin[PAGES];
    struct tlb_entry tlb[NR_CPUS][PAGES];
};

static struct vm vms[NR_VMS];
static struct rng rng;

static bool is_ram(uint64_t gfn)
{
    return gfn < PAGES && (gfn < HOLE || gfn >= HOLE_END);
}

/* ---- The guests ---- */

/* Whatever a TLB still knows is not free. */
static void check_tlbs(const struct vm *vm)
{
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
        for (uint64_t i = 0; i < PAGES; i++) {
            const struct tlb_entry *entry = &vm->tlb[cpu][i];

            assert_true(!entry->valid || frame_of(frame_head(entry->mfn))->use != FRAME_FREE);
        }
    }
}

static void flush_tlbs(struct flush_domain *d)
{
    for (unsigned i = 0; i < NR_VMS; i++) {
        if (vms[i].p2m != NULL && p2m_flush_domain(vms[i].p2m) == d) {
            check_tlbs(&vms[i]);
            memset(vms[i].tlb, 0, sizeof(vms[i].tlb));
        }
    }
}

static void create(struct vm *vm, bool large)
{
    const struct p2m_config cfg = {
        .owner = (uint32_t)(vm - vms) + 3, .large_pages = large, .max_order = ORDER_2M, .salt = 77};

    memset(vm, 0, sizeof(*vm));
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), HOLE), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(HOLE_END), PAGES - HOLE_END), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, cfg.owner, &vm->view), HV_OK);
    share_join(vm->p2m);
}

static void destroy(struct vm *vm)
{
    uint32_t owner = p2m_owner(vm->p2m);

    p2m_destroy(vm->p2m);
    assert_true(mm_audit_gone(owner));
    vm->p2m = NULL;
}

static void start(bool large)
{
    env_start(BASE, NR_FRAMES, NR_CPUS);
    test_env.on_flush = flush_tlbs;
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(5);
    for (unsigned i = 0; i < NR_VMS; i++) {
        create(&vms[i], large);
    }
}

static void stop(void)
{
    for (unsigned i = 0; i < NR_VMS; i++) {
        destroy(&vms[i]);
    }
    share_fini();
    p2m_set_thrift(false);
    env_stop();
}

static enum hv_err fault(struct vm *vm, uint64_t gfn, uint32_t access)
{
    enum hv_err err = vm->view->ops->fault(vm->view, gfn_gpa(GFN(gfn)), access | P2M_FAST);

    return err == HV_EAGAIN ? vm->view->ops->fault(vm->view, gfn_gpa(GFN(gfn)), access) : err;
}

/* The model's side of a touch. */
static void note_touch(struct vm *vm, uint64_t gfn)
{
    vm->popped += vm->ballooned[gfn];
    vm->ballooned[gfn] = false;
}

static enum hv_err guest_access(struct vm *vm, uint64_t gfn, bool write, uint64_t value)
{
    struct tlb_entry *entry = &vm->tlb[env_cpu()][gfn];
    struct ref_mapping seen;
    uint64_t *page;
    hpa_t root;

    while (!entry->valid || (write && !entry->writable)) {
        enum hv_err err;

        assert_int_equal(vm->view->ops->root(vm->view, &root), HV_OK);
        if (ref_walk(root.a, gfn << PAGE_SHIFT, &seen) && (seen.writable || !write)) {
            *entry = (struct tlb_entry){true, seen.writable, hpa_mfn(HPA(seen.pa))};
            break;
        }
        err = fault(vm, gfn, write ? P2M_WRITE : P2M_READ);
        if (err != HV_OK) {
            return err;
        }
        note_touch(vm, gfn);
    }
    assert_false(vm->ballooned[gfn]);
    page = env_frame_ptr(entry->mfn);
    assert_int_equal(page[0], vm->value[gfn]);
    assert_int_equal(page[511], vm->value[gfn]);
    for (unsigned i = 0; write && i < 512; i++) {
        page[i] = value;
    }
    vm->value[gfn] = write ? value : vm->value[gfn];
    return HV_OK;
}

/* ---- The model's balloon ---- */

static enum hv_err expect_give(const struct vm *vm, uint64_t gfn, unsigned order)
{
    for (uint64_t i = gfn; i < gfn + BIT(order); i++) {
        if (!is_ram(i) || (gfn & (BIT(order) - 1)) != 0) {
            return HV_ENOENT;
        }
    }
    for (uint64_t i = gfn; i < gfn + BIT(order); i++) {
        if (vm->ballooned[i]) {
            return HV_EEXIST;
        }
    }
    return HV_OK;
}

/* Only a page on a frame of its own is held by a pin. */
static bool any_pinned(const struct vm *vm, uint64_t gfn, unsigned order)
{
    uint64_t first = gfn & ~(REGION - 1);

    for (uint64_t i = first; i < MIN(first + REGION, PAGES); i++) {
        struct p2m_entry e;

        if (vm->pin[i] != NULL) {
            p2m_query(vm->p2m, GFN(i), &e);
            if (e.state == P2M_PRIVATE && (order == ORDER_2M || e.order == ORDER_2M || i == gfn)) {
                return true;
            }
        }
    }
    return false;
}

static void give(struct p2m_balloon_batch *b, struct vm *vm, uint64_t gfn, unsigned order)
{
    enum hv_err expected = expect_give(vm, gfn, order);
    bool pinned = any_pinned(vm, gfn, order);
    enum hv_err err = p2m_balloon(b, GFN(gfn), order);

    if (expected == HV_OK && err != HV_OK) {
        assert_true(err == HV_ENOMEM ? test_env.fail_rate != 0 : err == HV_EBUSY && pinned);
    } else if (order == ORDER_4K || expected == HV_OK) {
        assert_int_equal(err, expected);
    } else {
        /* Several reasons: whichever it met first. */
        assert_true(err == HV_ENOENT || err == HV_EEXIST || (err == HV_EBUSY && pinned));
    }
    for (uint64_t i = gfn; i < gfn + BIT(order) && i < PAGES; i++) {
        struct p2m_entry e;

        p2m_query(vm->p2m, GFN(i), &e);
        if (err == HV_OK) {
            vm->ballooned[i] = true;
            vm->value[i] = 0;
        } else if (e.state == P2M_UNTOUCHED) {
            vm->value[i] = 0; /* a region that was given in part and taken back */
        }
        assert_true((e.state == P2M_BALLOONED) == vm->ballooned[i]);
    }
}

static void discard(struct p2m_balloon_batch *b, struct vm *vm, uint64_t gfn, unsigned order)
{
    bool pinned = any_pinned(vm, gfn, order);
    uint64_t nr = 0, gone = 0;
    enum hv_err err = p2m_discard(b, GFN(gfn), order, &nr);

    for (uint64_t i = gfn; i < gfn + BIT(order); i++) {
        struct p2m_entry e;

        if (!is_ram(i)) {
            assert_int_equal(err, HV_ENOENT);
            break;
        }
        p2m_query(vm->p2m, GFN(i), &e);
        assert_int_equal(e.state == P2M_BALLOONED, vm->ballooned[i]);
        if (e.state == P2M_UNTOUCHED) {
            vm->value[i] = 0;
            gone++;
        } else if (!vm->ballooned[i]) {
            assert_true(pinned || test_env.fail_rate != 0);
        }
        assert_true(i != gfn + BIT(order) - 1 || err == HV_OK);
    }
    assert_true(nr <= gone);
}

static void take(struct vm *vm, uint64_t gfn, unsigned order)
{
    enum hv_err expected = HV_OK;
    enum hv_err err = p2m_unballoon(vm->p2m, GFN(gfn), order);

    for (uint64_t i = gfn; i < gfn + BIT(order); i++) {
        if (!is_ram(i) || (gfn & (BIT(order) - 1)) != 0) {
            expected = HV_ENOENT;
        } else if (!vm->ballooned[i] && expected == HV_OK) {
            expected = HV_EEXIST;
        }
    }
    if (expected != HV_OK) {
        assert_true(err == HV_ENOENT || err == HV_EEXIST);
    } else {
        assert_true(err == HV_OK || (err == HV_ENOMEM && test_env.fail_rate != 0));
    }
    for (uint64_t i = gfn; err == HV_OK && i < gfn + BIT(order); i++) {
        vm->ballooned[i] = false;
    }
}

static void forget(struct vm *vm)
{
    p2m_unballoon_all(vm->p2m);
    memset(vm->ballooned, 0, sizeof(vm->ballooned));
}

/* ---- Checks ---- */

static void check(struct vm *vm)
{
    struct p2m_counters count;
    uint64_t ballooned = 0;

    assert_true(p2m_audit(vm->p2m));
    assert_true(vm->view->ops->audit(vm->view));
    for (uint64_t i = 0; i < PAGES; i++) {
        const uint64_t *page = p2m_peek(vm->p2m, GFN(i));

        ballooned += vm->ballooned[i];
        assert_int_equal(page != NULL ? *page : 0, is_ram(i) ? vm->value[i] : 0);
        for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
            const struct tlb_entry *entry = &vm->tlb[cpu][i];

            if (entry->valid) {
                const struct frame *f = frame_of(frame_head(entry->mfn));

                assert_true(f->use == FRAME_GUEST || f->use == FRAME_SHARED ||
                            entry->mfn.n == share_zero_frame.n);
                assert_false(vm->ballooned[i]);
            }
        }
    }
    p2m_counters(vm->p2m, &count);
    assert_int_equal(count.ballooned, ballooned);
    assert_int_equal(count.popped, vm->popped);
    assert_true(count.granted + count.ballooned <= count.ram);
}

static uint64_t any_page(void)
{
    return rng_below(&rng, 3) ? 600 + rng_below(&rng, 40) : rng_below(&rng, PAGES + 3);
}

static uint64_t any_ram(void)
{
    uint64_t gfn = any_page();

    return is_ram(gfn) ? gfn : HOLE_END;
}

static void step_balloon(struct vm *vm)
{
    unsigned order = rng_below(&rng, 8) ? ORDER_4K : ORDER_2M;
    uint64_t gfn = order == ORDER_2M ? any_page() & ~(REGION - 1) : any_page();
    struct p2m_balloon_batch b;

    if (rng_below(&rng, 3) == 0) {
        p2m_balloon_begin(&b, vm->p2m);
        for (uint64_t i = order == ORDER_2M ? 1 : rng_below(&rng, 100); i-- > 0;) {
            discard(&b, vm, order == ORDER_2M ? gfn : gfn + i, order);
        }
        p2m_balloon_end(&b);
        return;
    }
    gfn += order == ORDER_2M && rng_below(&rng, 9) == 0; /* not aligned */
    if (rng_below(&rng, 100) == 0) {
        forget(vm);
        return;
    }
    if (rng_below(&rng, 3) == 0) {
        take(vm, gfn, order);
        return;
    }
    p2m_balloon_begin(&b, vm->p2m);
    for (uint64_t i = order == ORDER_2M ? 1 : rng_below(&rng, 100); i-- > 0;) {
        give(&b, vm, order == ORDER_2M ? gfn : gfn + i, order);
    }
    p2m_balloon_end(&b);
}

static void step_pin(struct vm *vm, uint64_t gfn)
{
    uint32_t access = rng_below(&rng, 2) ? P2M_READ : P2M_WRITE;

    if (vm->pin[gfn] != NULL) {
        p2m_put(vm->p2m, GFN(gfn), vm->pin[gfn]);
        vm->pin[gfn] = NULL;
    } else if (p2m_get(vm->p2m, GFN(gfn), access, &vm->pin[gfn]) == HV_OK) {
        note_touch(vm, gfn);
        assert_int_equal(*(uint64_t *)vm->pin[gfn], vm->value[gfn]);
    } else {
        struct p2m_entry e;

        vm->pin[gfn] = NULL;
        p2m_query(vm->p2m, GFN(gfn), &e);
        if (vm->ballooned[gfn] && e.state != P2M_BALLOONED) {
            note_touch(vm, gfn); /* popped, and no frame */
        }
    }
}

static void step_access(struct vm *vm, uint64_t gfn)
{
    /* Few values, so that pages are equal. */
    enum hv_err err = guest_access(vm, gfn, rng_below(&rng, 2), rng_below(&rng, 4));
    struct p2m_entry e;

    if (err != HV_OK) {
        assert_int_equal(err, HV_ENOMEM);
        p2m_query(vm->p2m, GFN(gfn), &e);
        if (vm->ballooned[gfn] && e.state != P2M_BALLOONED) {
            note_touch(vm, gfn);
        }
    }
}

static void random_operations(void **state)
{
    (void)state;
    rng_seed(&rng, env_seed("p2m_balloon: random operations"));
    for (unsigned round = 0; round < 4; round++) {
        start(round % 2 == 0);
        rng_seed(&test_env.rng, rng_next(&rng));
        test_env.quiet = true;
        test_env.fail_rate = round < 2 ? 0 : 40;
        for (unsigned i = 0; i < 12000; i++) {
            struct vm *vm = &vms[rng_below(&rng, NR_VMS)];

            env_set_cpu((unsigned)rng_below(&rng, NR_CPUS));
            switch (rng_below(&rng, 12)) {
            case 0:
                step_balloon(vm);
                break;
            case 1:
                step_pin(vm, any_ram());
                break;
            default:
                step_access(vm, any_ram());
                break;
            }
            if (i % 1000 == 0) {
                p2m_set_thrift(rng_below(&rng, 2));
                scan_all(vm->p2m);
                check(vm);
            }
        }
        test_env.fail_rate = 0;
        for (unsigned i = 0; i < NR_VMS; i++) {
            struct share_recount count;

            check(&vms[i]);
            assert_true(share_audit(&count));
            for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
                if (vms[i].pin[gfn] != NULL) {
                    p2m_put(vms[i].p2m, GFN(gfn), vms[i].pin[gfn]);
                }
            }
        }
        stop();
    }
}

/* ---- Single cases ---- */

static uint64_t free_now(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    return stats.free;
}

static enum hv_err give_one(struct vm *vm, uint64_t gfn, unsigned order)
{
    struct p2m_balloon_batch b;
    enum hv_err err;

    p2m_balloon_begin(&b, vm->p2m);
    err = p2m_balloon(&b, GFN(gfn), order);
    p2m_balloon_end(&b);
    return err;
}

static void frames_become_free(void **state)
{
    struct vm *vm = &vms[0];
    struct p2m_counters count;
    uint64_t before;

    (void)state;
    start(true);
    assert_int_equal(guest_access(vm, 512, true, 9), HV_OK);
    assert_int_equal(guest_access(vm, 1030, true, 9), HV_OK);
    before = free_now();
    /* A whole large page, then one page out of the other. */
    assert_int_equal(give_one(vm, 512, ORDER_2M), HV_OK);
    assert_int_equal(free_now(), before + 512);
    assert_int_equal(give_one(vm, 512, ORDER_2M), HV_EEXIST);
    assert_int_equal(give_one(vm, 700, ORDER_4K), HV_EEXIST);
    assert_int_equal(give_one(vm, 1030, ORDER_4K), HV_OK);
    p2m_counters(vm->p2m, &count);
    assert_int_equal(count.ballooned, 513);
    assert_int_equal(count.granted, 511);
    assert_int_equal(count.large_2m, 0);
    /* A page of a ballooned large page is touched: it alone comes back, as zero. */
    vm->value[513] = vm->value[1030] = 0;
    vm->ballooned[513] = vm->ballooned[1030] = true;
    assert_int_equal(guest_access(vm, 513, false, 0), HV_OK);
    assert_int_equal(guest_access(vm, 1030, false, 0), HV_OK);
    p2m_counters(vm->p2m, &count);
    assert_int_equal(count.ballooned, 511);
    assert_int_equal(count.popped, 2);
    /* The rest in pieces, and a region that was given up page by page in one. */
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(512), ORDER_2M), HV_EEXIST);
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(600), ORDER_4K), HV_OK);
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(600), ORDER_4K), HV_EEXIST);
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(HOLE), ORDER_4K), HV_ENOENT);
    for (uint64_t gfn = 1536; gfn < 2048; gfn++) {
        assert_int_equal(give_one(vm, gfn, ORDER_4K), HV_OK);
    }
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(1536), ORDER_2M), HV_OK);
    assert_true(p2m_audit(vm->p2m));
    forget(vm);
    p2m_counters(vm->p2m, &count);
    assert_int_equal(count.ballooned, 0);
    stop();
}

/* Memory for a node is needed to take 4 KiB out of a large page, ballooned or not. */
static void no_memory_for_a_node(void **state)
{
    struct vm *vm = &vms[0];
    struct p2m_entry e;

    (void)state;
    start(true);
    test_env.fail_site = "p2m.node";
    assert_int_equal(guest_access(vm, 512, true, 9), HV_OK);
    test_env.fail_rate = 1;
    assert_int_equal(give_one(vm, 515, ORDER_4K), HV_ENOMEM);  /* private */
    assert_int_equal(give_one(vm, 1030, ORDER_4K), HV_ENOMEM); /* untouched */
    assert_int_equal(give_one(vm, 512, ORDER_2M), HV_OK);
    assert_int_equal(p2m_unballoon(vm->p2m, GFN(515), ORDER_4K), HV_ENOMEM);
    assert_int_equal(p2m_populate(vm->p2m, GFN(515), P2M_READ, &e), HV_ENOMEM);
    assert_int_equal(p2m_populate(vm->p2m, GFN(515), P2M_READ | P2M_FAST, &e), HV_EAGAIN);
    test_env.fail_rate = 0;
    assert_int_equal(p2m_populate(vm->p2m, GFN(515), P2M_READ, &e), HV_OK);
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_true(p2m_audit(vm->p2m));
    stop();
}

/* A region of which one page is pinned stays whole. */
static void pinned_stays(void **state)
{
    struct vm *vm = &vms[0];
    void *ptr;

    (void)state;
    start(false);
    for (uint64_t gfn = 512; gfn < 1024; gfn++) {
        assert_int_equal(guest_access(vm, gfn, true, gfn), HV_OK);
    }
    assert_int_equal(p2m_get(vm->p2m, GFN(1000), P2M_WRITE, &ptr), HV_OK);
    assert_int_equal(give_one(vm, 512, ORDER_2M), HV_EBUSY);
    assert_int_equal(give_one(vm, 1000, ORDER_4K), HV_EBUSY);
    for (uint64_t gfn = 512; gfn < 1024; gfn++) {
        assert_int_equal(guest_access(vm, gfn, false, 0), HV_OK);
    }
    p2m_put(vm->p2m, GFN(1000), ptr);
    assert_int_equal(give_one(vm, 512, ORDER_2M), HV_OK);
    stop();
}

/* An audit in the middle of a batch, whose references are dropped at its end, is not sure and says so. */
static void audit_in_between(void **state)
{
    struct p2m_balloon_batch b;
    struct share_recount count;
    uint64_t nr = 0;

    (void)state;
    start(false);
    for (uint64_t gfn = 0; gfn < 2; gfn++) {
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(guest_access(&vms[i], gfn, true, 77 + gfn), HV_OK);
        }
    }
    scan_all(vms[0].p2m);
    scan_all(vms[1].p2m);
    assert_true(share_audit(&count) && count.certain);
    assert_int_equal(count.frames, 2);
    p2m_balloon_begin(&b, vms[0].p2m);
    assert_int_equal(p2m_balloon(&b, GFN(0), ORDER_4K), HV_OK);
    assert_int_equal(p2m_discard(&b, GFN(1), ORDER_4K, &nr), HV_OK);
    assert_int_equal(nr, 1);
    assert_true(share_audit(&count));
    assert_false(count.certain);
    p2m_balloon_end(&b);
    assert_true(share_audit(&count) && count.certain);
    assert_true(p2m_audit(vms[0].p2m));
    stop();
}

/* Whoever shares with a page that is given up keeps what he has. */
static void shared_frames_are_left(void **state)
{
    struct share_recount count;
    struct p2m_balloon_batch b;
    struct flush_batch flush;
    uint64_t epoch;

    (void)state;
    start(false);
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (uint64_t gfn = 512; gfn < 1024; gfn++) {
            assert_int_equal(guest_access(&vms[i], gfn, true, gfn), HV_OK);
        }
    }
    scan_all(vms[0].p2m);
    scan_all(vms[1].p2m);
    /* The last page on a frame goes, while a TLB knows the frame. */
    for (unsigned i = 0; i < NR_VMS; i++) {
        assert_int_equal(guest_access(&vms[i], 513, false, 0), HV_OK);
        assert_int_equal(give_one(&vms[i], 513, ORDER_4K), HV_OK);
        assert_int_equal(p2m_unballoon(vms[i].p2m, GFN(513), ORDER_4K), HV_OK);
        vms[i].value[513] = 0;
    }
    /* A page that no view maps may still be read without a lock (p2m_peek): that is waited for, too. */
    flush_batch_init(&flush, p2m_flush_domain(vms[0].p2m));
    vms[0].view->ops->drop(vms[0].view, GFN(600), 1, &flush);
    flush_batch_commit(&flush);
    epoch = p2m_flush_domain(vms[0].p2m)->epoch;
    assert_int_equal(give_one(&vms[0], 600, ORDER_4K), HV_OK);
    assert_true(p2m_flush_domain(vms[0].p2m)->epoch > epoch);
    assert_int_equal(p2m_unballoon(vms[0].p2m, GFN(600), ORDER_4K), HV_OK);
    vms[0].value[600] = 0;

    p2m_balloon_begin(&b, vms[0].p2m);
    assert_int_equal(p2m_balloon(&b, GFN(512), ORDER_2M), HV_OK);
    p2m_balloon_end(&b);
    memset(vms[0].value, 0, sizeof(vms[0].value));
    for (uint64_t gfn = 512; gfn < 1024; gfn++) {
        vms[0].ballooned[gfn] = true;
        assert_int_equal(guest_access(&vms[1], gfn, gfn % 2, gfn + 1), HV_OK);
        assert_int_equal(guest_access(&vms[0], gfn, false, 0), HV_OK);
    }
    assert_true(share_audit(&count));
    assert_true(count.certain);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_become_free), cmocka_unit_test(no_memory_for_a_node),
        cmocka_unit_test(pinned_stays),       cmocka_unit_test(shared_frames_are_left),
        cmocka_unit_test(audit_in_between),   cmocka_unit_test(random_operations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
