/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page sharing against a naive model: an array of pages per VM, each with the contents that its guest
 * wrote. Guests write while pages are scanned, merged and broken, through model TLBs that keep every
 * translation until its VM's recorded flush, so that a missing flush lets a write land in a frame that
 * is another page's by then.
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
#include "mm/frame.h"
#include "mm/compact.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/pt/fmt_x86.h"
#include "mm/share/born.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define NR_VMS 4u
#define NR_CPUS 3u
#define PAGES 1700ull
#define HOLE 0x20ull /* first pages of the second range, which is not RAM */
#define NR_PATTERNS 7u
#define JOINED 512ull /* a region of small pages */
#define NR_ALIASES 2u /* guest-virtual addresses of a page */
#define WORDS (PAGE_SIZE / 8)

struct tlb_entry {
    bool valid, writable;
    mfn_t mfn;
};

struct vm {
    struct p2m *p2m;
    struct view *view;
    uint64_t pattern[PAGES]; /* what every word holds, but for the first */
    uint64_t first[PAGES];   /* the first word */
    void *pin[PAGES];
    struct tlb_entry tlb[NR_CPUS][NR_ALIASES][PAGES];
};

static struct vm vms[NR_VMS];
static struct rng rng;
static bool joining;   /* a region: guests run seldom, or it would never succeed */
static unsigned depth; /* of guests running inside hooks */

static bool is_ram(uint64_t gfn)
{
    return gfn < 0x10 || gfn >= HOLE;
}

/* Mostly one of few, so that they meet. */
static uint64_t any_page(void)
{
    switch (rng_below(&rng, 6)) {
    case 0:
        return rng_below(&rng, PAGES);
    case 1:
    case 2:
        return 600 + rng_below(&rng, 30); /* where there are large pages, too */
    default:
        return HOLE + rng_below(&rng, 50);
    }
}

/* ---- The guests ---- */

static void fill(uint64_t *page, uint64_t pattern, uint64_t first)
{
    for (unsigned i = 0; i < WORDS; i++) {
        page[i] = pattern;
    }
    page[0] = first;
}

static void check_contents(const struct vm *vm, uint64_t gfn, const uint64_t *page)
{
    if (page[0] != vm->first[gfn]) {
        fail_msg("VM %u page %#llx begins with %#llx, not %#llx", (unsigned)(vm - vms),
                 (unsigned long long)gfn, (unsigned long long)page[0],
                 (unsigned long long)vm->first[gfn]);
    }
    for (unsigned i = 1; i < WORDS; i++) {
        if (page[i] != vm->pattern[gfn]) {
            fail_msg("VM %u page %#llx word %u is %#llx, not %#llx", (unsigned)(vm - vms),
                     (unsigned long long)gfn, i, (unsigned long long)page[i],
                     (unsigned long long)vm->pattern[gfn]);
        }
    }
}

static enum hv_err fault(struct vm *vm, gfn_t gfn, uint32_t access)
{
    enum hv_err err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access | P2M_FAST);

    return err == HV_EAGAIN ? vm->view->ops->fault(vm->view, gfn_gpa(gfn), access) : err;
}

static uint64_t root_of(struct vm *vm)
{
    hpa_t root;

    assert_int_equal(vm->view->ops->root(vm->view, &root), HV_OK);
    return root.a;
}

/* Translate as this processor does; NULL with *err: the access cannot be made. */
static uint64_t *translate(struct vm *vm, uint64_t gfn, bool write, enum hv_err *err)
{
    struct tlb_entry *entry = &vm->tlb[env_cpu()][rng_below(&rng, NR_ALIASES)][gfn];
    struct ref_mapping seen;

    while (!entry->valid || (write && !entry->writable)) {
        if (ref_walk(root_of(vm), gfn << PAGE_SHIFT, &seen) && (seen.writable || !write)) {
            *entry = (struct tlb_entry){true, seen.writable, hpa_mfn(HPA(seen.pa))};
            break;
        }
        *err = fault(vm, GFN(gfn), write ? P2M_WRITE : P2M_READ);
        if (*err != HV_OK) {
            return NULL;
        }
    }
    return env_frame_ptr(entry->mfn);
}

