/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vCPUs that wait for machine memory, in order: because there is no frame, because others were there
 * before, or because memory is low and their VM holds more than its target. They hold nothing and block
 * nobody else; requests (pause, destroy, interrupts) end their wait, and they resume their place in
 * the queue. The balancing thread serves them: it wakes as many as there are frames, who has waited
 * longest first, passing over VMs that are blocked. Who was woken so holds up nobody any more; if his frame
 * goes elsewhere meanwhile, he waits on in his place.
 *
 * A *turn* is what those have who were woken for a frame: others' wait does not hold them up. It ends with the
 * instruction or exit that they waited with. What an exit leaves unfinished, waiting for a page that is read back
 * for instance, may go on with it, but not for ever.
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

/* Written by memwait.c under its lock, read at any time. */
extern unsigned memwait_nr_waiting; /* who is in the queue */
extern unsigned memwait_nr_in_line; /* of those, who held others up at the last look at it */

/* Is anybody waiting? */
static inline bool memwait_pending(void)
{
    return unlikely(__atomic_load_n(&memwait_nr_waiting, __ATOMIC_RELAXED) != 0);
}

/*
 * How v's own accesses ask for pages (p2m_populate), on the fast path and off it: P2M_LINE says that no frame
 * may be taken for them now. HV_ENOMEM is for memwait_or_stop then as if there were none.
 */
static inline uint32_t memwait_access_fast(void)
{
    return unlikely(__atomic_load_n(&memwait_nr_in_line, __ATOMIC_RELAXED) != 0)
               ? P2M_FAST | P2M_LINE
               : P2M_FAST;
}

uint32_t memwait_access(struct vcpu *v);
/* Off the fast path: an instruction or exit is over, served `to_the_end` or to be begun again. If it asked in v's
 * turn, that is over too, at the latest after some that were not. */
void memwait_served(struct vcpu *v, bool to_the_end);

/* The same for another thread that works for a VM. *hope is all zeros at first, and again once it got what
 * it needed. False: there is no hope. Somebody may end the wait by thread_wake. */
struct memwait_hope {
    uint64_t since_ns, hope_ns;
    unsigned turn; /* not 0: it is this thread's; memwait_serve's while it waits */
};
/* What it asks with: P2M_LINE or 0. Its VM's being blocked does not keep it from asking. */
uint32_t memwait_access_thread(const struct memwait_hope *hope);
bool memwait_nap(struct memwait_hope *hope) __must_check;

struct memwait_stats {
    unsigned waiting;    /* vCPUs now */
    uint64_t waits;      /* since boot */
    uint64_t longest_ns; /* that a vCPU waited for one page, since boot */
};
/* Numbers that move on while they are read. */
void memwait_stats(struct memwait_stats *out);

/* The server says that it is there, which serves every MEMWAIT_TICK_NS while anybody is waiting. */
void memwait_serving(void);
/* Wake who can go on: by the server, and by whoever set frames free or sees plenty. */
void memwait_serve(void);
