/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page sharing against the model of shareenv.h: everything at random; then what a scan, a load and a first touch
 * merge, and what they leave alone. What ends sharing is in test_share_breaks.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/buddy.h"
#include "mm/compact.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/share/born.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "tests/host/env.h"
#include "tests/host/shareenv.h"

/* ---- Everything at random ---- */

static uint64_t nr_split, nr_joined, nr_compacted;

static void count_split(struct p2m *p, gfn_t gfn)
{
    scan_range(p, gfn, 512);
}

static void split_or_join(struct tlbguest *vm)
{
    gfn_t gfn = GFN(512 + 512 * rng_below(&shareenv.rng, 2));
    mfn_t block;

    if (rng_below(&shareenv.rng, 2)) {
        nr_split += rng_below(&shareenv.rng, 2) ? p2m_large_split(vm->p2m, gfn, NULL) == HV_OK
                                                : p2m_large_split_coldest(vm->p2m, 1, count_split);
        return;
    }
    if (buddy_alloc(ORDER_2M, FRAME_GUEST, (uint32_t)(vm - shareenv.vms) + 1, 0, &block) != HV_OK) {
        return;
    }
    shareenv.joining = true;
    if (p2m_large_join(vm->p2m, gfn, 200 + (unsigned)rng_below(&shareenv.rng, 400), block) ==
        HV_OK) {
        nr_joined++;
    } else {
        buddy_free(block, ORDER_2M);
    }
    shareenv.joining = false;
}

static void compact(struct tlbguest *vm)
{
    mfn_t block;

    if (compact_block((uint32_t)(vm - shareenv.vms) + 1, &block) == HV_OK) {
        nr_compacted++;
        buddy_free(block, ORDER_2M);
    }
}

static void random_step(void)
{
    struct tlbguest *vm = &shareenv.vms[rng_below(&shareenv.rng, NR_VMS)];

    env_set_cpu((unsigned)rng_below(&shareenv.rng, test_env.nr_cpus));
    switch (rng_below(&shareenv.rng, 60)) {
    case 0:
        scan_pages(vm->p2m, rng_below(&shareenv.rng, 300));
        break;
    case 1:
        if (rng_below(&shareenv.rng, 8) == 0) {
            scan_all(vm->p2m);
        }
        break;
    case 2:
        p2m_set_thrift(rng_below(&shareenv.rng, 2));
        break;
    case 3:
    case 4:
    case 5:
        shareenv_pin_step(vm);
        break;
    case 6:
        split_or_join(vm);
        break;
    case 7:
        p2m_large_age(vm->p2m);
        break;
    case 8:
        compact(vm);
        break;
    default:
        tlbguest_step(vm, rng_below(&shareenv.rng, 4) != 0);
        break;
    }
}

static void random_operations(void **state)
{
    struct p2m_counters count;
    uint64_t merged = 0, broken = 0, failures = 0;

    (void)state;
    rng_seed(&shareenv.rng, env_seed("share: random operations"));
    for (unsigned round = 0; round < 8; round++) {
        shareenv_start(round % 2 == 0 ? NR_CPUS : 1, round % 2 == 1 || round == 4);
        rng_seed(&test_env.rng, rng_next(&shareenv.rng));
        test_env.fail_rate = round < 4 ? 0 : 20;
        /* Collisions; many pages for few references. */
        hash_weaken = round == 2 || round == 5 ? 3ull << 62 : UINT64_MAX;
        index_refs_max = round == 4 ? 3 : 0x7fffffff;
        for (unsigned step = 0; step < 20000; step++) {
            random_step();
            if (step % 1000 == 999) {
                shareenv_check_all();
            }
        }
        failures += test_env.failures;
        test_env.fail_rate = 0;
        test_env.on_relax = NULL;
        for (unsigned i = 0; i < NR_VMS; i++) {
            scan_all(shareenv.vms[i].p2m);
        }
        shareenv_check_all();
        for (unsigned i = 0; i < NR_VMS; i++) {
            p2m_counters(shareenv.vms[i].p2m, &count);
            merged += count.merged;
            broken += count.broken;
        }
        shareenv_stop();
        hash_weaken = UINT64_MAX;
        index_refs_max = 0x7fffffff;
        p2m_set_thrift(false);
    }
    printf("merged %llu, broken %llu, split %llu, joined %llu, compacted %llu\n",
           (unsigned long long)merged, (unsigned long long)broken, (unsigned long long)nr_split,
           (unsigned long long)nr_joined, (unsigned long long)nr_compacted);
    assert_true(nr_split > 30 && nr_joined > 30 && nr_compacted > 5);
    assert_true(merged > 5000);
    assert_true(broken > 3000);
    assert_true(failures > 100);
}

/* ---- What one scan gives ---- */

