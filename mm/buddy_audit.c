/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Counting the machine's frames: statistics from the counters, and the audit that recounts them
 * from the frame table and the lists. Both stop the allocator on every processor meanwhile.
 * Callers: the shell, telemetry, tests, mm/audit.c.
 */
#include "mm/buddy_internal.h"
#include "mm/env.h"
#include "mm/frame.h"

/* Sums of the counters; everything locked. */
static void sum_counters(unsigned nr_cpus, struct buddy_stats *out)
{
    uint64_t low = 0;

    *out = (struct buddy_stats){.total = buddy_state.total,
                                .total_high = buddy_state.total_high,
                                .table_bytes = buddy_table_bytes(frame_nr),
                                .table = mfn_hpa(env_ptr_frame(frame_table))};
    for (unsigned use = 0; use < NR_FRAME_USES; use++) {
        int64_t used = buddy_state.used[use];

        for (unsigned i = 0; i < nr_cpus; i++) {
            used += buddy_caches[i].used[use];
        }
        out->used[use] = (uint64_t)used;
    }
    for (unsigned i = 0; i < NR_ZONES; i++) {
        const struct buddy_zone *z = &buddy_state.zone[i];

        for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
            out->free_blocks[order] += z->nr[order];
            out->free += z->nr[order] << order;
        }
        out->free_blocks[BUDDY_ASIDE_ORDER] += z->aside_nr;
        out->free += z->aside_nr << BUDDY_ASIDE_ORDER;
        if (i == ZONE_LOW) {
            low = out->free;
        }
    }
    out->free_high = out->free - low;
    for (unsigned i = 0; i < nr_cpus; i++) {
        out->free_blocks[0] += buddy_caches[i].nr;
        out->free += buddy_caches[i].nr;
    }
    out->used[FRAME_FREE] = out->free;
    out->used[FRAME_RESERVED] = frame_nr - out->total;
}

void buddy_stats(struct buddy_stats *out)
{
    unsigned nr = buddy_lock_all();

    sum_counters(nr, out);
    buddy_unlock_all(nr);
}

void buddy_count_owner(uint32_t owner, uint64_t out[NR_FRAME_USES])
{
    unsigned nr = buddy_lock_all();

    for (unsigned use = 0; use < NR_FRAME_USES; use++) {
        out[use] = 0;
    }
    for (uint64_t at = 0; at < frame_nr;) {
        const struct frame *f = frame_of(MFN(at));

        if (f->owner == owner) {
            out[f->use] += BIT(frame_order(f));
        }
        at += BIT(frame_order(f));
    }
    buddy_unlock_all(nr);
}

const char *buddy_use_name(enum frame_use use)
{
    static const char *const names[NR_FRAME_USES] = {
        [FRAME_RESERVED] = "reserved", [FRAME_FREE] = "free",     [FRAME_HOST] = "host",
        [FRAME_GUEST] = "guest",       [FRAME_SHARED] = "shared", [FRAME_P2M] = "p2m",
        [FRAME_VIEW] = "view",         [FRAME_VM] = "VM",         [FRAME_ZIP] = "compressed",
        [FRAME_RETIRED] = "retired",
    };

    return (unsigned)use < NR_FRAME_USES ? names[use] : "?";
}

static bool agrees(const char *what, uint64_t counted, uint64_t kept)
{
    if (counted != kept) {
        env_log("audit: %s: counted %llu, counter says %llu", what, (unsigned long long)counted,
                (unsigned long long)kept);
    }
    return counted == kept;
}

/* Every entry of a list is what the list says, and there are as many as counted. */
static bool audit_list(uint32_t head, uint8_t order, uint64_t nr)
{
    uint32_t prev = FRAME_LINK_NONE;
    uint64_t counted = 0;

    for (uint32_t at = head; at != FRAME_LINK_NONE; at = frame_table[at].next) {
        const struct frame *f = &frame_table[at];

        if (f->use != FRAME_FREE || f->order != order || f->prev != prev) {
            env_log("audit: frame %#x in the list of order %#x has use %u order %#x", at, order,
                    f->use, f->order);
            return false;
        }
        prev = at;
        counted++;
    }
    return agrees("length of a free list", counted, nr);
}

static bool audit_lists(void)
{
    bool ok = true;

    for (unsigned i = 0; i < NR_ZONES; i++) {
        const struct buddy_zone *z = &buddy_state.zone[i];

        for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
            ok &= audit_list(z->head[order], (uint8_t)order, z->nr[order]);
            ok &= (z->nr[order] != 0) == ((z->avail >> order & 1) != 0);
        }
        ok &= audit_list(z->aside, BUDDY_ASIDE_ORDER | FRAME_ASIDE, z->aside_nr);
    }
    return ok;
}

static uint64_t kept_in_caches(unsigned nr_cpus)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < nr_cpus; i++) {
        sum += buddy_caches[i].nr;
    }
    return sum;
}

bool buddy_audit(void)
{
    uint64_t used[NR_FRAME_USES] = {0};
    uint64_t blocks[BUDDY_ORDERS] = {0};
    struct buddy_stats kept;
    unsigned nr = buddy_lock_all();
    bool ok = audit_lists();

    sum_counters(nr, &kept);
    for (uint64_t at = 0; at < frame_nr;) {
        const struct frame *f = frame_of(MFN(at));
        unsigned order = frame_order(f);

        if (f->use >= NR_FRAME_USES || order > BUDDY_MAX_ORDER || !IS_ALIGNED(at, BIT(order))) {
            env_log("audit: frame %#llx has use %u order %#x", (unsigned long long)at, f->use,
                    f->order);
            ok = false;
            break;
        }
        used[f->use] += BIT(order);
        if (f->use == FRAME_FREE) {
            blocks[order]++;
        }
        at += BIT(order);
    }
    ok &= agrees("frames in the free lists", kept.free - kept_in_caches(nr), buddy_state.nr_free);
    for (unsigned use = 0; use < NR_FRAME_USES; use++) {
        ok &= agrees(buddy_use_name((enum frame_use)use), used[use], kept.used[use]);
    }
    for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
        ok &= agrees("free blocks of an order", blocks[order], kept.free_blocks[order]);
    }
    buddy_unlock_all(nr);
    return ok;
}
