/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How short memory is, and what each VM should have; see reclaim.h. All that changes is changed by one
 * thread, and published: the level by single words, for faults that look at it without a lock.
 */
#include "mm/reclaim/reclaim.h"

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/reclaim_internal.h"

static struct policy policy; /* the thread's; read under reclaim_lock */
static struct {
    uint64_t available, since_ns, entered[NR_MEM_STATES], balances, orders, taken;
    uint64_t pending, taken_ns; /* atomic */
} host;                         /* reclaim_lock, but for these two */

/* What everybody may read at any time; atomic. */
static unsigned now_state, now_actions;
static uint64_t now_min_free;

enum mem_state reclaim_state(void)
{
    return (enum mem_state)__atomic_load_n(&now_state, __ATOMIC_RELAXED);
}

unsigned reclaim_actions(void)
{
    return __atomic_load_n(&now_actions, __ATOMIC_RELAXED);
}

uint64_t reclaim_min_free(void)
{
    return __atomic_load_n(&now_min_free, __ATOMIC_RELAXED);
}

void reclaim_level(struct reclaim_level *out)
{
    const struct mem_table *t = &policy_tables[policy.table];

    *out = (struct reclaim_level){
        .state = policy_state(&policy),
        .actions = policy_actions(&policy),
        .min_free = policy.min_free,
        .goal = policy_goal(&policy),
        .lend_above = policy_lend_above(&policy),
        .unblock_at = policy_climb_at(&policy, t->nr - 1),
        .takes = (policy_actions(&policy) & ~MEM_DO_BREAK) != 0,
    };
}

/* ---- The level ---- */

static unsigned long long mb(uint64_t frames)
{
    return frames * PAGE_SIZE / MIB(1);
}

/* Who grew most since the carrier looked last: why memory is short. */
static void say_fall(const struct policy_change *c)
{
    struct reclaim_vm *m;
    struct share_stats all;
    char who[RECLAIM_NAME_MAX] = "";
    uint64_t most = 0;

    share_stats(&all);
    reclaim_for_each(m)
    {
        uint64_t held = reclaim_held(m->p2m, &all, NULL);

        if (held > m->held && held - m->held > most) {
            most = held - m->held;
            __builtin_memcpy(who, m->name, sizeof(who));
        }
    }
    if (most != 0) {
        env_note("memory: %s, was %s: %llu MB free, below %llu MB; vm %s took %llu KB just now",
                 policy_state_name(c->to), policy_state_name(c->from), mb(c->free),
                 mb(c->threshold), who, (unsigned long long)(most * PAGE_SIZE / KIB(1)));
    } else {
        env_note("memory: %s, was %s: %llu MB free, below %llu MB; no VM took it",
                 policy_state_name(c->to), policy_state_name(c->from), mb(c->free),
                 mb(c->threshold));
    }
}

static void say(const struct policy_change *c)
{
    if (c->from == c->to) {
        return;
    }
    if (c->fell) {
        say_fall(c);
    } else {
        env_note("memory: %s, was %s: %llu MB free, %llu MB or more", policy_state_name(c->to),
                 policy_state_name(c->from), mb(c->free), mb(c->threshold));
    }
}

static void publish(void)
{
    unsigned actions = policy_actions(&policy);

    __atomic_store_n(&now_state, policy_state(&policy), __ATOMIC_RELAXED);
    __atomic_store_n(&now_actions, actions, __ATOMIC_RELAXED);
    __atomic_store_n(&now_min_free, policy.min_free, __ATOMIC_RELAXED);
    p2m_set_thrift((actions & MEM_DO_BREAK) != 0);
}

static void enter_state(enum mem_state to, uint64_t now)
{
    spin_lock(&reclaim_lock);
    host.entered[to]++;
    host.since_ns = now;
    spin_unlock(&reclaim_lock);
}

/* Another table or scale by options. */
static bool adopt(const struct reclaim_options *o, uint64_t free, uint64_t now)
{
    uint64_t min_free = policy_min_free(o->states, buddy_total_frames(), o->min_free_pct);
    enum mem_state was = policy_state(&policy);
    bool first = policy.min_free == 0;

    if (policy.table == o->states && policy.min_free == min_free) {
        return false;
    }
    spin_lock(&reclaim_lock);
    policy_reset(&policy, o->states, min_free, free);
    spin_unlock(&reclaim_lock);
    if (first || policy_state(&policy) != was) {
        enter_state(policy_state(&policy), now);
    }
    if (!first) {
        env_note("memory: %s, was %s: the options' table is %s now, with %llu MB to be free, and "
                 "%llu MB are",
                 policy_state_name(policy_state(&policy)), policy_state_name(was),
                 policy_tables[policy.table].name, mb(min_free), mb(free));
    }
    return true;
}

/* VMs above their targets wait while memory is low and really is short. */
static void block(uint64_t free)
{
    struct reclaim_level level;
    struct share_stats all;
    struct reclaim_vm *m;
    bool low;

    reclaim_level(&level);
    low = (level.actions & MEM_DO_BLOCK) && free < level.unblock_at;
    if (low) {
        share_stats(&all);
    }
    reclaim_for_each(m)
    {
        bool blocked = low && m->has_target && reclaim_held(m->p2m, &all, NULL) > m->target;

        __atomic_store_n(&m->p2m->blocked, blocked, __ATOMIC_RELAXED);
    }
}

