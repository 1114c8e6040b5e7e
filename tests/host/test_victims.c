/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random victims against an oracle that knows the order of all touches: a guest's touches are replayed
 * on the real choice of victims (mm/reclaim/swap.c) and on a list in order of use (LRU), both with memory
 * for a part of the guest's pages only. Prints both counts of faults. LRU cannot be had below a guest that
 * does not report its touches; this says what that costs.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/reclaim/swap.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/faultstore.h"

#define PAGES 3072u
#define RESIDENT (PAGES * 2 / 3) /* overcommitted 1.5 times */
#define TOUCHES 60000u
#define LEAVE 16u /* taken at once */

typedef unsigned (*trace_t)(struct rng *rng, unsigned i);

/* Nine touches in ten go to a tenth of the pages, or to neighbours of the last one. */
static unsigned skewed(struct rng *rng, unsigned i)
{
    static unsigned last;

    (void)i;
    if (rng_below(rng, 3) == 0) {
        last = (last + 1) % PAGES;
    } else if (rng_below(rng, 10) != 0) {
        last = (unsigned)(rng_below(rng, PAGES / 10) * 10);
    } else {
        last = (unsigned)rng_below(rng, PAGES);
    }
    return last;
}

/* The k-th page is touched in proportion to 1/k. */
static unsigned zipf(struct rng *rng, unsigned i)
{
    double x = (double)rng_below(rng, 1u << 30) / (1u << 30);
    unsigned k = (unsigned)exp(x * log(PAGES)) - 1;

    (void)i;
    return (k % PAGES) * 1237 % PAGES;
}

static unsigned uniform(struct rng *rng, unsigned i)
{
    (void)i;
    return (unsigned)rng_below(rng, PAGES);
}

/* Round and round: what LRU is worst at. */
static unsigned loop(struct rng *rng, unsigned i)
{
    (void)rng;
    return i % PAGES;
}

/* A working set that moves on, page by page. */
static unsigned moving(struct rng *rng, unsigned i)
{
    return (unsigned)(i / 12 + rng_below(rng, RESIDENT / 2)) % PAGES;
}

static const struct {
    const char *name;
    trace_t next;
    double bar; /* random's faults, of LRU's */
} traces[] = {
    {"skewed, runs", skewed, 1.6}, {"1/k", zipf, 1.6},          {"uniform", uniform, 1.1},
    {"loop", loop, 0.9},           {"moving set", moving, 1.5},
};

/* ---- LRU ---- */

static unsigned lru_faults(trace_t next)
{
    static unsigned newer[PAGES + 1], older[PAGES + 1];
    static bool here[PAGES];
    const unsigned end = PAGES;
    unsigned faults = 0, nr = 0;
    struct rng rng;

    rng_seed(&rng, 5);
    newer[end] = older[end] = end;
    for (unsigned i = 0; i < PAGES; i++) {
        here[i] = false;
    }
    for (unsigned i = 0; i < TOUCHES; i++) {
        unsigned page = next(&rng, i);

        if (here[page]) {
            newer[older[page]] = newer[page];
            older[newer[page]] = older[page];
        } else {
            faults++;
            here[page] = true;
            if (++nr > RESIDENT) {
                unsigned victim = newer[end];

                newer[end] = newer[victim];
                older[newer[victim]] = end;
                here[victim] = false;
                nr--;
            }
        }
        older[page] = older[end];
        newer[page] = end;
        newer[older[end]] = page;
        older[end] = page;
    }
    return faults;
}

/* ---- Ours ---- */

static void woken(struct p2m *p)
{
    (void)p;
}

static void all_woken(void)
{
}

static bool is_here(struct p2m *p, unsigned page)
{
    struct p2m_entry e;

    p2m_query(p, GFN(page), &e);
    return e.state == P2M_PRIVATE;
}

static unsigned our_faults(trace_t next)
{
    static struct faultstore store;
    const struct p2m_config cfg = {.owner = 1, .max_order = ORDER_4K, .salt = 7};
    const struct swap_config swap = {.store = &store.store,
                                     .seed = 11,
                                     .read_along = UINT64_MAX,
                                     .wake = woken,
                                     .wake_all = all_woken};
    const struct swap_how how = {.urgent = true};
    struct p2m_counters count;
    struct view *view;
    struct p2m *p;
    unsigned faults = 0;
    struct rng rng;

    rng_seed(&rng, 5);
    env_start(MFN(0x200), 8192, 1);
    faultstore_start(&store, PAGES + 64, 1);
    assert_int_equal(share_init(8192), HV_OK);
    assert_int_equal(swap_init(&swap), HV_OK);
    assert_int_equal(p2m_create(&cfg, &p), HV_OK);
    assert_int_equal(p2m_add_ram(p, GFN(0), PAGES), HV_OK);
    assert_int_equal(nested_create(p, &fmt_x86_npt, 1, &view), HV_OK);
    for (unsigned i = 0; i < TOUCHES; i++) {
        unsigned page = next(&rng, i);

        if (!is_here(p, page)) {
            faults++;
            assert_int_equal(view->ops->fault(view, gfn_gpa(GFN(page)), P2M_WRITE), HV_OK);
        }
        p2m_counters(p, &count);
        if (count.consumed > RESIDENT) {
            struct swap_step done;

            assert_int_equal(swap_out(p, LEAVE, &how, &done), HV_OK);
            swap_reap();
        }
    }
    p2m_destroy(p);
    swap_fini();
    share_fini();
    env_stop();
    faultstore_stop(&store);
    return faults;
}

static void random_and_lru(void **state)
{
    (void)state;
    printf("%u pages, memory for %u, %u touches\n%-14s %8s %8s %6s\n", PAGES, RESIDENT, TOUCHES,
           "faults", "random", "LRU", "ratio");
    for (unsigned i = 0; i < sizeof(traces) / sizeof(traces[0]); i++) {
        unsigned ours = our_faults(traces[i].next), lru = lru_faults(traces[i].next);

        printf("%-14s %8u %8u %6.2f\n", traces[i].name, ours, lru, (double)ours / lru);
        assert_true(ours < lru * traces[i].bar);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_and_lru)};

    return cmocka_run_group_tests_name("victims", tests, NULL, NULL);
}
