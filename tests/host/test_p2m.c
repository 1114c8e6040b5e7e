/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The p2m against an array of pages: what is RAM, what was touched, what was written.
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
#include "tests/host/env.h"

#define BASE MFN(0x200)
#define NR_FRAMES 32768ull /* 128 MiB */
#define VM 5u
/* Guest: 0 .. 0x9f000, then 1 MiB .. 48 MiB + 12 KiB. */
#define LOW_END 0x9full
#define HIGH_START 0x100ull
#define GUEST_PAGES 12291ull
#define WINDOW 16384ull

struct page {
    bool ram, touched;
    uint64_t value; /* in its first word */
    uint32_t pins;
};

static struct page model[WINDOW];
static struct p2m *p2m;

static void create(bool large_pages, unsigned max_order)
{
    const struct p2m_config cfg = {
        .owner = VM, .vm = NULL, .large_pages = large_pages, .max_order = max_order};

    assert_int_equal(p2m_create(&cfg, &p2m), HV_OK);
}

static void add_ram(uint64_t first, uint64_t nr)
{
    assert_int_equal(p2m_add_ram(p2m, GFN(first), nr), HV_OK);
    for (uint64_t i = first; i < first + nr; i++) {
        model[i].ram = true;
    }
}

static void create_pc(bool large_pages)
{
    memset(model, 0, sizeof(model));
    create(large_pages, ORDER_2M);
    add_ram(0, LOW_END);
    add_ram(HIGH_START, GUEST_PAGES - HIGH_START);
}

static void destroy(void)
{
    p2m_destroy(p2m);
    assert_true(mm_audit_gone(VM));
}

/* Frames of the VM are exactly those in the tree: nothing else is under way here. */
static void check_sums(void)
{
    struct p2m_counters count;
    uint64_t owned[NR_FRAME_USES];
    uint64_t ram = 0;
    uint64_t pinned = 0;

    assert_true(p2m_audit(p2m));
    p2m_counters(p2m, &count);
    buddy_count_owner(VM, owned);
    assert_int_equal(count.consumed, owned[FRAME_GUEST]);
    assert_int_equal(count.overhead, owned[FRAME_P2M]);
    for (uint64_t i = 0; i < WINDOW; i++) {
        ram += model[i].ram;
        pinned += model[i].pins;
    }
    assert_int_equal(count.ram, ram);
    assert_int_equal(count.pinned, pinned);
}

static void check_page(uint64_t i)
{
    struct p2m_entry e;
    const uint64_t *ptr = p2m_peek(p2m, GFN(i));

    p2m_query(p2m, GFN(i), &e);
    assert_true(p2m_same(&e));
    if (!model[i].ram) {
        assert_int_equal(e.state, P2M_HOLE);
        assert_null(ptr);
        return;
    }
    if (model[i].touched) {
        assert_int_equal(e.state, P2M_PRIVATE);
    }
    if (e.state == P2M_PRIVATE) {
        assert_ptr_equal(ptr, env_frame_ptr(e.mfn));
        assert_int_equal((e.mfn.n ^ i) & (BIT(e.order) - 1), 0);
        assert_int_equal(*ptr, model[i].value);
    } else {
        assert_int_equal(e.state, P2M_UNTOUCHED);
        assert_null(ptr);
    }
}

/* Make frames dirty before anybody gets them: what a guest sees must have been cleared. */
static void soil_free_memory(void)
{
    static mfn_t taken[NR_FRAMES];
    uint64_t nr = 0;

    while (buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &taken[nr]) == HV_OK) {
        memset(env_frame_ptr(taken[nr++]), 0x5a, PAGE_SIZE);
    }
    while (nr != 0) {
        buddy_free(taken[--nr], 0);
    }
}

