/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How pages stop being shared (shareenv.h): writes, pins, large pages that are split and joined around them, VMs that
 * go, and what happens to each when no memory is left.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/share/born.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/shareenv.h"

#define JOINED 512ull /* a region of small pages */

/* A write to a page of many breaks that page alone; the last one keeps the frame. */
static void breaks_keep_the_others(void **state)
{
    struct p2m_counters count;
    struct buddy_stats before, after;
    struct p2m_entry e;
    mfn_t last;

    (void)state;
    shareenv_quiet_start(1);
    for (uint64_t gfn = HOLE; gfn < HOLE + 20; gfn++) {
        shareenv_write_pattern(0, gfn, 77);
    }
    scan_all(shareenv.vms[0].p2m);
    p2m_counters(shareenv.vms[0].p2m, &count);
    assert_int_equal(count.shared, 20);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = HOLE; gfn < HOLE + 19; gfn++) {
        shareenv_write_pattern(0, gfn, 1000 + gfn);
        shareenv_check_all();
    }
    p2m_query(shareenv.vms[0].p2m, GFN(HOLE + 19), &e);
    assert_int_equal(e.state, P2M_SHARED);
    last = e.mfn;
    buddy_stats(&before);
    shareenv_write_pattern(0, HOLE + 19, 5);
    buddy_stats(&after);
    p2m_query(shareenv.vms[0].p2m, GFN(HOLE + 19), &e);
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_int_equal(e.mfn.n, last.n);
    assert_int_equal(before.free, after.free);
    p2m_counters(shareenv.vms[0].p2m, &count);
    assert_int_equal(count.broken, 20);
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* Who reads without a lock what no view maps is waited for all the same, before the frame can go. */
static void unmapped_breaks_flush(void **state)
{
    struct p2m *p;
    struct flush_batch batch;
    uint64_t epoch;
    void *page;

    (void)state;
    shareenv_quiet_start(1);
    p = shareenv.vms[0].p2m;
    for (uint64_t gfn = HOLE; gfn < HOLE + 3; gfn++) {
        shareenv_write_pattern(0, gfn, 77);
    }
    scan_all(p);
    flush_batch_init(&batch, p2m_flush_domain(p));
    shareenv.vms[0].view->ops->drop(shareenv.vms[0].view, GFN(HOLE), 3, &batch);
    flush_batch_commit(&batch);
    epoch = p2m_flush_domain(p)->epoch;
    assert_int_equal(p2m_get(p, GFN(HOLE), P2M_WRITE, &page), HV_OK);
    assert_true(p2m_flush_domain(p)->epoch > epoch);
    shareenv_write_page(&shareenv.vms[0], HOLE, page);
    p2m_put(p, GFN(HOLE), page);
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* A reader's pin keeps the contents through a break; a writer's pin keeps the page from merging. */
static void pins_and_sharing(void **state)
{
    struct p2m_entry e;
    void *read, *write;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    shareenv_write_pattern(0, HOLE, 77);
    shareenv_write_pattern(0, HOLE + 1, 77);
    shareenv_write_pattern(0, HOLE + 2, 77);
    assert_int_equal(p2m_get(shareenv.vms[0].p2m, GFN(HOLE + 2), P2M_WRITE, &write), HV_OK);
    scan_all(shareenv.vms[0].p2m);
    p2m_query(shareenv.vms[0].p2m, GFN(HOLE), &e);
    assert_int_equal(e.state, P2M_SHARED);
    p2m_query(shareenv.vms[0].p2m, GFN(HOLE + 2), &e);
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_int_equal(p2m_get(shareenv.vms[0].p2m, GFN(HOLE), P2M_READ, &read), HV_OK);
    shareenv_check_all();
    shareenv_write_pattern(0, HOLE, 1);
    shareenv_write_pattern(0, HOLE + 1, 2);
    shareenv_check_all();
    assert_int_equal(*(uint64_t *)read, 77);
    p2m_put(shareenv.vms[0].p2m, GFN(HOLE), read);
    p2m_put(shareenv.vms[0].p2m, GFN(HOLE + 2), write);
    shareenv_check_all();
    shareenv_quiet_stop();
}

/* Every allocation of a scan and of a break fails once. */
static void every_failure_leaves_order(void **state)
{
    (void)state;
    for (int64_t after = 0; after < 6; after++) {
        shareenv_quiet_start(1);
        shareenv_write_pattern(0, HOLE, 77);
        shareenv_write_pattern(0, HOLE + 1, 77);
        shareenv_write_pattern(0, HOLE + 2, 0);
        test_env.fail_after = after;
        scan_all(shareenv.vms[0].p2m);
        shareenv_check_all();
        test_env.fail_after = -1;
        scan_all(shareenv.vms[0].p2m);
        for (uint64_t gfn = HOLE; gfn < HOLE + 3; gfn++) {
            enum hv_err err;

            test_env.fail_after = after;
            (void)tlbguest_translate(&shareenv.vms[0], gfn, true, &err);
            shareenv_check_all();
            test_env.fail_after = -1;
            shareenv_write_pattern(0, gfn, 5);
        }
        shareenv_check_all();
        shareenv_quiet_stop();
    }
}

/* Copies of shared pages may use what first touches may not. */
static void breaks_have_a_reserve(void **state)
{
    static mfn_t taken[NR_FRAMES];
    static char file[PAGE_SIZE] = "a page of a module";
    struct p2m_entry e;
    uint64_t nr = 0;

    (void)state;
    shareenv_quiet_start(1);
    for (uint64_t gfn = HOLE; gfn < HOLE + 50; gfn++) {
        shareenv_write_pattern(0, gfn, 77);
    }
    scan_all(shareenv.vms[0].p2m);
    buddy_set_reserve(100);
    while (buddy_alloc(0, FRAME_GUEST, 9, 0, &taken[nr]) == HV_OK) {
        nr++;
    }
    assert_int_equal(p2m_populate(shareenv.vms[0].p2m, GFN(HOLE + 60), P2M_WRITE, &e), HV_ENOMEM);
    assert_int_equal(born_page(shareenv.vms[0].p2m, GFN(HOLE + 60), file), HV_ENOMEM);
    for (uint64_t gfn = HOLE; gfn < HOLE + 49; gfn++) {
        shareenv_write_pattern(0, gfn, gfn);
    }
    shareenv_check_all();
    while (nr != 0) {
        buddy_free(taken[--nr], 0);
    }
    buddy_set_reserve(0);
    shareenv_quiet_stop();
}

/* A 1 GiB page goes into 2 MiB and 4 KiB pages without a frame moving; what is in them can be shared,
 * and a region becomes whole again. */
static void a_gigabyte_splits(void **state)
{
    const struct p2m_config cfg = {
        .owner = 1, .max_order = ORDER_1G, .large_pages = true, .salt = 1};
    const uint64_t pages = BIT(ORDER_1G), region = BIT(ORDER_2M), marked = 100;
    struct p2m_counters count;
    struct p2m_entry e, whole;
    struct p2m *p;
    mfn_t block;

    (void)state;
    env_start(BASE, 3 * pages - BASE.n, 1);
    test_env.lazy_clear = true;
    assert_int_equal(share_init(3 * pages), HV_OK);
    assert_int_equal(p2m_create(&cfg, &p), HV_OK);
    assert_int_equal(p2m_add_ram(p, GFN(0), pages), HV_OK);
    share_join(p);
    for (uint64_t gfn = 0; gfn < pages; gfn += region) {
        assert_int_equal(p2m_populate(p, GFN(gfn), P2M_WRITE, &e), HV_OK);
    }
    p2m_query(p, GFN(0), &whole);
    assert_int_equal(whole.order, ORDER_1G);
    for (uint64_t gfn = 0; gfn < marked; gfn++) {
        *(uint64_t *)env_frame_ptr(mfn_add(whole.mfn, gfn)) = 1 + gfn / 2;
    }
    assert_int_equal(p2m_large_split(p, GFN(pages - 1), NULL), HV_OK);
    p2m_counters(p, &count);
    assert_int_equal(count.large_1g, 0);
    assert_int_equal(count.large_2m, 512);
    assert_int_equal(p2m_large_split(p, GFN(7), NULL), HV_OK);
    p2m_query(p, GFN(7), &e);
    assert_int_equal(e.order, ORDER_4K);
    assert_int_equal(e.mfn.n, whole.mfn.n + 7);
    scan_range(p, GFN(0), region);
    p2m_counters(p, &count);
    assert_int_equal(count.large_2m, 511);
    assert_int_equal(count.shared, marked);
    assert_int_equal(count.zero, region - marked);
    assert_true(p2m_audit(p));
    /* Every page of it is on a frame of others: nothing would be gained. Some are written. */
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block), HV_OK);
    assert_int_equal(p2m_large_join(p, GFN(0), 510, block), HV_EBUSY);
    test_env.lazy_clear = false;
    for (uint64_t gfn = 0; gfn < 4; gfn++) {
        assert_int_equal(p2m_populate(p, GFN(gfn), P2M_WRITE, &e), HV_OK);
    }
    assert_int_equal(p2m_large_join(p, GFN(0), 510, block), HV_OK);
    p2m_query(p, GFN(marked - 1), &e);
    assert_int_equal(e.order, ORDER_2M);
    assert_int_equal(*(uint64_t *)env_frame_ptr(e.mfn), 1 + (marked - 1) / 2);
    p2m_counters(p, &count);
    assert_int_equal(count.large_2m, 512);
    assert_int_equal(count.shared + count.zero, 0);
    assert_true(p2m_audit(p));
    p2m_destroy(p);
    assert_true(mm_audit_gone(1));
    share_fini();
    env_stop();
}

