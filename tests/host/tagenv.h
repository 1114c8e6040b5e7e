/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Processors, tags and vCPUs for tests of flushes at entry (kernel/vm/tag.c). A thread of the test
 * runs on the processor that env_set_cpu (env.h) says. vCPU i belongs to VM i modulo their number;
 * whether there is a struct vm is the test's affair.
 *
 * What a processor caches is the test's: it forgets nothing until the model of an entry is told to. A
 * flush is asked of one entry only; if that is refused, the flush is lost.
 */
#pragma once

#include "arch/x86_64/percpu.h"
#include "kernel/lib/rng.h"
#include "kernel/vm/exit.h"

#define TAGENV_CPUS 4u
#define TAGENV_VMS 3u
#define TAGENV_VCPUS 9u
#define TAGENV_STEPS 20000u /* of tagenv_move */

struct tagenv_machine {
    const struct hv_backend *backend;
    unsigned nr_cpus, nr_vms, nr_vcpus;
    /* One entry of vCPU i, and the guest behind it; for tagenv_section only. The VM's last flush was
     * `epoch`. */
    void (*enter)(unsigned i, uint64_t epoch, bool refused);
};

/* All that is cached under one key: who filled it (NULL: nothing), and at which epoch of its VM first. */
struct tagenv_cached {
    const struct vcpu *by;
    uint64_t epoch;
};

struct tagenv {
    const struct tagenv_machine *machine;
    struct cpu cpus[TAGENV_CPUS];
    struct vcpu vcpus[TAGENV_VCPUS];
    uint64_t epochs[TAGENV_VMS]; /* of the VMs' last flushes; for tagenv_section only */
    struct {
        uint32_t tag;
        bool flush, flush_all;
    } control[TAGENV_VCPUS];              /* what the next entry is asked for */
    unsigned nr_assigned;                 /* calls of tagenv_set_tag */
    unsigned nr_flushes, nr_full_flushes; /* that tagenv_flush did: of one tag, of all */
};
extern struct tagenv tagenv;

/* Start over, hv and hv_caps included: nothing has run, and no processor has handed out a tag. */
void tagenv_start(const struct tagenv_machine *machine, uint32_t nr_tags, bool flush_by_tag);
/* Numbers of a vCPU and of its VM. */
unsigned tagenv_number(const struct vcpu *v);
unsigned tagenv_vm(const struct vcpu *v);

/* For backends that have no control block: set_tag fills tagenv.control. */
void tagenv_set_tag(struct vcpu *v, uint32_t tag, bool flush, bool flush_all);
/* Where vCPU i's translations are on a processor: at its tag. Without tags, what an entry does not
 * flush anyway is told apart by VM. */
uint32_t tagenv_key(unsigned i);
/* The flush that vCPU i's entry is asked for: zeroes the processor's whole cache, or what is under the
 * vCPU's key, or nothing. */
void tagenv_flush(unsigned i, void *all, size_t all_bytes, void *mine, size_t mine_bytes);
/* vCPU i's guest uses all that is cached there, and adds to it. What it meets must be no older than
 * `epoch`; own: and nobody else's. */
void tagenv_use(unsigned i, struct tagenv_cached *c, bool own, uint64_t epoch);

/* One section of vCPU i with `entries` entries, as kernel/vm/run.c does it. */
void tagenv_section(unsigned i, unsigned entries, bool refused);
/* Random moves: sections anywhere, refused entries, resets; of 16 steps, `flushes` are flushes of a VM. */
void tagenv_move(struct rng *rng, unsigned flushes);