/* Within a salt every duplicate goes; between salts only zeros do. */
static void one_scan_merges_everything(void **state)
{
    struct share_stats stats;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (uint64_t gfn = HOLE; gfn < HOLE + 100; gfn++) {
            /* 10 zeros, 40 in pairs, 50 alone. */
            uint64_t pattern = gfn < HOLE + 10 ? 0 : gfn < HOLE + 50 ? 5 + gfn / 2 : 1000 + gfn;

            shareenv_write_pattern(i, gfn, pattern);
        }
    }
    for (unsigned i = 0; i < NR_VMS; i++) {
        scan_all(shareenv.vms[i].p2m);
    }
    shareenv_check_all();
    share_stats(&stats);
    assert_int_equal(stats.zero, 4 * 10);
    /* VMs 0 and 1: all 90 alike; 2 and 3: their own 40. */
    assert_int_equal(stats.pages, 4 * 10 + 2 * 90 + 2 * 40);
    assert_int_equal(stats.common, 1 + 20 + 50 + 2 * 20);
    /* A second scan finds nothing more. */
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct scan_stats s;

        scan_all(shareenv.vms[i].p2m);
        scan_stats(shareenv.vms[i].p2m, &s);
        assert_int_equal(s.passes, 2);
        assert_int_equal(s.pages, 2 * (0x10 + PAGES - HOLE));
    }
    share_stats(&stats);
    assert_int_equal(stats.common, 1 + 20 + 50 + 2 * 20);
    shareenv_quiet_stop();
}

/* A page that is written after each merge is left alone for a while, unless the operator insists. */
static void restless_pages_are_left_alone(void **state)
{
    struct scan_stats s;
    uint64_t merged;
    unsigned passes;

    (void)state;
    shareenv_quiet_start(1);
    shareenv_write_pattern(0, HOLE, 77);
    shareenv_write_pattern(0, HOLE + 1, 77);
    shareenv_write_pattern(0, HOLE + 2, 77);
    scan_all(shareenv.vms[0].p2m);
    for (unsigned round = 0; round < 3; round++) {
        shareenv_write_pattern(0, HOLE, 78);
        shareenv_write_pattern(0, HOLE, 77);
        scan_stats(shareenv.vms[0].p2m, &s);
        merged = s.merged;
        for (passes = 0; s.merged == merged; passes++) {
            scan_pages(shareenv.vms[0].p2m, PAGES - HOLE + 0x10);
            scan_stats(shareenv.vms[0].p2m, &s);
        }
        /* Four that leave it alone, and one that does not. */
        assert_in_range(passes, 4, 6);
    }
    shareenv_write_pattern(0, HOLE, 78);
    shareenv_write_pattern(0, HOLE, 77);
    scan_all(shareenv.vms[0].p2m);
    scan_stats(shareenv.vms[0].p2m, &s);
    assert_int_equal(s.merged, merged + 2);
    /* A page table, by the processor's own walk: longest. */
    assert_int_equal(shareenv_fault(&shareenv.vms[0], GFN(HOLE), P2M_WRITE | P2M_WALK), HV_OK);
    merged = s.merged;
    for (passes = 0; s.merged == merged; passes++) {
        scan_pages(shareenv.vms[0].p2m, PAGES - HOLE + 0x10);
        scan_stats(shareenv.vms[0].p2m, &s);
    }
    assert_in_range(passes, 14, 18);
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* What two VMs load from one file is one frame each page; a third of another salt has its own. */
static void born_shared(void **state)
{
    static char file[10 * PAGE_SIZE + 4];
    struct p2m_counters count;
    struct share_stats stats;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    for (unsigned page = 0; page < 10; page++) {
        /* Not aligned, and one of zeros. */
        uint64_t contents[WORDS];

        shareenv_fill(contents, page * 3, page * 3);
        memcpy(file + 4 + page * PAGE_SIZE, contents, PAGE_SIZE);
    }
    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t page = 0; page < 10; page++) {
            const char *data = file + 4 + page * PAGE_SIZE;

            test_env.fail_after = page == 5 ? 0 : -1;
            if (page == 5) {
                assert_int_equal(born_page(shareenv.vms[i].p2m, GFN(HOLE + page), data), HV_ENOMEM);
                test_env.fail_after = -1;
            }
            assert_int_equal(born_page(shareenv.vms[i].p2m, GFN(HOLE + page), data), HV_OK);
            assert_int_equal(born_page(shareenv.vms[i].p2m, GFN(HOLE + page), data), HV_EBUSY);
            shareenv.pattern[i][HOLE + page] = shareenv.first[i][HOLE + page] = page * 3;
        }
        assert_int_equal(born_page(shareenv.vms[i].p2m, GFN(HOLE - 1), file), HV_ENOENT);
        p2m_counters(shareenv.vms[i].p2m, &count);
        assert_int_equal(count.shared, 9);
        assert_int_equal(count.zero, 1);
        assert_int_equal(count.consumed, 0);
        shareenv_check_all();
    }
    share_stats(&stats);
    assert_int_equal(stats.common, 1 + 9 + 9);
    for (uint64_t page = 0; page < 10; page++) {
        shareenv_write_pattern(0, HOLE + page, 99);
        shareenv_write_pattern(2, HOLE + page, 99);
    }
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* Reads of untouched memory under pressure cost no frame. */
static void zero_frame_under_pressure(void **state)
{
    struct p2m_counters count;
    enum hv_err err;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    p2m_set_thrift(true);
    for (uint64_t gfn = HOLE; gfn < PAGES; gfn++) {
        shareenv_check_contents(&shareenv.vms[2], gfn,
                                tlbguest_translate(&shareenv.vms[2], gfn, false, &err));
    }
    p2m_counters(shareenv.vms[2].p2m, &count);
    assert_int_equal(count.zero, PAGES - HOLE);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = HOLE; gfn < PAGES; gfn++) {
        shareenv_write_pattern(2, gfn, gfn);
    }
    p2m_counters(shareenv.vms[2].p2m, &count);
    assert_int_equal(count.zero, 0);
    assert_int_equal(count.consumed, PAGES - HOLE);
    shareenv_check_all();
    p2m_set_thrift(false);
    shareenv_quiet_stop();
}

