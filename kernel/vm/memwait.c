/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queue of vCPUs that wait for memory; see memwait.h. It is in the order in which they began to want
 * their page. A vCPU keeps its place when it is woken for other things, or when the frame that it was
 * woken for went elsewhere: nobody starves. While somebody waits, accesses that need a frame queue up
 * behind (P2M_LINE). Callers: exit handlers, the server (balance.c).
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

struct waiter {
    struct list node;
    uint64_t since_ns;
    struct thread *thread;
    struct vcpu *v; /* NULL: a thread that works for a VM */
    bool goes;      /* it was told that there is a frame: it holds up nobody; lock */
};

static struct spinlock lock = SPINLOCK_INIT(RANK_WAITQ, "memory waiters"); /* irqsave */
static struct list waiters = LIST_INIT(waiters);                           /* lock */
unsigned memwait_nr_waiting;          /* written under lock, read at any time */
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
    if (w->v != NULL && (__atomic_load_n(&w->v->request, __ATOMIC_RELAXED) & VCPU_REQ_STOP)) {
        /* Asked while it was still in its section: nobody wakes it for that. */
    } else if (__atomic_load_n(&served, __ATOMIC_ACQUIRE)) {
        thread_block();
    } else {
        thread_sleep_ns(MEMWAIT_TICK_NS);
    }
    now = clock_now_ns();
    flags = spin_lock_irqsave(&lock);
    list_del(&w->node);
    __atomic_store_n(&memwait_nr_waiting, memwait_nr_waiting - 1, __ATOMIC_RELAXED);
    if (now - w->since_ns > longest_ns) {
        __atomic_store_n(&longest_ns, now - w->since_ns, __ATOMIC_RELAXED);
    }
    spin_unlock_irqrestore(&lock, flags);
}

static void wait(struct vcpu *v)
{
    struct waiter w = {.since_ns = v->memory_wait.since_ns, .thread = v->thread, .v = v};
    uint64_t start = clock_now_ns();

    v->memory_wait.turn = v->memory_wait.turn_used = false;
    queue_up(&w);
    v->memory_wait.until_ns = clock_now_ns();
    __atomic_fetch_add(&v->stalled_ns, v->memory_wait.until_ns - start, __ATOMIC_RELAXED);
}

/* Whoever is blocked waits for more than a frame. */
static bool wants_only_frames(const struct waiter *w)
{
    return w->v == NULL || !reclaim_is_blocked(w->v->vm->p2m);
}

/* Does anybody wait in vain, whose turn comes before others'? */
static bool is_anybody_in_line(void)
{
    uint64_t flags;
    struct list *pos;
    bool any = false;

    if (likely(!memwait_pending())) {
        return false;
    }
    flags = spin_lock_irqsave(&lock);
    list_for_each (pos, &waiters) {
        const struct waiter *w = list_entry(pos, struct waiter, node);

        any |= !w->goes && wants_only_frames(w);
    }
    spin_unlock_irqrestore(&lock, flags);
    return any;
}

/* Now and then everybody is woken, so that who has no hope left ends. */
void memwait_serve(void)
{
    static uint64_t all_woken_ns; /* lock */
    uint64_t now = clock_now_ns(), nr = buddy_available_frames();
    uint64_t flags = spin_lock_irqsave(&lock);
    bool all = now - all_woken_ns > HOPE_NS / 4;
    struct list *pos;

    all_woken_ns = all ? now : all_woken_ns;
    list_for_each (pos, &waiters) {
        struct waiter *w = list_entry(pos, struct waiter, node);

        w->goes = nr != 0 && wants_only_frames(w);
        nr -= w->goes;
        if (w->goes && w->v != NULL) {
            w->v->memory_wait.turn = true;
        }
        if (w->goes || all) {
            thread_wake(w->thread);
        }
    }
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
    struct waiter w = {.thread = thread_current()};

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

uint32_t memwait_access(struct vcpu *v)
{
    bool in_line;

    v->memory_wait.turn_used = v->memory_wait.turn;
    in_line = !v->memory_wait.turn && is_anybody_in_line();
    if (unlikely(in_line) && is_plenty()) {
        memwait_serve();
        in_line = false;
    }
    return in_line || reclaim_is_blocked(v->vm->p2m) ? P2M_VCPU | P2M_LINE : P2M_VCPU;
}

void memwait_served(struct vcpu *v)
{
    if (unlikely(v->memory_wait.turn_used)) {
        v->memory_wait.turn = v->memory_wait.turn_used = false;
    }
}
