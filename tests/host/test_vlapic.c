/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local APIC: priorities against a naive model, register faces, messages, timer, hostile writes.
 * The IOAPIC is a stub that records EOI broadcasts.
 */
#include "kernel/devices/vlapic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "arch/x86_64/clock.h"
#include "arch/x86_64/msr.h"
#include "kernel/devices/devices.h"
#include "kernel/devices/vioapic.h"
#include "kernel/devices/vlapic_internal.h"
#include "kernel/lib/rng.h"
#include "tests/host/fakevm.h"

static unsigned eois, eoi_vector;

void vioapic_eoi(struct vm *vm, unsigned vector)
{
    (void)vm;
    eois++;
    eoi_vector = vector;
}

static struct vlapic *apic(unsigned i)
{
    return fake.vcpu[i].lapic;
}

static void wr(unsigned i, uint32_t reg, uint32_t value)
{
    uint64_t v = value;
    assert_int_equal(vlapic_mmio(apic(i), reg, 4, true, &v), HV_OK);
}

static uint32_t rd(unsigned i, uint32_t reg)
{
    uint64_t v = 0;
    assert_int_equal(vlapic_mmio(apic(i), reg, 4, false, &v), HV_OK);
    return (uint32_t)v;
}

static void to_x2apic(unsigned i)
{
    uint64_t base;
    assert_int_equal(vlapic_read_msr(apic(i), MSR_APIC_BASE, &base), HV_OK);
    assert_int_equal(vlapic_write_msr(apic(i), MSR_APIC_BASE, base | APIC_BASE_X2APIC), HV_OK);
}

static int setup(void **state)
{
    (void)state;
    fakevm_reset(FAKE_VCPUS);
    eois = 0;
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        if (vlapic_create(&fake.vcpu[i]) != HV_OK) {
            return -1;
        }
        wr(i, APIC_SVR, 0x1ff);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        vlapic_destroy(&fake.vcpu[i]);
    }
    return 0;
}

static void test_reset_state(void **state)
{
    (void)state;
    vlapic_reset(&fake.vcpu[1]);
    assert_int_equal(rd(1, APIC_ID), 1u << 24);
    assert_int_equal(rd(1, APIC_VERSION), 0x50014);
    assert_int_equal(rd(1, APIC_SVR), 0xff);
    assert_int_equal(rd(1, APIC_DFR), 0xffffffff);
    for (uint32_t reg = APIC_LVT_TIMER; reg <= APIC_LVT_ERROR; reg += 0x10) {
        assert_int_equal(rd(1, reg), 0x10000);
    }
    uint64_t base;
    assert_int_equal(vlapic_read_msr(apic(0), MSR_APIC_BASE, &base), HV_OK);
    assert_int_equal(base, 0xfee00900);
    assert_int_equal(vlapic_read_msr(apic(1), MSR_APIC_BASE, &base), HV_OK);
    assert_int_equal(base, 0xfee00800);
    assert_true(vlapic_covers(apic(0), GPA(0xfee00fff)));
    assert_false(vlapic_covers(apic(0), GPA(0xfee01000)));
    /* Software-disabled: nothing is delivered. */
    vlapic_raise(apic(1), 0x40, false);
    assert_int_equal(vlapic_pending(apic(1)), -1);
}

static void test_priorities(void **state)
{
    (void)state;
    vlapic_raise(apic(0), 0x41, false);
    assert_true(fake.vcpu[0].request & VCPU_REQ_EVENT);
    vlapic_raise(apic(0), 0x83, false);
    assert_int_equal(vlapic_pending(apic(0)), 0x83);
    vlapic_accept(apic(0), 0x83);
    assert_int_equal(vlapic_pending(apic(0)), -1); /* lower than what is in service */
    assert_int_equal(rd(0, APIC_PPR), 0x80);
    wr(0, APIC_EOI, 0);
    assert_int_equal(vlapic_pending(apic(0)), 0x41);
    wr(0, APIC_TPR, 0x45);
    assert_int_equal(fake.regs[0][REG_TPR], 4);
    assert_int_equal(vlapic_pending(apic(0)), -1);
    assert_int_equal(vlapic_blocked(apic(0)), 0x41);
    fake.regs[0][REG_TPR] = 3; /* the guest wrote CR8 without an exit */
    assert_int_equal(vlapic_pending(apic(0)), 0x41);
    assert_int_equal(vlapic_blocked(apic(0)), -1);
    assert_int_equal(rd(0, APIC_TPR), 0x30);
}

