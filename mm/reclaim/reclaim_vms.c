/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Who takes part in reclaiming: the table of VMs, and their numbers for others. reclaim_lock guards the
 * table and what other threads read of an entry; nothing is called with it held.
 */
#include "kernel/lib/string.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/reclaim_internal.h"
#include "mm/slab.h"

struct spinlock reclaim_lock = SPINLOCK_INIT(RANK_RECLAIM, "reclaim");

static struct reclaim_vm *table[RECLAIM_MAX_VMS]; /* reclaim_lock */
static unsigned table_end;                        /* none behind; reclaim_lock */
static uint64_t generation;                       /* atomic */

uint64_t reclaim_generation(void)
{
    return __atomic_load_n(&generation, __ATOMIC_RELAXED);
}

static void changed(void)
{
    __atomic_fetch_add(&generation, 1, __ATOMIC_RELAXED);
}

/* ---- Joining and leaving ---- */

static bool enter(struct reclaim_vm *m)
{
    unsigned slot = 0;

    spin_lock(&reclaim_lock);
    while (slot < RECLAIM_MAX_VMS && table[slot] != NULL) {
        slot++;
    }
    if (slot < RECLAIM_MAX_VMS) {
        m->slot = slot;
        table[slot] = m;
        table_end = MAX(table_end, slot + 1);
        m->p2m->reclaim = m;
    }
    spin_unlock(&reclaim_lock);
    return slot < RECLAIM_MAX_VMS;
}

enum hv_err reclaim_join(struct p2m *p, const struct reclaim_setup *s)
{
    struct reclaim_vm *m = env_may_allocate("reclaim") ? kmalloc(sizeof(*m), p->owner) : NULL;
    enum hv_err err;

    if (m == NULL) {
        return HV_ENOMEM;
    }
    *m = (struct reclaim_vm){
        .p2m = p,
        .owner = p->owner,
        .memory = s->memory,
        .min = s->min,
        .max = MAX(s->max, s->min),
        .shares = s->shares,
    };
    str_copy(m->name, sizeof(m->name), s->name);
    err = sample_create(p, s->seed, &m->sample);
    if (err == HV_OK && !enter(m)) {
        sample_destroy(m->sample);
        err = HV_EBUSY;
    }
    if (err != HV_OK) {
        kfree(m);
        return err;
    }
    changed();
    return HV_OK;
}

void reclaim_change(struct p2m *p, uint64_t min, uint64_t max, uint64_t shares)
{
    spin_lock(&reclaim_lock);
    if (p->reclaim != NULL) {
        p->reclaim->min = min;
        p->reclaim->max = MAX(max, min);
        p->reclaim->shares = shares;
    }
    spin_unlock(&reclaim_lock);
    changed();
}

static bool is_used(struct reclaim_vm *m)
{
    spin_lock(&reclaim_lock);
    bool used = m->users != 0;
    spin_unlock(&reclaim_lock);
    return used;
}

void reclaim_leave(struct p2m *p)
{
    struct reclaim_vm *m;

    spin_lock(&reclaim_lock);
    m = p->reclaim;
    p->reclaim = NULL;
    if (m != NULL) {
        m->leaving = true;
        table[m->slot] = NULL;
    }
    spin_unlock(&reclaim_lock);
    if (m == NULL) {
        return;
    }
    while (is_used(m)) {
        env_relax();
    }
    __atomic_store_n(&p->blocked, false, __ATOMIC_RELAXED);
    sample_destroy(m->sample);
    kfree(m);
    changed();
}

struct reclaim_vm *reclaim_next(unsigned after)
{
    struct reclaim_vm *m = NULL;

    spin_lock(&reclaim_lock);
    for (unsigned i = after + 1; m == NULL && i < table_end; i++) {
        m = table[i];
    }
    if (m != NULL) {
        m->users++;
    }
    spin_unlock(&reclaim_lock);
    return m;
}

void reclaim_release(struct reclaim_vm *m)
{
    spin_lock(&reclaim_lock);
    m->users--;
    spin_unlock(&reclaim_lock);
}

/* ---- Numbers ---- */

uint64_t reclaim_held(struct p2m *p, const struct share_stats *all, uint64_t *granted)
{
    uint64_t pages = all->pages - MIN(all->zero, all->pages);
    uint64_t frames = MIN(all->common, pages);
    struct p2m_counters c;

    p2m_counters(p, &c);
    if (granted != NULL) {
        *granted = c.granted;
    }
    return c.consumed + c.zip_frames + (pages != 0 ? MIN(c.shared * frames / pages, c.shared) : 0);
}

bool reclaim_is_blocked(const struct p2m *p)
{
    return __atomic_load_n(&p->blocked, __ATOMIC_RELAXED);
}

bool reclaim_numbers(struct p2m *p, struct reclaim_numbers *out)
{
    struct share_stats all;
    uint64_t held;

    *out = (struct reclaim_numbers){0};
    share_stats(&all);
    held = reclaim_held(p, &all, NULL);
    spin_lock(&reclaim_lock);
    const struct reclaim_vm *m = p->reclaim;
    if (m != NULL) {
        *out = (struct reclaim_numbers){
            .memory = m->memory,
            .min = m->min,
            .max = m->max,
            .shares = m->shares,
            .held = held,
            .target = m->has_target ? m->target : m->max,
            .active = m->active,
            .touched = m->touched,
            .excess = m->excess,
            .pending = m->pending,
            .blocked = reclaim_is_blocked(p),
        };
        sample_estimate(m->sample, &out->estimate);
        sample_stats(m->sample, &out->sampled);
    }
    spin_unlock(&reclaim_lock);
    return m != NULL;
}