static void write_page(struct vm *vm, uint64_t gfn, uint64_t *page)
{
    uint64_t pattern = rng_below(&rng, NR_PATTERNS);

    if (rng_below(&rng, 3) == 0) {
        vm->first[gfn] = rng_below(&rng, 2) ? rng_next(&rng) : vm->pattern[gfn];
        page[0] = vm->first[gfn];
    } else {
        vm->pattern[gfn] = vm->first[gfn] = pattern * 0x0101010101010101ull;
        fill(page, vm->pattern[gfn], vm->first[gfn]);
    }
}

static void guest_step(struct vm *vm, bool write)
{
    uint64_t gfn = any_page();
    enum hv_err err = HV_OK;
    uint64_t *page = translate(vm, gfn, write, &err);

    if (page == NULL) {
        assert_true(err == (is_ram(gfn) ? HV_ENOMEM : HV_ENOENT));
        assert_true(err == HV_ENOENT || test_env.fail_rate != 0);
        return;
    }
    check_contents(vm, gfn, page);
    if (write) {
        write_page(vm, gfn, page);
    }
}

/* Writes by translations that the processors have, while a flush is on its way to them. */
static void flush_hook(struct flush_domain *d)
{
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct vm *vm = &vms[i];

        if (vm->p2m == NULL || p2m_flush_domain(vm->p2m) != d) {
            continue;
        }
        for (unsigned k = 0; k < 30 && depth < 3; k++) {
            unsigned cpu = (unsigned)rng_below(&rng, test_env.nr_cpus);
            uint64_t gfn = any_page();
            const struct tlb_entry *entry = &vm->tlb[cpu][k % NR_ALIASES][gfn];

            if (entry->valid && entry->writable) {
                check_contents(vm, gfn, env_frame_ptr(entry->mfn));
                write_page(vm, gfn, env_frame_ptr(entry->mfn));
            }
        }
        memset(vm->tlb, 0, sizeof(vm->tlb));
    }
}

/* Guests run between the slices of a scan. */
static void relax_hook(void)
{
    if (depth != 0 || (joining && rng_below(&rng, 32) != 0)) {
        return;
    }
    depth++;
    for (unsigned k = rng_below(&rng, 4); k > 0; k--) {
        guest_step(&vms[rng_below(&rng, NR_VMS)], rng_below(&rng, 3) != 0);
    }
    depth--;
}

/* The device or the emulator. */
static void pin_step(struct vm *vm)
{
    uint64_t gfn = any_page();
    bool write = rng_below(&rng, 2);
    void *page;

    if (vm->pin[gfn] != NULL) {
        p2m_put(vm->p2m, GFN(gfn), vm->pin[gfn]);
        vm->pin[gfn] = NULL;
        return;
    }
    if (p2m_get(vm->p2m, GFN(gfn), write ? P2M_WRITE : P2M_READ, &page) != HV_OK) {
        return;
    }
    check_contents(vm, gfn, page);
    if (write) {
        write_page(vm, gfn, page);
    }
    if (rng_below(&rng, 4) == 0) {
        vm->pin[gfn] = page;
    } else {
        p2m_put(vm->p2m, GFN(gfn), page);
    }
}

static void unpin_all(struct vm *vm)
{
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        if (vm->pin[gfn] != NULL) {
            p2m_put(vm->p2m, GFN(gfn), vm->pin[gfn]);
            vm->pin[gfn] = NULL;
        }
    }
}

/* ---- The machine ---- */

static void create(unsigned nr, uint32_t salt, bool large_pages)
{
    const struct p2m_config cfg = {
        .owner = nr + 1, .max_order = ORDER_2M, .large_pages = large_pages, .salt = salt};
    struct vm *vm = &vms[nr];

    memset(vm, 0, sizeof(*vm));
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), 0x10), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(HOLE), PAGES - HOLE), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, nr + 1, &vm->view), HV_OK);
    share_join(vm->p2m);
    assert_int_not_equal(share_member(vm->p2m), 0);
}