static void touch(struct rng *rng)
{
    uint64_t i = rng_below(rng, WINDOW);
    uint32_t access = P2M_WRITE | (rng_below(rng, 2) ? P2M_FAST : 0);
    struct p2m_entry e;
    enum hv_err err = p2m_populate(p2m, GFN(i), access, &e);

    if (!model[i].ram) {
        assert_int_equal(err, HV_ENOENT);
        return;
    }
    if (err != HV_OK) {
        assert_true(err == HV_ENOMEM || (err == HV_EAGAIN && (access & P2M_FAST)));
        return;
    }
    assert_int_equal(e.state, P2M_PRIVATE);
    assert_true(p2m_same(&e));
    model[i].touched = true;
    check_page(i);
    model[i].value = rng_next(rng);
    *(uint64_t *)env_frame_ptr(e.mfn) = model[i].value;
}

static void pin(struct rng *rng)
{
    uint64_t i = rng_below(rng, WINDOW);
    void *ptr = NULL;
    enum hv_err err;

    if (model[i].pins != 0 && rng_below(rng, 3)) {
        p2m_put(p2m, GFN(i), (void *)(uintptr_t)p2m_peek(p2m, GFN(i)));
        model[i].pins--;
        return;
    }
    err = p2m_get(p2m, GFN(i), P2M_READ, &ptr);
    if (err == HV_OK) {
        assert_true(model[i].ram);
        assert_ptr_equal(ptr, p2m_peek(p2m, GFN(i)));
        model[i].touched = true;
        model[i].pins++;
    } else {
        assert_int_equal(err, model[i].ram ? HV_ENOMEM : HV_ENOENT);
    }
}

static void unpin_all(void)
{
    for (uint64_t i = 0; i < WINDOW; i++) {
        while (model[i].pins != 0) {
            p2m_put(p2m, GFN(i), (void *)(uintptr_t)p2m_peek(p2m, GFN(i)));
            model[i].pins--;
        }
    }
}

static void random_operations(void **state)
{
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("p2m: random operations"));
    env_start(BASE, NR_FRAMES, 3);
    soil_free_memory();
    for (unsigned round = 0; round < 6; round++) {
        create_pc(round % 2 == 0);
        rng_seed(&test_env.rng, rng_next(&rng));
        test_env.fail_rate = round < 2 ? 0 : 5;
        for (unsigned step = 0; step < 2500; step++) {
            env_set_cpu((unsigned)rng_below(&rng, 3));
            if (rng_below(&rng, 5)) {
                touch(&rng);
            } else {
                pin(&rng);
            }
            if (step % 100 == 0) {
                check_sums();
            }
        }
        test_env.fail_rate = 0;
        for (uint64_t i = 0; i < WINDOW; i++) {
            check_page(i);
        }
        unpin_all();
        destroy();
    }
    assert_true(test_env.failures > 100);
    env_stop();
}

static void large_where_wholly_ram(void **state)
{
    struct p2m_counters count;
    struct p2m_entry e;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    create_pc(true);
    /* The first 2 MiB have a hole, the last region is not complete. */
    assert_int_equal(p2m_populate(p2m, GFN(0x10), P2M_READ, &e), HV_OK);
    assert_int_equal(e.order, ORDER_4K);
    assert_int_equal(p2m_populate(p2m, GFN(GUEST_PAGES - 1), P2M_READ, &e), HV_OK);
    assert_int_equal(e.order, ORDER_4K);
    /* On the fast path a fresh region is somebody else's work. */
    assert_int_equal(p2m_populate(p2m, GFN(0x333), P2M_READ | P2M_FAST, &e), HV_EAGAIN);
    assert_int_equal(test_env.relaxes, 0);
    assert_int_equal(p2m_populate(p2m, GFN(0x333), P2M_READ, &e), HV_OK);
    assert_int_equal(e.order, ORDER_2M);
    assert_int_equal(test_env.relaxes, 32);
    assert_int_equal(p2m_populate(p2m, GFN(0x3ff), P2M_READ | P2M_FAST, &e), HV_OK);
    p2m_counters(p2m, &count);
    assert_int_equal(count.faults_4k, 2);
    assert_int_equal(count.faults_2m, 1);
    assert_int_equal(count.large_2m, 1);
    assert_int_equal(count.granted, 2 + 512);
    /* Root, 512 GiB, 1 GiB, and the two regions of 4 KiB words. */
    assert_int_equal(count.overhead, 5);
    /* Without a free 2 MiB block the region falls back to 4 KiB. */
    test_env.fail_site = "p2m.large";
    test_env.fail_after = 0;
    assert_int_equal(p2m_populate(p2m, GFN(0x555), P2M_READ, &e), HV_OK);
    assert_int_equal(e.order, ORDER_4K);
    assert_int_equal(p2m_populate(p2m, GFN(0x556), P2M_READ | P2M_FAST, &e), HV_OK);
    assert_true(p2m_audit(p2m));
    destroy();
    env_stop();
}