/* Random raises, acceptances, EOIs and task priorities against sets kept the simple way. */
static void test_random_against_model(void **state)
{
    (void)state;
    static bool irr[256], isr[256];
    struct rng rng;
    unsigned tpr = 0;
    memset(irr, 0, sizeof irr);
    memset(isr, 0, sizeof isr);
    rng_seed(&rng, 7);
    for (int n = 0; n < 200000; n++) {
        int top_irr = -1, top_isr = -1;
        switch (rng_below(&rng, 4)) {
        case 0: {
            unsigned vector = 16 + (unsigned)rng_below(&rng, 240);
            vlapic_raise(apic(0), vector, false);
            irr[vector] = true;
            break;
        }
        case 1:
            tpr = (unsigned)rng_below(&rng, 256) & (rng_below(&rng, 2) ? 0xff : 0x3f);
            wr(0, APIC_TPR, tpr);
            break;
        case 2:
            for (int i = 0; i < 256; i++) {
                top_isr = isr[i] ? i : top_isr;
            }
            if (top_isr >= 0) {
                isr[top_isr] = false;
            }
            wr(0, APIC_EOI, 0);
            break;
        default:
            break;
        }
        top_isr = -1;
        for (int i = 0; i < 256; i++) {
            top_irr = irr[i] ? i : top_irr;
            top_isr = isr[i] ? i : top_isr;
        }
        int ppr = (int)(tpr >> 4) >= top_isr / 16 ? (int)tpr >> 4 : top_isr / 16;
        int want = top_irr >= 0 && top_irr / 16 > ppr ? top_irr : -1;
        int got = vlapic_pending(apic(0));
        assert_int_equal(got, want);
        if (got >= 0 && rng_below(&rng, 2)) {
            vlapic_accept(apic(0), (unsigned)got);
            irr[got] = false;
            isr[got] = true;
        }
        if (n % 64 == 0) {
            unsigned word = (unsigned)rng_below(&rng, 8);
            uint32_t bits = 0;
            for (unsigned i = 0; i < 32; i++) {
                bits |= (uint32_t)irr[word * 32 + i] << i;
            }
            assert_int_equal(rd(0, APIC_IRR + word * 16), bits);
        }
    }
}

