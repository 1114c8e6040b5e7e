/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tags by generations, against processors whose TLBs forget nothing until they are told. What is
 * cached under a tag must be the entering vCPU's own, and no older than its VM's last flush; and
 * nothing is flushed without need.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "arch/x86_64/percpu.h"
#include "kernel/vm/exit.h"
#include "tests/host/env.h"

#define NR_CPUS 4u
#define NR_VMS 3u
#define NR_VCPUS 9u /* three per VM */
#define MAX_TAGS 12u

/* All that a processor holds under one tag: who filled it, and at which epoch first. Without tags,
 * what an entry does not flush anyway is told apart by VM. */
struct cached {
    const struct vcpu *by;
    uint64_t epoch;
};

static struct cpu cpus[NR_CPUS];
static unsigned here;
static struct cached tlb[NR_CPUS][MAX_TAGS + 1];
static struct vcpu vcpus[NR_VCPUS];
static uint64_t epochs[NR_VMS];
static struct {
    uint32_t tag;
    bool flush, flush_all;
} control[NR_VCPUS]; /* what the next entry is asked for */
static unsigned nr_assigned, nr_flushes, nr_full_flushes;

struct cpu *this_cpu(void)
{
    return &cpus[here];
}

static void set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all)
{
    unsigned i = (unsigned)(v - vcpus);

    assert_in_range(tag, hv_caps.nr_tags == 0 ? 0 : 1, hv_caps.nr_tags);
    control[i].tag = tag;
    control[i].flush = flush;
    control[i].flush_all = flush_all;
    nr_assigned++;
}

static const struct hv_backend backend = {.name = "fake", .set_tag = set_tag};
const struct hv_backend *hv = &backend;
struct backend_caps hv_caps;

static void start(uint32_t nr_tags, bool flush_by_tag)
{
    hv_caps = (struct backend_caps){.nr_tags = nr_tags, .flush_by_tag = flush_by_tag};
    memset(cpus, 0, sizeof(cpus));
    memset(tlb, 0, sizeof(tlb));
    memset(vcpus, 0, sizeof(vcpus));
    memset(control, 0, sizeof(control));
    for (unsigned i = 0; i < NR_CPUS; i++) {
        cpus[i].id = i;
    }
    for (unsigned i = 0; i < NR_VCPUS; i++) {
        vcpus[i].tag_cpu = UINT32_MAX;
    }
    for (unsigned i = 0; i < NR_VMS; i++) {
        epochs[i] = 1;
    }
    nr_assigned = nr_flushes = nr_full_flushes = 0;
}

/* The processor's part of an entry, then a guest that uses all that is cached and adds to it. */
static void hardware_entry(unsigned i, uint64_t epoch)
{
    bool tagged = hv_caps.nr_tags != 0;
    struct cached *mine = &tlb[here][tagged ? control[i].tag : i % NR_VMS];

    if (control[i].flush_all) {
        memset(tlb[here], 0, sizeof(tlb[here]));
        nr_full_flushes++;
    } else if (control[i].flush) {
        *mine = (struct cached){NULL, 0};
        nr_flushes++;
    }
    control[i].flush = control[i].flush_all = false;
    if (mine->by != NULL) {
        assert_true(mine->by == &vcpus[i] || !tagged);
        assert_int_equal(mine->epoch, epoch);
    }
    *mine = (struct cached){&vcpus[i], epoch};
}

/* The processor refuses an entry: nothing was flushed. */
static void failed_entry(unsigned i)
{
    struct vcpu *v = &vcpus[i];

    tag_check(v);
    if (epochs[i % NR_VMS] != v->flushed_epoch) {
        tag_assign(v, epochs[i % NR_VMS]);
    }
    control[i].flush = control[i].flush_all = false;
    tag_entry_failed(v);
}

/* One section with `entries` entries, as kernel/vm/run.c does it. */
static void section(unsigned i, unsigned entries)
{
    struct vcpu *v = &vcpus[i];
    uint64_t epoch = epochs[i % NR_VMS];

    tag_check(v);
    for (unsigned n = 0; n < entries; n++) {
        if (epoch != v->flushed_epoch) {
            tag_assign(v, epoch);
        }
        hardware_entry(i, epoch);
    }
}

static void random_moves(void **state)
{
    static const uint32_t sizes[] = {0, 1, 2, 5, MAX_TAGS};
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("tag: random moves"));
    for (unsigned c = 0; c < 2 * ARRAY_SIZE(sizes); c++) {
        start(sizes[c / 2], c % 2 != 0);
        for (unsigned step = 0; step < 20000; step++) {
            unsigned i = (unsigned)rng_below(&rng, NR_VCPUS);

            here = (unsigned)rng_below(&rng, NR_CPUS);
            switch (rng_below(&rng, 16)) {
            case 0:
                epochs[i % NR_VMS]++;
                break;
            case 1:
                vcpus[i].flushed_epoch = 0; /* reset */
                break;
            case 2:
                failed_entry(i);
                break;
            default:
                section(i, 1 + (unsigned)rng_below(&rng, 3));
                break;
            }
        }
        if (hv_caps.nr_tags != 0) {
            assert_true(cpus[0].tag_generation > 10);
            assert_true(nr_full_flushes < nr_assigned || hv_caps.nr_tags == 1);
        }
    }
}

/* Who stays where it is keeps its tag, whoever runs in between. */
static void switches_flush_nothing(void **state)
{
    (void)state;
    start(MAX_TAGS, true);
    here = 1;
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            section(i, 2);
        }
    }
    assert_int_equal(nr_assigned, NR_VCPUS);
    assert_int_equal(nr_full_flushes, 1);
    assert_int_equal(nr_flushes, 0);
}

/* A flush of one VM costs the others nothing. */
static void flush_of_one(bool flush_by_tag)
{
    start(MAX_TAGS, flush_by_tag);
    here = 0;
    for (unsigned i = 0; i < 3; i++) {
        section(i, 1);
    }
    epochs[1]++;
    for (unsigned i = 0; i < 3; i++) {
        section(i, 1);
    }
    assert_int_equal(nr_assigned, 4);
    assert_int_equal(nr_full_flushes, 1);
    assert_int_equal(nr_flushes, flush_by_tag ? 1 : 0);
    assert_int_equal(vcpus[1].tag, flush_by_tag ? 2 : 4);
}

static void flushes_cost_one_vm(void **state)
{
    (void)state;
    flush_of_one(false);
    flush_of_one(true);
}

/* One flush of everything per generation, and the old generation's vCPUs come back with new tags. */
static void exhaustion_is_one_flush(void **state)
{
    (void)state;
    start(4, true);
    here = 2;
    for (unsigned i = 0; i < 5; i++) {
        section(i, 1);
    }
    assert_int_equal(nr_full_flushes, 2);
    assert_int_equal(cpus[2].tag_generation, 2);
    assert_int_equal(vcpus[4].tag, 1);
    for (unsigned i = 0; i < 3; i++) {
        section(i, 1);
        assert_int_equal(vcpus[i].tag, 2 + i);
    }
    assert_int_equal(nr_full_flushes, 2);
    assert_int_equal(nr_flushes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_moves),
        cmocka_unit_test(switches_flush_nothing),
        cmocka_unit_test(flushes_cost_one_vm),
        cmocka_unit_test(exhaustion_is_one_flush),
    };

    return cmocka_run_group_tests_name("tag", tests, NULL, NULL);
}
