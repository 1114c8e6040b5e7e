/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested view over the p2m. Guest accesses go through model TLBs, one per processor, which keep
 * every translation until a recorded flush; misses are walked by the reference walker, faults go to
 * the view. Memory must hold what the guest wrote, and no TLB may reach a frame that is not the
 * guest's any more.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm/admission.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 32768ull
#define VM 9u
#define WINDOW 16384ull
#define NR_CPUS 4u

struct tlb_entry {
    bool valid, writable, executable;
    mfn_t mfn;
};

static struct p2m *p2m;
static struct view *view;
static uint64_t written[WINDOW];
static struct tlb_entry tlb[NR_CPUS][WINDOW];

static void flush_tlbs(struct flush_domain *d)
{
    (void)d;
    memset(tlb, 0, sizeof(tlb));
}

static uint64_t view_root(void)
{
    hpa_t root;

    assert_int_equal(view->ops->root(view, &root), HV_OK);
    return root.a;
}

static void create(bool large_pages, unsigned max_order, uint64_t pages)
{
    const struct p2m_config cfg = {
        .owner = VM, .vm = NULL, .large_pages = large_pages, .max_order = max_order};

    assert_int_equal(p2m_create(&cfg, &p2m), HV_OK);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), MIN(pages, 0x9full)), HV_OK);
    assert_int_equal(p2m_add_ram(p2m, GFN(0x100), pages - 0x100), HV_OK);
    assert_int_equal(nested_create(p2m, &fmt_x86_npt, VM, &view), HV_OK);
    memset(written, 0, sizeof(written));
    memset(tlb, 0, sizeof(tlb));
    test_env.on_flush = flush_tlbs;
}

static void destroy(void)
{
    view->ops->destroy(view);
    assert_null(p2m_view(p2m));
    p2m_destroy(p2m);
    assert_true(mm_audit_gone(VM));
}

/* Resolve a fault as the run loop does: on the fast path first. */
static enum hv_err fault(gfn_t gfn, uint32_t access)
{
    enum hv_err err = view->ops->fault(view, gfn_gpa(gfn), access | P2M_FAST);

    return err == HV_EAGAIN ? view->ops->fault(view, gfn_gpa(gfn), access) : err;
}

static bool allows(bool writable, bool executable, uint32_t access)
{
    return (writable || !(access & P2M_WRITE)) && (executable || !(access & P2M_EXEC));
}

/* The guest on this processor reads, writes or executes the first word of a page. */
static enum hv_err guest_access(gfn_t gfn, uint32_t access, uint64_t value)
{
    struct tlb_entry *entry = &tlb[env_cpu()][gfn.n];
    bool write = access == P2M_WRITE;
    struct ref_mapping seen;
    unsigned faults = 0;
    uint64_t *ptr;

    while (!entry->valid || !allows(entry->writable, entry->executable, access)) {
        enum hv_err err;

        if (ref_walk(view_root(), gfn_gpa(gfn).a, &seen) &&
            allows(seen.writable, seen.executable, access)) {
            assert_true(seen.user);
            assert_true(test_env.small_code ? seen.order == ORDER_4K || !seen.executable
                                            : seen.executable);
            *entry =
                (struct tlb_entry){true, seen.writable, seen.executable, hpa_mfn(HPA(seen.pa))};
            break;
        }
        assert_true(faults++ < 2);
        err = fault(gfn, access);
        if (err != HV_OK) {
            return err;
        }
    }
    ptr = env_frame_ptr(entry->mfn);
    assert_int_equal(*ptr, written[gfn.n]);
    if (write) {
        *ptr = value;
        written[gfn.n] = value;
    }
    return HV_OK;
}

/* Whatever a TLB still knows is the guest's own frame. */
static void check_tlbs(void)
{
    for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
        for (uint64_t gfn = 0; gfn < WINDOW; gfn++) {
            const struct tlb_entry *entry = &tlb[cpu][gfn];
            const struct frame *f;

            if (entry->valid) {
                f = frame_of(frame_head(entry->mfn));
                assert_int_equal(f->use, FRAME_GUEST);
                assert_int_equal(f->owner, VM);
                assert_int_equal(f->gfn + (entry->mfn.n - frame_mfn(f).n), gfn);
            }
        }
    }
}