static void destroy(unsigned nr)
{
    p2m_destroy(vms[nr].p2m);
    vms[nr].p2m = NULL;
    assert_true(mm_audit_gone(nr + 1));
}

static void start(unsigned nr_cpus, bool large_pages)
{
    env_start(BASE, NR_FRAMES, nr_cpus);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(rng_next(&rng));
    test_env.on_flush = flush_hook;
    test_env.on_relax = relax_hook;
    for (unsigned i = 0; i < NR_VMS; i++) {
        create(i, i < 2 ? 100 : 200 + i, large_pages);
    }
}

static void stop(void)
{
    test_env.on_relax = NULL;
    for (unsigned i = 0; i < NR_VMS; i++) {
        unpin_all(&vms[i]);
        destroy(i);
    }
    share_fini();
    env_stop();
}

/* Everything counted, every page as written, no two salts on one frame. */
static void check_all(void)
{
    static uint32_t salt_of[0x200 + NR_FRAMES];
    uint64_t shared = 0, zero = 0;
    struct share_stats stats;
    struct share_recount recount;
    void (*relax)(void) = test_env.on_relax;
    uint64_t fail_rate = test_env.fail_rate;
    int64_t fail_after = test_env.fail_after;

    test_env.on_relax = NULL;
    test_env.fail_rate = 0;
    test_env.fail_after = -1;
    memset(salt_of, 0, sizeof(salt_of));
    assert_true(share_audit(&recount));
    assert_true(recount.certain);
    assert_true(mm_audit());
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct p2m_counters count;
        uint32_t salt = i < 2 ? 100 : 200 + i;

        assert_true(p2m_audit(vms[i].p2m));
        assert_true(vms[i].view->ops->audit(vms[i].view));
        p2m_counters(vms[i].p2m, &count);
        assert_int_equal(count.granted, count.consumed + count.shared + count.zero);
        shared += count.shared;
        zero += count.zero;
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            struct p2m_entry e;

            p2m_query(vms[i].p2m, GFN(gfn), &e);
            if (mfn_valid(e.mfn)) {
                check_contents(&vms[i], gfn, env_frame_ptr(e.mfn));
            } else if (e.state == P2M_UNTOUCHED) {
                assert_true(vms[i].pattern[gfn] == 0 && vms[i].first[gfn] == 0);
            }
            if (e.state == P2M_SHARED) {
                assert_true(salt_of[e.mfn.n] == 0 || salt_of[e.mfn.n] == salt);
                salt_of[e.mfn.n] = salt;
            }
        }
    }
    share_stats(&stats);
    assert_int_equal(stats.pages, shared + zero);
    assert_int_equal(stats.zero, zero);
    test_env.on_relax = relax;
    test_env.fail_rate = fail_rate;
    test_env.fail_after = fail_after;
}

static uint64_t nr_split, nr_joined, nr_compacted;

static void count_split(struct p2m *p, gfn_t gfn)
{
    scan_range(p, gfn, 512);
}

static void split_or_join(struct vm *vm)
{
    gfn_t gfn = GFN(512 + 512 * rng_below(&rng, 2));
    mfn_t block;

    if (rng_below(&rng, 2)) {
        nr_split += rng_below(&rng, 2) ? p2m_large_split(vm->p2m, gfn) == HV_OK
                                       : p2m_large_split_coldest(vm->p2m, 1, count_split);
        return;
    }
    if (buddy_alloc(ORDER_2M, FRAME_GUEST, (uint32_t)(vm - vms) + 1, 0, &block) != HV_OK) {
        return;
    }
    joining = true;
    if (p2m_large_join(vm->p2m, gfn, 200 + (unsigned)rng_below(&rng, 400), block) == HV_OK) {
        nr_joined++;
    } else {
        buddy_free(block, ORDER_2M);
    }
    joining = false;
}

