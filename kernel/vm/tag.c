/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tags (ASIDs, VPIDs) by generations. Each processor hands out its tags in order and never takes one
 * back; when they are used up it starts a new generation with one flush of everything. A vCPU's tag
 * is good while it is on the processor and in the generation that gave it, so switching VMs flushes
 * nothing. Where the processor cannot flush one tag, a flush is a fresh tag.
 *
 * A tag is assigned right before an entry that surely happens: the first entry of a generation
 * carries its flush. If the processor refuses the entry, the flush may not have happened: the
 * generation ends.
 */
#include "arch/x86_64/percpu.h"
#include "kernel/lib/mutant.h"
#include "kernel/vm/exit.h"

void tag_check(struct vcpu *v)
{
    const struct cpu *cpu = this_cpu();

    if ((v->tag_cpu != cpu->id && !MUTANT(tag_kept_on_move)) ||
        (v->tag_generation != cpu->tag_generation && !MUTANT(tag_kept_over_generation))) {
        /* Epochs start at 1. */
        __atomic_store_n(&v->flushed_epoch, 0, __ATOMIC_RELEASE);
    }
}

void tag_entry_failed(struct vcpu *v)
{
    this_cpu()->tag_next = hv_caps.nr_tags + 1;
    __atomic_store_n(&v->flushed_epoch, 0, __ATOMIC_RELEASE);
}

void tag_assign(struct vcpu *v, uint64_t epoch)
{
    struct cpu *cpu = this_cpu();
    bool valid =
        v->flushed_epoch != 0 && v->tag_cpu == cpu->id && v->tag_generation == cpu->tag_generation;

    if (hv_caps.nr_tags == 0) {
        hv->set_tag(v, 0, true, true);
    } else if (valid && hv_caps.flush_by_tag) {
        hv->set_tag(v, v->tag, !MUTANT(tag_not_flushed), false);
    } else {
        bool recycled = cpu->tag_generation == 0 || cpu->tag_next > hv_caps.nr_tags;

        if (recycled) {
            cpu->tag_generation++;
            cpu->tag_next = 1;
        }
        v->tag = cpu->tag_next++;
        hv->set_tag(v, v->tag, false, recycled && !MUTANT(no_generation_flush));
    }
    v->tag_cpu = cpu->id;
    v->tag_generation = cpu->tag_generation;
    __atomic_store_n(&v->flushed_epoch, epoch, __ATOMIC_RELEASE);
}
