/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Extended page tables: random changes of the engine in both EPT formats, against an array of pages
 * read back by a walker written from the manual, which also knows what the processor would refuse
 * as a misconfiguration.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "mm/env.h"
#include "mm/frame.h"
#include "mm/pt/fmt_ept.h"
#include "tests/host/env.h"

#define BASE MFN(0x800)
#define NR_FRAMES 4096ull
#define WINDOW 0x3f800000ull /* 16 MiB across a 1 GiB boundary */
#define PAGES 4096ull
#define ROUNDS 400u

struct page {
    bool present;
    uint64_t pa;
    uint32_t perm;
    enum pt_type type;
};

struct seen {
    uint64_t pa;
    unsigned order, rights, type;
    bool accessed, dirty, ignores_pat;
};

static struct page model[PAGES];
static struct pt pt;
static struct flush_domain domain;

/* "EPT Misconfigurations": a writable page is readable, reserved bits are clear, the memory type of
 * a leaf is one of five. */
static void check_entry(uint64_t bits, unsigned level, bool leaf)
{
    unsigned type = bits >> 3 & 7;

    assert_true((bits & 1) || !(bits & 2));
    if (leaf) {
        assert_true(type == 0 || type == 1 || type == 4 || type == 5 || type == 6);
        assert_int_equal(bits & 0x000ffffffffff000ull & ((0x1000ull << (9 * level)) - 1), 0);
    } else {
        assert_int_equal(bits & 0xf8, 0);
    }
}

static bool walk(uint64_t gpa, struct seen *out)
{
    uint64_t table = mfn_hpa(pt.root).a;

    out->rights = 7;
    for (unsigned level = 3;; level--) {
        const uint64_t *entries = env_frame_ptr(hpa_mfn(HPA(table)));
        uint64_t bits = entries[(gpa >> (12 + 9 * level)) & 511];
        bool leaf = level == 0 || (level <= 2 && (bits & 0x80) != 0);
        uint64_t span = 0x1000ull << (9 * level);

        if (!(bits & 7)) {
            assert_int_equal(bits, 0);
            return false;
        }
        check_entry(bits, level, leaf);
        out->rights &= bits & 7;
        if (leaf) {
            out->pa = (bits & 0x000ffffffffff000ull & ~(span - 1)) + (gpa & (span - 1));
            out->order = 9 * level;
            out->type = bits >> 3 & 7;
            out->ignores_pat = (bits & 0x40) != 0;
            out->accessed = (bits & 0x100) != 0;
            out->dirty = (bits & 0x200) != 0;
            return true;
        }
        table = bits & 0x000ffffffffff000ull;
    }
}

static unsigned type_number(enum pt_type type)
{
    static const unsigned numbers[] = {[PT_WB] = 6, [PT_WT] = 4, [PT_UC] = 0, [PT_WC] = 1};

    return numbers[type];
}

static void check_all(void)
{
    for (uint64_t i = 0; i < PAGES; i++) {
        const struct page *page = &model[i];
        uint64_t gpa = WINDOW + i * PAGE_SIZE;
        struct pt_leaf leaf;
        struct seen seen;

        assert_int_equal(walk(gpa, &seen), page->present);
        assert_int_equal(pt_lookup(&pt, gpa, &leaf), page->present);
        if (!page->present) {
            continue;
        }
        assert_int_equal(seen.pa, page->pa);
        assert_int_equal(seen.rights, page->perm);
        assert_int_equal(seen.type, type_number(page->type));
        assert_true(seen.ignores_pat);
        assert_int_equal(leaf.pa.a + (gpa - leaf.va), page->pa);
        assert_int_equal(leaf.order, seen.order);
        assert_int_equal(leaf.attr.perm, page->perm);
        assert_int_equal(leaf.attr.type, page->type);
    }
    assert_true(pt_audit(&pt));
}

static void do_map(struct rng *rng, uint64_t first, uint64_t nr, struct flush_batch *batch)
{
    const struct pt_attr attr = {.perm = PT_R | (rng_below(rng, 2) ? PT_W : 0) |
                                         (rng_below(rng, 2) ? PT_X : 0),
                                 .type = (enum pt_type)rng_below(rng, PT_NR_TYPES)};
    uint64_t pa = MIB(64) + rng_below(rng, 64) * MIB(2) + (first % 512) * PAGE_SIZE;

    assert_int_equal(pt_map(&pt, WINDOW + first * PAGE_SIZE, HPA(pa), nr * PAGE_SIZE, attr, batch),
                     HV_OK);
    for (uint64_t i = 0; i < nr; i++) {
        model[first + i] = (struct page){true, pa + i * PAGE_SIZE, attr.perm, attr.type};
    }
}