static void layout_is_checked(void **state)
{
    struct p2m_counters count;
    struct p2m_entry e;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    create_pc(true);
    assert_int_equal(p2m_add_ram(p2m, GFN(0x90), 0x10), HV_EEXIST);
    assert_int_equal(p2m_add_ram(p2m, GFN(LOW_END), HIGH_START), HV_EEXIST);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), 0), HV_ERANGE);
    assert_int_equal(p2m_add_ram(p2m, GFN(BIT(36)), 1), HV_ERANGE);
    assert_int_equal(p2m_add_ram(p2m, GFN(BIT(36) - 1), 2), HV_ERANGE);
    /* Failing half-way leaves nodes, of which six are needed, and changes nothing else. */
    for (int64_t fail = 0; fail < 3; fail++) {
        test_env.fail_after = fail;
        assert_int_equal(p2m_add_ram(p2m, GFN(BIT(30) - 1), 2), HV_ENOMEM);
        assert_true(p2m_audit(p2m));
    }
    p2m_query(p2m, GFN(BIT(30)), &e);
    assert_int_equal(e.state, P2M_HOLE);
    test_env.fail_after = -1;
    assert_int_equal(p2m_add_ram(p2m, GFN(BIT(30) - 1), 2), HV_OK);
    assert_int_equal(p2m_add_ram(p2m, GFN(BIT(36) - 1), 1), HV_OK);
    assert_int_equal(p2m_populate(p2m, GFN(BIT(36) - 1), P2M_WRITE, &e), HV_OK);
    assert_int_equal(p2m_populate(p2m, GFN(BIT(36)), P2M_WRITE, &e), HV_ENOENT);
    assert_true(p2m_same(&e));
    assert_null(p2m_peek(p2m, GFN(BIT(36))));
    /* 3 GiB onwards is one word per GiB until it is touched. */
    assert_int_equal(p2m_add_ram(p2m, GFN(BIT(20)), BIT(20)), HV_OK);
    p2m_counters(p2m, &count);
    p2m_query(p2m, GFN(BIT(20) + 5), &e);
    assert_int_equal(e.order, ORDER_1G);
    assert_true(p2m_audit(p2m));
    destroy();
    env_stop();
}

static void creation_fails_cleanly(void **state)
{
    const struct p2m_config good = {.owner = VM, .max_order = ORDER_2M};
    const struct p2m_config bad = {.owner = OWNER_HOST, .max_order = ORDER_2M};
    struct p2m *p;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    assert_int_equal(p2m_create(&bad, &p), HV_EINVAL);
    for (int64_t fail = 0; fail < 3; fail++) {
        test_env.fail_after = fail;
        assert_int_equal(p2m_create(&good, &p), HV_ENOMEM);
        assert_true(mm_audit_gone(VM));
    }
    p2m_destroy(NULL);
    env_stop();
}

/* A machine with less memory than the guest: every page until the end, then HV_ENOMEM, and all of it
 * comes back. */
