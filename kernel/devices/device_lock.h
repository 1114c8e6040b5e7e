/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a device model takes its lock: on the guest fast path nothing may spin, so a lock that is taken
 * means HV_EAGAIN there.
 */
#pragma once

#include "arch/x86_64/irqflags.h"
#include "kernel/lib/spinlock.h"
#include "kernel/vm/vm.h"

/* True if the lock was taken; false only on the fast path: return HV_EAGAIN. */
static inline __must_check bool device_lock(struct spinlock *l, const struct vcpu *v)
{
    if (likely(spin_trylock(l))) {
        return true;
    }
    if (vcpu_in_section(v)) {
        return false;
    }
    spin_lock(l);
    return true;
}

/* The same for a lock that a timer's callback takes too: interrupts are off while it is held. */
static inline __must_check bool device_lock_irqsave(struct spinlock *l, const struct vcpu *v,
                                                    uint64_t *flags)
{
    *flags = irq_save();
    if (likely(device_lock(l, v))) {
        return true;
    }
    irq_restore(*flags);
    return false;
}