static void compact(struct vm *vm)
{
    mfn_t block;

    if (compact_block((uint32_t)(vm - vms) + 1, &block) == HV_OK) {
        nr_compacted++;
        buddy_free(block, ORDER_2M);
    }
}

static void random_step(void)
{
    struct vm *vm = &vms[rng_below(&rng, NR_VMS)];

    env_set_cpu((unsigned)rng_below(&rng, test_env.nr_cpus));
    switch (rng_below(&rng, 60)) {
    case 0:
        scan_pages(vm->p2m, rng_below(&rng, 300));
        break;
    case 1:
        if (rng_below(&rng, 8) == 0) {
            scan_all(vm->p2m);
        }
        break;
    case 2:
        p2m_set_thrift(rng_below(&rng, 2));
        break;
    case 3:
    case 4:
    case 5:
        pin_step(vm);
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
        guest_step(vm, rng_below(&rng, 4) != 0);
        break;
    }
}

static void random_operations(void **state)
{
    struct p2m_counters count;
    uint64_t merged = 0, broken = 0, failures = 0;

    (void)state;
    rng_seed(&rng, env_seed("share: random operations"));
    for (unsigned round = 0; round < 8; round++) {
        start(round % 2 == 0 ? NR_CPUS : 1, round % 2 == 1 || round == 4);
        rng_seed(&test_env.rng, rng_next(&rng));
        test_env.fail_rate = round < 4 ? 0 : 20;
        /* Collisions; many pages for few references. */
        hash_weaken = round == 2 || round == 5 ? 3ull << 62 : UINT64_MAX;
        index_refs_max = round == 4 ? 3 : 0x7fffffff;
        for (unsigned step = 0; step < 20000; step++) {
            random_step();
            if (step % 1000 == 999) {
                check_all();
            }
        }
        failures += test_env.failures;
        test_env.fail_rate = 0;
        test_env.on_relax = NULL;
        for (unsigned i = 0; i < NR_VMS; i++) {
            scan_all(vms[i].p2m);
        }
        check_all();
        for (unsigned i = 0; i < NR_VMS; i++) {
            p2m_counters(vms[i].p2m, &count);
            merged += count.merged;
            broken += count.broken;
        }
        stop();
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

static void write_pattern(unsigned nr, uint64_t gfn, uint64_t pattern)
{
    enum hv_err err;
    uint64_t *page = translate(&vms[nr], gfn, true, &err);

    assert_non_null(page);
    vms[nr].pattern[gfn] = vms[nr].first[gfn] = pattern;
    fill(page, pattern, pattern);
}

static void quiet_start(unsigned nr_cpus)
{
    rng_seed(&rng, 1);
    start(nr_cpus, false);
    test_env.on_relax = NULL;
    depth = 3; /* no writes inside flushes */
}

static void quiet_stop(void)
{
    depth = 0;
    stop();
}

/* Within a salt every duplicate goes; between salts only zeros do. */
static void one_scan_merges_everything(void **state)
{
    struct share_stats stats;

    (void)state;
    quiet_start(NR_CPUS);
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (uint64_t gfn = HOLE; gfn < HOLE + 100; gfn++) {
            /* 10 zeros, 40 in pairs, 50 alone. */
            uint64_t pattern = gfn < HOLE + 10 ? 0 : gfn < HOLE + 50 ? 5 + gfn / 2 : 1000 + gfn;

            write_pattern(i, gfn, pattern);
        }
    }
    for (unsigned i = 0; i < NR_VMS; i++) {
        scan_all(vms[i].p2m);
    }
    check_all();
    share_stats(&stats);
    assert_int_equal(stats.zero, 4 * 10);
    /* VMs 0 and 1: all 90 alike; 2 and 3: their own 40. */
    assert_int_equal(stats.pages, 4 * 10 + 2 * 90 + 2 * 40);
    assert_int_equal(stats.common, 1 + 20 + 50 + 2 * 20);
    /* A second scan finds nothing more. */
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct scan_stats s;

        scan_all(vms[i].p2m);
        scan_stats(vms[i].p2m, &s);
        assert_int_equal(s.passes, 2);
        assert_int_equal(s.pages, 2 * (0x10 + PAGES - HOLE));
    }
    share_stats(&stats);
    assert_int_equal(stats.common, 1 + 20 + 50 + 2 * 20);
    quiet_stop();
}

