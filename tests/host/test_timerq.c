/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Timer queues (kernel/sched/timerq.c) against an array, under random operations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernel/sched/timerq.h"

#define NR 200

static struct timerq q;
static struct timer timers[NR];

static void reset(void)
{
    timerq_init(&q);
    for (unsigned i = 0; i < NR; i++) {
        timers[i] = (struct timer){.deadline_tsc = 0};
        list_init(&timers[i].node);
    }
}

static void arm(struct timer *t, uint64_t deadline)
{
    if (t->armed) {
        timerq_remove(&q, t);
    }
    t->deadline_tsc = deadline;
    timerq_insert(&q, t);
}

static void test_order(void **state)
{
    (void)state;
    uint64_t d;

    reset();
    assert_null(timerq_pop_due(&q, UINT64_MAX));
    assert_false(timerq_program(&q, &d));
    arm(&timers[0], 30);
    arm(&timers[1], 10);
    arm(&timers[2], 20);
    arm(&timers[3], 10);
    assert_null(timerq_pop_due(&q, 9));
    assert_ptr_equal(timerq_pop_due(&q, 10), &timers[1]);
    assert_false(timers[1].armed);
    assert_ptr_equal(timerq_pop_due(&q, 10), &timers[3]);
    assert_null(timerq_pop_due(&q, 10));
    assert_ptr_equal(timerq_pop_due(&q, 100), &timers[2]);
    assert_ptr_equal(timerq_pop_due(&q, 100), &timers[0]);
    assert_null(timerq_pop_due(&q, UINT64_MAX));
}

static void test_programming_is_lazy(void **state)
{
    (void)state;
    uint64_t d = 0;

    reset();
    arm(&timers[0], 100);
    assert_true(timerq_program(&q, &d));
    assert_int_equal(d, 100);
    arm(&timers[1], 200);
    assert_false(timerq_program(&q, &d)); /* not the first */
    arm(&timers[2], 50);
    assert_true(timerq_program(&q, &d));
    assert_int_equal(d, 50);
    arm(&timers[2], 300);
    assert_false(timerq_program(&q, &d)); /* put off: the hardware fires early once */
    timerq_fired(&q);
    assert_null(timerq_pop_due(&q, 50));
    assert_true(timerq_program(&q, &d));
    assert_int_equal(d, 100);
}

/* A clock that jumps; the hardware fires when its deadline has passed, and no timer is ever late. */
static void test_random(void **state)
{
    (void)state;
    uint64_t now = 0, hardware = TIMERQ_NEVER;

    reset();
    srand(1);
    for (unsigned step = 0; step < 200000; step++) {
        struct timer *t = &timers[(unsigned)rand() % NR];
        uint64_t d;
        switch (rand() % 4) {
        case 0:
        case 1:
            arm(t, now + (uint64_t)rand() % 1000);
            break;
        case 2:
            if (t->armed) {
                timerq_remove(&q, t);
            }
            break;
        default:
            now += (uint64_t)rand() % 50;
            if (hardware > now) {
                break;
            }
            timerq_fired(&q);
            hardware = TIMERQ_NEVER;
            for (uint64_t last = 0; (t = timerq_pop_due(&q, now)) != NULL;) {
                assert_true(t->deadline_tsc >= last);
                last = t->deadline_tsc;
            }
            break;
        }
        if (timerq_program(&q, &d)) {
            hardware = d;
        }
        for (unsigned i = 0; i < NR; i++) {
            assert_true(!timers[i].armed || hardware <= timers[i].deadline_tsc);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_programming_is_lazy),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
