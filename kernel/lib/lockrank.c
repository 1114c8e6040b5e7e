/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lock-rank checker of debug builds. Two locks of one rank are never held together, so one bit
 * per rank says what a processor holds. An interrupt handler that runs over a thread's locks is
 * checked against them as well, and rightly: it may not take one that is ranked below.
 */
#include "kernel/lib/lockrank.h"

#ifdef BALLAST_DEBUG

_Static_assert(NR_RANKS <= 32, "one bit per rank");

static const char *const rank_names[NR_RANKS] = {
    [RANK_NONE] = "none",       [RANK_CONFIG] = "config",   [RANK_VM_LIST] = "VM list",
    [RANK_VM] = "VM",           [RANK_DEVICE] = "device",   [RANK_IRQCHIP] = "irqchip",
    [RANK_RECLAIM] = "reclaim", [RANK_P2M] = "p2m",         [RANK_VIEW] = "view",
    [RANK_SHARE] = "share",     [RANK_FRAME] = "frame",     [RANK_FLUSH] = "flush",
    [RANK_ALLOC] = "allocator", [RANK_SLAB] = "slab",       [RANK_HOSTMAP] = "hostmap",
    [RANK_CALL] = "call",       [RANK_BLK] = "blk",         [RANK_WAITQ] = "waitq",
    [RANK_TIMER] = "timer",     [RANK_SWAP] = "swap",       [RANK_RUNQ] = "runq",
    [RANK_IRQ] = "irq",         [RANK_CONSOLE] = "console", [RANK_LOG] = "log",
};

void lockrank_acquire(enum lock_rank rank, const char *name)
{
    uint32_t *held = lockrank_held();

    if (rank == RANK_NONE || !held) {
        return;
    }
    if (*held >> rank != 0) {
        unsigned highest = 31 - (unsigned)__builtin_clz(*held);
        lockrank_broken(name, rank_names[rank], rank_names[highest]);
    }
    if (rank >= RANK_FIRST_IRQ && lockrank_interruptible()) {
        lockrank_broken(name, rank_names[rank], NULL);
    }
    *held |= 1u << rank;
}

void lockrank_release(enum lock_rank rank)
{
    uint32_t *held = lockrank_held();

    if (rank != RANK_NONE && held) {
        *held &= ~(1u << rank);
    }
}

#endif