/* A write to a page of many breaks that page alone; the last one keeps the frame. */
static void breaks_keep_the_others(void **state)
{
    struct p2m_counters count;
    struct buddy_stats before, after;
    struct p2m_entry e;
    mfn_t last;

    (void)state;
    quiet_start(1);
    for (uint64_t gfn = HOLE; gfn < HOLE + 20; gfn++) {
        write_pattern(0, gfn, 77);
    }
    scan_all(vms[0].p2m);
    p2m_counters(vms[0].p2m, &count);
    assert_int_equal(count.shared, 20);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = HOLE; gfn < HOLE + 19; gfn++) {
        write_pattern(0, gfn, 1000 + gfn);
        check_all();
    }
    p2m_query(vms[0].p2m, GFN(HOLE + 19), &e);
    assert_int_equal(e.state, P2M_SHARED);
    last = e.mfn;
    buddy_stats(&before);
    write_pattern(0, HOLE + 19, 5);
    buddy_stats(&after);
    p2m_query(vms[0].p2m, GFN(HOLE + 19), &e);
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_int_equal(e.mfn.n, last.n);
    assert_int_equal(before.free, after.free);
    p2m_counters(vms[0].p2m, &count);
    assert_int_equal(count.broken, 20);
    check_all();
    quiet_stop();
}

/* Who reads without a lock what no view maps is waited for all the same, before the frame can go. */
static void unmapped_breaks_flush(void **state)
{
    struct p2m *p;
    struct flush_batch batch;
    uint64_t epoch;
    void *page;

    (void)state;
    quiet_start(1);
    p = vms[0].p2m;
    for (uint64_t gfn = HOLE; gfn < HOLE + 3; gfn++) {
        write_pattern(0, gfn, 77);
    }
    scan_all(p);
    flush_batch_init(&batch, p2m_flush_domain(p));
    vms[0].view->ops->drop(vms[0].view, GFN(HOLE), 3, &batch);
    flush_batch_commit(&batch);
    epoch = p2m_flush_domain(p)->epoch;
    assert_int_equal(p2m_get(p, GFN(HOLE), P2M_WRITE, &page), HV_OK);
    assert_true(p2m_flush_domain(p)->epoch > epoch);
    write_page(&vms[0], HOLE, page);
    p2m_put(p, GFN(HOLE), page);
    check_all();
    quiet_stop();
}

/* A page that is written after each merge is left alone for a while, unless the operator insists. */
static void restless_pages_are_left_alone(void **state)
{
    struct scan_stats s;
    uint64_t merged;
    unsigned passes;

    (void)state;
    quiet_start(1);
    write_pattern(0, HOLE, 77);
    write_pattern(0, HOLE + 1, 77);
    write_pattern(0, HOLE + 2, 77);
    scan_all(vms[0].p2m);
    for (unsigned round = 0; round < 3; round++) {
        write_pattern(0, HOLE, 78);
        write_pattern(0, HOLE, 77);
        scan_stats(vms[0].p2m, &s);
        merged = s.merged;
        for (passes = 0; s.merged == merged; passes++) {
            scan_pages(vms[0].p2m, PAGES - HOLE + 0x10);
            scan_stats(vms[0].p2m, &s);
        }
        /* Four that leave it alone, and one that does not. */
        assert_in_range(passes, 4, 6);
    }
    write_pattern(0, HOLE, 78);
    write_pattern(0, HOLE, 77);
    scan_all(vms[0].p2m);
    scan_stats(vms[0].p2m, &s);
    assert_int_equal(s.merged, merged + 2);
    /* A page table, by the processor's own walk: longest. */
    assert_int_equal(fault(&vms[0], GFN(HOLE), P2M_WRITE | P2M_WALK), HV_OK);
    merged = s.merged;
    for (passes = 0; s.merged == merged; passes++) {
        scan_pages(vms[0].p2m, PAGES - HOLE + 0x10);
        scan_stats(vms[0].p2m, &s);
    }
    assert_in_range(passes, 14, 18);
    check_all();
    quiet_stop();
}

