/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vendors' flushes at entry, under the tags of kernel/vm/tag.c, against models of the processors'
 * caches that forget nothing until the manuals say so: on VMX linear and combined translations by VPID,
 * guest-physical ones by the nested tables' root; on SVM all by ASID. Whatever an entry can meet must be
 * the entering vCPU's own, and no older than its VM's last flush.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86_64/percpu.h"
#include "kernel/vm/exit.h"
#include "svm/svm.h"
#include "tests/host/env.h"
#include "vmx/vmx.h"

#define NR_CPUS 3u
#define NR_VMS 3u
#define NR_VCPUS 6u /* two per VM */
#define MAX_TAGS 7u
#define STEPS 20000u

/* What is cached under one key: who filled it, and at which epoch of its VM. */
struct cached {
    const struct vcpu *by;
    uint64_t epoch;
};

static struct cpu cpus[NR_CPUS];
static unsigned here;
static struct cached linear[NR_CPUS][MAX_TAGS + 1]; /* by tag; with nested tables: combined */
static struct cached nested[NR_CPUS][NR_VMS];       /* by root; VMX */
static const struct vmcb *last[NR_CPUS];            /* whose clean fields the processor has */
static uint32_t asid_kept[NR_CPUS];
static struct vcpu vcpus[NR_VCPUS];
static uint64_t epochs[NR_VMS];
static struct vmx_vcpu vmx_vcpus[NR_VCPUS];
static struct svm_vcpu svm_vcpus[NR_VCPUS];
static struct vmcb vmcbs[NR_VCPUS];
static bool software;
static unsigned nr_flushes;

struct backend_caps hv_caps;
const struct hv_backend *hv;
struct vmx_caps vmx_caps;

struct cpu *this_cpu(void)
{
    return &cpus[here];
}

uint64_t vmx_fetch(struct vcpu *v, enum vmx_copy what)
{
    fail_msg("vCPU %u: field %u was never set", (unsigned)(v - vcpus), what);
    return 0;
}

/* ---- The processors ---- */

static uint64_t root_of(unsigned vm)
{
    return (vm + 1) << PAGE_SHIFT | 0x1e;
}

/* INVEPT: of one root, or of all; linear translations by paging alone stay. */
void vmx_invept(uint64_t type, uint64_t eptp)
{
    assert_true(vmx_caps.ept_vpid &
                (type == INV_SINGLE ? EPTCAP_INVEPT_SINGLE : EPTCAP_INVEPT_ALL));
    assert_false(software);
    nr_flushes++;
    for (unsigned vm = 0; vm < NR_VMS; vm++) {
        if (type == INV_SINGLE && eptp != root_of(vm)) {
            continue;
        }
        nested[here][vm] = (struct cached){NULL, 0};
        for (unsigned tag = 0; tag <= MAX_TAGS; tag++) {
            const struct vcpu *by = linear[here][tag].by;

            if (by != NULL && (by - vcpus) % NR_VMS == vm) {
                linear[here][tag] = (struct cached){NULL, 0};
            }
        }
    }
}

/* INVVPID: linear and combined translations of one VPID, or of all but 0. */
void vmx_invvpid(uint64_t type, uint32_t vpid)
{
    assert_true(vmx_caps.ept_vpid &
                (type == INV_SINGLE ? EPTCAP_INVVPID_SINGLE : EPTCAP_INVVPID_ALL));
    nr_flushes++;
    for (unsigned tag = 1; tag <= MAX_TAGS; tag++) {
        if (type == INV_ALL || tag == vpid) {
            linear[here][tag] = (struct cached){NULL, 0};
        }
    }
}

/* The guest uses all that is cached under its keys, and adds to it. */
static void use(unsigned i, struct cached *c, bool own, uint64_t epoch)
{
    if (c->by != NULL) {
        assert_true(!own || c->by == &vcpus[i]);
        assert_int_equal(c->epoch, epoch);
    }
    *c = (struct cached){&vcpus[i], epoch};
}

/* What vmx_prepare and the processor do. */
static void vmx_entry(unsigned i, uint64_t epoch, bool refused)
{
    struct vmx_vcpu *s = &vmx_vcpus[i];
    uint32_t tag = hv_caps.nr_tags != 0 ? (uint32_t)s->copy[VC_VPID] : 0;

    if (s->dirty & VMX_FLUSH_LINEAR) {
        vmx_flush_linear(&vcpus[i]);
    }
    s->dirty = 0;
    if (refused) {
        return;
    }
    if (tag == 0) {
        linear[here][0] = (struct cached){NULL, 0}; /* without VPIDs, every entry and exit */
    }
    use(i, &linear[here][tag], true, epoch);
    if (!software) {
        use(i, &nested[here][i % NR_VMS], false, epoch);
    }
}

/* What VMRUN and svm_exit do. Clean fields are those that the processor had of this VMCB. */
static void svm_entry(unsigned i, uint64_t epoch, bool refused)
{
    struct vmcb *m = &vmcbs[i];

    if (refused) {
        return;
    }
    if (last[here] != m) {
        m->ctl.clean = 0; /* svm.c: the vCPU was elsewhere, or another was here */
    }
    if (!(m->ctl.clean & CLEAN_ASID)) {
        asid_kept[here] = m->ctl.asid;
    }
    last[here] = m;
    if (m->ctl.tlb_control == TLB_FLUSH_ALL) {
        memset(linear[here], 0, sizeof(linear[here]));
        nr_flushes++;
    } else if (m->ctl.tlb_control == TLB_FLUSH_ASID) {
        assert_true(hv_caps.flush_by_tag);
        linear[here][asid_kept[here]] = (struct cached){NULL, 0};
        nr_flushes++;
    }
    use(i, &linear[here][asid_kept[here]], true, epoch);
    m->ctl.tlb_control = TLB_KEEP;
    m->ctl.clean = CLEAN_ALL;
}

