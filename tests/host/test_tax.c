/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The idle tax against brute force: an auction that gives out page by page to whoever has most shares
 * per page, idle pages weighed, as the paper defines it; and against the real solution in floating
 * point. Then what the paper promises of it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/lib/rng.h"
#include "mm/reclaim/tax.h"

#define MOST 8u

static struct rng rng;

/* The pages' cost in claims: f active, (1 - f) idle at k = 1 / (1 - tau) each; idle pages up to as many
 * as are active at half the tax where it is progressive. */
static double cost(const struct tax_claim *c, double pages, unsigned pct, enum tax_type type)
{
    double active = (double)c->active < pages ? (double)c->active : pages;
    double idle = pages - active;
    double lightly = type == TAX_FLAT ? 0 : idle < active ? idle : active;
    double tau = pct / 100.0;

    return active + lightly / (1 - tau / 2) + (idle - lightly) / (1 - tau);
}

static uint64_t lowest_sum(const struct tax_claim *c, unsigned nr)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < nr; i++) {
        sum += c[i].min;
    }
    return sum;
}

static uint64_t highest_sum(const struct tax_claim *c, unsigned nr)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < nr; i++) {
        sum += c[i].shares != 0 ? c[i].max : c[i].min;
    }
    return sum;
}

/* Page by page: min-funding revocation, run backwards. */
static void auction(struct tax_claim *c, unsigned nr, uint64_t available, unsigned pct,
                    enum tax_type type)
{
    uint64_t left = available - lowest_sum(c, nr);

    for (unsigned i = 0; i < nr; i++) {
        c[i].target = c[i].min;
    }
    while (left-- > 0) {
        struct tax_claim *best = NULL;
        double least = 0;

        for (unsigned i = 0; i < nr; i++) {
            if (c[i].shares == 0 || c[i].target == c[i].max) {
                continue;
            }
            double price = cost(&c[i], (double)c[i].target + 1, pct, type) / (double)c[i].shares;

            if (best == NULL || price < least) {
                best = &c[i];
                least = price;
            }
        }
        best->target++;
    }
}

static void random_claims(struct tax_claim *c, unsigned nr, uint64_t scale)
{
    for (unsigned i = 0; i < nr; i++) {
        uint64_t max = 1 + rng_below(&rng, scale);

        c[i] = (struct tax_claim){
            .min = rng_below(&rng, 3) == 0 ? rng_below(&rng, max + 1) : 0,
            .max = max,
            .shares = rng_below(&rng, 12) == 0 ? 0 : 1 + rng_below(&rng, 1 + rng_below(&rng, 5000)),
            .active = rng_below(&rng, 4) == 0 ? rng_below(&rng, 2 * max) : rng_below(&rng, max + 1),
        };
    }
}

static void as_an_auction(void **state)
{
    struct tax_claim solved[MOST], sold[MOST];

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        unsigned nr = 1 + (unsigned)rng_below(&rng, MOST);
        unsigned pct = rng_below(&rng, 3) == 0 ? 75 : (unsigned)rng_below(&rng, TAX_MAX_PCT + 1);
        enum tax_type type = rng_below(&rng, 2) == 0 ? TAX_FLAT : TAX_PROGRESSIVE;

        random_claims(solved, nr, 400);
        memcpy(sold, solved, sizeof sold);
        uint64_t low = lowest_sum(sold, nr), high = highest_sum(sold, nr);
        uint64_t available = low + rng_below(&rng, high - low + 1);

        auction(sold, nr, available, pct, type);
        assert_int_equal(tax_solve(solved, nr, available, pct, type), available);
        for (unsigned i = 0; i < nr; i++) {
            int64_t off = (int64_t)solved[i].target - (int64_t)sold[i].target;

            if (llabs(off) > 2) {
                fail_msg("round %u: VM %u of %u gets %llu, the auction gave %llu", round, i, nr,
                         (unsigned long long)solved[i].target, (unsigned long long)sold[i].target);
            }
        }
    }
}

