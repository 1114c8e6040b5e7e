/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sampling of model guests with known working sets. A guest touches pages through a TLB that keeps every
 * translation until its VM's recorded flush, walks the tables as the processor does, accessed bits
 * included, and faults where they end.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/p2m.h"
#include "mm/pt/fmt_ept.h"
#include "mm/pt/fmt_x86.h"
#include "mm/reclaim/sample.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define PAGES 8192ull
#define SECOND 1000000000ull

static struct {
    struct p2m *p2m;
    struct view *view;
    struct sample *sample;
    bool tlb[PAGES];
    uint64_t faults;
    uint64_t now;
} g;

static struct sample_options options;

static void flushed(struct flush_domain *d)
{
    (void)d;
    memset(g.tlb, 0, sizeof g.tlb);
}

static bool walk(uint64_t gfn)
{
    struct ref_mapping m;
    hpa_t root;

    assert_int_equal(g.view->ops->root(g.view, &root), HV_OK);
    return ref_walk(root.a, gfn << PAGE_SHIFT, &m);
}

static void touch(uint64_t gfn)
{
    if (g.tlb[gfn]) {
        return;
    }
    while (!walk(gfn)) {
        enum hv_err err = g.view->ops->fault(g.view, gfn_gpa(GFN(gfn)), P2M_WRITE | P2M_FAST);

        g.faults++;
        if (err == HV_EAGAIN) {
            err = g.view->ops->fault(g.view, gfn_gpa(GFN(gfn)), P2M_WRITE);
        }
        assert_int_equal(err, HV_OK);
    }
    g.tlb[gfn] = true;
}

static void begin(bool large, const struct pt_format *fmt, enum sample_method method)
{
    struct p2m_config cfg = {.owner = 1, .large_pages = large, .max_order = ORDER_2M};

    env_start(BASE, NR_FRAMES, 2);
    test_env.lazy_clear = true;
    test_env.on_flush = flushed;
    memset(&g, 0, sizeof g);
    assert_int_equal(p2m_create(&cfg, &g.p2m), HV_OK);
    assert_int_equal(nested_create(g.p2m, fmt, 1, &g.view), HV_OK);
    assert_int_equal(p2m_add_ram(g.p2m, GFN(0), PAGES), HV_OK);
    assert_int_equal(sample_create(g.p2m, env_seed("sample"), &g.sample), HV_OK);
    options = (struct sample_options){.size = 100, .period_ns = 60 * SECOND, .method = method};
    g.now = SECOND;
}

static void finish(void)
{
    sample_destroy(g.sample);
    assert_true(g.view->ops->audit(g.view));
    assert_true(p2m_audit(g.p2m));
    p2m_destroy(g.p2m);
    env_stop();
}

/* `seconds` of a guest that touches `first`..`first + nr` once every ten seconds. */
static void run(uint64_t seconds, uint64_t first, uint64_t nr)
{
    while (seconds-- > 0) {
        g.now += SECOND;
        for (uint64_t i = g.now / SECOND % 10; i < nr; i += 10) {
            touch(first + i);
        }
        sample_tick(g.sample, &options, g.now);
    }
}

static double part(unsigned estimate)
{
    return (double)estimate / SAMPLE_ONE;
}

/* The mean over many periods is within three standard deviations of the truth; the averages scatter as
 * their gains say. */