static void more_guest_than_machine(void **state)
{
    struct p2m_entry e;
    uint64_t touched = 0;

    (void)state;
    env_start(BASE, 8192, 1);
    create(true, ORDER_2M);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), 16384), HV_OK);
    for (uint64_t i = 0; i < 16384; i++) {
        touched += p2m_populate(p2m, GFN(i), P2M_WRITE, &e) == HV_OK;
    }
    assert_in_range(touched, env_idle_frames() - 64, env_idle_frames());
    assert_int_equal(p2m_populate(p2m, GFN(16383), P2M_WRITE, &e), HV_ENOMEM);
    assert_int_equal(p2m_populate(p2m, GFN(16383), P2M_WRITE | P2M_FAST, &e), HV_EAGAIN);
    assert_true(p2m_audit(p2m));
    destroy();
    env_stop();
}

/* Another vCPU wins while this one clears 2 MiB. */
static gfn_t rival_gfn;
static bool rival_done;

static void rival(void)
{
    struct p2m_entry e;

    if (!rival_done) {
        rival_done = true;
        assert_int_equal(p2m_populate(p2m, rival_gfn, P2M_WRITE, &e), HV_OK);
        *(uint64_t *)env_frame_ptr(e.mfn) = 0x1234;
    }
}

static void lost_race_frees_the_frame(void **state)
{
    struct p2m_counters count;
    struct p2m_entry e;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    create_pc(true);
    test_env.on_relax = rival;
    rival_done = false;
    rival_gfn = GFN(0x444);
    assert_int_equal(p2m_populate(p2m, GFN(0x444), P2M_WRITE, &e), HV_OK);
    assert_int_equal(*(uint64_t *)env_frame_ptr(e.mfn), 0x1234);
    p2m_counters(p2m, &count);
    assert_int_equal(count.faults_2m, 1);
    check_sums();
    test_env.on_relax = NULL;
    destroy();
    env_stop();
}

/* The fast path finds the p2m locked, and gives everything back. */
static void fast_path_only_tries(void **state)
{
    uint64_t owned[NR_FRAME_USES];
    struct p2m_entry e;
    void *ptr;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    create_pc(false);
    assert_int_equal(p2m_populate(p2m, GFN(0x400), P2M_WRITE, &e), HV_OK);
    spin_lock((struct spinlock *)p2m); /* its first member */
    assert_int_equal(p2m_populate(p2m, GFN(0x401), P2M_WRITE | P2M_FAST, &e), HV_EAGAIN);
    assert_int_equal(p2m_get(p2m, GFN(0x400), P2M_WRITE | P2M_FAST, &ptr), HV_EAGAIN);
    assert_int_equal(p2m_populate(p2m, GFN(0x400), P2M_WRITE | P2M_FAST, &e), HV_OK);
    buddy_count_owner(VM, owned);
    assert_int_equal(owned[FRAME_GUEST], 1);
    spin_unlock((struct spinlock *)p2m);
    assert_int_equal(p2m_populate(p2m, GFN(0x401), P2M_WRITE | P2M_FAST, &e), HV_OK);
    check_sums();
    destroy();
    env_stop();
}

