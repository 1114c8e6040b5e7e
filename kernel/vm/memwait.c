/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of vCPUs that wait for memory; see memwait.h. It is in the order in which they began to want
 * their page. A vCPU keeps its place when it is woken for other things, or when the frame that it was
 * woken for went elsewhere: nobody starves. While somebody waits, accesses that need a frame queue up
 * behind (P2M_LINE). Callers: exit handlers, guestmem.c and softmmu.c (how to ask), run.c, devices' threads
 * (vmmio.c), balance.c and swapping.c (to serve).
 */
#include "kernel/vm/memwait.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/vm/balance.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/reclaim.h"

#define HOPE_NS 10000000000ull  /* without hope for so long, none will come */
#define PLENTY 64u              /* frames besides those that are waited for */
#define RECENT_NS 1000000000ull /* a wait that ended longer ago was another one */
#define TURN_EXITS 8u /* tables, code, data: what one instruction may lack, one after the other */

struct waiter {
    struct list node;
    uint64_t since_ns;
    struct thread *thread;
    struct vcpu *v; /* NULL: a thread that works for a VM */
    unsigned *turn; /* its own, or its hope's */
    bool goes;      /* it was told that there is a frame: it holds up nobody; lock */
};

static struct spinlock lock = SPINLOCK_INIT(RANK_WAITQ, "memory waiters"); /* irqsave */
static struct list waiters = LIST_INIT(waiters);                           /* lock */
unsigned memwait_nr_waiting;          /* written under lock, read at any time */
unsigned memwait_nr_in_line;          /* likewise */
static uint64_t nr_waits, longest_ns; /* likewise */
static bool served;                   /* atomic, set once */

void memwait_stats(struct memwait_stats *out)
{
    out->waiting = __atomic_load_n(&memwait_nr_waiting, __ATOMIC_RELAXED);
    out->waits = __atomic_load_n(&nr_waits, __ATOMIC_RELAXED);
    out->longest_ns = __atomic_load_n(&longest_ns, __ATOMIC_RELAXED);
}

void memwait_serving(void)
{
    __atomic_store_n(&served, true, __ATOMIC_RELEASE);
}

/* ---- The queue ---- */

/* Whoever is blocked waits for more than a frame. */
static bool wants_only_frames(const struct waiter *w)
{
    return w->v == NULL || !reclaim_is_blocked(w->v->vm->p2m);
}

/* How many wait in vain, whose turn comes before others'? The lock is held. */
static unsigned count_line(void)
{
    struct list *pos;
    unsigned nr = 0;

    list_for_each (pos, &waiters) {
        const struct waiter *w = list_entry(pos, struct waiter, node);

        nr += !w->goes && wants_only_frames(w);
    }
    __atomic_store_n(&memwait_nr_in_line, nr, __ATOMIC_RELAXED);
    return nr;
}

/* Behind all who began before; the lock is held. */
static void enter(struct waiter *w)
{
    struct list *pos = waiters.prev;

    while (pos != &waiters && list_entry(pos, struct waiter, node)->since_ns > w->since_ns) {
        pos = pos->prev;
    }
    list_add(pos, &w->node);
    __atomic_store_n(&memwait_nr_waiting, memwait_nr_waiting + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&nr_waits, nr_waits + 1, __ATOMIC_RELAXED);
    (void)count_line();
}

/* What was asked while it was still in its section wakes nobody. The lock was the fence (vcpu_request). */
static void sleep(const struct waiter *w)
{
    uint32_t request = w->v != NULL ? __atomic_load_n(&w->v->request, __ATOMIC_RELAXED) : 0;

    if (request & VCPU_REQ_THREAD) {
        return;
    }
    /* An interrupt's bit stays until the next section, which this vCPU may not reach without memory
     * (softmmu_ready): it tries every tick. VCPU_REQ_MMU is its own, and what such a wait is for. */
    if ((request & ~VCPU_REQ_MMU) || !__atomic_load_n(&served, __ATOMIC_ACQUIRE)) {
        thread_sleep_ns(MEMWAIT_TICK_NS);
    } else {
        thread_block();
    }
}

static void queue_up(struct waiter *w)
{
    uint64_t flags = spin_lock_irqsave(&lock), now;
    bool first = memwait_nr_waiting == 0;

    enter(w);
    spin_unlock_irqrestore(&lock, flags);
    if (first) {
        balance_wake();
    }
    sleep(w);
    now = clock_now_ns();
    flags = spin_lock_irqsave(&lock);
    list_del(&w->node);
    __atomic_store_n(&memwait_nr_waiting, memwait_nr_waiting - 1, __ATOMIC_RELAXED);
    (void)count_line();
    if (now - w->since_ns > longest_ns) {
        __atomic_store_n(&longest_ns, now - w->since_ns, __ATOMIC_RELAXED);
    }
    spin_unlock_irqrestore(&lock, flags);
}

static void wait(struct vcpu *v)
{
    struct waiter w = {.since_ns = v->memory_wait.since_ns,
                       .thread = v->thread,
                       .v = v,
                       .turn = &v->memory_wait.turn};
    uint64_t start = clock_now_ns();

    v->memory_wait.turn = 0;
    v->memory_wait.turn_used = false;
    queue_up(&w);
    v->memory_wait.until_ns = clock_now_ns();
    __atomic_fetch_add(&v->stalled_ns, v->memory_wait.until_ns - start, __ATOMIC_RELAXED);
}