static void check_view(void)
{
    struct view_stats stats;
    uint64_t owned[NR_FRAME_USES];

    assert_true(view->ops->audit(view));
    assert_true(p2m_audit(p2m));
    assert_true(view->ops->stats(view, &stats));
    buddy_count_owner(VM, owned);
    assert_int_equal(stats.tables, owned[FRAME_VIEW]);
    check_tlbs();
}

/* Protecting takes effect with the flush; so does forgetting. */
static void check_dropped(gfn_t first, uint64_t nr, bool protected)
{
    for (uint64_t i = first.n; i < first.n + nr; i++) {
        struct ref_mapping seen;

        if (ref_walk(view_root(), gfn_gpa(GFN(i)).a, &seen)) {
            assert_true(protected && !seen.writable);
        }
        for (unsigned cpu = 0; cpu < NR_CPUS; cpu++) {
            assert_true(!tlb[cpu][i].valid || (protected && !tlb[cpu][i].writable));
        }
    }
}

static void drop_or_protect(struct rng *rng)
{
    gfn_t first = GFN(rng_below(rng, WINDOW));
    uint64_t nr = MIN(1 + rng_below(rng, rng_below(rng, 2) ? 16 : 1024), WINDOW - first.n);
    bool protect = rng_below(rng, 2) != 0;
    struct flush_batch batch;

    flush_batch_init(&batch, p2m_flush_domain(p2m));
    (protect ? view->ops->protect : view->ops->drop)(view, first, nr, &batch);
    flush_batch_commit(&batch);
    check_dropped(first, nr, protect);
}

static void age(struct rng *rng)
{
    gfn_t gfn = GFN(rng_below(rng, WINDOW));
    struct flush_batch batch;

    flush_batch_init(&batch, p2m_flush_domain(p2m));
    (void)view->ops->age(view, gfn, &batch);
    flush_batch_commit(&batch);
    assert_false(view->ops->age(view, gfn, &batch));
    if (guest_access(gfn, P2M_READ, 0) == HV_OK) {
        assert_true(view->ops->age(view, gfn, &batch));
        flush_batch_commit(&batch);
    }
}

static bool is_ram(gfn_t gfn, uint64_t pages)
{
    return gfn.n < 0x9f || (gfn.n >= 0x100 && gfn.n < pages);
}

static void random_operations(void **state)
{
    const uint64_t pages = 12291;
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("nested: random operations"));
    env_start(BASE, NR_FRAMES, NR_CPUS);
    for (unsigned round = 0; round < 12; round++) {
        test_env.small_code = round >= 6;
        create(round % 3 != 0, round % 3 == 2 ? ORDER_4K : ORDER_2M, pages);
        rng_seed(&test_env.rng, rng_next(&rng));
        test_env.fail_rate = round % 6 < 3 ? 0 : 4;
        for (unsigned step = 0; step < 3000; step++) {
            gfn_t gfn = GFN(rng_below(&rng, WINDOW));
            enum hv_err err;

            env_set_cpu((unsigned)rng_below(&rng, NR_CPUS));
            switch (rng_below(&rng, 12)) {
            case 0:
                drop_or_protect(&rng);
                break;
            case 1:
                age(&rng);
                break;
            default:
                err = guest_access(gfn, 1u << rng_below(&rng, 3), rng_next(&rng));
                assert_true(err == (is_ram(gfn, pages) ? HV_OK : HV_ENOENT) ||
                            (err == HV_ENOMEM && test_env.fail_rate != 0));
                break;
            }
            if (step % 150 == 0) {
                check_view();
            }
        }
        test_env.fail_rate = 0;
        check_view();
        destroy();
    }
    assert_true(test_env.failures > 100);
    env_stop();
}