static void known_working_set(double truth)
{
    uint64_t nr = (uint64_t)(truth * PAGES);
    struct sample_estimate e;
    struct sample_stats stats;
    double sum = 0, low = 1, high = 0, slow_sum = 0;
    unsigned looks = 0;

    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    run(240, 0, nr);
    sample_estimate(g.sample, &e);
    assert_true(e.known);
    for (; looks < 120; looks++) {
        run(20, 0, nr);
        sample_estimate(g.sample, &e);
        sum += part(e.fast);
        slow_sum += part(e.slow);
        low = part(e.slow) < low ? part(e.slow) : low;
        high = part(e.active) > high ? part(e.active) : high;
        assert_true(e.active >= e.slow && e.active >= e.fast && e.next >= e.fast);
    }
    sample_stats(g.sample, &stats);

    double n = (double)stats.watched, raw = (double)stats.touched / n;
    double sigma = sqrt(truth * (1 - truth) / n), one = sqrt(truth * (1 - truth) / 100);

    printf("truth %.3f: raw %.4f of %.0f (sigma %.4f), fast %.4f, slow %.4f, least slow %.3f, "
           "most active %.3f\n",
           truth, raw, n, sigma, sum / looks, slow_sum / looks, low, high);
    assert_true(n > 3900);
    assert_true(fabs(raw - truth) <= 3 * sigma + 1e-9);
    assert_true(fabs(sum / looks - truth) <= 4 * sigma + 1e-9);
    assert_true(fabs(slow_sum / looks - truth) <= 5 * sigma + 1e-9);
    assert_true(truth - low <= 4 * one && high - truth <= 5 * one);
    assert_true(stats.lost * 50 < stats.watched);
}

static void statistics(void **state)
{
    static const double truths[] = {0, 0.05, 0.3, 0.7, 1};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(truths); i++) {
        begin(i % 2 == 1, &fmt_x86_npt, i < 3 ? SAMPLE_FAULT : SAMPLE_AUTO);
        known_working_set(truths[i]);
        finish();
    }
}

/* What a period costs the guest: at most one fault for a page that is watched. */
static void faults_are_few(void **state)
{
    (void)state;
    begin(false, &fmt_x86_npt, SAMPLE_FAULT);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    run(120, 0, PAGES);
    uint64_t before = g.faults, flushes = test_env.flushes;

    run(60, 0, PAGES);
    assert_in_range(g.faults - before, 90, 110);
    assert_in_range(test_env.flushes - flushes, 5, 11);
    finish();

    begin(false, &fmt_x86_npt, SAMPLE_AUTO);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    before = g.faults;
    run(120, 0, PAGES);
    assert_int_equal(g.faults, before);
    finish();
}

/* A rise shows within a period, a fall takes several; none of them stays behind. */
static void rise_and_fall(void **state)
{
    struct sample_estimate e;

    (void)state;
    begin(true, &fmt_x86_npt, SAMPLE_AUTO);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    run(600, 0, PAGES / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.active) < 0.25);
    run(12, 0, PAGES * 9 / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.active) > 0.5);
    assert_true(part(e.slow) < 0.35);
    run(50, 0, PAGES * 9 / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.active) > 0.75);
    run(600, 0, PAGES * 9 / 10);
    sample_estimate(g.sample, &e);
    double top = part(e.active);

    run(60, 0, PAGES / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.active) > 0.6 * top);
    run(90, 0, PAGES / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.fast) < 0.4);
    assert_true(part(e.active) > 0.4);
    run(900, 0, PAGES / 10);
    sample_estimate(g.sample, &e);
    assert_true(part(e.active) < 0.25);
    finish();
}

/* Large pages: the p2m keeps them; the view spells out the watched ones and joins them again. */
static void large_pages_stay(void **state)
{
    struct p2m_counters count;
    struct sample_stats stats;
    struct view_stats view;

    (void)state;
    begin(true, &fmt_x86_npt, SAMPLE_FAULT);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    p2m_counters(g.p2m, &count);
    assert_int_equal(count.large_2m, PAGES / 512);
    options.size = 4;
    run(300, 0, 0);
    assert_true(g.view->ops->stats(g.view, &view));
    assert_true(view.leaves_2m < PAGES / 512);
    sample_stats(g.sample, &stats);
    assert_true(stats.splits >= 16 && stats.touched == 0 && stats.lost == 0);
    /* All is in use: whole again at the next tick. */
    run(11, 0, PAGES);
    assert_true(g.view->ops->stats(g.view, &view));
    assert_true(view.leaves_2m >= PAGES / 512 - 1);
    options.size = 0;
    run(120, 0, PAGES);
    assert_true(g.view->ops->stats(g.view, &view));
    assert_int_equal(view.leaves_2m, PAGES / 512);
    assert_int_equal(view.leaves_4k, 0);
    p2m_counters(g.p2m, &count);
    assert_int_equal(count.large_2m, PAGES / 512);
    finish();
}

