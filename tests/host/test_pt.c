/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The page-table engine against a plain array of pages. What the tables say is read by the
 * reference walker; every change that takes something away must say so in its flush batch.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/pt/fmt_x86.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x800)
#define NR_FRAMES 4096ull
/* 16 MiB across a 1 GiB boundary of the upper half. */
#define WINDOW 0xffff80003f800000ull
#define PAGES 4096ull

struct page {
    bool present;
    uint64_t pa;
    struct pt_attr attr;
};

static struct page model[PAGES];
static struct page before[PAGES];
static struct pt pt;
static struct flush_domain domain;

static uint64_t root_pa(void)
{
    return mfn_hpa(pt.root).a;
}

static unsigned pat_index(enum pt_type type)
{
    static const unsigned index[] = {[PT_WB] = 0, [PT_WT] = 1, [PT_UC] = 3, [PT_WC] = 5};

    return index[type];
}

static void check_page(uint64_t i)
{
    uint64_t va = WINDOW + i * PAGE_SIZE;
    const struct page *page = &model[i];
    struct ref_mapping seen;
    struct pt_leaf leaf;

    assert_int_equal(ref_walk(root_pa(), va, &seen), page->present);
    assert_int_equal(pt_lookup(&pt, va, &leaf), page->present);
    if (!page->present) {
        return;
    }
    assert_int_equal(seen.pa, page->pa);
    assert_int_equal(seen.writable, (page->attr.perm & PT_W) != 0);
    assert_int_equal(seen.executable, (page->attr.perm & PT_X) != 0);
    assert_int_equal(seen.global, page->attr.global);
    assert_int_equal(seen.pat, pat_index(page->attr.type));
    assert_int_equal(leaf.pa.a + (va - leaf.va), page->pa);
    assert_int_equal(leaf.order, seen.order);
    assert_int_equal(leaf.attr.perm, page->attr.perm);
    assert_int_equal(leaf.attr.type, page->attr.type);
    assert_int_equal(leaf.attr.global, page->attr.global);
}

static void check_all(void)
{
    for (uint64_t i = 0; i < PAGES; i++) {
        check_page(i);
    }
    assert_true(pt_audit(&pt));
}

/* Did the last operation take anything from the guest of these tables? */
static bool model_weakened(void)
{
    for (uint64_t i = 0; i < PAGES; i++) {
        const struct page *was = &before[i];
        const struct page *now = &model[i];

        if (was->present &&
            (!now->present || was->pa != now->pa || (was->attr.perm & ~now->attr.perm) != 0)) {
            return true;
        }
    }
    return false;
}

struct range {
    uint64_t first, nr;
};

static struct range random_range(struct rng *rng)
{
    struct range r;

    if (rng_below(rng, 3) == 0) {
        r.first = rng_below(rng, 8) * 512;
        r.nr = MIN((1 + rng_below(rng, 3)) * 512, PAGES - r.first);
    } else {
        r.first = rng_below(rng, PAGES);
        r.nr = MIN(1 + rng_below(rng, rng_below(rng, 2) ? 8 : 1200), PAGES - r.first);
    }
    return r;
}

static struct pt_attr random_attr(struct rng *rng)
{
    return (struct pt_attr){
        .perm = PT_R | (rng_below(rng, 2) ? PT_W : 0) | (rng_below(rng, 2) ? PT_X : 0),
        .type = (enum pt_type)rng_below(rng, PT_NR_TYPES),
        .global = rng_below(rng, 2) != 0,
    };
}

static void do_map(struct rng *rng, struct flush_batch *batch)
{
    struct range r = random_range(rng);
    struct pt_attr attr = random_attr(rng);
    /* Congruent modulo 2 MiB, so that large leaves are possible, or not. */
    uint64_t pa = GIB(3) + (rng_below(rng, 64) << 21) + (r.first % 512) * PAGE_SIZE;

    pa += rng_below(rng, 3) == 0 ? PAGE_SIZE : 0;
    if (pt_map(&pt, WINDOW + r.first * PAGE_SIZE, HPA(pa), r.nr * PAGE_SIZE, attr, batch) !=
        HV_OK) {
        return;
    }
    for (uint64_t i = 0; i < r.nr; i++) {
        model[r.first + i] = (struct page){true, pa + i * PAGE_SIZE, attr};
    }
}

/* No leaf reaches over either end of the range. */
static bool split_ends(struct range r, struct flush_batch *batch)
{
    uint64_t ends[2] = {r.first, r.first + r.nr};

    for (unsigned i = 0; i < 2; i++) {
        if (ends[i] % 512 != 0 &&
            pt_split(&pt, WINDOW + ends[i] * PAGE_SIZE, 0, batch) == HV_ENOMEM) {
            return false;
        }
    }
    return true;
}

