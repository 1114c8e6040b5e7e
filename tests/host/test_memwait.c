/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of vCPUs that wait for memory: who waits, and whom those who wait hold up. A thread that blocks
 * calls a hook, in which the others act.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "kernel/vm/balance.h"
#include "kernel/vm/memwait.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"
#include "tests/host/fakevm.h"

/* Two VMs; a p2m is an address that nobody looks behind. */
static struct vm vms[2];
static struct vcpu cpus[2];
static char p2ms[2];
static struct {
    bool blocked[2];
    unsigned blocks, wakes;
    uint64_t frames;
    void (*on_block)(void);
} now;

bool reclaim_is_blocked(const struct p2m *p)
{
    return now.blocked[(const char *)p - p2ms];
}

bool reclaim_numbers(struct p2m *p, struct reclaim_numbers *out)
{
    (void)p, (void)out;
    return false;
}

bool reclaim_has_hope(uint64_t lately_ns)
{
    (void)lately_ns;
    return true;
}

uint64_t buddy_available_frames(void)
{
    return now.frames;
}

void balance_wake(void)
{
}

struct cpu *this_cpu(void)
{
    static struct cpu cpu;

    return &cpu;
}

void thread_wake(struct thread *t)
{
    (void)t;
    now.wakes++;
}

void thread_sleep_ns(uint64_t ns)
{
    (void)ns;
}

void thread_block(void)
{
    void (*hook)(void) = now.on_block;

    now.blocks++;
    now.on_block = NULL;
    if (hook != NULL) {
        hook();
    }
}

static void begin(void)
{
    fakevm_reset(1);
    memset(&now, 0, sizeof(now));
    for (unsigned i = 0; i < 2; i++) {
        vms[i] = (struct vm){.p2m = (struct p2m *)&p2ms[i]};
        cpus[i] = (struct vcpu){.vm = &vms[i]};
    }
    memwait_serving();
}

/* vCPU i needs a frame. True: it has waited. */
static bool waits(unsigned i)
{
    if (!(memwait_access(&cpus[i]) & P2M_LINE)) {
        return false;
    }
    memwait_or_stop(&cpus[i], 0x1000 * (i + 1));
    return true;
}

static void other_need_not_wait(void)
{
    assert_true(memwait_pending());
    assert_int_equal(memwait_access_fast(),
                     P2M_FAST | P2M_LINE); /* off the fast path it is found out */
    assert_false(waits(1));
    assert_int_equal(now.blocks, 1);
    /* Once it waits for frames alone, it comes first. */
    now.blocked[0] = false;
    assert_true(waits(1));
    assert_int_equal(now.blocks, 2);
}

static void blocked_hold_up_nobody(void **state)
{
    (void)state;
    begin();
    now.blocked[0] = true;
    now.on_block = other_need_not_wait;
    assert_true(waits(0));
    assert_int_equal(now.blocks, 2);
    assert_false(memwait_pending());
    assert_int_equal(memwait_access_fast(), P2M_FAST);
    assert_int_equal(memwait_access(&cpus[1]), P2M_VCPU);
}

static void other_waits_its_turn(void)
{
    assert_true(waits(1));
    /* Both are told that it is their turn. */
    now.frames = 2;
    memwait_serve();
    assert_true(cpus[0].memory_wait.turn);
}

static void in_order(void **state)
{
    (void)state;
    begin();
    now.on_block = other_waits_its_turn;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 2);
    assert_false(waits(0));
    memwait_served(&cpus[0]);
    assert_int_equal(fake.stops, 0);
}

/* Who was told that there is a frame holds up nobody, whether he has run since or not. */
static void told_to_go(void)
{
    assert_true(waits(1));
    now.frames = 1;
    memwait_serve();
    assert_false(waits(1));
    now.frames = 0;
    assert_false(waits(1));
    memwait_serve();
    assert_true(waits(1));
}

static void no_convoy(void **state)
{
    (void)state;
    begin();
    now.on_block = told_to_go;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 3);
}

/* Where there is plenty, nobody waits for the server. */
static void plenty(void)
{
    assert_true(waits(1));
    now.frames = 1000;
    now.wakes = 0;
    assert_false(waits(1));
    assert_int_equal(now.wakes, 1);
    assert_true(cpus[0].memory_wait.turn);
}

static void served_at_once(void **state)
{
    (void)state;
    begin();
    now.on_block = plenty;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 2);
}

static void turn_is_good_for_one_exit(void)
{
    struct vcpu *v = &cpus[1];

    v->memory_wait.turn = true;
    memwait_served(v); /* of an exit that asked for no page */
    assert_true(v->memory_wait.turn);
    assert_false(waits(1));
    assert_false(waits(1)); /* for as many as that exit needs */
    memwait_served(v);
    assert_true(waits(1));

    /* A turn that found nothing is no turn any more. */
    v->memory_wait.turn = true;
    assert_false(waits(1));
    memwait_or_stop(v, 0x2000);
    assert_true(waits(1));
}

static void turns_end(void **state)
{
    (void)state;
    begin();
    now.on_block = turn_is_good_for_one_exit;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocked_hold_up_nobody),
        cmocka_unit_test(in_order),
        cmocka_unit_test(no_convoy),
        cmocka_unit_test(served_at_once),
        cmocka_unit_test(turns_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
