/* SPDX-License-Identifier: BSD-2-Clause */
/* See tagenv.h. */
#include "tests/host/tagenv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "mm/env.h"
#include "tests/host/check.h"
#include "tests/host/env.h"

struct tagenv tagenv;
const struct hv_backend *hv;
struct backend_caps hv_caps;

struct cpu *this_cpu(void)
{
    CHECK(env_cpu() < tagenv.machine->nr_cpus);
    return &tagenv.cpus[env_cpu()];
}

void tagenv_start(const struct tagenv_machine *machine, uint32_t nr_tags, bool flush_by_tag)
{
    assert_in_range(machine->nr_cpus, 1, TAGENV_CPUS);
    assert_in_range(machine->nr_vms, 1, TAGENV_VMS);
    assert_in_range(machine->nr_vcpus, 1, TAGENV_VCPUS);
    hv = machine->backend;
    hv_caps = (struct backend_caps){.nr_tags = nr_tags, .flush_by_tag = flush_by_tag};
    memset(&tagenv, 0, sizeof(tagenv));
    tagenv.machine = machine;
    for (unsigned i = 0; i < machine->nr_cpus; i++) {
        tagenv.cpus[i].id = i;
    }
    for (unsigned i = 0; i < machine->nr_vcpus; i++) {
        tagenv.vcpus[i].cpu = tagenv.vcpus[i].tag_cpu = UINT32_MAX;
    }
    for (unsigned i = 0; i < machine->nr_vms; i++) {
        tagenv.epochs[i] = 1;
    }
}

unsigned tagenv_number(const struct vcpu *v)
{
    unsigned i = (unsigned)(v - tagenv.vcpus);

    CHECK(i < tagenv.machine->nr_vcpus);
    return i;
}

unsigned tagenv_vm(const struct vcpu *v)
{
    return tagenv_number(v) % tagenv.machine->nr_vms;
}

/* ---- Entries ---- */

void tagenv_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all)
{
    unsigned i = tagenv_number(v);

    assert_in_range(tag, hv_caps.nr_tags == 0 ? 0 : 1, hv_caps.nr_tags);
    tagenv.control[i].tag = tag;
    tagenv.control[i].flush = flush;
    tagenv.control[i].flush_all = flush_all;
    tagenv.nr_assigned++;
}

uint32_t tagenv_key(unsigned i)
{
    return hv_caps.nr_tags != 0 ? tagenv.control[i].tag : tagenv_vm(&tagenv.vcpus[i]);
}

static void flush_is_over(unsigned i)
{
    tagenv.control[i].flush = tagenv.control[i].flush_all = false;
}

void tagenv_flush(unsigned i, void *all, size_t all_bytes, void *mine, size_t mine_bytes)
{
    if (tagenv.control[i].flush_all) {
        memset(all, 0, all_bytes);
        tagenv.nr_full_flushes++;
    } else if (tagenv.control[i].flush) {
        memset(mine, 0, mine_bytes);
        tagenv.nr_flushes++;
    }
    flush_is_over(i);
}

void tagenv_use(unsigned i, struct tagenv_cached *c, bool own, uint64_t epoch)
{
    if (c->by != NULL) {
        assert_true(!own || c->by == &tagenv.vcpus[i]);
        assert_int_equal(c->epoch, epoch);
    }
    *c = (struct tagenv_cached){&tagenv.vcpus[i], epoch};
}

/* ---- Sections ---- */

void tagenv_section(unsigned i, unsigned entries, bool refused)
{
    struct vcpu *v = &tagenv.vcpus[i];
    uint64_t epoch = tagenv.epochs[tagenv_vm(v)];

    tag_check(v);
    for (unsigned n = 0; n < entries; n++) {
        if (epoch != v->flushed_epoch) {
            tag_assign(v, epoch);
        }
        tagenv.machine->enter(i, epoch, refused);
        if (refused) {
            flush_is_over(i);
            tag_entry_failed(v);
        }
    }
}

void tagenv_move(struct rng *rng, unsigned flushes)
{
    for (unsigned step = 0; step < TAGENV_STEPS; step++) {
        unsigned i = (unsigned)rng_below(rng, tagenv.machine->nr_vcpus);
        struct vcpu *v = &tagenv.vcpus[i];
        uint64_t what;

        env_set_cpu((unsigned)rng_below(rng, tagenv.machine->nr_cpus));
        what = rng_below(rng, 16);
        if (what < flushes) {
            tagenv.epochs[tagenv_vm(v)]++;
        } else if (what == flushes) {
            v->flushed_epoch = 0; /* a reset */
        } else if (what == flushes + 1) {
            tagenv_section(i, 1, true);
        } else {
            tagenv_section(i, 1 + (unsigned)rng_below(rng, 3), false);
        }
    }
}
