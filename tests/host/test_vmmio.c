/* SPDX-License-Identifier: BSD-2-Clause */
/* The transport of virtio devices: registers, features, status, queues, the thread, drivers that are wrong. */
#include "tests/host/virtioenv.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC_VALUE 0x74726976

/* ---- The transport ---- */

static void test_absent(void **state)
{
    struct vrandom *r;
    struct vblk *b;
    struct vconsole *c;
    struct vballoon *l;

    (void)state;
    assert_int_equal(vrandom_create(&fake.vm, &r), HV_OK);
    assert_int_equal(vblk_create(&fake.vm, &b), HV_OK);
    assert_int_equal(vconsole_create(&fake.vm, NULL, &c), HV_OK);
    assert_int_equal(vballoon_create(&fake.vm, &l), HV_OK);
    assert_true(r == NULL && b == NULL && c == NULL && l == NULL);
    assert_null(vrandom_transport(r));
    vmmio_reset(vblk_transport(b));
    vconsole_destroy(c);
    vballoon_destroy(l);
    assert_int_equal(fake.vm.nr_virtio, 0);
}

static void test_registers(void **state)
{
    struct vrandom *d = make_rng();

    (void)state;
    assert_int_equal(in(0), MAGIC_VALUE);
    assert_int_equal(in(4), 2);
    assert_int_equal(in(8), 4);
    assert_int_equal(in(0xb0), UINT32_MAX);
    out(0x14, 1);
    assert_int_equal(in(0x10), 1);
    out(0x14, 0);
    assert_int_equal(in(0x10), 1u << 28);
    out(0x14, 2);
    assert_int_equal(in(0x10), 0);
    out(0x30, 1);
    assert_int_equal(in(0x34), 0);
    assert_int_equal(in(0x44), 0);
    /* Other widths and offsets are no registers. */
    assert_int_equal(mmio_sized(0, 2, false, 0), 0);
    assert_int_equal(mmio_sized(2, 4, false, 0), 0);
    assert_int_equal(mmio_sized(0x100, 8, false, 0), 0);
    mmio_sized(0x70, 1, true, 1);
    assert_int_equal(in(0x70), 0);
    vrandom_destroy(d);
}

static void test_negotiation(void **state)
{
    struct vrandom *d = make_rng();
    struct vmmio_state s;

    (void)state;
    vmmio_state(m, &s);
    assert_string_equal(s.name, "rng");
    assert_string_equal(s.driver, "none yet");
    assert_int_equal(s.base, VMMIO_BASE);
    assert_int_equal(s.gsi, 16);
    /* Not without version 1, nor with what is not offered. */
    out(0x70, 3);
    out(0x70, 11);
    assert_int_equal(in(0x70), 3);
    out(0x24, 1);
    out(0x20, 1);
    out(0x24, 0);
    out(0x20, 1u << 5);
    out(0x70, 11);
    assert_int_equal(in(0x70), 3);
    out(0x20, 0);
    out(0x24, 7);
    out(0x20, UINT32_MAX); /* features that no one has bits for */
    out(0x70, 11);
    assert_int_equal(in(0x70), 11);
    /* Then they stand; bits of the status are not taken away. */
    out(0x24, 0);
    out(0x20, 1u << 28);
    assert_false(vmmio_has(m, BIT(28)));
    out(0x70, 1);
    assert_int_equal(in(0x70), 11);
    out(0x70, 64 | 15);
    assert_int_equal(in(0x70), 15);
    out(0x70, 128);
    assert_int_equal(in(0x70), 143);
    vmmio_state(m, &s);
    assert_string_equal(s.driver, "gave up");
    assert_false(m->live);
    /* The driver is ready before it agreed on features. */
    out(0x70, 0);
    out(0x70, 7);
    assert_int_equal(in(0x70), 64 | 7);
    vmmio_state(m, &s);
    assert_string_equal(s.driver, "wrong, to reset the device");
    assert_int_equal(in(0x60), 2);
    assert_true(host.line[16]);
    assert_int_equal(fake.log_lines, 1);
    out(0x64, 2);
    assert_false(host.line[16]);
    out(0x70, 0);
    assert_int_equal(in(0x70), 0);
    vrandom_destroy(d);
}

