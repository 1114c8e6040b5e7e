/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How fast a device's timer may go on by itself. What a guest programs costs the host an interrupt per
 * edge, whether or not the guest ever looks: so edges are 50 microseconds apart at least, and as long as none
 * of the VM's vCPUs has run since the last one (it is paused, starved, or halted for good) the distance
 * doubles up to 50 ms. The device's lock guards a pace.
 */
#pragma once

#include "kernel/vm/vm.h"

#define PACE_MIN_NS 50000ull
#define PACE_MAX_NS 50000000ull

struct pace {
    uint64_t seen;   /* what the vCPUs had run up to when it was looked at last */
    uint64_t gap_ns; /* 0: never looked at */
};

/* Anything that changes while a vCPU runs. */
static inline uint64_t pace_progress(const struct vm *vm, bool *inside)
{
    uint64_t sum = 0;

    *inside = false;
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        sum += __atomic_load_n(&vm->vcpus[i]->exit_tsc, __ATOMIC_RELAXED);
        *inside |= __atomic_load_n(&vm->vcpus[i]->in_guest, __ATOMIC_RELAXED) != 0;
    }
    return sum;
}

/* At an edge: nanoseconds to the next one at least. */
static inline uint64_t pace_next(struct pace *p, const struct vm *vm)
{
    bool inside;
    uint64_t progress = pace_progress(vm, &inside);

    if (inside || progress != p->seen || p->gap_ns == 0) {
        p->gap_ns = PACE_MIN_NS;
    } else {
        p->gap_ns = MIN(2 * p->gap_ns, PACE_MAX_NS);
    }
    p->seen = progress;
    return p->gap_ns;
}
