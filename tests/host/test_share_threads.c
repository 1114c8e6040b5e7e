/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Page sharing with real threads: a guest each, which write and check their pages, one that scans, one
 * that splits, joins and compacts. Flushes wait for guests as the kernel's do: until each has left the
 * section in which it looked at its tables. Meant for ThreadSanitizer as well:
 * make HOST_SANITIZE=-fsanitize=thread BUILD=... .../test_share_threads
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/compact.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/pt/fmt_x86.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define NR_GUESTS 3u
#define PAGES 1536ull
#define WORDS (PAGE_SIZE / 8)
/* A guest takes so many steps at least, and goes on until there have been so many scans. */
#define STEPS 10000u
#define SCANS 2u
#define MOST_STEPS (100 * STEPS)
#define NR_PATTERNS 5u

struct guest {
    struct p2m *p2m;
    struct view *view;
    uint64_t root;
    uint64_t pattern[PAGES]; /* its thread's */
    uint32_t in_guest;       /* atomic */
};

static struct guest guests[NR_GUESTS];
static bool stop;      /* atomic */
static unsigned scans; /* of all guests (atomic) */
static __thread int self = -1;

static void wait_for_guests(struct flush_domain *d)
{
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        struct guest *g = &guests[i];

        while (g->p2m != NULL && p2m_flush_domain(g->p2m) == d && self != (int)i &&
               __atomic_load_n(&g->in_guest, __ATOMIC_SEQ_CST) != 0) {
            sched_yield();
        }
    }
}

static void let_others(void)
{
    sched_yield();
}

static void die(const char *what, unsigned guest, uint64_t gfn)
{
    fprintf(stderr, "guest %u, page %#llx: %s\n", guest, (unsigned long long)gfn, what);
    abort();
}

/* One look at a page inside a section; false: it takes a fault. */
static bool access_page(struct guest *g, uint64_t gfn, bool write, uint64_t pattern)
{
    struct ref_mapping seen;
    bool ok;

    __atomic_store_n(&g->in_guest, 1, __ATOMIC_SEQ_CST);
    ok = ref_walk(g->root, gfn << PAGE_SHIFT, &seen) && (seen.writable || !write);
    if (ok) {
        uint64_t *page = env_frame_ptr(hpa_mfn(HPA(seen.pa)));

        for (unsigned i = 0; i < WORDS; i++) {
            if (page[i] != g->pattern[gfn]) {
                die("contents have changed", (unsigned)(g - guests), gfn);
            }
        }
        for (unsigned i = 0; write && i < WORDS; i++) {
            page[i] = pattern;
        }
    }
    __atomic_store_n(&g->in_guest, 0, __ATOMIC_SEQ_CST);
    return ok;
}

static bool is_enough(unsigned step)
{
    return step >= MOST_STEPS ||
           (step >= STEPS && __atomic_load_n(&scans, __ATOMIC_RELAXED) >= SCANS);
}

