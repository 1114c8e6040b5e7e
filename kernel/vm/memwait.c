/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of vCPUs that wait for memory; see memwait.h. Callers: fault.c, the server (sharing.c).
 */
#include "kernel/vm/memwait.h"

#include "arch/x86_64/clock.h"
#include "kernel/sched/wait.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"

#define HOPE_NS 5000000000ull /* without a frame for so long, none will come */
#define MOST_WOKEN 64u

static struct waitq queue = {SPINLOCK_INIT(RANK_WAITQ, "memory waiters"), LIST_INIT(queue.waiters)};
static unsigned nr_waiting; /* atomic */
static bool served;         /* atomic, set once */

bool memwait_pending(void)
{
    return __atomic_load_n(&nr_waiting, __ATOMIC_RELAXED) != 0;
}

void memwait_serving(void)
{
    __atomic_store_n(&served, true, __ATOMIC_RELEASE);
}

void memwait_done(struct vcpu *v)
{
    v->memory_since_ns = 0;
}

bool memwait_wait(struct vcpu *v)
{
    uint64_t now = clock_now_ns();

    if (v->memory_since_ns == 0) {
        v->memory_since_ns = now;
    } else if (now - v->memory_since_ns > HOPE_NS) {
        return false;
    }
    waitq_prepare(&queue);
    __atomic_fetch_add(&nr_waiting, 1, __ATOMIC_RELAXED);
    if (__atomic_load_n(&served, __ATOMIC_ACQUIRE)) {
        thread_block();
    } else {
        thread_sleep_ns(MEMWAIT_TICK_NS);
    }
    __atomic_fetch_sub(&nr_waiting, 1, __ATOMIC_RELAXED);
    waitq_finish(&queue);
    return true;
}

/* Wake as many as there are frames; now and then everybody, so that who has no hope left ends. */
void memwait_serve(void)
{
    static uint64_t all_woken_ns; /* the server's */
    uint64_t now = clock_now_ns();
    uint64_t nr = MIN(buddy_free_frames(), (uint64_t)MOST_WOKEN);

    if (now - all_woken_ns > HOPE_NS / 4) {
        all_woken_ns = now;
        waitq_wake_all(&queue);
        return;
    }
    while (nr-- > 0 && memwait_pending()) {
        waitq_wake_one(&queue);
    }
}