/* Among large VMs that are neither at min nor at max, all pay the same price. */
static void prices_meet(void **state)
{
    struct tax_claim c[MOST];

    (void)state;
    for (unsigned round = 0; round < 5000; round++) {
        unsigned nr = 2 + (unsigned)rng_below(&rng, MOST - 1);
        unsigned pct = (unsigned)rng_below(&rng, 96);
        enum tax_type type = rng_below(&rng, 2) == 0 ? TAX_FLAT : TAX_PROGRESSIVE;
        double price = 0;

        random_claims(c, nr, BIT(30));
        uint64_t low = lowest_sum(c, nr), high = highest_sum(c, nr);
        uint64_t available = low + rng_below(&rng, high - low + 1);

        assert_int_equal(tax_solve(c, nr, available, pct, type), available);
        for (unsigned i = 0; i < nr; i++) {
            assert_true(c[i].target >= c[i].min && c[i].target <= c[i].max);
            if (c[i].target == c[i].min || c[i].target == c[i].max || c[i].target < BIT(16)) {
                continue;
            }
            double own = cost(&c[i], (double)c[i].target, pct, type) / (double)c[i].shares;

            assert_true(price == 0 || (own > price * 0.999 && own < price * 1.001));
            price = own;
        }
    }
}

static void ends_of_the_range(void **state)
{
    struct tax_claim c[] = {{.min = 10, .max = 100, .shares = 5, .active = 3},
                            {.min = 20, .max = 50, .shares = 0, .active = 40}};

    (void)state;
    assert_int_equal(tax_solve(c, 2, 5, 75, TAX_FLAT), 30);
    assert_int_equal(c[0].target, 10);
    assert_int_equal(tax_solve(c, 2, 1000, 75, TAX_FLAT), 120);
    assert_int_equal(c[0].target, 100);
    assert_int_equal(c[1].target, 20);
    assert_int_equal(tax_solve(c, 0, 1000, 75, TAX_FLAT), 0);
}

/* Largest numbers: nothing overflows. */
static void extremes(void **state)
{
    struct tax_claim c[] = {
        {.max = TAX_MAX_PAGES - 1, .shares = TAX_MAX_SHARES - 1},
        {.max = TAX_MAX_PAGES - 1, .shares = TAX_MAX_SHARES - 1, .active = TAX_MAX_PAGES - 1}};

    (void)state;
    assert_int_equal(tax_solve(c, 2, 1000001, 99, TAX_PROGRESSIVE), 1000001);
    assert_true(c[1].target > c[0].target);
    assert_int_equal(tax_solve(c, 2, 2 * (TAX_MAX_PAGES - 1) - 7, 0, TAX_FLAT),
                     2 * (TAX_MAX_PAGES - 1) - 7);
    assert_true(tax_price(&c[0], 0, 75, TAX_FLAT) == UINT64_MAX);
}

/* Figure 7: 360 MB for two VMs of 256 MB and equal shares, one idle. */
static void two_vms(void **state)
{
    struct tax_claim c[] = {{.max = 65536, .shares = 2560, .active = 50 * 256},
                            {.max = 65536, .shares = 2560, .active = 256 * 256}};

    (void)state;
    (void)tax_solve(c, 2, 360 * 256, 0, TAX_FLAT);
    assert_int_equal(c[0].target / 256, 180);
    assert_int_equal(c[1].target / 256, 180);
    (void)tax_solve(c, 2, 360 * 256, 75, TAX_FLAT);
    assert_in_range(c[0].target / 256, 102, 104);
    assert_in_range(c[1].target / 256, 255, 256);
    /* Neither at its max: the difference is tau times that of what they use. */
    c[1].active = 150 * 256;
    (void)tax_solve(c, 2, 360 * 256, 75, TAX_FLAT);
    assert_int_equal(c[1].target - c[0].target, 75 * 256);
}

/* The progressive tax is lighter for the little idle, as heavy in the end; more shares, more memory. */
static void progressive(void **state)
{
    struct tax_claim c = {.max = 100000, .shares = 10, .active = 100};

    (void)state;
    assert_true(tax_price(&c, 150, 75, TAX_PROGRESSIVE) > tax_price(&c, 150, 75, TAX_FLAT));
    assert_true(tax_price(&c, 50000, 75, TAX_PROGRESSIVE) * 100 <
                tax_price(&c, 50000, 75, TAX_FLAT) * 102);
    assert_true(tax_price(&c, 100, 75, TAX_FLAT) == 10 * BIT(20) / 100);

    struct tax_claim two[] = {{.max = 4000, .shares = 1000, .active = 500},
                              {.max = 4000, .shares = 2000, .active = 500}};

    (void)tax_solve(two, 2, 4000, 75, TAX_PROGRESSIVE);
    assert_true(two[1].target > two[0].target + 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_an_auction),     cmocka_unit_test(prices_meet),
        cmocka_unit_test(ends_of_the_range), cmocka_unit_test(extremes),
        cmocka_unit_test(two_vms),           cmocka_unit_test(progressive),
    };

    rng_seed(&rng, 5);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