bool reclaim_look(const struct reclaim_options *o)
{
    static bool blocking; /* somebody may be blocked; the thread's */
    uint64_t free = buddy_free_frames(), now = env_now_ns();
    struct policy_change c;
    bool changed = adopt(o, free, now);

    spin_lock(&reclaim_lock);
    bool stepped = policy_look(&policy, free, now, o->balance_ns, &c);
    spin_unlock(&reclaim_lock);
    if (stepped) {
        if (c.from != c.to) {
            enter_state(c.to, now);
        }
        say(&c);
    }
    if (changed || stepped) {
        publish();
    }
    if (blocking || (policy_actions(&policy) & MEM_DO_BLOCK)) {
        blocking = (policy_actions(&policy) & MEM_DO_BLOCK) != 0;
        block(free);
    }
    return changed || stepped;
}

/* ---- Targets ---- */

void reclaim_sample(const struct reclaim_options *o, reclaim_guest_t guest)
{
    struct reclaim_vm *m;

    reclaim_for_each(m)
    {
        struct reclaim_guest g = {.runs = false};

        guest(m->p2m, &g);
        m->runs = g.runs;
        /* The first samples are taken once there is something to draw from. */
        if (g.runs && g.time_ns != 0) {
            sample_tick(m->sample, &o->sample, g.time_ns);
        }
    }
}

static uint64_t part_of(uint64_t pages, unsigned part)
{
    return pages * part / SAMPLE_ONE;
}

static struct tax_claim claims[RECLAIM_MAX_VMS]; /* the thread's */

/* What m claims; returns what it holds. A VM that does not run has no use for memory. */
static uint64_t claim(struct reclaim_vm *m, const struct share_stats *all, struct tax_claim *c)
{
    struct sample_estimate e;
    uint64_t granted, held = reclaim_held(m->p2m, all, &granted);

    sample_estimate(m->sample, &e);
    spin_lock(&reclaim_lock);
    m->active = m->runs ? part_of(granted, e.active) : 0;
    m->touched = m->runs ? part_of(granted, e.slow) : 0;
    *c = (struct tax_claim){
        .min = m->runs ? m->min : 0,
        .max = m->max,
        .shares = m->shares,
        .active = m->active,
    };
    spin_unlock(&reclaim_lock);
    return held;
}

static void give_target(struct reclaim_vm *m, uint64_t target, const char *cause)
{
    spin_lock(&reclaim_lock);
    m->target = target;
    m->has_target = true;
    spin_unlock(&reclaim_lock);
    m->cause = cause;
}

void reclaim_balance(const struct reclaim_options *o, const char *cause)
{
    static struct reclaim_vm *held[RECLAIM_MAX_VMS]; /* the thread's */
    uint64_t sum = buddy_free_frames();
    struct share_stats all;
    struct reclaim_level level;
    struct reclaim_vm *m;
    unsigned nr = 0;

    reclaim_level(&level);
    share_stats(&all);
    for (m = reclaim_next(UINT32_MAX); m != NULL; m = reclaim_next(m->slot)) {
        held[nr] = m;
        sum += claim(m, &all, &claims[nr]);
        nr++;
    }
    sum -= MIN(sum, level.goal);
    tax_solve(claims, nr, sum, o->tax_pct, o->tax_type);
    for (unsigned i = 0; i < nr; i++) {
        give_target(held[i], claims[i].target, cause);
        reclaim_release(held[i]);
    }
    spin_lock(&reclaim_lock);
    host.available = sum;
    host.balances++;
    spin_unlock(&reclaim_lock);
}

/* ---- Numbers ---- */

void reclaim_note_taken(uint64_t frames)
{
    if (frames != 0) {
        spin_lock(&reclaim_lock);
        host.taken += frames;
        spin_unlock(&reclaim_lock);
        __atomic_store_n(&host.taken_ns, env_now_ns(), __ATOMIC_RELAXED);
    }
}

void reclaim_note_orders(uint64_t orders, uint64_t pending)
{
    spin_lock(&reclaim_lock);
    host.orders += orders;
    spin_unlock(&reclaim_lock);
    __atomic_store_n(&host.pending, pending, __ATOMIC_RELAXED);
}

bool reclaim_has_hope(uint64_t lately_ns)
{
    uint64_t taken = __atomic_load_n(&host.taken_ns, __ATOMIC_RELAXED), now = env_now_ns();

    return __atomic_load_n(&host.pending, __ATOMIC_RELAXED) != 0 ||
           (taken != 0 && (now <= taken || now - taken < lately_ns));
}

void reclaim_host(struct reclaim_host *out)
{
    spin_lock(&reclaim_lock);
    *out = (struct reclaim_host){
        .table = policy.table,
        .state = policy_state(&policy),
        .actions = policy_actions(&policy),
        .free = buddy_free_frames(),
        .min_free = policy.min_free,
        .goal = policy_goal(&policy),
        .available = host.available,
        .state_since_ns = host.since_ns,
        .balances = host.balances,
        .orders = host.orders,
        .taken = host.taken,
    };
    for (unsigned i = 0; i < NR_MEM_STATES; i++) {
        out->entered[i] = host.entered[i];
    }
    spin_unlock(&reclaim_lock);
}
