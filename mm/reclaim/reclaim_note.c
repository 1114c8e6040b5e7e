/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happened to pages, a ring; see reclaim.h. A writer takes a number, and with it a slot; it marks the
 * slot as being written, fills it, and enters the number. A reader takes a slot only if the number is
 * the same before and after. The contents are stored with release and loaded with acquire, so that
 * neither look at the number can move past them; a fence would do as well, but ThreadSanitizer knows none.
 */
#include "mm/env.h"
#include "mm/reclaim/reclaim.h"

struct slot {
    uint64_t nr;    /* 0: being written (atomic) */
    uint64_t where; /* owner, event, gfn */
    uint64_t time_ns, detail;
};
static struct slot ring[RECLAIM_NOTES];
static uint64_t newest; /* number given last (atomic) */

#define EVENT_SHIFT 40u
#define REGION_FLAG BIT(47)
#define OWNER_SHIFT 48u
_Static_assert(NR_PAGE_EVENTS <= 128, "an event is 7 bits");

static uint64_t where(uint32_t owner, gfn_t gfn, enum page_event event)
{
    return (uint64_t)owner << OWNER_SHIFT | (uint64_t)event << EVENT_SHIFT |
           (gfn.n & (BIT(EVENT_SHIFT) - 1));
}

static void note(uint64_t at, uint64_t detail)
{
    uint64_t nr = __atomic_add_fetch(&newest, 1, __ATOMIC_RELAXED);
    struct slot *s = &ring[nr % RECLAIM_NOTES];

    __atomic_store_n(&s->nr, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&s->where, at, __ATOMIC_RELEASE);
    __atomic_store_n(&s->time_ns, env_now_ns(), __ATOMIC_RELEASE);
    __atomic_store_n(&s->detail, detail, __ATOMIC_RELEASE);
    __atomic_store_n(&s->nr, nr, __ATOMIC_RELEASE);
}

void reclaim_note_page(uint32_t owner, gfn_t gfn, enum page_event event, uint64_t detail)
{
    note(where(owner, gfn, event), detail);
}

void reclaim_note_pages(uint32_t owner, gfn_t gfn, unsigned order, enum page_event event,
                        uint64_t detail)
{
    note(where(owner, gfn, event) | (order != ORDER_4K ? REGION_FLAG : 0), detail);
}

/* Is a note at `at` about the page? */
static bool is_about(uint64_t at, uint32_t owner, gfn_t gfn)
{
    uint64_t page = at & (BIT(EVENT_SHIFT) - 1);

    return at >> OWNER_SHIFT == owner &&
           (at & REGION_FLAG ? page >> ORDER_2M == gfn.n >> ORDER_2M : page == gfn.n);
}

/* False: that number is overwritten, or being written. */
static bool read_slot(uint64_t nr, uint64_t *at, struct page_note *out)
{
    struct slot *s = &ring[nr % RECLAIM_NOTES];

    if (__atomic_load_n(&s->nr, __ATOMIC_ACQUIRE) != nr) {
        return false;
    }
    *at = __atomic_load_n(&s->where, __ATOMIC_ACQUIRE);
    out->nr = nr;
    out->time_ns = __atomic_load_n(&s->time_ns, __ATOMIC_ACQUIRE);
    out->detail = __atomic_load_n(&s->detail, __ATOMIC_ACQUIRE);
    return __atomic_load_n(&s->nr, __ATOMIC_RELAXED) == nr;
}

bool reclaim_page_note(uint32_t owner, gfn_t gfn, uint64_t before, struct page_note *out)
{
    uint64_t nr = __atomic_load_n(&newest, __ATOMIC_RELAXED), at;

    if (before != 0) {
        nr = MIN(nr, before - 1);
    }
    for (unsigned i = 0; i < RECLAIM_NOTES && nr != 0; i++, nr--) {
        struct page_note n;

        if (read_slot(nr, &at, &n) && is_about(at, owner, gfn)) {
            *out = n;
            out->event = (enum page_event)(at >> EVENT_SHIFT & INT8_MAX);
            out->region = (at & REGION_FLAG) != 0;
            return true;
        }
    }
    return false;
}
