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

#include "mm/env.h"
#include "tests/host/env.h"
#include "tests/host/tagenv.h"

#define NR_CPUS 4u
#define NR_VMS 3u
#define NR_VCPUS 9u /* three per VM */
#define MAX_TAGS 12u

static struct tagenv_cached tlb[NR_CPUS][MAX_TAGS + 1];

/* The processor's part of an entry, then the guest's. A refused one flushes nothing. */
static void enter(unsigned i, uint64_t epoch, bool refused)
{
    struct tagenv_cached *all = tlb[env_cpu()], *mine = &all[tagenv_key(i)];

    if (refused) {
        return;
    }
    tagenv_flush(i, all, sizeof(tlb[0]), mine, sizeof(*mine));
    tagenv_use(i, mine, hv_caps.nr_tags != 0, epoch);
}

static const struct hv_backend backend = {.name = "fake", .set_tag = tagenv_set_tag};
static const struct tagenv_machine machine = {&backend, NR_CPUS, NR_VMS, NR_VCPUS, enter};

static void start(uint32_t nr_tags, bool flush_by_tag)
{
    tagenv_start(&machine, nr_tags, flush_by_tag);
    memset(tlb, 0, sizeof(tlb));
}

static void random_moves(void **state)
{
    static const uint32_t sizes[] = {0, 1, 2, 5, MAX_TAGS};
    struct rng rng;

    (void)state;
    rng_seed(&rng, env_seed("tag: random moves"));
    for (unsigned c = 0; c < 2 * ARRAY_SIZE(sizes); c++) {
        start(sizes[c / 2], c % 2 != 0);
        tagenv_move(&rng, 1);
        if (hv_caps.nr_tags != 0) {
            assert_true(tagenv.cpus[0].tag_generation > 10);
            assert_true(tagenv.nr_full_flushes < tagenv.nr_assigned || hv_caps.nr_tags == 1);
        }
    }
}

/* Who stays where it is keeps its tag, whoever runs in between. */
static void switches_flush_nothing(void **state)
{
    (void)state;
    start(MAX_TAGS, true);
    env_set_cpu(1);
    for (unsigned round = 0; round < 100; round++) {
        for (unsigned i = 0; i < NR_VCPUS; i++) {
            tagenv_section(i, 2, false);
        }
    }
    assert_int_equal(tagenv.nr_assigned, NR_VCPUS);
    assert_int_equal(tagenv.nr_full_flushes, 1);
    assert_int_equal(tagenv.nr_flushes, 0);
}

/* A flush of one VM costs the others nothing. */
static void flush_of_one(bool flush_by_tag)
{
    start(MAX_TAGS, flush_by_tag);
    env_set_cpu(0);
    for (unsigned i = 0; i < 3; i++) {
        tagenv_section(i, 1, false);
    }
    tagenv.epochs[1]++;
    for (unsigned i = 0; i < 3; i++) {
        tagenv_section(i, 1, false);
    }
    assert_int_equal(tagenv.nr_assigned, 4);
    assert_int_equal(tagenv.nr_full_flushes, 1);
    assert_int_equal(tagenv.nr_flushes, flush_by_tag ? 1 : 0);
    assert_int_equal(tagenv.vcpus[1].tag, flush_by_tag ? 2 : 4);
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
    env_set_cpu(2);
    for (unsigned i = 0; i < 5; i++) {
        tagenv_section(i, 1, false);
    }
    assert_int_equal(tagenv.nr_full_flushes, 2);
    assert_int_equal(tagenv.cpus[2].tag_generation, 2);
    assert_int_equal(tagenv.vcpus[4].tag, 1);
    for (unsigned i = 0; i < 3; i++) {
        tagenv_section(i, 1, false);
        assert_int_equal(tagenv.vcpus[i].tag, 2 + i);
    }
    assert_int_equal(tagenv.nr_full_flushes, 2);
    assert_int_equal(tagenv.nr_flushes, 0);
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