static const struct hv_backend vmx = {.name = "VMX", .set_tag = vmx_set_tag};
static const struct hv_backend svm = {.name = "SVM", .set_tag = svm_set_tag};

/* ---- Sections, as kernel/vm/run.c does them ---- */

static void enter(unsigned i, uint64_t epoch, bool refused)
{
    if (hv == &vmx) {
        vmx_entry(i, epoch, refused);
    } else {
        svm_entry(i, epoch, refused);
    }
    if (refused) {
        tag_entry_failed(&vcpus[i]);
    }
}

static void section(unsigned i, unsigned entries, bool refused)
{
    struct vcpu *v = &vcpus[i];
    uint64_t epoch = epochs[i % NR_VMS];

    tag_check(v);
    for (unsigned n = 0; n < entries; n++) {
        if (epoch != v->flushed_epoch) {
            tag_assign(v, epoch);
        }
        enter(i, epoch, refused);
    }
}

static void start(const struct hv_backend *backend, uint32_t nr_tags, bool flush_by_tag)
{
    hv = backend;
    hv_caps = (struct backend_caps){.nr_tags = nr_tags, .flush_by_tag = flush_by_tag};
    memset(cpus, 0, sizeof(cpus));
    memset(linear, 0, sizeof(linear));
    memset(nested, 0, sizeof(nested));
    memset(last, 0, sizeof(last));
    memset(vcpus, 0, sizeof(vcpus));
    memset(vmx_vcpus, 0, sizeof(vmx_vcpus));
    memset(vmcbs, 0, sizeof(vmcbs));
    for (unsigned i = 0; i < NR_CPUS; i++) {
        cpus[i].id = i;
    }
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        vcpus[i].tag_cpu = UINT32_MAX;
        vcpus[i].vendor = backend == &vmx ? (void *)&vmx_vcpus[i] : &svm_vcpus[i];
        svm_vcpus[i] = (struct svm_vcpu){.vmcb = &vmcbs[i]};
        vmx_vcpus[i].software = software;
        if (backend == &vmx) {
            vmx_set(&vcpus[i], VC_EPTP, root_of(i % NR_VMS));
            vmx_set(&vcpus[i], VC_VPID, 0);
        }
    }
    for (unsigned i = 0; i < NR_VMS; i++) {
        epochs[i] = 1;
    }
    nr_flushes = 0;
}

static void move_about(struct rng *rng)
{
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rng_below(rng, NR_VCPUS);

        here = (unsigned)rng_below(rng, NR_CPUS);
        switch (rng_below(rng, 16)) {
        case 0:
        case 1:
            epochs[i % NR_VMS]++; /* a flush of the VM */
            break;
        case 2:
            vcpus[i].flushed_epoch = 0; /* a reset */
            break;
        case 3:
            section(i, 1, true);
            break;
        default:
            section(i, 1 + (unsigned)rng_below(rng, 3), false);
            break;
        }
    }
}

static void vmx_moves(void **state)
{
    static const uint64_t invept[] = {EPTCAP_INVEPT_SINGLE | EPTCAP_INVEPT_ALL, EPTCAP_INVEPT_ALL};
    static const uint64_t invvpid[] = {EPTCAP_INVVPID_SINGLE | EPTCAP_INVVPID_ALL,
                                       EPTCAP_INVVPID_SINGLE, EPTCAP_INVVPID_ALL};
    static const uint32_t sizes[] = {0, 1, 3, MAX_TAGS};
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("entry flush: VMX"));
    for (unsigned c = 0; c < 2 * 2 * 3 * ARRAY_SIZE(sizes); c++) {
        software = c & 1;
        vmx_caps.ept_vpid = invept[c / 2 % 2] | invvpid[c / 4 % 3];
        start(&vmx, sizes[c / 12], true);
        move_about(&rng);
        assert_true(nr_flushes < 2 * STEPS);
    }
}

static void svm_moves(void **state)
{
    static const uint32_t sizes[] = {1, 3, MAX_TAGS};
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("entry flush: SVM"));
    for (unsigned c = 0; c < 2 * ARRAY_SIZE(sizes); c++) {
        start(&svm, sizes[c / 2], c % 2 != 0);
        move_about(&rng);
        assert_in_range(nr_flushes, 1, STEPS);
    }
}

/* Who stays where it is flushes nothing, whoever runs in between. */
static void switches_flush_nothing(void **state)
{
    (void)state;
    vmx_caps.ept_vpid =
        EPTCAP_INVEPT_SINGLE | EPTCAP_INVEPT_ALL | EPTCAP_INVVPID_SINGLE | EPTCAP_INVVPID_ALL;
    for (unsigned c = 0; c < 3; c++) {
        unsigned first;

        software = c == 1;
        start(c == 2 ? &svm : &vmx, MAX_TAGS, true);
        here = 0;
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            section(i, 2, false);
        }
        first = nr_flushes;
        for (unsigned n = 0; n < 50 * NR_VCPUS; n++) {
            section(n % NR_VCPUS, 2, false);
        }
        assert_int_equal(nr_flushes, first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vmx_moves),
        cmocka_unit_test(svm_moves),
        cmocka_unit_test(switches_flush_nothing),
    };

    return cmocka_run_group_tests_name("entry flush", tests, NULL, NULL);
}