/* What two VMs load from one file is one frame each page; a third of another salt has its own. */
static void born_shared(void **state)
{
    static char file[10 * PAGE_SIZE + 4];
    struct p2m_counters count;
    struct share_stats stats;

    (void)state;
    quiet_start(NR_CPUS);
    for (unsigned page = 0; page < 10; page++) {
        /* Not aligned, and one of zeros. */
        uint64_t contents[WORDS];

        fill(contents, page * 3, page * 3);
        memcpy(file + 4 + page * PAGE_SIZE, contents, PAGE_SIZE);
    }
    for (unsigned i = 0; i < 3; i++) {
        for (uint64_t page = 0; page < 10; page++) {
            const char *data = file + 4 + page * PAGE_SIZE;

            test_env.fail_after = page == 5 ? 0 : -1;
            if (page == 5) {
                assert_int_equal(born_page(vms[i].p2m, GFN(HOLE + page), data), HV_ENOMEM);
                test_env.fail_after = -1;
            }
            assert_int_equal(born_page(vms[i].p2m, GFN(HOLE + page), data), HV_OK);
            assert_int_equal(born_page(vms[i].p2m, GFN(HOLE + page), data), HV_EBUSY);
            vms[i].pattern[HOLE + page] = vms[i].first[HOLE + page] = page * 3;
        }
        assert_int_equal(born_page(vms[i].p2m, GFN(HOLE - 1), file), HV_ENOENT);
        p2m_counters(vms[i].p2m, &count);
        assert_int_equal(count.shared, 9);
        assert_int_equal(count.zero, 1);
        assert_int_equal(count.consumed, 0);
        check_all();
    }
    share_stats(&stats);
    assert_int_equal(stats.common, 1 + 9 + 9);
    for (uint64_t page = 0; page < 10; page++) {
        write_pattern(0, HOLE + page, 99);
        write_pattern(2, HOLE + page, 99);
    }
    check_all();
    quiet_stop();
}

/* Reads of untouched memory under pressure cost no frame. */
static void zero_frame_under_pressure(void **state)
{
    struct p2m_counters count;
    enum hv_err err;

    (void)state;
    quiet_start(NR_CPUS);
    p2m_set_thrift(true);
    for (uint64_t gfn = HOLE; gfn < PAGES; gfn++) {
        check_contents(&vms[2], gfn, translate(&vms[2], gfn, false, &err));
    }
    p2m_counters(vms[2].p2m, &count);
    assert_int_equal(count.zero, PAGES - HOLE);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = HOLE; gfn < PAGES; gfn++) {
        write_pattern(2, gfn, gfn);
    }
    p2m_counters(vms[2].p2m, &count);
    assert_int_equal(count.zero, 0);
    assert_int_equal(count.consumed, PAGES - HOLE);
    check_all();
    p2m_set_thrift(false);
    quiet_stop();
}

/* The page behind a hint is another VM's: its processors may not go on writing either. */
static void hinted_page_is_protected(void **state)
{
    struct p2m_entry e;

    (void)state;
    quiet_start(NR_CPUS);
    write_pattern(1, HOLE, 77);
    scan_all(vms[1].p2m);
    for (unsigned i = 0; i < 4; i++) {
        write_pattern(1, HOLE, 77); /* by both aliases */
    }
    write_pattern(0, HOLE + 1, 77);
    scan_all(vms[0].p2m);
    p2m_query(vms[1].p2m, GFN(HOLE), &e);
    assert_int_equal(e.state, P2M_SHARED);
    for (unsigned i = 0; i < 4; i++) {
        write_pattern(1, HOLE, 78);
    }
    check_all();
    quiet_stop();
}

