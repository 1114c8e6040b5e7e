/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The decisions of the scheduler, apart from its machinery: who runs next, for how long, where a
 * woken thread goes, whom an idle or lucky processor relieves. Pure (no clock, no processor, no
 * assembly): kernel/sched/sched.c carries the decisions out, tests/host/test_runq.c simulates whole
 * machines with it.
 *
 * The algorithm. Every thread has a virtual time, which grows by its run time divided by its weight,
 * on one scale for the whole machine. A processor runs the waiting thread with the smallest virtual
 * time. A processor whose best thread is further than RUNQ_LAG ahead of a thread that waits
 * elsewhere takes that one over, so shares hold across processors although each has its own queue
 * (three equal threads on two processors get two thirds each, by rotation). `vclock` is the highest
 * virtual time that some processor's most deserving thread has reached; a thread that slept starts
 * again at most RUNQ_BONUS behind it, so sleeping saves up no credit, and one that cannot use its
 * share (a weight larger than a whole processor) never lags more than RUNQ_MAX_LAG.
 *
 * Locks: the caller holds q->lock where a function takes a single queue, unless said otherwise. The
 * functions that look over all queues take no lock: they read hints, which whoever acts on them
 * checks again under the lock.
 */
#pragma once

#include "kernel/sched/sched.h"

#define RUNQ_NONE UINT32_MAX      /* no such processor */
#define RUNQ_EMPTY UINT64_MAX     /* virtual time of nobody */
#define RUNQ_BONUS SLICE_NS       /* head start of a thread that slept, virtual ns */
#define RUNQ_LAG SLICE_NS         /* unfairness between processors that is left alone, virtual ns */
#define RUNQ_MAX_LAG 250000000ull /* largest credit of a runnable thread, ns of run time */
#define RUNQ_GRANULARITY 1000000ull /* lead that preempts, and the shortest slice, ns */
#define RUNQ_LATENCY 20000000ull    /* all threads of a queue aim to run once in this time, ns */
#define RUNQ_SCAN 16u               /* processors looked at by one decision */

struct runq {
    struct spinlock lock; /* irqsave */
    struct list waiting;  /* RUNNABLE threads by growing virtual time; lock */

    /* Written under lock, read by everybody (atomic). */
    uint64_t head_vtime;    /* of the first waiting thread; RUNQ_EMPTY if none */
    uint64_t current_vtime; /* of the running thread at current_since; RUNQ_EMPTY when idle */
    uint64_t current_since; /* ns */
    uint64_t load;          /* weights of the waiting and the running thread */
    uint32_t current_weight;
    uint32_t nr_waiting;
};

/* Empty, its processor idle. */
void runq_init(struct runq *q);

/* Queue t (in no queue; its virtual time is final), take it out, look at the first (NULL: none). */
void runq_insert(struct runq *q, struct thread *t);
void runq_remove(struct runq *q, struct thread *t);
struct thread *runq_first(const struct runq *q);

/* Publish what q's processor runs from time `now` (ns) on; NULL: it idles. */
void runq_set_current(struct runq *q, const struct thread *t, uint64_t now);

/* Charge `ns` of run time to t, which is running or has just stopped. */
void runq_charge(struct thread *t, uint64_t ns);

/*
 * `vclock` brought up to time `now`: a processor that runs one thread undisturbed for long makes no
 * decisions that would raise it. Takes no lock.
 */
uint64_t runq_clock(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t vclock,
                    uint64_t now);

/* t becomes runnable after it slept (or for the first time): bound its credit. */
void runq_normalise_woken(struct thread *t, uint64_t vclock);
/* t is about to run: bound its credit. */
void runq_normalise_running(struct thread *t, uint64_t vclock);

/*
 * The thread to run next: the first of q, taken out of it, or `prev` if that may go on (still
 * runnable, not queued) and deserves it more by at least `lead`; NULL if there is neither. *vclock is
 * raised as needed.
 */
struct thread *runq_pick(struct runq *q, struct thread *prev, uint64_t lead, uint64_t *vclock);

/* How long a thread may run on q's processor before it looks around, ns. Takes no lock. */
uint64_t runq_slice(const struct runq *q);

/* Virtual time of what q's processor runs, estimated for time `now`; RUNQ_EMPTY when it idles. Takes
 * no lock. */
uint64_t runq_current_vtime(const struct runq *q, uint64_t now);

/* Whether a woken thread of this virtual time should run at once instead of q's current one. */
bool runq_preempts(const struct runq *q, uint64_t vtime, uint64_t now);

/*
 * Where a woken thread should wait: on `last` if that processor idles, else on some idle one (a set
 * bit of `idle`), else where the load is smallest, `last` preferred.
 */
uint32_t runq_place(struct runq *const *queues, uint32_t nr, const uint64_t *idle, uint32_t last);

/* The first idle processor at or behind `from`, cyclically; RUNQ_NONE if none idles. */
uint32_t runq_find_idle(const uint64_t *idle, uint32_t nr, uint32_t from);

/*
 * The processor, other than self, whose first waiting thread should run on self, whose own best
 * thread has virtual time `vtime` (RUNQ_EMPTY: self has nothing to do, anybody is welcome, and all
 * processors are looked at); RUNQ_NONE if none.
 */
uint32_t runq_find_lagging(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t vtime);

/*
 * The processor, other than self, that runs something so far ahead of self's first waiting thread
 * that it should come and take that one over; RUNQ_NONE if none.
 */
uint32_t runq_find_leading(struct runq *const *queues, uint32_t nr, uint32_t self, uint64_t now);