/* Each allocation of a first touch fails once; the guest sees nothing but a retry. */
static void every_allocation_fails_once(void **state)
{
    unsigned failed = 0;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    for (unsigned large = 0; large < 2; large++) {
        for (int64_t after = 0; after < 12; after++) {
            uint64_t failures;

            create(large != 0, ORDER_2M, 4096);
            test_env.fail_after = after;
            failures = test_env.failures;
            if (guest_access(GFN(0x400), P2M_WRITE, 7) != HV_OK) {
                failed++;
                assert_int_equal(test_env.failures, failures + 1);
                check_view();
            }
            test_env.fail_after = -1;
            assert_int_equal(guest_access(GFN(0x400), P2M_WRITE, 7), HV_OK);
            assert_int_equal(guest_access(GFN(0x401), P2M_WRITE, 8), HV_OK);
            check_view();
            destroy();
        }
    }
    /* 4 KiB: p2m node twice, frame, and three tables; 2 MiB: node and two tables, for the missing
     * 2 MiB frame is no error. */
    assert_in_range(failed, 6, 12);
    for (int64_t after = 0; after < 2; after++) {
        const struct p2m_config cfg = {.owner = VM, .max_order = ORDER_2M};

        assert_int_equal(p2m_create(&cfg, &p2m), HV_OK);
        test_env.fail_after = after;
        assert_int_equal(nested_create(p2m, &fmt_x86_npt, VM, &view), HV_ENOMEM);
        test_env.fail_after = -1;
        p2m_destroy(p2m);
        assert_true(mm_audit_gone(VM));
    }
    env_stop();
}

/* The bounds that the project sets: tables of a 256 MiB guest. */
static void overhead_is_bounded(void **state)
{
    const uint64_t pages = MIB(256) >> PAGE_SHIFT;

    (void)state;
    env_start(BASE, 4 * NR_FRAMES, 1);
    test_env.lazy_clear = true;
    for (unsigned large = 0; large < 2; large++) {
        struct p2m_counters count;
        struct view_stats stats;

        create(large != 0, ORDER_2M, pages);
        for (uint64_t i = 0x100; i < pages; i++) {
            assert_int_equal(fault(GFN(i), P2M_WRITE), HV_OK);
        }
        assert_true(view->ops->stats(view, &stats));
        p2m_counters(p2m, &count);
        assert_true(count.overhead <= (large ? 4 : 128 + 3));
        assert_true(stats.tables <= (large ? 4 : 128 + 3));
        assert_int_equal(stats.leaves_2m, large ? 127 : 0);
        /* Filling from nothing never flushes. */
        assert_int_equal(test_env.flushes, large ? 1 + 1 : 0);
        destroy();
    }
    env_stop();
}

/* What admission sets aside is enough, wherever RAM begins and ends. */
static void tables_were_admitted(void **state)
{
    static const uint64_t sizes[] = {MIB(1), MIB(3), MIB(1023), GIB(3), GIB(3) + MIB(1), GIB(5)};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        const uint64_t hole = GIB(3) >> PAGE_SHIFT, pages = sizes[i] >> PAGE_SHIFT;
        const struct p2m_config cfg = {.owner = VM, .max_order = ORDER_2M};
        struct p2m_counters count;
        struct view_stats stats;

        env_start(MFN(GIB(8) >> PAGE_SHIFT), GIB(6) >> PAGE_SHIFT, 1);
        test_env.lazy_clear = true;
        assert_int_equal(p2m_create(&cfg, &p2m), HV_OK);
        assert_int_equal(p2m_add_ram(p2m, GFN(0), 0x9f), HV_OK);
        if (pages > 0x100) {
            assert_int_equal(p2m_add_ram(p2m, GFN(0x100), MIN(pages, hole) - 0x100), HV_OK);
        }
        if (pages > hole) {
            assert_int_equal(p2m_add_ram(p2m, GFN(GIB(4) >> PAGE_SHIFT), pages - hole), HV_OK);
        }
        assert_int_equal(nested_create(p2m, &fmt_x86_npt, VM, &view), HV_OK);
        for (uint64_t gfn = 0; gfn < pages; gfn++) {
            enum hv_err err =
                fault(GFN(gfn < hole ? gfn : gfn + (GIB(1) >> PAGE_SHIFT)), P2M_WRITE);

            assert_true(err == HV_OK || (err == HV_ENOENT && gfn >= 0x9f && gfn < 0x100));
        }
        p2m_counters(p2m, &count);
        assert_true(view->ops->stats(view, &stats));
        assert_in_range(count.overhead, 1, admission_tree_tables(sizes[i]));
        assert_in_range(stats.tables, 1, admission_tree_tables(sizes[i]));
        destroy();
        env_stop();
    }
}