/* A processor that goes on writing by what it still holds of the region that is being joined. */
static unsigned late_writes;

static void late_writer(void)
{
    struct tlbguest *vm = &shareenv.vms[0];

    for (uint64_t gfn = JOINED; gfn < JOINED + 8; gfn++) {
        for (unsigned alias = 0; alias < NR_ALIASES; alias++) {
            const struct tlbguest_entry *entry = tlbguest_entry(vm, 0, alias, gfn);

            if (entry->valid && entry->writable) {
                shareenv_write_page(vm, gfn, env_frame_ptr(entry->mfn));
                late_writes++;
            }
        }
    }
}

static void no_write_is_lost_by_joining(void **state)
{
    struct tlbguest *vm = &shareenv.vms[0];
    mfn_t block;

    (void)state;
    shareenv_quiet_start(1);
    for (uint64_t gfn = JOINED; gfn < JOINED + 512; gfn++) {
        shareenv_write_pattern(0, gfn, gfn);
    }
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block), HV_OK);
    late_writes = 0;
    test_env.on_relax = late_writer;
    late_writer();
    assert_true(late_writes >= 8);
    assert_int_equal(p2m_large_join(vm->p2m, GFN(JOINED), 0, block), HV_OK);
    test_env.on_relax = NULL;
    for (uint64_t gfn = JOINED; gfn < JOINED + 512; gfn++) {
        enum hv_err err;

        shareenv_check_contents(vm, gfn, tlbguest_translate(vm, gfn, false, &err));
    }
    shareenv_quiet_stop();
}

