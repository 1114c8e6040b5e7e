/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The records of decisions, a ring; see reclaim.h. Written by the carrier's thread, read by others, under
 * reclaim_lock. Number n is in slot n modulo the ring's size until another takes its place.
 */
#include "mm/reclaim/reclaim_internal.h"

static struct reclaim_record ring[RECLAIM_RECORDS]; /* reclaim_lock */
static uint64_t newest;                             /* its number; reclaim_lock */

static struct reclaim_record *slot_of(uint64_t nr)
{
    return &ring[nr % RECLAIM_RECORDS];
}

/* Two orders that only numbers tell apart. */
static bool alike(const struct reclaim_record *a, const struct reclaim_record *b)
{
    return a->owner == b->owner && a->rule == b->rule && a->state == b->state &&
           a->means == b->means && a->cause == b->cause && a->why == b->why;
}

uint64_t reclaim_write_record(const struct reclaim_record *r, uint64_t last)
{
    struct reclaim_record *at;

    spin_lock(&reclaim_lock);
    at = slot_of(last);
    if (last != 0 && at->nr == last && alike(at, r)) {
        struct reclaim_record sum = *r;

        sum.nr = last;
        sum.first_ns = at->first_ns;
        sum.orders += at->orders;
        sum.taken += at->taken;
        sum.cost_ns += at->cost_ns;
        *at = sum;
    } else {
        at = slot_of(++newest);
        *at = *r;
        at->nr = newest;
    }
    last = at->nr;
    spin_unlock(&reclaim_lock);
    return last;
}

bool reclaim_record(uint32_t owner, uint64_t before, struct reclaim_record *out)
{
    bool found = false;

    spin_lock(&reclaim_lock);
    uint64_t nr = before == 0 ? newest : MIN(before - 1, newest);

    for (unsigned i = 0; i < RECLAIM_RECORDS && nr != 0 && !found; i++, nr--) {
        const struct reclaim_record *r = slot_of(nr);

        if (r->nr != nr) {
            break; /* older ones are overwritten */
        }
        if (owner == 0 || r->owner == owner) {
            *out = *r;
            found = true;
        }
    }
    spin_unlock(&reclaim_lock);
    return found;
}