static void *guest_main(void *arg)
{
    struct guest *g = &guests[(uintptr_t)arg];
    struct rng rng;

    self = (int)(uintptr_t)arg;
    env_set_cpu((unsigned)(uintptr_t)arg);
    rng_seed(&rng, 77 + (uintptr_t)arg);
    for (unsigned step = 0; !is_enough(step); step++) {
        uint64_t gfn = rng_below(&rng, 3) ? rng_below(&rng, 200) : rng_below(&rng, PAGES);
        bool write = rng_below(&rng, 4) == 0;
        uint64_t pattern = rng_below(&rng, NR_PATTERNS) * 0x1111111111111111ull;

        while (!access_page(g, gfn, write, pattern)) {
            enum hv_err err =
                g->view->ops->fault(g->view, gfn_gpa(GFN(gfn)), write ? P2M_WRITE : P2M_READ);

            if (err != HV_OK) {
                die(err == HV_ENOMEM ? "no memory" : "fault failed", (unsigned)(g - guests), gfn);
            }
        }
        if (write) {
            g->pattern[gfn] = pattern;
        }
        if (step % 32 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void *scanner_main(void *arg)
{
    (void)arg;
    env_set_cpu(NR_GUESTS);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        for (unsigned i = 0; i < NR_GUESTS; i++) {
            scan_all(guests[i].p2m);
        }
        __atomic_fetch_add(&scans, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *large_main(void *arg)
{
    struct rng rng;

    (void)arg;
    env_set_cpu(NR_GUESTS + 1);
    rng_seed(&rng, 5);
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint32_t i = (uint32_t)rng_below(&rng, NR_GUESTS);
        gfn_t gfn = GFN(rng_below(&rng, PAGES / 512) * 512);
        mfn_t block;

        (void)!p2m_large_split(guests[i].p2m, gfn, NULL);
        p2m_large_age(guests[i].p2m);
        if (buddy_alloc(ORDER_2M, FRAME_GUEST, i + 1, 0, &block) == HV_OK &&
            p2m_large_join(guests[i].p2m, gfn, 512, block) != HV_OK) {
            buddy_free(block, ORDER_2M);
        }
        if (compact_block(i + 1, &block) == HV_OK) {
            buddy_free(block, ORDER_2M);
        }
        sched_yield();
    }
    return NULL;
}

static void several_guests_at_once(void **state)
{
    pthread_t threads[NR_GUESTS], scanner, large;
    struct share_recount recount;
    uint64_t merged = 0, broken = 0;

    (void)state;
    env_start(BASE, NR_FRAMES, NR_GUESTS + 2);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(9);
    test_env.on_flush = wait_for_guests;
    test_env.on_relax = let_others;
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        const struct p2m_config cfg = {
            .owner = i + 1, .max_order = ORDER_2M, .large_pages = i == 0, .salt = i < 2 ? 1 : 2};
        struct guest *g = &guests[i];
        hpa_t root;

        assert_int_equal(p2m_create(&cfg, &g->p2m), HV_OK);
        assert_int_equal(p2m_add_ram(g->p2m, GFN(0), PAGES), HV_OK);
        assert_int_equal(nested_create(g->p2m, &fmt_x86_npt, i + 1, &g->view), HV_OK);
        assert_int_equal(g->view->ops->root(g->view, &root), HV_OK);
        g->root = root.a;
        share_join(g->p2m);
    }
    for (uintptr_t i = 0; i < NR_GUESTS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, guest_main, (void *)i), 0);
    }
    assert_int_equal(pthread_create(&scanner, NULL, scanner_main, NULL), 0);
    assert_int_equal(pthread_create(&large, NULL, large_main, NULL), 0);
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        pthread_join(threads[i], NULL);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(scanner, NULL);
    pthread_join(large, NULL);
    assert_true(share_audit(&recount));
    assert_true(recount.certain);
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        struct p2m_counters count;

        assert_true(p2m_audit(guests[i].p2m));
        assert_true(guests[i].view->ops->audit(guests[i].view));
        p2m_counters(guests[i].p2m, &count);
        merged += count.merged;
        broken += count.broken;
    }
    printf("merged %llu, broken %llu\n", (unsigned long long)merged, (unsigned long long)broken);
    assert_true(merged > 500 && broken > 200);
    for (unsigned i = 0; i < NR_GUESTS; i++) {
        p2m_destroy(guests[i].p2m);
        guests[i].p2m = NULL;
        assert_true(mm_audit_gone(i + 1));
    }
    share_fini();
    env_stop();
}

/* ---- A member that leaves ---- */

static unsigned naps; /* atomic */

static void scan_slowly(void)
{
    __atomic_fetch_add(&naps, 1, __ATOMIC_RELEASE);
    usleep(10000);
}

static void *one_scan(void *arg)
{
    env_set_cpu(1);
    scan_all(arg);
    share_release(share_member(arg));
    return NULL;
}

/* Who destroys a VM waits for the slice that is under way, not for the whole scan. */
static void leaving_ends_a_scan(void **state)
{
    const struct p2m_config cfg = {.owner = 1, .max_order = ORDER_4K, .salt = 1};
    struct p2m_entry e;
    struct p2m *p;
    pthread_t scanner;

    (void)state;
    env_start(BASE, NR_FRAMES, 2);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    assert_int_equal(p2m_create(&cfg, &p), HV_OK);
    assert_int_equal(p2m_add_ram(p, GFN(0), 4 * PAGES), HV_OK);
    for (uint64_t gfn = 0; gfn < 4 * PAGES; gfn++) {
        assert_int_equal(p2m_populate(p, GFN(gfn), P2M_WRITE, &e), HV_OK);
        *(uint64_t *)env_frame_ptr(e.mfn) = gfn + 1;
    }
    share_join(p);
    assert_ptr_equal(share_hold(share_member(p)), p);
    test_env.on_relax = scan_slowly;
    assert_int_equal(pthread_create(&scanner, NULL, one_scan, p), 0);
    while (__atomic_load_n(&naps, __ATOMIC_ACQUIRE) == 0) {
        sched_yield();
    }
    share_leave(p);
    pthread_join(scanner, NULL);
    test_env.on_relax = NULL;
    /* A whole scan naps nearly a thousand times. */
    assert_in_range(naps, 1, 200);
    p2m_destroy(p);
    share_fini();
    env_stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_guests_at_once),
        cmocka_unit_test(leaving_ends_a_scan),
    };

    return cmocka_run_group_tests_name("share threads", tests, NULL, NULL);
}
