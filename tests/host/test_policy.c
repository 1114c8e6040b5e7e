/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory states: the tables' figures, falls at once, climbs by steps, and no oscillation faster than
 * the dwell time whatever free memory does.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "kernel/lib/rng.h"
#include "mm/reclaim/policy.h"

#define SECOND 1000000000ull
#define DWELL (15 * SECOND)

static uint64_t mib(uint64_t n)
{
    return MIB(n) >> PAGE_SHIFT;
}

static void scales(void **state)
{
    (void)state;
    assert_int_equal(policy_min_free(MEM_STATES_CLASSIC, mib(1000), 0), mib(60));
    assert_int_equal(policy_min_free(MEM_STATES_CLASSIC, mib(100 * 1024), 0), mib(6 * 1024));
    assert_int_equal(policy_min_free(MEM_STATES_CLASSIC, mib(1000), 15), mib(150));
    assert_int_equal(policy_min_free(MEM_STATES_ESX6, mib(1000), 15), mib(150));
    assert_int_equal(policy_min_free(MEM_STATES_ESX6, mib(1000), 0), mib(60));
    /* About 899 MB for the first 28 GiB, and 1 % of the rest. */
    uint64_t at28 = policy_min_free(MEM_STATES_ESX6, mib(28 * 1024), 0);

    assert_in_range(at28, mib(895), mib(905));
    assert_in_range(policy_min_free(MEM_STATES_ESX6, mib(128 * 1024), 0), at28 + mib(1023),
                    at28 + mib(1024));
}

/* The level of each table at a percentage of memory, and what is done there. */
static void levels(void **state)
{
    static const struct {
        enum mem_states table;
        unsigned per_mille; /* of 1,000,000 frames of memory, free */
        enum mem_state is;
        unsigned has, has_not;
    } at[] = {
        {MEM_STATES_CLASSIC, 60, MEM_HIGH, 0, MEM_DO_BREAK | MEM_DO_SHARE | MEM_DO_BALLOON},
        {MEM_STATES_CLASSIC, 59, MEM_SOFT, MEM_DO_BREAK | MEM_DO_SHARE | MEM_DO_BALLOON,
         MEM_DO_SWAP | MEM_DO_BLOCK},
        {MEM_STATES_CLASSIC, 41, MEM_SOFT, MEM_DO_PAGE_DEAF, MEM_DO_SWAP},
        {MEM_STATES_CLASSIC, 39, MEM_HARD, MEM_DO_BALLOON | MEM_DO_COMPRESS | MEM_DO_SWAP,
         MEM_DO_BLOCK},
        {MEM_STATES_CLASSIC, 19, MEM_LOW, MEM_DO_BLOCK | MEM_DO_SWAP, 0},
        {MEM_STATES_ESX6, 240, MEM_HIGH, 0, MEM_DO_BREAK},
        {MEM_STATES_ESX6, 239, MEM_HIGH, MEM_DO_BREAK, MEM_DO_SHARE},
        {MEM_STATES_ESX6, 59, MEM_CLEAR, MEM_DO_SHARE, MEM_DO_BALLOON},
        {MEM_STATES_ESX6, 38, MEM_SOFT, MEM_DO_BALLOON, MEM_DO_SWAP},
        {MEM_STATES_ESX6, 19, MEM_HARD, MEM_DO_COMPRESS, MEM_DO_BALLOON | MEM_DO_BLOCK},
        {MEM_STATES_ESX6, 9, MEM_LOW, MEM_DO_BLOCK, MEM_DO_BALLOON},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        struct policy p;

        policy_init(&p, at[i].table, 60000);
        policy_reset(&p, at[i].table, 60000, at[i].per_mille * 1000);
        assert_int_equal(policy_state(&p), at[i].is);
        assert_int_equal(policy_actions(&p) & at[i].has, at[i].has);
        assert_int_equal(policy_actions(&p) & at[i].has_not, 0);
    }
    assert_string_equal(policy_state_name(MEM_HARD), "hard");
    assert_string_equal(policy_state_name(NR_MEM_STATES), "?");
}

static void falls_at_once_and_climbs_by_steps(void **state)
{
    struct policy_change c;
    struct policy p;
    uint64_t now = SECOND;

    (void)state;
    policy_init(&p, MEM_STATES_CLASSIC, 60000);
    assert_false(policy_look(&p, 60000, now, DWELL, &c));
    assert_true(policy_look(&p, 100, now, DWELL, &c));
    assert_int_equal(c.from, MEM_HIGH);
    assert_int_equal(c.to, MEM_LOW);
    assert_int_equal(c.threshold, 19980);
    /* Plenty again, but not yet; then a level at a look. */
    assert_false(policy_look(&p, 900000, now + DWELL - 1, DWELL, &c));
    for (enum mem_state s = MEM_HARD; s > MEM_CLEAR; s--) {
        assert_true(policy_look(&p, 900000, now + DWELL, DWELL, &c));
        assert_int_equal(c.to, s);
    }
    assert_true(policy_look(&p, 900000, now + DWELL, DWELL, &c));
    assert_int_equal(c.to, MEM_HIGH);
    assert_int_equal(c.threshold, 75000);
    assert_false(policy_look(&p, 900000, now + DWELL, DWELL, &c));
}

static void climbs_when_clearly_exceeded(void **state)
{
    struct policy_change c;
    struct policy p;

    (void)state;
    policy_init(&p, MEM_STATES_ESX6, 60000);
    assert_true(policy_look(&p, 38000, SECOND, DWELL, &c));
    assert_int_equal(policy_state(&p), MEM_SOFT);
    assert_int_equal(policy_climb_at(&p, 3), 48000);
    assert_false(policy_look(&p, 47999, SECOND + DWELL, DWELL, &c));
    assert_true(policy_look(&p, 48000, SECOND + DWELL, DWELL, &c));
    assert_int_equal(policy_state(&p), MEM_CLEAR);
    assert_int_equal(policy_goal(&p), 75000);
    assert_int_equal(policy_lend_above(&p), 34560);
}

/* Free memory jumps about: between two falls from one state lies a dwell time. */
static void no_oscillation(void **state)
{
    struct policy_change c;
    struct rng rng;

    (void)state;
    rng_seed(&rng, 3);
    for (enum mem_states table = 0; table < NR_MEM_STATES_TABLES; table++) {
        uint64_t fell[NR_MEM_STATES] = {0};
        struct policy p;

        policy_init(&p, table, 60000);
        for (uint64_t now = SECOND; now < 20000 * SECOND; now += SECOND / 4) {
            uint64_t free = rng_below(&rng, rng_below(&rng, 2) == 0 ? 20000 : 400000);

            if (!policy_look(&p, free, now, DWELL, &c)) {
                continue;
            }
            assert_true(c.fell ? free < c.threshold : free >= c.threshold);
            if (!c.fell || c.to == c.from) {
                assert_true(c.from == c.to || c.from - c.to <= 2);
                continue;
            }
            assert_true(fell[c.from] == 0 || now - fell[c.from] >= DWELL);
            fell[c.from] = now;
        }
        assert_true(fell[MEM_HIGH] != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales),
        cmocka_unit_test(levels),
        cmocka_unit_test(falls_at_once_and_climbs_by_steps),
        cmocka_unit_test(climbs_when_clearly_exceeded),
        cmocka_unit_test(no_oscillation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