/* The population is what was granted: half of the memory, a tenth of that in use. */
static void only_what_was_granted(void **state)
{
    struct sample_estimate e;

    (void)state;
    begin(false, &fmt_x86_npt, SAMPLE_AUTO);
    for (uint64_t gfn = 0; gfn < PAGES / 2; gfn++) {
        touch(gfn);
    }
    run(1200, 0, PAGES / 20);
    sample_estimate(g.sample, &e);
    assert_true(part(e.slow) > 0.06 && part(e.slow) < 0.15);
    finish();
    /* Nothing granted: nothing known. */
    begin(false, &fmt_x86_npt, SAMPLE_AUTO);
    run(300, 0, 0);
    sample_estimate(g.sample, &e);
    assert_false(e.known);
    assert_int_equal(e.active, SAMPLE_ONE);
    finish();
}

/* Ageing of large pages (mm/p2m_large.h) goes on meanwhile, and does not spoil the samples. */
static void beside_ageing(void **state)
{
    struct flush_batch batch;
    struct sample_stats stats;

    (void)state;
    begin(true, &fmt_x86_npt, SAMPLE_AUTO);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    for (unsigned i = 0; i < 600; i++) {
        run(1, 0, PAGES / 2);
        flush_batch_init(&batch, p2m_flush_domain(g.p2m));
        for (uint64_t gfn = 0; gfn < PAGES; gfn += 512) {
            bool used = g.view->ops->age(g.view, GFN(gfn), &batch);

            assert_true(i == 0 || used == (gfn < PAGES / 2));
        }
        flush_batch_commit(&batch);
    }
    sample_stats(g.sample, &stats);
    double raw = (double)stats.touched / (double)stats.watched;

    assert_true(fabs(raw - 0.5) <= 3 * sqrt(0.25 / (double)stats.watched));
    assert_int_equal(stats.lost, 0);
    finish();
}

/* Tables without accessed bits: by faults, whatever the method. */
static void without_accessed_bits(void **state)
{
    struct flush_batch batch;
    enum view_watch how;

    (void)state;
    begin(false, &fmt_ept, SAMPLE_ABIT);
    assert_int_equal(g.view->ops->fault(g.view, gfn_gpa(GFN(5)), P2M_WRITE), HV_OK);
    flush_batch_init(&batch, p2m_flush_domain(g.p2m));
    assert_int_equal(g.view->ops->watch(g.view, GFN(5), true, &batch, &how), HV_OK);
    flush_batch_commit(&batch);
    assert_int_equal(how, WATCH_GONE);
    assert_int_equal(g.view->ops->watched(g.view, GFN(5), how), USE_NONE);
    assert_int_equal(g.view->ops->fault(g.view, gfn_gpa(GFN(5)), P2M_WRITE | P2M_FAST), HV_OK);
    assert_int_equal(g.view->ops->watched(g.view, GFN(5), how), USE_SEEN);
    finish();
}

/* Without memory for tables large pages are not sampled, and nothing breaks. */
static void scarcity(void **state)
{
    struct sample *second;

    (void)state;
    begin(true, &fmt_x86_npt, SAMPLE_AUTO);
    for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
        touch(gfn);
    }
    test_env.fail_site = "pt.table";
    test_env.fail_after = 0;
    test_env.fail_rate = 1;
    run(120, 0, PAGES);
    assert_true(test_env.failures > 0);
    test_env.fail_site = "sample";
    assert_int_equal(sample_create(g.p2m, 1, &second), HV_ENOMEM);
    test_env.fail_rate = 0;
    test_env.fail_after = -1;
    run(120, 0, PAGES);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics),
        cmocka_unit_test(faults_are_few),
        cmocka_unit_test(rise_and_fall),
        cmocka_unit_test(large_pages_stay),
        cmocka_unit_test(only_what_was_granted),
        cmocka_unit_test(beside_ageing),
        cmocka_unit_test(without_accessed_bits),
        cmocka_unit_test(scarcity),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
