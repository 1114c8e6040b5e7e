/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ticket spinlocks with ranks. They do not touch the interrupt flag: a lock that is also taken by
 * interrupt handlers is taken with the *_irqsave variants of arch/x86_64/irqflags.h. The hypervisor
 * is not preemptive, so a plain lock is enough everywhere else. Nothing sleeps holding one.
 * Pure: host tests use it as it is.
 */
#pragma once

#include "kernel/lib/lockrank.h"
#include "kernel/lib/types.h"

struct spinlock {
    uint32_t next;  /* next ticket to hand out */
    uint32_t owner; /* ticket now served */
    enum lock_rank rank;
    const char *name;
};

#define SPINLOCK_INIT(rank_, name_) {0, 0, (rank_), (name_)}

static inline void spin_init(struct spinlock *l, enum lock_rank rank, const char *name)
{
    *l = (struct spinlock)SPINLOCK_INIT(rank, name);
}

static inline void spin_lock(struct spinlock *l)
{
    lockrank_acquire(l->rank, l->name);
    uint32_t ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket) {
        __builtin_ia32_pause();
    }
}

/* True if the lock was taken. Never spins: the only form allowed on the guest fast path. */
static inline __must_check bool spin_trylock(struct spinlock *l)
{
    uint32_t owner = __atomic_load_n(&l->owner, __ATOMIC_RELAXED);
    uint32_t expected = owner;
    if (!__atomic_compare_exchange_n(&l->next, &expected, owner + 1, false, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED)) {
        return false;
    }
    lockrank_acquire(l->rank, l->name);
    return true;
}

static inline void spin_unlock(struct spinlock *l)
{
    lockrank_release(l->rank);
    __atomic_store_n(&l->owner, l->owner + 1, __ATOMIC_RELEASE);
}

static inline bool spin_is_locked(const struct spinlock *l)
{
    return __atomic_load_n(&l->next, __ATOMIC_RELAXED) !=
           __atomic_load_n(&l->owner, __ATOMIC_RELAXED);
}