/* 1 GiB: piece by piece out of one block, then one word; pins survive. */
static void gigabyte_is_promoted(void **state)
{
    struct p2m_counters count;
    struct buddy_stats stats;
    struct p2m_entry first;
    struct p2m_entry e;
    void *pinned;
    void *ptr;

    (void)state;
    env_start(MFN(GIB(4) >> PAGE_SHIFT), GIB(4) >> PAGE_SHIFT, 1);
    test_env.lazy_clear = true;
    memset(model, 0, sizeof(model));
    create(true, ORDER_1G);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), BIT(20)), HV_OK);
    assert_int_equal(p2m_populate(p2m, GFN(BIT(18)), P2M_WRITE, &first), HV_OK);
    assert_int_equal(first.order, ORDER_2M);
    assert_int_equal(p2m_get(p2m, GFN(BIT(18) + 777), P2M_WRITE, &pinned), HV_OK);
    /* What is not touched is free. */
    buddy_stats(&stats);
    assert_in_range(stats.used[FRAME_GUEST], 1024, 1024);
    for (uint64_t i = 511; i > 1; i--) {
        assert_int_equal(p2m_populate(p2m, GFN(BIT(18) + i * 512), P2M_WRITE, &e), HV_OK);
    }
    assert_int_equal(e.order, ORDER_1G);
    assert_false(p2m_same(&first));
    p2m_query(p2m, GFN(BIT(18) + 777), &e);
    assert_int_equal(e.order, ORDER_1G);
    assert_ptr_equal(env_frame_ptr(e.mfn), pinned);
    assert_int_equal(e.mfn.n, first.mfn.n + 777);
    p2m_counters(p2m, &count);
    assert_int_equal(count.large_1g, 1);
    assert_int_equal(count.large_2m, 0);
    assert_int_equal(count.faults_1g, 1);
    assert_int_equal(count.pinned, 1);
    assert_true(p2m_audit(p2m));
    assert_true(mm_audit());
    assert_int_equal(p2m_get(p2m, GFN(BIT(18) + 1), P2M_WRITE, &ptr), HV_OK);
    p2m_put(p2m, GFN(BIT(18) + 1), ptr);
    p2m_put(p2m, GFN(BIT(18) + 777), pinned);
    /* A second one, begun and left: its rest goes back with the VM. */
    assert_int_equal(p2m_populate(p2m, GFN(5), P2M_WRITE, &e), HV_OK);
    destroy();
    env_stop();
}

/* A piece that others took costs the promotion, nothing else. */
static void gigabyte_with_a_hole(void **state)
{
    struct p2m_counters count;
    struct p2m_entry first;
    struct p2m_entry e;
    mfn_t stolen;

    (void)state;
    env_start(MFN(GIB(4) >> PAGE_SHIFT), GIB(4) >> PAGE_SHIFT, 1);
    test_env.lazy_clear = true;
    create(true, ORDER_1G);
    assert_int_equal(p2m_add_ram(p2m, GFN(0), BIT(18)), HV_OK);
    assert_int_equal(p2m_populate(p2m, GFN(0), P2M_WRITE, &first), HV_OK);
    stolen = mfn_add(first.mfn, 77 * 512);
    assert_int_equal(buddy_alloc_at(stolen, ORDER_4K, FRAME_HOST, OWNER_HOST), HV_OK);
    for (uint64_t i = 1; i < 512; i++) {
        assert_int_equal(p2m_populate(p2m, GFN(i * 512), P2M_WRITE, &e), HV_OK);
        assert_int_equal(e.order, ORDER_2M);
    }
    p2m_counters(p2m, &count);
    assert_int_equal(count.large_1g, 0);
    assert_int_equal(count.large_2m, 512);
    assert_true(p2m_audit(p2m));
    destroy();
    buddy_free(stolen, 0);
    env_stop();
}

static void pinned_at_the_end_panics(void **state)
{
    void *ptr;

    (void)state;
    env_start(BASE, NR_FRAMES, 1);
    create_pc(false);
    assert_int_equal(p2m_get(p2m, GFN(0), P2M_READ, &ptr), HV_OK);
    ENV_EXPECT_PANIC(p2m_destroy(p2m));
    p2m_put(p2m, GFN(0), ptr);
    destroy();
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations),       cmocka_unit_test(large_where_wholly_ram),
        cmocka_unit_test(layout_is_checked),       cmocka_unit_test(creation_fails_cleanly),
        cmocka_unit_test(more_guest_than_machine), cmocka_unit_test(lost_race_frees_the_frame),
        cmocka_unit_test(fast_path_only_tries),    cmocka_unit_test(gigabyte_is_promoted),
        cmocka_unit_test(gigabyte_with_a_hole),    cmocka_unit_test(pinned_at_the_end_panics),
    };

    return cmocka_run_group_tests_name("p2m", tests, NULL, NULL);
}
