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

#include "mm/env.h"
#include "svm/svm.h"
#include "tests/host/env.h"
#include "tests/host/tagenv.h"
#include "vmx/vmx.h"

#define NR_CPUS 3u
#define NR_VMS 3u
#define NR_VCPUS 6u /* two per VM */
#define MAX_TAGS 7u

/* By tag; with nested tables: combined. */
static struct tagenv_cached linear[NR_CPUS][MAX_TAGS + 1];
static struct tagenv_cached nested[NR_CPUS][NR_VMS]; /* by root; VMX */
static const struct vmcb *last[NR_CPUS];             /* whose clean fields the processor has */
static uint32_t asid_kept[NR_CPUS];
static struct vmx_vcpu vmx_vcpus[NR_VCPUS];
static struct svm_vcpu svm_vcpus[NR_VCPUS];
static struct vmcb vmcbs[NR_VCPUS];
static bool software;
static unsigned nr_flushes;

struct vmx_caps vmx_caps;

uint64_t vmx_fetch(struct vcpu *v, enum vmx_copy what)
{
    fail_msg("vCPU %u: field %u was never set", tagenv_number(v), what);
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
    unsigned here = env_cpu();

    assert_true(vmx_caps.ept_vpid &
                (type == INV_SINGLE ? EPTCAP_INVEPT_SINGLE : EPTCAP_INVEPT_ALL));
    assert_false(software);
    nr_flushes++;
    for (unsigned vm = 0; vm < NR_VMS; vm++) {
        if (type == INV_SINGLE && eptp != root_of(vm)) {
            continue;
        }
        nested[here][vm] = (struct tagenv_cached){0};
        for (unsigned tag = 0; tag <= MAX_TAGS; tag++) {
            const struct vcpu *by = linear[here][tag].by;

            if (by != NULL && tagenv_vm(by) == vm) {
                linear[here][tag] = (struct tagenv_cached){0};
            }
        }
    }
}

/* INVVPID: linear and combined translations of one VPID, or of all but 0. */
void vmx_invvpid(uint64_t type, uint32_t vpid)
{
    unsigned here = env_cpu();

    assert_true(vmx_caps.ept_vpid &
                (type == INV_SINGLE ? EPTCAP_INVVPID_SINGLE : EPTCAP_INVVPID_ALL));
    nr_flushes++;
    for (unsigned tag = 1; tag <= MAX_TAGS; tag++) {
        if (type == INV_ALL || tag == vpid) {
            linear[here][tag] = (struct tagenv_cached){0};
        }
    }
}

/* What vmx_prepare does behind vmx_flush_due, and the processor. */
static void vmx_entry(unsigned i, uint64_t epoch, bool refused)
{
    struct vmx_vcpu *s = &vmx_vcpus[i];
    uint32_t tag = hv_caps.nr_tags != 0 ? (uint32_t)s->copy[VC_VPID] : 0;
    unsigned here = env_cpu();

    vmx_flush_due(&tagenv.vcpus[i]);
    s->dirty = 0;
    if (refused) {
        return;
    }
    if (tag == 0) {
        linear[here][0] = (struct tagenv_cached){0}; /* without VPIDs, every entry and exit */
    }
    tagenv_use(i, &linear[here][tag], true, epoch);
    if (!software) {
        tagenv_use(i, &nested[here][tagenv_vm(&tagenv.vcpus[i])], false, epoch);
    }
}

/* What VMRUN and svm_exit do. Clean fields are those that the processor has of the VMCB that it ran last; of
 * another it takes all ("VMCB Clean Bits"). */
static void svm_entry(unsigned i, uint64_t epoch, bool refused)
{
    struct vmcb *m = &vmcbs[i];
    unsigned here = env_cpu();

    if (refused) {
        return;
    }
    if (last[here] != m) {
        m->ctl.clean = 0;
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
        linear[here][asid_kept[here]] = (struct tagenv_cached){0};
        nr_flushes++;
    }
    tagenv_use(i, &linear[here][asid_kept[here]], true, epoch);
    m->ctl.tlb_control = TLB_KEEP;
    m->ctl.clean = CLEAN_ALL;
}

static const struct hv_backend fake_vmx = {.name = "VMX", .set_tag = vmx_set_tag};
static const struct hv_backend fake_svm = {.name = "SVM", .set_tag = svm_set_tag};
static const struct tagenv_machine vmx = {&fake_vmx, NR_CPUS, NR_VMS, NR_VCPUS, vmx_entry};
static const struct tagenv_machine svm = {&fake_svm, NR_CPUS, NR_VMS, NR_VCPUS, svm_entry};

static void start(const struct tagenv_machine *machine, uint32_t nr_tags, bool flush_by_tag)
{
    tagenv_start(machine, nr_tags, flush_by_tag);
    memset(linear, 0, sizeof(linear));
    memset(nested, 0, sizeof(nested));
    memset(last, 0, sizeof(last));
    memset(vmx_vcpus, 0, sizeof(vmx_vcpus));
    memset(vmcbs, 0, sizeof(vmcbs));
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        struct vcpu *v = &tagenv.vcpus[i];

        v->vendor = machine == &vmx ? (void *)&vmx_vcpus[i] : &svm_vcpus[i];
        svm_vcpus[i] = (struct svm_vcpu){.vmcb = &vmcbs[i]};
        vmx_vcpus[i].software = software;
        if (machine == &vmx) {
            vmx_set(v, VC_EPTP, root_of(tagenv_vm(v)));
            vmx_set(v, VC_VPID, 0);
        }
    }
    nr_flushes = 0;
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
        tagenv_move(&rng, 2);
        assert_true(nr_flushes < 2 * TAGENV_STEPS);
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
        tagenv_move(&rng, 2);
        assert_in_range(nr_flushes, 1, TAGENV_STEPS);
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
        env_set_cpu(0);
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            tagenv_section(i, 2, false);
        }
        first = nr_flushes;
        for (unsigned n = 0; n < 50 * NR_VCPUS; n++) {
            tagenv_section(n % NR_VCPUS, 2, false);
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