static void do_unmap(struct rng *rng, struct flush_batch *batch)
{
    struct range r = random_range(rng);

    if (split_ends(r, batch)) {
        pt_unmap(&pt, WINDOW + r.first * PAGE_SIZE, r.nr * PAGE_SIZE, batch);
        memset(&model[r.first], 0, r.nr * sizeof(model[0]));
    }
}

/* Everything, tables included: the next change has to allocate again. */
static void do_forget(struct rng *rng, struct flush_batch *batch)
{
    uint64_t tables = pt.tables;

    if (rng_below(rng, 2)) {
        pt_unmap(&pt, WINDOW, PAGES * PAGE_SIZE, batch);
        memset(model, 0, sizeof(model));
        assert_int_equal(batch->nr, tables - pt.tables);
    }
}

static void do_protect(struct rng *rng, struct flush_batch *batch)
{
    struct range r = random_range(rng);
    uint32_t perm = random_attr(rng).perm;

    if (!split_ends(r, batch)) {
        return;
    }
    pt_protect(&pt, WINDOW + r.first * PAGE_SIZE, r.nr * PAGE_SIZE, perm, batch);
    for (uint64_t i = r.first; i < r.first + r.nr; i++) {
        model[i].attr.perm &= perm;
    }
}

static void do_split_or_merge(struct rng *rng, struct flush_batch *batch)
{
    uint64_t i = rng_below(rng, PAGES);
    uint64_t va = WINDOW + i * PAGE_SIZE;
    struct pt_leaf leaf;

    if (rng_below(rng, 2)) {
        enum hv_err err = pt_split(&pt, va, 0, batch);

        if (!model[i].present) {
            assert_int_equal(err, HV_ENOENT);
        } else if (err == HV_OK) {
            assert_true(pt_lookup(&pt, va, &leaf));
            assert_int_equal(leaf.order, 0);
        }
    } else if (pt_merge(&pt, va, ORDER_2M, batch)) {
        assert_true(pt_lookup(&pt, va, &leaf));
        assert_int_equal(leaf.order, ORDER_2M);
        assert_true(batch->dirty);
    }
}

static void do_age(struct rng *rng, struct flush_batch *batch)
{
    uint64_t i = rng_below(rng, PAGES);
    uint64_t va = WINDOW + i * PAGE_SIZE;
    struct ref_mapping seen;

    (void)pt_age(&pt, va, ORDER_4K, batch);
    assert_false(pt_age(&pt, va, ORDER_4K, batch));
    (void)ref_walk(root_pa(), va, &seen);
    assert_int_equal(pt_age(&pt, va, ORDER_4K, batch), model[i].present);
    assert_true(batch->dirty || !model[i].present);
}

static void random_operations(void **state)
{
    static void (*const ops[])(struct rng * rng, struct flush_batch * batch) = {
        do_map, do_map, do_unmap, do_forget, do_protect, do_split_or_merge, do_split_or_merge,
        do_age};
    struct flush_batch batch;
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("pt: random operations"));
    env_start(BASE, NR_FRAMES, 1);
    flush_domain_init(&domain, NULL);
    flush_batch_init(&batch, &domain);
    assert_int_equal(pt_create(&pt, &fmt_x86_host, ORDER_1G, FRAME_HOST, OWNER_HOST), HV_OK);
    for (unsigned step = 0; step < 3000; step++) {
        memcpy(before, model, sizeof(before));
        test_env.fail_after = rng_below(&rng, 3) ? -1 : (int64_t)rng_below(&rng, 4);
        ops[rng_below(&rng, ARRAY_SIZE(ops))](&rng, &batch);
        test_env.fail_after = -1;
        check_all();
        assert_true(batch.dirty || !model_weakened());
        flush_batch_commit(&batch);
    }
    assert_true(test_env.failures > 20);
    assert_true(mm_audit());
    pt_destroy(&pt, &batch);
    flush_batch_commit(&batch);
    memset(model, 0, sizeof(model));
    env_stop();
}

static const struct pt_attr rw = {PT_R | PT_W, PT_WB, false};

