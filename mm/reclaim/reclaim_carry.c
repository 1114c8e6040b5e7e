/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Orders: who is to give how much, and by which means; see reclaim.h.
 *
 *     lacks  = goal - free, if the level takes memory at all
 *     excess = the VM's part of what lacks, by how far it is above its target; at least what it holds
 *              above its max, which is taken by all means whatever the level
 *     room   = its part of what is free above the limit for lending, by how far it is below
 *
 * A promise of one means leaves the rest to the next one. At levels that page by force a promise counts
 * only for as much as the VM has come down since the orders before: a guest that gives slowly is paged
 * as well, and one that only promises gains nothing.
 */
#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/reclaim/reclaim_internal.h"

#define SECOND_NS 1000000000ull
#define BY_FORCE (MEM_DO_COMPRESS | MEM_DO_SWAP)

static const struct reclaim_means *means[RECLAIM_MAX_MEANS]; /* constant after boot */
static unsigned nr_means;
static uint64_t carried_ns; /* the last orders; the thread's */

void reclaim_register(const struct reclaim_means *m)
{
    if (nr_means == RECLAIM_MAX_MEANS) {
        env_panic("reclaim: too many means");
    }
    means[nr_means++] = m;
}

/* ---- How much ---- */

struct round {
    struct reclaim_level level;
    struct share_stats all;
    uint64_t free, lacks, lends; /* frames */
    uint64_t over, under;        /* all VMs' sums */
    uint64_t elapsed_ns;
    uint64_t orders, pending, excess, room;
};

static uint64_t above(uint64_t a, uint64_t b)
{
    return a - MIN(a, b);
}

/* What each holds now. */
static void look_at_all(struct round *r)
{
    struct share_stats all;
    struct reclaim_vm *m;
    uint64_t taken = 0;

    share_stats(&all);
    reclaim_for_each(m)
    {
        uint64_t held = reclaim_held(m->p2m, &all, NULL);

        m->came_down = m->excess != 0 ? above(m->held, held) : 0;
        taken += m->came_down;
        spin_lock(&reclaim_lock);
        m->held = held;
        spin_unlock(&reclaim_lock);
        r->over += m->has_target ? above(held, m->target) : 0;
        r->under += m->has_target ? above(m->target, held) : 0;
    }
    reclaim_note_taken(taken);
}

/* A part of `whole`, rounded up, but not more than `most`. */
static uint64_t portion(uint64_t whole, uint64_t mine, uint64_t all, uint64_t most)
{
    if (whole >= all) {
        return most;
    }
    /* Beyond 16 TiB of memory, by groups of pages. */
    for (; (whole | all) >> 32 != 0; whole >>= 1, all >>= 1) {}
    return MIN((whole * mine + all - 1) / all, most);
}

static void divide(const struct round *r, struct reclaim_vm *m, enum reclaim_rule *rule)
{
    uint64_t over = m->has_target ? above(m->held, m->target) : 0;
    uint64_t under = m->has_target ? above(m->target, m->held) : 0;
    uint64_t excess = portion(r->lacks, over, r->over, over), room = 0;

    *rule = RULE_ABOVE_TARGET;
    if (above(m->held, m->max) > excess) {
        excess = above(m->held, m->max);
        *rule = RULE_ABOVE_MAX;
    }
    if (excess == 0) {
        room = portion(r->lends, under, r->under, under);
        *rule = RULE_BELOW_TARGET;
    }
    spin_lock(&reclaim_lock);
    m->excess = excess;
    m->room = room;
    spin_unlock(&reclaim_lock);
}

/* ---- By which means ---- */

static void note_order(const struct round *r, struct reclaim_vm *m, unsigned nr,
                       enum reclaim_rule rule, const struct reclaim_order *o,
                       const struct reclaim_answer *a, uint64_t began_ns)
{
    uint64_t now = env_now_ns();
    struct reclaim_record rec = {
        .first_ns = began_ns,
        .time_ns = began_ns,
        .orders = 1,
        .owner = m->owner,
        .rule = rule,
        .state = r->level.state,
        .means = means[nr]->name,
        .cause = m->cause,
        .why = a->why,
        .free = r->free,
        .min_free = r->level.min_free,
        .held = m->held,
        .target = m->target,
        .active = m->active,
        .shares = m->shares,
        .asked = rule == RULE_BELOW_TARGET ? o->room : o->excess,
        .taken = a->taken,
        .pending = a->pending,
        .cost_ns = above(now, began_ns),
    };

    str_copy(rec.name, sizeof(rec.name), m->name);
    m->record[nr] = reclaim_write_record(&rec, m->record[nr]);
}

static bool may(const struct reclaim_means *w, unsigned actions, bool deaf)
{
    return (actions & w->action) || (w->for_the_deaf && deaf && (actions & MEM_DO_PAGE_DEAF));
}

/* Ask all means for m, one after the other. */
static void ask(struct round *r, struct reclaim_vm *m, enum reclaim_rule rule)
{
    unsigned actions = rule == RULE_ABOVE_MAX ? ~0u : r->level.actions;
    uint64_t limit = rule == RULE_ABOVE_MAX ? m->max : m->target;
    uint64_t rest = m->excess, pending = 0, credit = m->came_down;
    bool deaf = false;

    for (unsigned i = 0; i < nr_means; i++) {
        const struct reclaim_order o = {
            .excess = may(means[i], actions, deaf) ? rest : 0,
            .room = m->room,
            .target = m->target,
            .actions = actions,
            .elapsed_ns = r->elapsed_ns,
            .deaf = deaf,
        };
        struct reclaim_answer a = {0};
        uint64_t began = env_now_ns(), counts;

        means[i]->order(m->p2m, &o, &a);
        deaf = deaf || a.deaf;
        pending += a.pending;
        counts = (actions & BY_FORCE) ? MIN(a.pending, credit) : a.pending;
        credit -= MIN(credit, counts);
        rest = above(rest, a.taken + counts);
        if (rest != 0) {
            /* Not below its limit, by what came meanwhile. */
            rest = MIN(rest, above(reclaim_held(m->p2m, &r->all, NULL), limit));
        }
        if (o.excess != 0 || (o.room != 0 && a.taken != 0)) {
            note_order(r, m, i, rule, &o, &a, began);
            r->orders++;
        }
    }
    spin_lock(&reclaim_lock);
    m->pending = pending;
    spin_unlock(&reclaim_lock);
    r->pending += pending;
    r->excess += m->excess;
    r->room += m->room;
}

bool reclaim_carry(void)
{
    uint64_t now = env_now_ns();
    struct round r = {
        .free = buddy_free_frames(),
        .elapsed_ns = carried_ns != 0 ? above(now, carried_ns) : SECOND_NS,
    };
    struct reclaim_vm *m;

    carried_ns = now;
    reclaim_level(&r.level);
    r.lacks = r.level.takes ? above(r.level.goal, r.free) : 0;
    r.lends = above(r.free, r.level.lend_above);
    look_at_all(&r);
    reclaim_for_each(m)
    {
        enum reclaim_rule rule;

        divide(&r, m, &rule);
        ask(&r, m, rule);
    }
    reclaim_note_orders(r.orders, r.pending);
    return r.excess != 0 || r.room != 0;
}