static unsigned audits_in_flushes;

static void audit_hook(struct flush_domain *d)
{
    struct share_recount recount;

    assert_true(share_audit(&recount));
    assert_false(recount.certain);
    audits_in_flushes++;
    tlbguest_flush(d);
}

/* A page that was broken has its reference until the flush is done, and one of a VM that is being
 * destroyed until its turn comes: the audit does not call these wrong. */
static void audit_sees_loose_references(void **state)
{
    struct share_recount recount;

    (void)state;
    shareenv_quiet_start(NR_CPUS);
    for (uint64_t gfn = HOLE; gfn < HOLE + 4; gfn++) {
        shareenv_write_pattern(0, gfn, 77);
        shareenv_write_pattern(1, gfn, 77);
    }
    scan_all(shareenv.vms[0].p2m);
    scan_all(shareenv.vms[1].p2m);
    test_env.on_flush = audit_hook;
    shareenv_write_pattern(0, HOLE, 78);
    assert_int_equal(audits_in_flushes, 1);
    shareenv_destroy(1);
    assert_true(audits_in_flushes >= 2);
    test_env.on_flush = tlbguest_flush;
    assert_true(share_audit(&recount));
    assert_true(recount.certain);
    assert_int_equal(recount.frames, 1);
    shareenv_create(1, 100, false);
    shareenv_check_all();
    shareenv_quiet_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(breaks_keep_the_others),
        cmocka_unit_test(unmapped_breaks_flush),
        cmocka_unit_test(pins_and_sharing),
        cmocka_unit_test(every_failure_leaves_order),
        cmocka_unit_test(breaks_have_a_reserve),
        cmocka_unit_test(a_gigabyte_splits),
        cmocka_unit_test(no_write_is_lost_by_joining),
        cmocka_unit_test(audit_sees_loose_references),
    };

    /* A failed test leaves a machine behind, in which the next one would hang. */
    setenv("CMOCKA_TEST_ABORT", "1", 0);
    return cmocka_run_group_tests_name("share breaks", tests, NULL, NULL);
}