/* Every size of leaf, at both ends of the address space, for each format. */
static void leaf_sizes(void **state)
{
    static const struct pt_format *const formats[] = {&fmt_x86_host, &fmt_x86_npt};
    static const struct {
        uint64_t va, pa, size;
        uint64_t leaves[3];
        uint64_t tables;
    } cases[] = {
        {0, 0, PAGE_SIZE, {1, 0, 0}, 4},
        {0, MIB(2), MIB(2), {0, 1, 0}, 3},
        {0, MIB(1), MIB(2), {512, 0, 0}, 4},
        {GIB(1), GIB(7), GIB(1), {0, 0, 1}, 2},
        {GIB(1), GIB(7), GIB(3), {0, 0, 3}, 2},
        {GIB(1) - PAGE_SIZE, GIB(7) - PAGE_SIZE, GIB(1) + MIB(2) + 2 * PAGE_SIZE, {2, 1, 1}, 6},
        {0 - GIB(2), 0, GIB(2), {0, 0, 2}, 2},
        {0 - PAGE_SIZE, GIB(100), PAGE_SIZE, {1, 0, 0}, 4},
        {0x0000ffffc0000000ull, 0xfffffc0000000ull, GIB(1), {0, 0, 1}, 2},
    };

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    for (unsigned f = 0; f < ARRAY_SIZE(formats); f++) {
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            struct ref_mapping seen;

            assert_int_equal(pt_create(&pt, formats[f], ORDER_1G, FRAME_VIEW, 7), HV_OK);
            assert_int_equal(pt_map(&pt, cases[i].va, HPA(cases[i].pa), cases[i].size, rw, NULL),
                             HV_OK);
            assert_memory_equal(pt.leaves, cases[i].leaves, sizeof(cases[i].leaves));
            assert_int_equal(pt.tables, cases[i].tables);
            assert_true(pt_audit(&pt));
            assert_true(ref_walk(root_pa(), cases[i].va + cases[i].size - 1, &seen));
            assert_int_equal(seen.pa, cases[i].pa + cases[i].size - 1);
            assert_int_equal(seen.user, formats[f] == &fmt_x86_npt);
            pt_unmap(&pt, cases[i].va, cases[i].size, NULL);
            assert_false(ref_walk(root_pa(), cases[i].va, &seen));
            assert_true(pt_audit(&pt));
            pt_destroy(&pt, NULL);
            assert_true(mm_audit_gone(7));
        }
    }
    env_stop();
}

/* A limit on leaves holds although the format knows larger ones. */
static void leaves_are_limited(void **state)
{
    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_2M, FRAME_VIEW, 7), HV_OK);
    assert_int_equal(pt_map(&pt, 0, HPA(0), GIB(1), rw, NULL), HV_OK);
    assert_int_equal(pt.leaves[1], 512);
    assert_false(pt_merge(&pt, 0, ORDER_1G, NULL));
    pt_destroy(&pt, NULL);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_4K, FRAME_VIEW, 7), HV_OK);
    assert_int_equal(pt_map(&pt, 0, HPA(0), MIB(4), rw, NULL), HV_OK);
    assert_int_equal(pt.leaves[0], 1024);
    assert_int_equal(pt_map(&pt, 1, HPA(0), PAGE_SIZE, rw, NULL), HV_EINVAL);
    assert_int_equal(pt_map(&pt, 0, HPA(0), 0, rw, NULL), HV_EINVAL);
    pt_destroy(&pt, NULL);
    env_stop();
}

/* 1 GiB goes to pieces and comes together again; use survives both ways. */
static void split_and_merge_1g(void **state)
{
    struct flush_batch batch;
    struct pt_leaf leaf;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    flush_domain_init(&domain, NULL);
    flush_batch_init(&batch, &domain);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_1G, FRAME_VIEW, 7), HV_OK);
    assert_int_equal(pt_map(&pt, GIB(2), HPA(GIB(5)), GIB(1), rw, &batch), HV_OK);
    assert_false(batch.dirty);
    assert_true(pt_age(&pt, GIB(2), ORDER_4K, &batch));
    assert_int_equal(pt_split(&pt, GIB(2) + MIB(6), ORDER_4K, &batch), HV_OK);
    assert_int_equal(pt.leaves[0] + pt.leaves[1], 512 + 511);
    assert_false(pt_age(&pt, GIB(2) + MIB(6) + 4 * PAGE_SIZE, ORDER_4K, &batch));
    assert_false(pt_merge(&pt, GIB(2), ORDER_1G, &batch));
    assert_true(pt_merge(&pt, GIB(2) + MIB(7), ORDER_2M, &batch));
    assert_true(pt_merge(&pt, GIB(2), ORDER_1G, &batch));
    assert_true(pt_lookup(&pt, GIB(2) + 5, &leaf));
    assert_int_equal(leaf.order, ORDER_1G);
    assert_int_equal(leaf.pa.a, GIB(5));
    assert_false(pt_age(&pt, GIB(2), ORDER_4K, &batch));
    /* The tables wait for the flush. */
    assert_int_equal(batch.nr, 2);
    test_env.quiet = 1;
    assert_false(mm_audit_gone(7));
    test_env.quiet = 0;
    flush_batch_commit(&batch);
    assert_int_equal(test_env.flushes, 1);
    /* A page in the middle takes the whole leaf with it, unless it was split before. */
    pt_unmap(&pt, GIB(2) + MIB(100), PAGE_SIZE, &batch);
    assert_false(pt_lookup(&pt, GIB(2), &leaf));
    flush_batch_commit(&batch);
    pt_destroy(&pt, &batch);
    flush_batch_commit(&batch);
    assert_true(mm_audit_gone(7));
    env_stop();
}