static void watch(gfn_t gfn, bool begin)
{
    struct flush_batch batch;
    enum view_watch how;

    flush_batch_init(&batch, p2m_flush_domain(p2m));
    if (begin) {
        assert_int_equal(view->ops->watch(view, gfn, true, &batch, &how), HV_OK);
        assert_int_equal(how, WATCH_PIECE);
    } else {
        view->ops->unwatch(view, gfn, &batch);
    }
    flush_batch_commit(&batch);
}

static void expect_leaves(uint64_t small, uint64_t large, uint64_t huge)
{
    struct view_stats stats;

    assert_true(view->ops->stats(view, &stats));
    assert_int_equal(stats.leaves_4k, small);
    assert_int_equal(stats.leaves_2m, large);
    assert_int_equal(stats.leaves_1g, huge);
    check_view();
}

/* Where no code may be in large leaves: one fault more for each page that is executed, none for others; a
 * block becomes large again after sampling unless something in it is executed. */
static void code_in_small_leaves(void **state)
{
    const gfn_t first = GFN(0x400);
    uint64_t before;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    test_env.small_code = true;
    create(true, ORDER_2M, 4096);
    assert_int_equal(guest_access(first, P2M_WRITE, 1), HV_OK);
    expect_leaves(0, 1, 0);
    watch(gfn_add(first, 9), true);
    expect_leaves(511, 0, 0);
    watch(gfn_add(first, 9), false);
    expect_leaves(0, 1, 0);
    /* The block is there. */
    assert_int_equal(guest_access(gfn_add(first, 5), P2M_EXEC, 0), HV_OK);
    expect_leaves(512, 0, 0);
    /* It is not. */
    assert_int_equal(guest_access(gfn_add(first, 512 + 5), P2M_EXEC, 0), HV_OK);
    expect_leaves(1024, 0, 0);
    before = p2m_flush_domain(p2m)->flushes;
    for (uint64_t i = 0; i < 1024; i++) {
        struct ref_mapping seen;

        assert_true(ref_walk(view_root(), gfn_gpa(gfn_add(first, i)).a, &seen) && seen.writable);
        assert_int_equal(seen.executable, i % 512 == 5);
    }
    watch(gfn_add(first, 9), true);
    watch(gfn_add(first, 9), false);
    expect_leaves(1024, 0, 0);
    watch(gfn_add(first, 5), true);
    watch(gfn_add(first, 5), false);
    expect_leaves(512, 1, 0);
    assert_true(p2m_flush_domain(p2m)->flushes > before);
    /* All of it is executed: it stays small none the less. */
    for (uint64_t i = 0; i < 512; i++) {
        assert_int_equal(guest_access(gfn_add(first, i), P2M_EXEC, 0), HV_OK);
    }
    watch(gfn_add(first, 9), true);
    assert_int_equal(guest_access(gfn_add(first, 9), P2M_EXEC, 0), HV_OK);
    watch(gfn_add(first, 9), false);
    expect_leaves(1024, 0, 0);
    destroy();
    env_stop();
}

/* The block stays in the p2m, and its piece is entered later, where a table fails. */
static void code_without_tables(void **state)
{
    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    test_env.small_code = true;
    for (unsigned touched = 0; touched < 2; touched++) {
        create(true, ORDER_2M, 4096);
        assert_int_equal(guest_access(GFN(0x600), P2M_WRITE, 1), HV_OK);
        if (touched) {
            assert_int_equal(guest_access(GFN(0x400), P2M_WRITE, 1), HV_OK);
        }
        test_env.fail_site = "pt.table";
        test_env.fail_after = 0;
        assert_int_equal(guest_access(GFN(0x401), P2M_EXEC, 0), HV_ENOMEM);
        test_env.fail_after = -1;
        test_env.fail_site = NULL;
        expect_leaves(0, 2, 0);
        assert_int_equal(guest_access(GFN(0x402), P2M_WRITE, 2), HV_OK);
        assert_int_equal(guest_access(GFN(0x401), P2M_EXEC, 0), HV_OK);
        expect_leaves(512, 1, 0);
        destroy();
    }
    env_stop();
}

