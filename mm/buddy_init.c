/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame allocator's start-up: an empty frame table, then what the machine has. Callers:
 * kernel/memory.c, at boot; nobody allocates meanwhile, but the locks are taken all the same.
 */
#include "mm/buddy_internal.h"
#include "mm/env.h"
#include "mm/frame.h"

uint64_t buddy_table_bytes(uint64_t nr_frames)
{
    return ALIGN_UP(nr_frames * sizeof(struct frame), PAGE_SIZE);
}

enum hv_err buddy_init(mfn_t table_mfn, uint64_t nr_frames)
{
    uint64_t pages = buddy_table_bytes(nr_frames) >> PAGE_SHIFT;

    if (nr_frames == 0 || nr_frames >= FRAME_LINK_NONE || table_mfn.n + pages > nr_frames) {
        return HV_ERANGE;
    }
    frame_table = env_frame_ptr(table_mfn);
    frame_nr = nr_frames;
    /* Zero is RESERVED, order 0. */
    for (uint64_t i = 0; i < pages; i++) {
        env_clear_page(env_frame_ptr(mfn_add(table_mfn, i)));
    }
    for (unsigned i = 0; i < NR_ZONES; i++) {
        struct buddy_zone *z = &buddy_state.zone[i];

        *z = (struct buddy_zone){.aside = FRAME_LINK_NONE};
        for (unsigned order = 0; order < BUDDY_ORDERS; order++) {
            z->head[order] = FRAME_LINK_NONE;
        }
    }
    for (unsigned i = 0; i < BUDDY_MAX_CPUS; i++) {
        buddy_caches[i] = (struct buddy_cache){.head = FRAME_LINK_NONE};
    }
    buddy_state.nr_bad = 0;
    buddy_state.total = 0;
    buddy_state.nr_free = 0;
    buddy_state.reserve = 0;
    buddy_state.total_high = 0;
    for (unsigned use = 0; use < NR_FRAME_USES; use++) {
        buddy_state.used[use] = 0;
    }
    buddy_reserve_host(table_mfn, pages);
    return HV_OK;
}

/* `nr` frames from mfn on, all in one zone, turned out to be RAM. */
static void count_ram(mfn_t mfn, uint64_t nr)
{
    buddy_state.total += nr;
    if (mfn.n >= LOW_FRAMES) {
        buddy_state.total_high += nr;
    }
}

void buddy_add(mfn_t first, uint64_t nr)
{
    uint64_t end = MIN(first.n + nr, frame_nr);
    uint64_t at = first.n;

    spin_lock(&buddy_state.lock);
    while (at < end) {
        unsigned order = 0;
        uint64_t run = 0;

        while (at + run < end && run < BIT(BUDDY_MAX_ORDER) &&
               frame_of(MFN(at + run))->use == FRAME_RESERVED) {
            run++;
        }
        if (run == 0) {
            at++;
            continue;
        }
        while (order < BUDDY_MAX_ORDER && IS_ALIGNED(at, BIT(order + 1)) && BIT(order + 1) <= run) {
            order++;
        }
        count_ram(MFN(at), BIT(order));
        buddy_block_free(MFN(at), order);
        at += BIT(order);
    }
    spin_unlock(&buddy_state.lock);
}

void buddy_reserve_host(mfn_t first, uint64_t nr)
{
    spin_lock(&buddy_state.lock);
    for (uint64_t at = first.n; at < MIN(first.n + nr, frame_nr); at++) {
        if (frame_of(MFN(at))->use == FRAME_RESERVED) {
            frame_set(MFN(at), FRAME_HOST, 0, OWNER_HOST);
            count_ram(MFN(at), 1);
            buddy_state.used[FRAME_HOST]++;
        }
    }
    spin_unlock(&buddy_state.lock);
}
