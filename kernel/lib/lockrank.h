/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lock ranks: a thread of control may only take locks of strictly growing rank, and those that
 * interrupt handlers take too only with interrupts off. Debug builds (BALLAST_DEBUG) check both and
 * panic naming the locks; release builds compile the check away.
 */
#pragma once

#include "kernel/lib/types.h"

enum lock_rank {
    RANK_NONE = 0, /* not checked (only for the panic path) */
    RANK_CONFIG,   /* configuration, start-up */
    RANK_VM_LIST,  /* list of VMs */
    RANK_VM,       /* one VM's life cycle */
    RANK_DEVICE,   /* a virtual device's state */
    RANK_IRQCHIP,  /* virtual interrupt controllers (below devices: devices raise lines) */
    RANK_RECLAIM,  /* who takes part in reclaiming, its targets and records */
    RANK_P2M,      /* one VM's p2m */
    RANK_VIEW,     /* one view's tables */
    RANK_SHARE,    /* content index */
    RANK_SWAP,     /* slots of the store, requests */
    RANK_HOSTMAP,  /* hypervisor address space (allocates its tables) */
    RANK_FRAME,    /* frame table records */
    RANK_FLUSH,    /* flush bookkeeping */
    RANK_ALLOC,    /* frame allocator */
    RANK_SLAB,     /* small objects */
    RANK_CALL,     /* cross-processor calls; lists of threads and claims */
    RANK_BLK,      /* one disk's queue of requests */
    RANK_WAITQ,    /* wait queues */
    RANK_TIMER,    /* per-CPU timer queues */
    RANK_RUNQ,     /* per-CPU run queues */
    RANK_IRQ,      /* host interrupt routing */
    RANK_CONSOLE,  /* host console back-ends */
    RANK_LOG,      /* the log ring; innermost: everybody logs */
    NR_RANKS,
    RANK_FIRST_IRQ = RANK_BLK /* interrupt handlers take locks of this rank and above */
};

#ifdef BALLAST_DEBUG
/* Note that a lock of `rank` is being taken (released) here; `name` is used in the panic text. */
void lockrank_acquire(enum lock_rank rank, const char *name);
void lockrank_release(enum lock_rank rank);

/* Given by the surroundings. The processor's (host tests: the thread's) word of held ranks, one bit
 * each; NULL: not checked now. */
uint32_t *lockrank_held(void);
/* Given by the surroundings. True if an interrupt handler may run here and now. */
bool lockrank_interruptible(void);
/* Given by the surroundings. Lock `name` of rank `rank` is taken while one of rank `held` is held, or,
 * where that is NULL, with interrupts on: panic. */
void lockrank_broken(const char *name, const char *rank, const char *held) __noreturn;
#else
static inline void lockrank_acquire(enum lock_rank rank, const char *name)
{
    (void)rank;
    (void)name;
}
static inline void lockrank_release(enum lock_rank rank)
{
    (void)rank;
}
#endif