static void test_level_eoi(void **state)
{
    (void)state;
    vlapic_raise(apic(0), 0x50, true);
    vlapic_accept(apic(0), 0x50);
    wr(0, APIC_EOI, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(eoi_vector, 0x50);
    vlapic_raise(apic(0), 0x50, false);
    vlapic_accept(apic(0), 0x50);
    wr(0, APIC_EOI, 0);
    wr(0, APIC_EOI, 0); /* nothing in service: nothing happens */
    assert_int_equal(eois, 1);
}

static void test_x2apic(void **state)
{
    (void)state;
    struct vlapic *a = apic(2);
    uint64_t v;
    assert_int_equal(vlapic_read_msr(a, 0x802, &v), HV_EPERM);
    to_x2apic(2);
    assert_false(vlapic_covers(a, GPA(0xfee00000)));
    assert_int_equal(vlapic_read_msr(a, 0x802, &v), HV_OK);
    assert_int_equal(v, 2);
    assert_int_equal(vlapic_read_msr(a, 0x80d, &v), HV_OK);
    assert_int_equal(v, 1u << 2);
    assert_int_equal(vlapic_read_msr(a, 0x80e, &v), HV_EPERM); /* no DFR */
    assert_int_equal(vlapic_write_msr(a, 0x802, 5), HV_EPERM); /* read-only */
    assert_int_equal(vlapic_write_msr(a, 0x80b, 1), HV_EPERM); /* EOI takes zero */
    assert_int_equal(vlapic_write_msr(a, 0x80f, 0x10000), HV_EPERM);
    assert_int_equal(vlapic_write_msr(a, 0x808, 0x100), HV_EPERM);
    /* Self-IPI, twice the same way. */
    assert_int_equal(vlapic_write_msr(a, 0x83f, 0x40), HV_OK);
    assert_int_equal(vlapic_pending(a), 0x40);
    vlapic_accept(a, 0x40);
    assert_int_equal(vlapic_write_msr(a, 0x80b, 0), HV_OK);
    assert_int_equal(vlapic_write_msr(a, 0x830, 0x40000 | 0x41), HV_OK);
    assert_int_equal(vlapic_pending(a), 0x41);
    /* Back only through disabled. */
    assert_int_equal(vlapic_write_msr(a, MSR_APIC_BASE, 0xfee00800), HV_EPERM);
    assert_int_equal(vlapic_write_msr(a, MSR_APIC_BASE, 0xfee00400), HV_EPERM);
    assert_int_equal(vlapic_write_msr(a, MSR_APIC_BASE, 0xfee00000), HV_OK);
    assert_int_equal(vlapic_pending(a), -1);
    assert_int_equal(vlapic_write_msr(a, MSR_APIC_BASE, 0xfee00c00), HV_EPERM);
    assert_int_equal(vlapic_write_msr(a, MSR_APIC_BASE, 0xfee00800), HV_OK);
}

static void clear_requests(void)
{
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        fake.vcpu[i].request = 0;
    }
}

static unsigned requested(uint32_t bit)
{
    unsigned set = 0;
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        set |= (fake.vcpu[i].request & bit ? 1u : 0u) << i;
    }
    return set;
}

static void send(unsigned from, uint32_t dest, uint32_t low)
{
    clear_requests();
    wr(from, APIC_ICR_HIGH, dest << 24);
    wr(from, APIC_ICR, low);
}

static void test_messages(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        wr(i, APIC_LDR, 1u << (24 + i));
    }
    send(0, 3, 0x4040);
    assert_int_equal(requested(VCPU_REQ_EVENT), 8);
    assert_int_equal(vlapic_pending(apic(3)), 0x40);
    send(0, 0xff, 0x4042);
    assert_int_equal(requested(VCPU_REQ_EVENT), 0xf);
    send(0, 0x6, 0x4843); /* logical flat */
    assert_int_equal(requested(VCPU_REQ_EVENT), 6);
    send(1, 0, 0xc4044); /* all but self */
    assert_int_equal(requested(VCPU_REQ_EVENT), 0xd);
    send(1, 0, 0x84045); /* all */
    assert_int_equal(requested(VCPU_REQ_EVENT), 0xf);
    send(1, 2, 0x4400); /* NMI */
    assert_int_equal(requested(VCPU_REQ_NMI), 4);
    send(0, 1, 0x4500); /* INIT, then its de-assertion */
    assert_int_equal(requested(VCPU_REQ_INIT), 2);
    send(0, 1, 0x8500);
    assert_int_equal(requested(VCPU_REQ_INIT), 0);
    send(0, 1, 0x4699);
    assert_int_equal(requested(VCPU_REQ_SIPI), 2);
    assert_int_equal(fake.vcpu[1].sipi_vector, 0x99);
    send(0, 9, 0x4040); /* nobody */
    assert_int_equal(requested(UINT32_MAX), 0);
    /* Lowest priority goes to one. */
    wr(0, APIC_TPR, 0x20);
    clear_requests();
    vlapic_message(&fake.vm, 0xff, true, 1, 0x61, false);
    assert_int_equal(requested(VCPU_REQ_EVENT), 2);
    /* Cluster model. */
    wr(3, APIC_DFR, 0);
    wr(3, APIC_LDR, 0x14000000);
    send(0, 0x14, 0x4862);
    assert_true(requested(VCPU_REQ_EVENT) & 8);
    /* "All", in either model and with no logical destination at all; in x2APIC mode it is an ID. */
    wr(2, APIC_LDR, 0);
    clear_requests();
    send(0, 0xff, 0x4863);
    assert_int_equal(requested(VCPU_REQ_EVENT), 0xf);
    assert_int_equal(vlapic_write_msr(apic(1), MSR_APIC_BASE, 0xfee00c00), HV_OK);
    clear_requests();
    assert_int_equal(vlapic_write_msr(apic(1), MSR_X2APIC_FIRST + 0x30, 0xff00004064), HV_OK);
    assert_int_equal(requested(VCPU_REQ_EVENT), 0);
    assert_int_equal(vlapic_write_msr(apic(1), MSR_X2APIC_FIRST + 0x30, 0xffffffff00004065), HV_OK);
    assert_int_equal(requested(VCPU_REQ_EVENT), 0xf);
    /* A vector below 16 is an error of the sender. */
    wr(0, APIC_ESR, 0);
    send(0, 1, 0x4005);
    wr(0, APIC_ESR, 0);
    assert_int_equal(rd(0, APIC_ESR), 0x20);
}