/* Leaves go whole: split at both ends first. */
static void isolate(uint64_t first, uint64_t nr, struct flush_batch *batch)
{
    (void)!pt_split(&pt, WINDOW + first * PAGE_SIZE, 0, batch);
    (void)!pt_split(&pt, WINDOW + (first + nr - 1) * PAGE_SIZE, 0, batch);
}

static void step(struct rng *rng)
{
    uint64_t first = rng_below(rng, PAGES), nr = 1 + rng_below(rng, MIN(PAGES - first, 1200ull));
    uint64_t gpa = WINDOW + first * PAGE_SIZE;
    struct flush_batch batch;

    if (rng_below(rng, 3) == 0) {
        first = rng_below(rng, 8) * 512;
        nr = 512;
    }
    flush_batch_init(&batch, &domain);
    switch (rng_below(rng, 5)) {
    case 0:
    case 1:
        do_map(rng, first, nr, &batch);
        break;
    case 2:
        isolate(first, nr, &batch);
        pt_unmap(&pt, WINDOW + first * PAGE_SIZE, nr * PAGE_SIZE, &batch);
        for (uint64_t i = 0; i < nr; i++) {
            model[first + i].present = false;
        }
        break;
    case 3:
        isolate(first, nr, &batch);
        pt_protect(&pt, WINDOW + first * PAGE_SIZE, nr * PAGE_SIZE, PT_R | PT_X, &batch);
        for (uint64_t i = 0; i < nr; i++) {
            model[first + i].perm &= PT_R | PT_X;
        }
        break;
    default:
        (void)pt_merge(&pt, ALIGN_DOWN(gpa, MIB(2)), ORDER_2M, &batch);
        break;
    }
    flush_batch_commit(&batch);
}

static void run_random(const struct pt_format *fmt, unsigned max_order)
{
    struct rng rng;

    rng_seed(&rng, env_seed("ept"));
    env_start(BASE, NR_FRAMES, 1);
    memset(model, 0, sizeof(model));
    assert_int_equal(pt_create(&pt, fmt, max_order, FRAME_VIEW, 1), HV_OK);
    for (unsigned i = 0; i < ROUNDS; i++) {
        step(&rng);
        if (i % 8 == 0) {
            check_all();
        }
    }
    check_all();
    pt_destroy(&pt, NULL);
    env_stop();
}

static void test_random(void **state)
{
    (void)state;
    run_random(&fmt_ept, ORDER_1G);
    run_random(&fmt_ept, ORDER_2M);
}

static void test_random_with_flags(void **state)
{
    (void)state;
    run_random(&fmt_ept_ad, ORDER_1G);
    run_random(&fmt_ept_ad, ORDER_4K);
}

/* With flags a used page is told by its accessed bit; without them its leaf is dropped. */
static void test_age(void **state)
{
    const struct pt_attr attr = {PT_R | PT_W | PT_X, PT_WB, false};
    struct flush_batch batch;
    struct pt_leaf leaf;
    struct seen seen;

    (void)state;
    for (unsigned flags = 0; flags < 2; flags++) {
        env_start(BASE, NR_FRAMES, 1);
        assert_int_equal(pt_create(&pt, flags ? &fmt_ept_ad : &fmt_ept, ORDER_2M, FRAME_VIEW, 1),
                         HV_OK);
        flush_batch_init(&batch, &domain);
        assert_int_equal(pt_map(&pt, WINDOW, HPA(MIB(64)), PAGE_SIZE, attr, &batch), HV_OK);
        assert_true(walk(WINDOW, &seen));
        assert_int_equal(seen.accessed, flags);
        assert_int_equal(seen.dirty, flags);
        assert_true(pt_age(&pt, WINDOW, ORDER_4K, &batch));
        assert_int_equal(pt_lookup(&pt, WINDOW, &leaf), flags);
        assert_false(pt_age(&pt, WINDOW, ORDER_4K, &batch));
        flush_batch_commit(&batch);
        pt_destroy(&pt, NULL);
        env_stop();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_random_with_flags),
        cmocka_unit_test(test_age),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
