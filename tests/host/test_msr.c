/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MSRs that the backend keeps: which values reach it, and which registers the guest has to itself.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/vm/exit.h"
#include "tests/host/fakevm.h"

#define CANONICAL_HIGH 0xffff800000000000ULL
#define CANONICAL_LOW 0x00007fffffffffffULL

struct cpu_features cpu_features = {.phys_bits = 40};
static struct {
    unsigned writes, opened;
    uint32_t index;
    uint64_t value;
    bool direct[2]; /* MSR_LSTAR, MSR_PAT */
} now;

struct cpu *this_cpu(void)
{
    static struct cpu cpu;

    return &cpu;
}

enum hv_err vlapic_read_msr(struct vlapic *l, uint32_t index, uint64_t *out)
{
    (void)l, (void)index;
    *out = 0;
    return HV_OK;
}

enum hv_err vlapic_write_msr(struct vlapic *l, uint32_t index, uint64_t value)
{
    (void)l, (void)index, (void)value;
    return HV_OK;
}

void vlapic_tsc_moved(struct vlapic *l)
{
    (void)l;
}

void softmmu_changed(struct vcpu *v)
{
    (void)v;
}

static enum hv_err set_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)v;
    if (index == MSR_MTRRCAP) {
        return HV_ENOENT;
    }
    now.writes++;
    now.index = index;
    now.value = value;
    return HV_OK;
}

static void direct_msr(struct vm *vm, uint32_t index)
{
    (void)vm;
    now.opened++;
    now.direct[0] |= index == MSR_LSTAR;
    now.direct[1] |= index == MSR_PAT;
}

static void begin(void)
{
    static struct hv_backend backend;

    fakevm_reset(1);
    if (hv != &backend) {
        backend = *hv;
        backend.set_msr = set_msr;
        backend.direct_msr = direct_msr;
        hv = &backend;
    }
    now = (typeof(now)){0};
}

static void values(void **state)
{
    static const struct {
        uint32_t index;
        uint64_t value;
        bool taken;
    } cases[] = {
        {MSR_STAR, UINT64_MAX - 1, true},
        {MSR_SYSENTER_CS, UINT64_MAX - 1, true},
        {MSR_SYSCALL_MASK, UINT32_MAX, true},
        {MSR_SYSCALL_MASK, BIT(32), false},
        {MSR_PAT, PAT_RESET, true},
        {MSR_PAT, PAT_RESET - 4, false} /* a byte is 2 */,
        {MSR_PAT, CANONICAL_HIGH, false},
        {MSR_MTRRCAP, 0, false}, /* nobody keeps it */
        {0xc0000105u, 0, false}, /* there is none */
    };
    static const uint32_t addresses[] = {MSR_SYSENTER_ESP,  MSR_SYSENTER_EIP, MSR_LSTAR,
                                         MSR_CSTAR,         MSR_FS_BASE,      MSR_GS_BASE,
                                         MSR_KERNEL_GS_BASE};

    (void)state;
    begin();
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned before = now.writes;

        assert_int_equal(msr_write(&fake.vcpu[0], cases[i].index, cases[i].value),
                         cases[i].taken ? HV_OK : HV_EPERM);
        assert_int_equal(now.writes - before, cases[i].taken);
        assert_true(!cases[i].taken ||
                    (now.index == cases[i].index && now.value == cases[i].value));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(addresses); i++) {
        struct vcpu *v = &fake.vcpu[0];

        now.writes = 0;
        assert_int_equal(msr_write(v, addresses[i], CANONICAL_LOW), HV_OK);
        assert_int_equal(msr_write(v, addresses[i], CANONICAL_HIGH), HV_OK);
        assert_int_equal(msr_write(v, addresses[i], CANONICAL_LOW + 1), HV_EPERM);
        assert_int_equal(msr_write(v, addresses[i], CANONICAL_HIGH - 1), HV_EPERM);
        assert_int_equal(now.writes, 2);
    }
}

/* Without an exit; not so the PAT: where guests have none of their own it would be the host's. */
static void direct(void **state)
{
    (void)state;
    begin();
    msr_open(&fake.vm);
    assert_int_equal(now.opened, 3 + 4 + 3); /* SYSENTER, STAR family, bases */
    assert_true(now.direct[0] && !now.direct[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values), cmocka_unit_test(direct)};

    return cmocka_run_group_tests_name("msr", tests, NULL, NULL);
}