static void test_error_interrupt(void **state)
{
    (void)state;
    wr(0, APIC_LVT_ERROR, 0xfe);
    rd(0, 0x40); /* no such register */
    assert_int_equal(vlapic_pending(apic(0)), 0xfe);
    wr(0, APIC_ESR, 0);
    assert_int_equal(rd(0, APIC_ESR), 0x80);
}

static void test_software_disable(void **state)
{
    (void)state;
    wr(0, APIC_LVT_TIMER, 0x30);
    wr(0, APIC_SVR, 0xff);
    assert_int_equal(rd(0, APIC_LVT_TIMER), 0x10030);
    wr(0, APIC_LVT_TIMER, 0x30);
    assert_int_equal(rd(0, APIC_LVT_TIMER), 0x10030);
}

static struct timer *host_timer(unsigned i)
{
    return &apic(i)->timer;
}

static void run_timer(unsigned i)
{
    while (rdtsc() < host_timer(i)->deadline_tsc) {}
    host_timer(i)->fn(host_timer(i));
}

static void test_one_shot(void **state)
{
    (void)state;
    wr(0, APIC_LVT_TIMER, 0x30);
    wr(0, APIC_TIMER_DIVIDE, 0xb); /* by one */
    uint64_t before = rdtsc();
    wr(0, APIC_TIMER_INITIAL, 1000000);
    assert_true(host_timer(0)->armed);
    assert_in_range(host_timer(0)->deadline_tsc - before, 8000000, 80000000);
    assert_in_range(rd(0, APIC_TIMER_CURRENT), 1, 1000000);
    assert_int_equal(vlapic_pending(apic(0)), -1);
    clear_requests();
    run_timer(0);
    assert_true(fake.vcpu[0].request & VCPU_REQ_EVENT);
    assert_int_equal(vlapic_pending(apic(0)), 0x30);
    assert_int_equal(rd(0, APIC_TIMER_CURRENT), 0);
    /* Disarmed in time: the stale host timer does nothing. */
    vlapic_accept(apic(0), 0x30);
    wr(0, APIC_EOI, 0);
    wr(0, APIC_TIMER_INITIAL, 1000);
    wr(0, APIC_TIMER_INITIAL, 0);
    run_timer(0);
    assert_int_equal(vlapic_pending(apic(0)), -1);
}

static void test_periodic(void **state)
{
    (void)state;
    wr(0, APIC_TIMER_DIVIDE, 0xb);
    wr(0, APIC_LVT_TIMER, 0x20030);
    wr(0, APIC_TIMER_INITIAL, 100000);
    for (int i = 0; i < 3; i++) {
        uint64_t deadline = host_timer(0)->deadline_tsc;
        run_timer(0);
        assert_int_equal(vlapic_pending(apic(0)), 0x30);
        vlapic_accept(apic(0), 0x30);
        wr(0, APIC_EOI, 0);
        assert_true(host_timer(0)->deadline_tsc > deadline);
        assert_int_equal((host_timer(0)->deadline_tsc - deadline) % 800000, 0);
        assert_true(host_timer(0)->deadline_tsc > rdtsc() - 800000);
    }
    /* The shortest period that a guest can ask for does not run away. */
    wr(0, APIC_TIMER_INITIAL, 1);
    run_timer(0);
    assert_int_equal(vlapic_pending(apic(0)), 0x30);
    assert_true(host_timer(0)->deadline_tsc >= rdtsc() - 20000);
}