static void test_fast_path(void **state)
{
    struct vrandom *d = make_rng();
    uint64_t value = 0;

    (void)state;
    drive(0, 1);
    v->in_guest = 1;
    assert_int_equal(bus_mmio(fake.vm.bus, v, GPA(VMMIO_BASE + 0x70), 4, true, &value), HV_EAGAIN);
    assert_int_equal(bus_mmio(fake.vm.bus, v, GPA(VMMIO_BASE + 0x44), 4, true, &value), HV_EAGAIN);
    assert_int_equal(in(0x70), 15);
    assert_int_equal(in(0x44), 1);
    /* A notification takes no lock, and wakes once. */
    spin_lock(&m->lock);
    assert_int_equal(bus_mmio(fake.vm.bus, v, GPA(VMMIO_BASE + 0x60), 4, false, &value), HV_EAGAIN);
    host.wakes = 0;
    for (unsigned i = 0; i < 10; i++) {
        out(0x50, 0);
        out(0x50, 1); /* there is none */
    }
    assert_int_equal(host.wakes, 1);
    spin_unlock(&m->lock);
    v->in_guest = 0;
    vrandom_destroy(d);
}

static void test_rng(void **state)
{
    struct vrandom *d = make_rng();
    uint8_t first[40], second[40], zero[40] = {0};

    (void)state;
    drive(0, 1);
    desc(0, 2, DATA + 4090, 33, 3, 3);
    desc(0, 3, DATA, 7, 2, 0);
    offer(0, 2);
    assert_int_equal(used_index(0), 1);
    assert_int_equal(used_len(0), 40);
    assert_int_equal(in(0x60), 1);
    assert_true(host.line[16]);
    ringenv_load(DATA + 4090, first, 33);
    ringenv_load(DATA, first + 33, 7);
    assert_memory_not_equal(first, zero, 40);
    out(0x64, 1);
    assert_false(host.line[16]);
    /* The driver does not want to hear of it. */
    put16(AVAIL, 1);
    offer(0, 2);
    assert_int_equal(used_index(0), 2);
    assert_false(host.line[16]);
    ringenv_load(DATA + 4090, second, 33);
    assert_memory_not_equal(first, second, 33);
    /* Pages that are away are waited for with nothing pinned; memory that is short likewise. */
    ringenv.fail_one = 3;
    for (unsigned i = 0; i < 50; i++) {
        offer(0, 2);
    }
    ringenv.fail_one = 0;
    assert_int_equal(used_index(0), 52);
    assert_true(host.waits > 50);
    /* Others are in line for memory, and every page takes a frame: one wait for each chain, for its turn is good
     * for the ring as well. */
    host.in_line = ringenv.away = true;
    host.waits = 0;
    offer(0, 2);
    assert_int_equal(host.waits, 1);
    offer(0, 2);
    assert_int_equal(host.waits, 2);
    ringenv.away = false;
    offer(0, 2);
    assert_int_equal(host.waits, 2);
    host.in_line = false;
    assert_int_equal(used_index(0), 55);
    struct vmmio_state s;
    vmmio_state(m, &s);
    assert_string_equal(s.driver, "ready");
    assert_int_equal(s.served, 55);
    /* A request for nothing is a lie. */
    desc(0, 2, DATA, 0, 2, 0);
    offer(0, 2);
    assert_int_equal(in(0x70), 64 | 15);
    vrandom_destroy(d);
}

