/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Boot-time memory layout. One processor, before any allocation; the lists of kept ranges are
 * scratch of the boot and stay constant afterwards.
 */
#include "kernel/memory.h"

#include "boot/bootinfo.h"
#include "boot/entry.h"
#include "kernel/log.h"
#include "mm/buddy.h"

#define LOW_RESERVED MIB(1)
#define MIN_FREE_BYTES MIB(16)

/* RAM in use, as whole pages; sorted and disjoint after sort_kept. */
struct kept {
    uint64_t from, to;
};

static struct kept kept[BOOT_MAX_MODULES + 4];
static unsigned nr_kept;
static uint64_t nr_frames; /* that the frame table describes */

static void keep(uint64_t base, uint64_t size)
{
    if (size != 0) {
        kept[nr_kept++] =
            (struct kept){ALIGN_DOWN(base, PAGE_SIZE), ALIGN_UP(base + size, PAGE_SIZE)};
    }
}

/* Sort by start and join what overlaps: modules may share pages. */
static void sort_kept(void)
{
    unsigned n = 0;

    for (unsigned i = 1; i < nr_kept; i++) {
        struct kept k = kept[i];
        unsigned at = i;

        for (; at > 0 && kept[at - 1].from > k.from; at--) {
            kept[at] = kept[at - 1];
        }
        kept[at] = k;
    }
    for (unsigned i = 0; i < nr_kept; i++) {
        if (n > 0 && kept[i].from <= kept[n - 1].to) {
            kept[n - 1].to = MAX(kept[n - 1].to, kept[i].to);
        } else {
            kept[n++] = kept[i];
        }
    }
    nr_kept = n;
}

/* Call fn for each piece of usable RAM in [from, to), in order; `in_use` says which kind. */
static void each_piece(const struct boot_info *info, uint64_t from, uint64_t to,
                       void (*fn)(uint64_t base, uint64_t end, bool in_use, void *arg), void *arg)
{
    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        const struct boot_range *r = &info->ranges[i];
        uint64_t at = MAX(ALIGN_UP(r->base, PAGE_SIZE), from);
        uint64_t end = MIN(ALIGN_DOWN(r->base + r->size, PAGE_SIZE), to);

        if (r->type != BOOT_RANGE_USABLE) {
            continue;
        }
        for (unsigned k = 0; k < nr_kept && at < end; k++) {
            if (kept[k].to <= at || kept[k].from >= end) {
                continue;
            }
            if (kept[k].from > at) {
                fn(at, kept[k].from, false, arg);
            }
            fn(MAX(at, kept[k].from), MIN(end, kept[k].to), true, arg);
            at = MIN(end, kept[k].to);
        }
        if (at < end) {
            fn(at, end, false, arg);
        }
    }
}

static void find_largest(uint64_t base, uint64_t end, bool in_use, void *arg)
{
    struct kept *best = arg;

    if (!in_use && end - base > best->to - best->from) {
        *best = (struct kept){base, end};
    }
}

static void hand_over(uint64_t base, uint64_t end, bool in_use, void *arg)
{
    (void)arg;
    if (in_use) {
        buddy_reserve_host(MFN(base >> PAGE_SHIFT), (end - base) >> PAGE_SHIFT);
    } else {
        buddy_add(MFN(base >> PAGE_SHIFT), (end - base) >> PAGE_SHIFT);
    }
}

void memory_summary(const struct boot_info *info, struct memory_summary *out)
{
    *out = (struct memory_summary){0};
    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        const struct boot_range *r = &info->ranges[i];
        uint64_t end = r->base + r->size;

        if (r->type != BOOT_RANGE_USABLE) {
            continue;
        }
        out->nr_ranges++;
        out->usable_bytes += r->size;
        if (end > BOOT_MAP_LIMIT) {
            out->above_4g_bytes += end - MAX(r->base, BOOT_MAP_LIMIT);
        }
        if (nr_frames != 0 && end > nr_frames << PAGE_SHIFT) {
            out->unused_bytes += end - MAX(r->base, nr_frames << PAGE_SHIFT);
        }
    }
}

static uint64_t end_of_ram(const struct boot_info *info)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < info->nr_ranges; i++) {
        if (info->ranges[i].type == BOOT_RANGE_USABLE) {
            end = MAX(end, info->ranges[i].base + info->ranges[i].size);
        }
    }
    return end;
}

static enum hv_err too_little(const struct boot_info *info, uint64_t have)
{
    struct memory_summary m;

    memory_summary(info, &m);
    log_error("too little memory: this machine has %llu MiB, of which %llu MiB in one piece are "
              "left below 4 GiB after image and modules; at least %llu MiB are needed",
              (unsigned long long)(m.usable_bytes >> 20), (unsigned long long)(have >> 20),
              (unsigned long long)(MIN_FREE_BYTES >> 20));
    return HV_ENOMEM;
}

enum hv_err memory_init_low(const struct boot_info *info)
{
    struct kept room = {0, 0};

    keep(0, LOW_RESERVED); /* log ring, trampoline, and what firmware thinks of as its own */
    keep(kernel_phys_base, (uint64_t)(__image_end - __image_start));
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        keep(info->modules[i].base, info->modules[i].size);
    }
    sort_kept();

    each_piece(info, 0, BOOT_MAP_LIMIT, find_largest, &room);
    uint64_t have = room.to - room.from;

    if (have < MIN_FREE_BYTES) {
        return too_little(info, have);
    }
    /* The frame table must lie where the early tables reach; RAM that it then cannot describe stays
     * unused (from about 700 GiB on). */
    nr_frames = end_of_ram(info) >> PAGE_SHIFT;
    while (ALIGN_UP(buddy_table_bytes(nr_frames), PAGE_SIZE) > have - MIN_FREE_BYTES) {
        nr_frames -= nr_frames / 16;
        if (nr_frames << PAGE_SHIFT <= room.to) {
            return too_little(info, have);
        }
    }
    uint64_t table = ALIGN_UP(buddy_table_bytes(nr_frames), PAGE_SIZE);
    uint64_t table_pa = room.to - table;
    enum hv_err err = buddy_init(MFN(table_pa >> PAGE_SHIFT), nr_frames);

    if (err != HV_OK) {
        return err;
    }
    keep(table_pa, table);
    sort_kept();
    each_piece(info, 0, MIN(BOOT_MAP_LIMIT, nr_frames << PAGE_SHIFT), hand_over, NULL);
    return HV_OK;
}

void memory_init_high(const struct boot_info *info)
{
    struct memory_summary m;

    each_piece(info, BOOT_MAP_LIMIT, MAX(BOOT_MAP_LIMIT, nr_frames << PAGE_SHIFT), hand_over, NULL);
    memory_summary(info, &m);
    if (m.unused_bytes != 0) {
        log_warn("memory: %llu MiB stay unused: the frame table does not fit below 4 GiB",
                 (unsigned long long)(m.unused_bytes >> 20));
    }
}
