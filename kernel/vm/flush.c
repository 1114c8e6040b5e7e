/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Flushing guest translations; the kernel's half of mm/flush.h. A flush bumps the VM's epoch, kicks
 * the processors that are in its guest mode and waits until each has left its section or compared
 * epochs since. A vCPU that enters later compares before it enters, and drops its tag.
 *
 *     flush: epoch++  ; full fence ; look at in_guest
 *     entry: in_guest = 1 ; full fence ; look at epoch
 *
 * One of the two sees the other. Inside a section nothing is held across the comparison, so the wait
 * also ends every lockless use of p2m words and table pages (p2m_peek).
 */
#include "arch/x86_64/smp.h"
#include "kernel/lib/mutant.h"
#include "kernel/log.h"
#include "kernel/vm/vm.h"
#include "mm/env.h"
#include "mm/flush.h"

/* Once for all that is asked of it: one that is being created appears at any time. */
static const struct vcpu *vcpu_at(const struct vm *vm, unsigned i)
{
    return __atomic_load_n(&vm->vcpus[i], __ATOMIC_ACQUIRE);
}

static bool may_use_old(const struct vcpu *v, uint64_t epoch)
{
    return v != NULL && __atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST) != 0 &&
           __atomic_load_n(&v->flushed_epoch, __ATOMIC_ACQUIRE) < epoch;
}

bool env_flush_is_local(const struct flush_domain *d)
{
    const struct vm *vm = d->owner;

    return vm == NULL || vm->nr_vcpus == 1;
}

void env_flush_local(struct flush_domain *d)
{
    __atomic_fetch_add(&d->epoch, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&d->flushes, 1, __ATOMIC_RELAXED);
}

/* Inside a section, one would wait for oneself. */
static void check_outside(const struct vm *vm)
{
#ifdef BALLAST_DEBUG
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        const struct vcpu *v = vcpu_at(vm, i);

        if (v != NULL && vcpu_in_section(v) && v->thread == thread_current()) {
            panic("flush: vm %s flushed from inside a section of its vcpu %u", vm->config.name, i);
        }
    }
#else
    (void)vm;
#endif
}

void env_flush_guest(struct flush_domain *d)
{
    const struct vm *vm = d->owner;
    uint64_t epoch = __atomic_add_fetch(&d->epoch, 1, __ATOMIC_SEQ_CST);

    __atomic_fetch_add(&d->flushes, 1, __ATOMIC_RELAXED);
    if (vm == NULL) {
        return;
    }
    check_outside(vm);
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        const struct vcpu *v = vcpu_at(vm, i);

        if (may_use_old(v, epoch) && !MUTANT(no_kick)) {
            smp_kick(__atomic_load_n(&v->cpu, __ATOMIC_RELAXED));
        }
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        const struct vcpu *v = vcpu_at(vm, i);

        while (may_use_old(v, epoch) && !MUTANT(no_wait)) {
            smp_relax();
        }
    }
}