static void gigabyte_leaf_after_promotion(void **state)
{
    struct view_stats stats;
    uint64_t *ptr;

    (void)state;
    env_start(MFN(GIB(4) >> PAGE_SHIFT), GIB(4) >> PAGE_SHIFT, 1);
    test_env.lazy_clear = true;
    create(true, ORDER_1G, GIB(3) >> PAGE_SHIFT);
    for (uint64_t i = 0; i < 512; i++) {
        gfn_t gfn = GFN(BIT(18) + i * 512 + i);

        assert_int_equal(fault(gfn, P2M_WRITE), HV_OK);
        ptr = (uint64_t *)(uintptr_t)p2m_peek(p2m, gfn);
        *ptr = i;
    }
    assert_true(view->ops->stats(view, &stats));
    assert_int_equal(stats.leaves_1g, 1);
    assert_int_equal(stats.leaves_2m, 0);
    assert_int_equal(test_env.flushes, 1);
    assert_true(view->ops->audit(view));
    assert_true(p2m_audit(p2m));
    for (uint64_t i = 0; i < 512; i++) {
        struct ref_mapping seen;

        assert_true(ref_walk(view_root(), gfn_gpa(GFN(BIT(18) + i * 512 + i)).a, &seen));
        assert_int_equal(seen.order, ORDER_1G);
        assert_int_equal(*(uint64_t *)env_frame_ptr(hpa_mfn(HPA(seen.pa))), i);
    }
    /* The view need not be destroyed first. */
    p2m_destroy(p2m);
    assert_true(mm_audit_gone(VM));
    env_stop();
}

/* Real threads: several vCPUs touch the same pages at once. Few, for ticket locks are slow where a
 * thread may lose its processor. */
#define THREAD_PAGES 4096u
#define NR_THREADS 2u
#define THREAD_STEPS 3000u

static void *vcpu_thread(void *arg)
{
    struct rng rng;

    env_set_cpu((unsigned)(uintptr_t)arg);
    rng_seed(&rng, (uintptr_t)arg);
    for (unsigned step = 0; step < THREAD_STEPS; step++) {
        gfn_t gfn = GFN(0x200 + rng_below(&rng, THREAD_PAGES));
        enum hv_err err = fault(gfn, P2M_WRITE);
        uint64_t *ptr = (uint64_t *)(uintptr_t)p2m_peek(p2m, gfn);

        if (err != HV_OK || ptr == NULL) {
            abort();
        }
        __atomic_add_fetch(ptr, 1, __ATOMIC_RELAXED);
        if (step % 64 == 0) {
            struct flush_batch batch;

            flush_batch_init(&batch, p2m_flush_domain(p2m));
            view->ops->drop(view, gfn, 1 + rng_below(&rng, 600), &batch);
            flush_batch_commit(&batch);
        }
    }
    return NULL;
}

static void several_vcpus_at_once(void **state)
{
    (void)state;
    env_start(BASE, NR_FRAMES, NR_CPUS);
    for (unsigned large = 0; large < 2; large++) {
        pthread_t threads[NR_THREADS];
        uint64_t touches = 0;

        create(large != 0, ORDER_2M, 0x200 + THREAD_PAGES);
        test_env.on_flush = NULL;
        for (uintptr_t i = 0; i < NR_THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, vcpu_thread, (void *)i), 0);
        }
        for (unsigned i = 0; i < NR_THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        for (uint64_t i = 0; i < THREAD_PAGES; i++) {
            const uint64_t *ptr = p2m_peek(p2m, GFN(0x200 + i));

            touches += ptr != NULL ? *ptr : 0;
        }
        /* No touch was lost: nobody got a page that another one replaced. */
        assert_int_equal(touches, NR_THREADS * THREAD_STEPS);
        assert_true(view->ops->audit(view));
        assert_true(p2m_audit(p2m));
        destroy();
    }
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(overhead_is_bounded),
        cmocka_unit_test(tables_were_admitted),
        cmocka_unit_test(gigabyte_leaf_after_promotion),
        cmocka_unit_test(several_vcpus_at_once),
        cmocka_unit_test(code_in_small_leaves),
        cmocka_unit_test(code_without_tables),
    };

    return cmocka_run_group_tests_name("nested", tests, NULL, NULL);
}