static void test_tsc_deadline(void **state)
{
    (void)state;
    struct vlapic *a = apic(1);
    uint64_t v;
    assert_int_equal(vlapic_write_msr(a, MSR_TSC_DEADLINE, 1), HV_OK); /* other mode: ignored */
    assert_int_equal(vlapic_pending(a), -1);
    fake.vcpu[1].guest_tsc_offset = (uint64_t)-1000;
    wr(1, APIC_LVT_TIMER, 0x40031);
    assert_int_equal(vlapic_write_msr(a, MSR_TSC_DEADLINE, 1), HV_OK); /* long past: at once */
    assert_int_equal(vlapic_pending(a), 0x31);
    assert_int_equal(vlapic_read_msr(a, MSR_TSC_DEADLINE, &v), HV_OK);
    assert_int_equal(v, 0);
    vlapic_accept(a, 0x31);
    wr(1, APIC_EOI, 0);
    uint64_t deadline = vcpu_guest_tsc(&fake.vcpu[1]) + 1000000;
    assert_int_equal(vlapic_write_msr(a, MSR_TSC_DEADLINE, deadline), HV_OK);
    assert_int_equal(vlapic_read_msr(a, MSR_TSC_DEADLINE, &v), HV_OK);
    assert_int_equal(v, deadline);
    /* The guest sets its clock on: the deadline is that much nearer, but for the real time that passes
     * while a deadline is converted. */
    uint64_t before = host_timer(1)->deadline_tsc;
    fake.vcpu[1].guest_tsc_offset += 600000;
    vlapic_tsc_moved(a);
    assert_in_range(before - host_timer(1)->deadline_tsc, 1, 600000 + 100000);
    run_timer(1);
    assert_int_equal(vlapic_pending(a), 0x31);
    /* The far future does not wrap. */
    assert_int_equal(vlapic_write_msr(a, MSR_TSC_DEADLINE, UINT64_MAX), HV_OK);
    assert_true(host_timer(1)->deadline_tsc > rdtsc());
}

static void test_garbage(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 99);
    for (int i = 0; i < 300000; i++) {
        unsigned who = (unsigned)rng_below(&rng, FAKE_VCPUS);
        uint64_t v = rng_next(&rng) >> rng_below(&rng, 64);
        uint32_t offset = (uint32_t)rng_below(&rng, 0x1000);
        if (rng_below(&rng, 2)) {
            offset &= ~0xfu;
        }
        switch (rng_below(&rng, 4)) {
        case 0:
            (void)!vlapic_write_msr(apic(who), 0x800 + (uint32_t)rng_below(&rng, 0x100), v);
            break;
        case 1:
            (void)!vlapic_read_msr(apic(who), 0x800 + (uint32_t)rng_below(&rng, 0x100), &v);
            break;
        case 2:
            (void)!vlapic_mmio(apic(who), offset, 1u << rng_below(&rng, 4), true, &v);
            break;
        default:
            (void)!vlapic_mmio(apic(who), offset, 1u << rng_below(&rng, 4), false, &v);
            break;
        }
        if (rng_below(&rng, 1000) == 0) {
            (void)!vlapic_write_msr(apic(who), MSR_APIC_BASE, v & 0xffffffd00);
        }
        int vector = vlapic_pending(apic(who));
        assert_true(vector == -1 || (vector >= 16 && vector < 256));
        if (vector >= 0) {
            vlapic_accept(apic(who), (unsigned)vector);
        }
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_reset_state),     TEST(test_priorities),       TEST(test_random_against_model),
        TEST(test_level_eoi),       TEST(test_x2apic),           TEST(test_messages),
        TEST(test_error_interrupt), TEST(test_software_disable), TEST(test_one_shot),
        TEST(test_periodic),        TEST(test_tsc_deadline),     TEST(test_garbage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
