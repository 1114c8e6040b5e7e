/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs that wait for machine memory, in order: because there is no frame, because others were there
 * before, or because memory is low and their VM holds more than its target. They hold nothing and block
 * nobody else; requests (pause, destroy, interrupts) end their wait at once, and they resume their place
 * in the queue. The balancing thread serves them: it wakes as many as there are frames, who has waited
 * longest first, passing over VMs that are blocked. Who was woken so holds up nobody any more; if his frame
 * goes elsewhere meanwhile, he waits on in his place.
 */
#pragma once

#include "kernel/lib/types.h"

#include "mm/p2m.h"

struct vcpu;

#define MEMWAIT_TICK_NS 10000000u

#define MEMWAIT_NO_GPA UINT64_MAX /* some page that the instruction at RIP needs */

/* There is no frame for the guest page at gpa: wait, off the fast path, after which the guest tries again.
 * Without hope that memory becomes free its VM is stopped. */
void memwait_or_stop(struct vcpu *v, uint64_t gpa);
/*
 * How v's own accesses ask for pages (p2m_populate), on the fast path and off it: P2M_LINE says that no frame
 * may be taken for them now. HV_ENOMEM is for memwait_or_stop then as if there were none.
 */
static inline uint32_t memwait_access_fast(void);
uint32_t memwait_access(struct vcpu *v);
/* Off the fast path: an exit was served to its end. If it asked while it was v's turn, that is over. */
void memwait_served(struct vcpu *v);

/* The same for another thread that works for a VM. *hope is all zeros at first, and again once it got what
 * it needed. False: there is no hope. Somebody may end the wait by thread_wake. */
struct memwait_hope {
    uint64_t since_ns, hope_ns;
};
bool memwait_nap(struct memwait_hope *hope) __must_check;

struct memwait_stats {
    unsigned waiting;    /* vCPUs now */
    uint64_t waits;      /* since boot */
    uint64_t longest_ns; /* that a vCPU waited for one page, since boot */
};
/* Numbers that move on while they are read. */
void memwait_stats(struct memwait_stats *out);

/* The server's, which runs every MEMWAIT_TICK_NS while anybody is waiting: first say that it is
 * there; is anybody waiting; wake who can go on. */
void memwait_serving(void);
static inline bool memwait_pending(void);
void memwait_serve(void);

extern unsigned memwait_nr_waiting; /* memwait_pending's */

static inline bool memwait_pending(void)
{
    return unlikely(__atomic_load_n(&memwait_nr_waiting, __ATOMIC_RELAXED) != 0);
}

static inline uint32_t memwait_access_fast(void)
{
    return memwait_pending() ? P2M_FAST | P2M_LINE : P2M_FAST;
}
