/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Spinlocks with ranks: test-and-set, first come first served only by chance. Queued or ticket locks
 * would be fair, but nested under a hypervisor or emulator that has fewer processors than we see
 * they stand still whenever the one next in line does not run; no critical section here is long
 * enough for unfairness to matter. They do not touch the interrupt flag: a lock that is also taken by
 * interrupt handlers is taken with the *_irqsave variants of arch/x86_64/irqflags.h. The hypervisor
 * is not preemptive, so a plain lock is enough everywhere else. Nothing sleeps holding one.
 * Pure: host tests use it as it is.
 */
#pragma once

#include "kernel/lib/lockrank.h"
#include "kernel/lib/types.h"

struct spinlock {
    uint32_t locked; /* atomic */
    enum lock_rank rank;
    const char *name;
};

#define SPINLOCK_INIT(rank_, name_) \
    {                               \
        0, (rank_), (name_)         \
    }

static inline void spin_init(struct spinlock *l, enum lock_rank rank, const char *name)
{
    *l = (struct spinlock)SPINLOCK_INIT(rank, name);
}

static inline void spin_lock(struct spinlock *l)
{
    lockrank_acquire(l->rank, l->name);
    while (unlikely(__atomic_exchange_n(&l->locked, 1, __ATOMIC_ACQUIRE) != 0)) {
        while (__atomic_load_n(&l->locked, __ATOMIC_RELAXED) != 0) {
            __builtin_ia32_pause();
        }
    }
}

/* True if the lock was taken. Never spins: the only form allowed on the guest fast path. */
static inline __must_check bool spin_trylock(struct spinlock *l)
{
    if (__atomic_load_n(&l->locked, __ATOMIC_RELAXED) != 0 ||
        __atomic_exchange_n(&l->locked, 1, __ATOMIC_ACQUIRE) != 0) {
        return false;
    }
    lockrank_acquire(l->rank, l->name);
    return true;
}

/* Has somebody got it? What he changed before he let it go is seen after a "no". */
static inline bool spin_is_locked(const struct spinlock *l)
{
    return __atomic_load_n(&l->locked, __ATOMIC_ACQUIRE) != 0;
}

static inline void spin_unlock(struct spinlock *l)
{
    lockrank_release(l->rank);
    __atomic_store_n(&l->locked, 0, __ATOMIC_RELEASE);
}