static void test_hopeless(void **state)
{
    struct vrandom *d = make_rng();

    (void)state;
    drive(0, 1);
    desc(0, 0, DATA, 7, 2, 0);
    host.hopeless = true;
    ringenv.fail_one = 1;
    ringenv.fail_with = HV_ENOMEM;
    offer(0, 0);
    assert_int_equal(fake.vm.stop_reason, STOP_NO_MEMORY);
    assert_false(m->live);
    ringenv.fail_one = 0;
    vrandom_destroy(d);
}

/* A broken driver is told once, and the device rests until a reset. */
static void test_broken(void **state)
{
    struct vrandom *d = make_rng();

    (void)state;
    drive(0, 1);
    offer(0, RING_SIZE);
    assert_int_equal(in(0x70), 64 | 15);
    assert_int_equal(in(0x60), 2);
    assert_int_equal(fake.log_lines, 1);
    for (unsigned i = 0; i < 100; i++) {
        offer(0, 0);
        out(0x70, 15);
    }
    assert_int_equal(used_index(0), 0);
    assert_int_equal(fake.log_lines, 1);
    for (unsigned i = 0; i < 100; i++) {
        drive(0, 1);
        offer(0, RING_SIZE);
    }
    assert_true(fake.log_lines <= 4);
    drive(0, 1);
    desc(0, 0, DATA, 8, 2, 0);
    offer(0, 0);
    assert_int_equal(used_index(0), 1);
    vrandom_destroy(d);
}

static void test_queues(void **state)
{
    struct vrandom *d = make_rng();

    (void)state;
    drive(0, 0);
    offer(0, 0); /* not ready: nothing happens */
    assert_int_equal(in(0x70), 15);
    describe(0);
    out(0x38, 3);
    out(0x44, 1);
    assert_int_equal(in(0x44), 0);
    assert_int_equal(in(0x70), 64 | 15);
    drive(0, 1);
    /* What is written while it is in use does not count. */
    out(0x80, 0x7000);
    out(0x38, 2);
    out(0x44, 1);
    desc(0, 9, DATA, 8, 2, 0);
    offer(0, 9);
    assert_int_equal(used_index(0), 1);
    out(0x44, 0);
    assert_int_equal(in(0x44), 0);
    offer(0, 9);
    assert_int_equal(used_index(0), 1);
    /* A ring outside of RAM is found when it is used. */
    describe(0);
    out(0xa4, 1);
    out(0x44, 1);
    turn();
    offer(0, 9);
    assert_int_equal(in(0x70), 64 | 15);
    vrandom_destroy(d);
}

/* Who holds the thread finds it at rest; what was asked meanwhile is done afterwards. */
static void test_hold(void **state)
{
    struct vrandom *d = make_rng();

    (void)state;
    drive(0, 1);
    desc(0, 0, DATA, 8, 2, 0);
    vmmio_hold(m);
    assert_true(vmmio_is_stopping(m));
    offer(0, 0);
    assert_int_equal(used_index(0), 0);
    vmmio_let_go(m);
    turn();
    assert_int_equal(used_index(0), 1);
    /* Power-on forgets all of it. */
    vmmio_reset(m);
    assert_int_equal(in(0x70), 0);
    assert_int_equal(in(0x60), 0);
    offer(0, 0);
    assert_int_equal(used_index(0), 1);
    vrandom_destroy(d);
}

static void test_too_many(void **state)
{
    struct vrandom *d[9];

    (void)state;
    fake.vm.config.rng = SWITCH_ON;
    for (unsigned i = 0; i < 9; i++) {
        /* The bus has fewer places than there are numbers. */
        assert_int_equal(vrandom_create(&fake.vm, &d[i]), i < 8 ? HV_OK : HV_ERANGE);
    }
    for (unsigned i = 0; i < 9; i++) {
        vrandom_destroy(d[i]);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_absent), TEST(test_registers), TEST(test_negotiation), TEST(test_fast_path),
        TEST(test_rng),    TEST(test_hopeless),  TEST(test_broken),      TEST(test_queues),
        TEST(test_hold),   TEST(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