/* A reader's pin keeps the contents through a break; a writer's pin keeps the page from merging. */
static void pins_and_sharing(void **state)
{
    struct p2m_entry e;
    void *read, *write;

    (void)state;
    quiet_start(NR_CPUS);
    write_pattern(0, HOLE, 77);
    write_pattern(0, HOLE + 1, 77);
    write_pattern(0, HOLE + 2, 77);
    assert_int_equal(p2m_get(vms[0].p2m, GFN(HOLE + 2), P2M_WRITE, &write), HV_OK);
    scan_all(vms[0].p2m);
    p2m_query(vms[0].p2m, GFN(HOLE), &e);
    assert_int_equal(e.state, P2M_SHARED);
    p2m_query(vms[0].p2m, GFN(HOLE + 2), &e);
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_int_equal(p2m_get(vms[0].p2m, GFN(HOLE), P2M_READ, &read), HV_OK);
    check_all();
    write_pattern(0, HOLE, 1);
    write_pattern(0, HOLE + 1, 2);
    check_all();
    assert_int_equal(*(uint64_t *)read, 77);
    p2m_put(vms[0].p2m, GFN(HOLE), read);
    p2m_put(vms[0].p2m, GFN(HOLE + 2), write);
    check_all();
    quiet_stop();
}

/* The table is bounded: with more pages than it has entries, old hints make room, and sharing goes on. */
static void index_is_bounded(void **state)
{
    struct index_stats stats;
    struct index_page page = {.member = 1};

    (void)state;
    quiet_start(1);
    page.member = share_member(vms[0].p2m);
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
    write_pattern(0, HOLE, 77);
    write_pattern(0, HOLE + 1, 77);
    scan_all(vms[0].p2m);
    index_stats(&stats);
    assert_int_equal(stats.shared, 1);
    check_all();
    quiet_stop();
}

/* Every allocation of a scan and of a break fails once. */
static void every_failure_leaves_order(void **state)
{
    (void)state;
    for (int64_t after = 0; after < 6; after++) {
        quiet_start(1);
        write_pattern(0, HOLE, 77);
        write_pattern(0, HOLE + 1, 77);
        write_pattern(0, HOLE + 2, 0);
        test_env.fail_after = after;
        scan_all(vms[0].p2m);
        check_all();
        test_env.fail_after = -1;
        scan_all(vms[0].p2m);
        for (uint64_t gfn = HOLE; gfn < HOLE + 3; gfn++) {
            enum hv_err err;

            test_env.fail_after = after;
            (void)translate(&vms[0], gfn, true, &err);
            check_all();
            test_env.fail_after = -1;
            write_pattern(0, gfn, 5);
        }
        check_all();
        quiet_stop();
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
    quiet_start(1);
    for (uint64_t gfn = HOLE; gfn < HOLE + 50; gfn++) {
        write_pattern(0, gfn, 77);
    }
    scan_all(vms[0].p2m);
    buddy_set_reserve(100);
    while (buddy_alloc(0, FRAME_GUEST, 9, 0, &taken[nr]) == HV_OK) {
        nr++;
    }
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(HOLE + 60), P2M_WRITE, &e), HV_ENOMEM);
    assert_int_equal(born_page(vms[0].p2m, GFN(HOLE + 60), file), HV_ENOMEM);
    for (uint64_t gfn = HOLE; gfn < HOLE + 49; gfn++) {
        write_pattern(0, gfn, gfn);
    }
    check_all();
    while (nr != 0) {
        buddy_free(taken[--nr], 0);
    }
    buddy_set_reserve(0);
    quiet_stop();
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
    assert_int_equal(p2m_large_split(p, GFN(pages - 1)), HV_OK);
    p2m_counters(p, &count);
    assert_int_equal(count.large_1g, 0);
    assert_int_equal(count.large_2m, 512);
    assert_int_equal(p2m_large_split(p, GFN(7)), HV_OK);
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
    struct vm *vm = &vms[0];

    for (uint64_t gfn = JOINED; gfn < JOINED + 8; gfn++) {
        for (unsigned alias = 0; alias < NR_ALIASES; alias++) {
            const struct tlb_entry *entry = &vm->tlb[0][alias][gfn];

            if (entry->valid && entry->writable) {
                write_page(vm, gfn, env_frame_ptr(entry->mfn));
                late_writes++;
            }
        }
    }
}