/* A large leaf over a table replaces it; the table goes to the batch. */
static void large_over_small(void **state)
{
    struct flush_batch batch;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    flush_domain_init(&domain, NULL);
    flush_batch_init(&batch, &domain);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_1G, FRAME_VIEW, 7), HV_OK);
    assert_int_equal(pt_map(&pt, MIB(4), HPA(MIB(8)), PAGE_SIZE, rw, &batch), HV_OK);
    assert_int_equal(pt_map(&pt, MIB(4), HPA(MIB(8)), MIB(2), rw, &batch), HV_OK);
    assert_true(batch.dirty);
    assert_int_equal(batch.nr, 1);
    assert_int_equal(pt.leaves[0], 0);
    assert_int_equal(pt.leaves[1], 1);
    flush_batch_commit(&batch);
    pt_destroy(&pt, NULL);
    env_stop();
}

/* A prepared change is enough, and exactly enough, whatever fails afterwards. */
static void prepare_then_commit(void **state)
{
    struct pt_spare spare;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(pt_create(&pt, &fmt_x86_npt, ORDER_1G, FRAME_VIEW, 7), HV_OK);
    for (int64_t fail = 0; fail < 6; fail++) {
        test_env.fail_after = fail;
        assert_int_equal(pt_prepare(&pt, GIB(1) - PAGE_SIZE, HPA(0), 2 * PAGE_SIZE, &spare),
                         fail < 5 ? HV_ENOMEM : HV_OK);
        assert_int_equal(spare.nr, fail < 5 ? 0 : 5);
        assert_int_equal(pt.tables, 1);
    }
    test_env.fail_after = 0;
    pt_commit(&pt, GIB(1) - PAGE_SIZE, HPA(0), 2 * PAGE_SIZE, rw, &spare, NULL);
    assert_int_equal(spare.nr, 0);
    assert_int_equal(pt.leaves[0], 2);
    assert_int_equal(pt.tables, 6);
    test_env.fail_after = -1;
    pt_destroy(&pt, NULL);
    assert_true(mm_audit_gone(7));
    env_stop();
}

static bool note_leaf(const struct pt_leaf *leaf, void *ctx)
{
    uint64_t **next = ctx;

    *(*next)++ = leaf->va;
    return leaf->va != 0 - MIB(2);
}

static void visits_in_order(void **state)
{
    uint64_t seen[8];
    uint64_t *next = seen;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(pt_create(&pt, &fmt_x86_host, ORDER_1G, FRAME_HOST, OWNER_HOST), HV_OK);
    assert_int_equal(pt_map(&pt, 0 - MIB(2), HPA(0), MIB(2), rw, NULL), HV_OK);
    assert_int_equal(pt_map(&pt, GIB(1), HPA(0), GIB(1), rw, NULL), HV_OK);
    assert_int_equal(pt_map(&pt, PAGE_SIZE, HPA(0), PAGE_SIZE, rw, NULL), HV_OK);
    assert_false(pt_visit(&pt, note_leaf, &next));
    assert_int_equal(next - seen, 3);
    assert_int_equal(seen[0], PAGE_SIZE);
    assert_int_equal(seen[1], GIB(1));
    assert_int_equal(seen[2], 0 - MIB(2));
    pt_destroy(&pt, NULL);
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),  cmocka_unit_test(leaf_sizes),
        cmocka_unit_test(leaves_are_limited), cmocka_unit_test(split_and_merge_1g),
        cmocka_unit_test(large_over_small),   cmocka_unit_test(prepare_then_commit),
        cmocka_unit_test(visits_in_order),
    };

    return cmocka_run_group_tests_name("pt", tests, NULL, NULL);
}
