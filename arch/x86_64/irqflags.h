/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The interrupt flag, and spinlocks that also keep interrupts out (for data that interrupt handlers
 * touch).
 */
#pragma once

#include "kernel/lib/spinlock.h"

#define RFLAGS_IF (1ULL << 9)

static inline uint64_t irq_save(void)
{
    uint64_t flags = 0;
#ifndef BALLAST_HOST /* host tests have no interrupts */
    __asm__ volatile("pushfq; popq %0; cli" : "=r"(flags)::"memory");
#endif
    return flags;
}

static inline void irq_restore(uint64_t flags)
{
    if (flags & RFLAGS_IF) {
        __asm__ volatile("sti" ::: "memory");
    }
}

static inline void irq_enable(void)
{
    __asm__ volatile("sti" ::: "memory");
}

static inline void irq_disable(void)
{
    __asm__ volatile("cli" ::: "memory");
}

static inline bool irq_enabled(void)
{
    uint64_t flags;
    __asm__ volatile("pushfq; popq %0" : "=r"(flags)::"memory");
    return (flags & RFLAGS_IF) != 0;
}

static inline uint64_t spin_lock_irqsave(struct spinlock *l)
{
    uint64_t flags = irq_save();
    spin_lock(l);
    return flags;
}

static inline void spin_unlock_irqrestore(struct spinlock *l, uint64_t flags)
{
    spin_unlock(l);
    irq_restore(flags);
}