static void no_write_is_lost_by_joining(void **state)
{
    struct vm *vm = &vms[0];
    mfn_t block;

    (void)state;
    quiet_start(1);
    for (uint64_t gfn = JOINED; gfn < JOINED + 512; gfn++) {
        write_pattern(0, gfn, gfn);
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

        check_contents(vm, gfn, translate(vm, gfn, false, &err));
    }
    quiet_stop();
}

static unsigned audits_in_flushes;

static void audit_hook(struct flush_domain *d)
{
    struct share_recount recount;

    assert_true(share_audit(&recount));
    assert_false(recount.certain);
    audits_in_flushes++;
    flush_hook(d);
}

/* A page that was broken has its reference until the flush is done, and one of a VM that is being
 * destroyed until its turn comes: the audit does not call these wrong. */
static void audit_sees_loose_references(void **state)
{
    struct share_recount recount;

    (void)state;
    quiet_start(NR_CPUS);
    for (uint64_t gfn = HOLE; gfn < HOLE + 4; gfn++) {
        write_pattern(0, gfn, 77);
        write_pattern(1, gfn, 77);
    }
    scan_all(vms[0].p2m);
    scan_all(vms[1].p2m);
    test_env.on_flush = audit_hook;
    write_pattern(0, HOLE, 78);
    assert_int_equal(audits_in_flushes, 1);
    destroy(1);
    assert_true(audits_in_flushes >= 2);
    test_env.on_flush = flush_hook;
    assert_true(share_audit(&recount));
    assert_true(recount.certain);
    assert_int_equal(recount.frames, 1);
    create(1, 100, false);
    check_all();
    quiet_stop();
}

/* Contents change between the look at a hinted page and its protection: the hint is dropped, and no
 * frame is known by a key that it has not. */
static void promotion_hashes_again(void **state)
{
    struct scan_stats s;
    struct share_stats stats;
    enum hv_err err;

    (void)state;
    quiet_start(NR_CPUS);
    write_pattern(0, HOLE, 77);
    scan_all(vms[0].p2m);
    /* A word that a glance does not see. */
    uint64_t *page = translate(&vms[0], HOLE, true, &err);
    page[1] = 78;
    write_pattern(0, HOLE + 1, 77);
    scan_all(vms[0].p2m);
    page[1] = 77;
    scan_stats(vms[0].p2m, &s);
    share_stats(&stats);
    assert_true(s.stale >= 1);
    assert_int_equal(stats.common, 0);
    check_all();
    quiet_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),
        cmocka_unit_test(one_scan_merges_everything),
        cmocka_unit_test(breaks_keep_the_others),
        cmocka_unit_test(unmapped_breaks_flush),
        cmocka_unit_test(restless_pages_are_left_alone),
        cmocka_unit_test(born_shared),
        cmocka_unit_test(zero_frame_under_pressure),
        cmocka_unit_test(hinted_page_is_protected),
        cmocka_unit_test(pins_and_sharing),
        cmocka_unit_test(index_is_bounded),
        cmocka_unit_test(every_failure_leaves_order),
        cmocka_unit_test(breaks_have_a_reserve),
        cmocka_unit_test(a_gigabyte_splits),
        cmocka_unit_test(no_write_is_lost_by_joining),
        cmocka_unit_test(audit_sees_loose_references),
        cmocka_unit_test(promotion_hashes_again),
    };

    /* A failed test leaves a machine behind, in which the next one would hang. */
    setenv("CMOCKA_TEST_ABORT", "1", 0);
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