/* Does anybody wait in vain, whose turn comes before others'? */
static bool is_anybody_in_line(void)
{
    uint64_t flags;
    unsigned nr;

    if (likely(!memwait_pending())) {
        return false;
    }
    flags = spin_lock_irqsave(&lock);
    nr = count_line();
    spin_unlock_irqrestore(&lock, flags);
    return nr != 0;
}

/*
 * Now and then everybody is woken, so that who has no hope left ends. Then the first may take what there is,
 * even if there seems to be nothing: single frames may lie in processors' caches, which only an allocation
 * empties that finds nothing elsewhere.
 */
void memwait_serve(void)
{
    static uint64_t all_woken_ns; /* lock */
    uint64_t now = clock_now_ns(), nr = buddy_available_frames();
    uint64_t flags = spin_lock_irqsave(&lock);
    bool all = now - all_woken_ns > HOPE_NS / 4;
    struct list *pos;

    all_woken_ns = all ? now : all_woken_ns;
    nr = all ? MAX(nr, 1ull) : nr;
    list_for_each (pos, &waiters) {
        struct waiter *w = list_entry(pos, struct waiter, node);

        w->goes = nr != 0 && wants_only_frames(w);
        nr -= w->goes;
        if (w->goes) {
            *w->turn = TURN_EXITS;
        }
        if (w->goes || all) {
            thread_wake(w->thread);
        }
    }
    (void)count_line();
    spin_unlock_irqrestore(&lock, flags);
}

/* ---- Whether to wait ---- */

/* Is this the wait that v had lately? While an instruction makes no progress, these stay. */
static bool same_wait(const struct vcpu *v, uint64_t gpa, uint64_t now)
{
    const struct memory_wait *w = &v->memory_wait;

    return w->since_ns != 0 && now - w->until_ns < RECENT_NS && w->gpa == gpa && w->rip == v->rip &&
           w->rcx == v->gpr[GPR_RCX];
}

static void stop(struct vcpu *v, uint64_t gpa)
{
    struct reclaim_numbers n;

    if (reclaim_is_blocked(v->vm->p2m) && reclaim_numbers(v->vm->p2m, &n)) {
        vm_stop_request(
            v->vm, STOP_NO_MEMORY, 0,
            "memory is low, nothing can be taken from any VM, and this one holds %llu MB "
            "where %llu MB are its due",
            (unsigned long long)(n.held * PAGE_SIZE / MIB(1)),
            (unsigned long long)(n.target * PAGE_SIZE / MIB(1)));
    } else if (gpa != MEMWAIT_NO_GPA) {
        vm_stop_request(v->vm, STOP_NO_MEMORY, 0, "no machine memory left for guest page 0x%llx",
                        (unsigned long long)gpa);
    } else {
        vm_stop_request(v->vm, STOP_NO_MEMORY, 0,
                        "no machine memory left for the instruction at rip 0x%llx",
                        (unsigned long long)v->rip);
    }
}

void memwait_or_stop(struct vcpu *v, uint64_t gpa)
{
    uint64_t now = clock_now_ns();

    if (!same_wait(v, gpa, now)) {
        v->memory_wait = (struct memory_wait){
            .since_ns = now, .hope_ns = now, .gpa = gpa, .rip = v->rip, .rcx = v->gpr[GPR_RCX]};
    }
    if (reclaim_has_hope(HOPE_NS)) {
        v->memory_wait.hope_ns = now;
    }
    if (now - v->memory_wait.hope_ns <= HOPE_NS) {
        wait(v);
    } else {
        stop(v, gpa);
    }
}

bool memwait_nap(struct memwait_hope *hope)
{
    uint64_t now = clock_now_ns();
    struct waiter w = {.thread = thread_current(), .turn = &hope->turn};

    hope->turn = 0;
    if (hope->since_ns == 0) {
        *hope = (struct memwait_hope){.since_ns = now, .hope_ns = now};
    }
    if (reclaim_has_hope(HOPE_NS)) {
        hope->hope_ns = now;
    }
    if (now - hope->hope_ns > HOPE_NS) {
        return false;
    }
    w.since_ns = hope->since_ns;
    queue_up(&w);
    return true;
}

/* Whoever waits will have a frame, and there are enough for the others. The server may be busy for long. */
static bool is_plenty(void)
{
    return buddy_available_frames() >
           2ull * __atomic_load_n(&memwait_nr_waiting, __ATOMIC_RELAXED) + PLENTY;
}

static bool has_to_queue(bool turn)
{
    if (turn || likely(!is_anybody_in_line())) {
        return false;
    }
    if (is_plenty()) {
        memwait_serve();
        return false;
    }
    return true;
}

uint32_t memwait_access(struct vcpu *v)
{
    v->memory_wait.turn_used = v->memory_wait.turn != 0;
    return has_to_queue(v->memory_wait.turn_used) || reclaim_is_blocked(v->vm->p2m)
               ? P2M_VCPU | P2M_LINE
               : P2M_VCPU;
}

uint32_t memwait_access_thread(const struct memwait_hope *hope)
{
    return has_to_queue(hope->turn != 0) ? P2M_LINE : 0;
}

void memwait_served(struct vcpu *v, bool to_the_end)
{
    if (unlikely(v->memory_wait.turn_used)) {
        v->memory_wait.turn = to_the_end ? 0 : v->memory_wait.turn - 1;
        v->memory_wait.turn_used = false;
        /* Another wait at the same instruction, for the next page of a loop, begins behind all others. */
        v->memory_wait.since_ns = to_the_end ? 0 : v->memory_wait.since_ns;
    }
}
