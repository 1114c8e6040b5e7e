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
    unsigned blocks, sleeps, wakes;
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
    now.sleeps++;
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
    assert_int_equal(memwait_access_fast(), P2M_FAST);
    assert_false(waits(1));
    assert_int_equal(now.blocks, 1);
    /* Once it waits for frames alone, it comes first. */
    now.blocked[0] = false;
    assert_true(waits(1));
    assert_int_equal(memwait_access_fast(), P2M_FAST | P2M_LINE);
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
    assert_true(cpus[0].memory_wait.turn != 0);
}

static void in_order(void **state)
{
    (void)state;
    begin();
    now.on_block = other_waits_its_turn;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 2);
    assert_false(waits(0));
    memwait_served(&cpus[0], true);
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
    assert_true(cpus[0].memory_wait.turn != 0);
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

    v->memory_wait.turn = 8;
    memwait_served(v, true); /* of an exit that asked for no page */
    assert_int_equal(v->memory_wait.turn, 8);
    assert_false(waits(1));
    assert_false(waits(1)); /* for as many as that exit needs */
    memwait_served(v, true);
    assert_true(waits(1));

    /* Exits that come to no end have some. */
    v->memory_wait.turn = 8;
    for (unsigned i = 0; i < 8; i++) {
        assert_false(waits(1));
        memwait_served(v, false);
    }
    assert_true(waits(1));

    /* A turn that found nothing is no turn any more. */
    v->memory_wait.turn = 8;
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
    assert_int_equal(now.blocks, 5);
}

static void first_goes_first(void)
{
    now.frames = 1;
    memwait_serve();
    assert_true(cpus[0].memory_wait.turn != 0);
    assert_int_equal(cpus[1].memory_wait.turn, 0);
}

/* A loop of one emulated instruction, which wants another page each time, does not come first for ever. */
static void loops_at_one_rip(void)
{
    cpus[1].memory_wait.turn = 8;
    assert_int_equal(memwait_access(&cpus[1]), P2M_VCPU);
    memwait_served(&cpus[1], true);
    fake.now_ns += 1000;
    now.on_block = first_goes_first;
    memwait_or_stop(&cpus[1], MEMWAIT_NO_GPA);
}

static void first_come_first_served(void **state)
{
    (void)state;
    begin();
    fake.now_ns = 1000000;
    memwait_or_stop(&cpus[1], MEMWAIT_NO_GPA);
    fake.now_ns += 1000;
    now.on_block = loops_at_one_rip;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 3);
}

/* What was asked of the vCPU while it was in its last section wakes nobody: it must not sleep over it. */
static void requests(void **state)
{
    static const uint32_t for_thread[] = {VCPU_REQ_STOP, VCPU_REQ_INIT, VCPU_REQ_SIPI};

    (void)state;
    begin();
    for (size_t i = 0; i < ARRAY_SIZE(for_thread); i++) {
        cpus[0].request = for_thread[i] | VCPU_REQ_EVENT;
        memwait_or_stop(&cpus[0], 0x1000);
        assert_int_equal(now.blocks + now.sleeps, 0);
    }
    /* An interrupt is for a section, which may take memory. */
    cpus[0].request = VCPU_REQ_EVENT;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.sleeps, 1);
    assert_int_equal(now.blocks, 0);
    cpus[0].request = VCPU_REQ_MMU;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 1);
}

/* Frames in processors' caches are not counted: now and then the first one tries all the same. */
static void first_one_tries(void)
{
    assert_true(waits(1));
    fake.now_ns += 10000000000ull;
    memwait_serve();
    assert_true(cpus[0].memory_wait.turn != 0);
    assert_false(waits(1)); /* it holds up nobody */
    assert_int_equal(cpus[1].memory_wait.turn, 0);
}

static void no_frames_in_sight(void **state)
{
    (void)state;
    begin();
    now.on_block = first_one_tries;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_false(waits(0));
    assert_int_equal(now.blocks, 2);
}

/* A device's thread stands in line as a vCPU does; blocked it is not. */
static struct memwait_hope hope;

static void in_time(void)
{
    now.frames = 2;
    memwait_serve();
    now.frames = 0;
}

static void thread_waits(void)
{
    assert_int_equal(memwait_access_thread(&hope), P2M_LINE);
    assert_true(memwait_nap(&hope));
    assert_int_equal(memwait_access_thread(&hope), P2M_LINE);
    now.on_block = in_time;
    assert_true(memwait_nap(&hope));
    assert_true(hope.turn != 0);
    assert_int_equal(memwait_access_thread(&hope), 0);
    hope = (struct memwait_hope){0};
}

static void devices_wait_too(void **state)
{
    (void)state;
    begin();
    now.on_block = thread_waits;
    memwait_or_stop(&cpus[0], 0x1000);
    assert_int_equal(now.blocks, 3);
    assert_int_equal(memwait_access_thread(&hope), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests),
        cmocka_unit_test(no_frames_in_sight),
        cmocka_unit_test(devices_wait_too),
        cmocka_unit_test(blocked_hold_up_nobody),
        cmocka_unit_test(in_order),
        cmocka_unit_test(no_convoy),
        cmocka_unit_test(served_at_once),
        cmocka_unit_test(turns_end),
        cmocka_unit_test(first_come_first_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