/* The page behind a hint is another VM's: its processors may not go on writing either. */
static void hinted_page_is_protected(void **state)
{
    struct p2m_entry e;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    shareenv_write_pattern(1, HOLE, 77);
    scan_all(shareenv.vms[1].p2m);
    for (unsigned i = 0; i < 4; i++) {
        shareenv_write_pattern(1, HOLE, 77); /* by both aliases */
    }
    shareenv_write_pattern(0, HOLE + 1, 77);
    scan_all(shareenv.vms[0].p2m);
    p2m_query(shareenv.vms[1].p2m, GFN(HOLE), &e);
    assert_int_equal(e.state, P2M_SHARED);
    for (unsigned i = 0; i < 4; i++) {
        shareenv_write_pattern(1, HOLE, 78);
    }
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* The table is bounded: with more pages than it has entries, old hints make room, and sharing goes on. */
static void index_is_bounded(void **state)
{
    struct index_stats stats;
    struct index_page page = {.member = 1};

    (void)state;
    shareenv_quiet_start(1);
    page.member = share_member(shareenv.vms[0].p2m);
    for (uint64_t i = 0; i < 60000; i++) {
        index_make_room(64);
        page.gfn = GFN(i);
        index_hint(index_key(i * 0x9e3779b97f4a7c15ull, 1), &page);
    }
    index_stats(&stats);
    assert_int_equal(stats.hints, stats.max_entries);
    assert_int_equal(stats.hints + stats.evicted, 60000);
    assert_int_equal(stats.bytes, stats.max_bytes);
    /* With the frame table's 16 bytes at most 0.8 % of memory: for a machine of a usual size, of which
     * this one is a part. */
    assert_true(16 * 4 * stats.max_entries <= 13 * 4 * NR_FRAMES * 2);
    shareenv_write_pattern(0, HOLE, 77);
    shareenv_write_pattern(0, HOLE + 1, 77);
    scan_all(shareenv.vms[0].p2m);
    index_stats(&stats);
    assert_int_equal(stats.shared, 1);
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* Contents change between the look at a hinted page and its protection: the hint is dropped, and no
 * frame is known by a key that it has not. */
static void promotion_hashes_again(void **state)
{
    struct scan_stats s;
    struct share_stats stats;
    enum hv_err err;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    shareenv_write_pattern(0, HOLE, 77);
    scan_all(shareenv.vms[0].p2m);
    /* A word that a glance does not see. */
    uint64_t *page = tlbguest_translate(&shareenv.vms[0], HOLE, true, &err);
    page[1] = 78;
    shareenv_write_pattern(0, HOLE + 1, 77);
    scan_all(shareenv.vms[0].p2m);
    page[1] = 77;
    scan_stats(shareenv.vms[0].p2m, &s);
    share_stats(&stats);
    assert_true(s.stale >= 1);
    assert_int_equal(stats.common, 0);
    shareenv_check_all();
    shareenv_quiet_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),
        cmocka_unit_test(one_scan_merges_everything),
        cmocka_unit_test(restless_pages_are_left_alone),
        cmocka_unit_test(born_shared),
        cmocka_unit_test(zero_frame_under_pressure),
        cmocka_unit_test(hinted_page_is_protected),
        cmocka_unit_test(index_is_bounded),
        cmocka_unit_test(promotion_hashes_again),
    };

    /* A failed test leaves a machine behind, in which the next one would hang. */
    setenv("CMOCKA_TEST_ABORT", "1", 0);
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
