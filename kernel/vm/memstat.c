/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See memstat.h. Nobody else computes what esxtop's names mean. Callers: kernel/telemetry.c, the shell.
 */
#include "kernel/vm/memstat.h"

#include "arch/x86_64/clock.h"
#include "kernel/lib/string.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/largepages.h"
#include "kernel/vm/memwait.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/reclaim/policy.h"
#include "mm/reclaim/reclaim.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

#define MS_NS 1000000u
#define PER_MILLE 1000u

#define FIELD(t, k, u, w, member, sum)                                  \
    {                                                                   \
        .title = (t), .key = (k), .unit = (u), .width = (w),            \
        .offset = offsetof(struct memstat_vm, member), .adds_up = (sum) \
    }

const struct memstat_field memstat_fields[NR_MEMSTAT_FIELDS] = {
    FIELD("MEMSZ", "memsz", UNIT_PAGES, 7, memsz, true),
    FIELD("GRANT", "grant", UNIT_PAGES, 7, grant, true),
    FIELD("CNSM", "cnsm", UNIT_PAGES, 7, cnsm, true),
    FIELD("SZTGT", "sztgt", UNIT_PAGES, 7, sztgt, true),
    FIELD("TCHD", "tchd", UNIT_PAGES, 7, tchd, true),
    FIELD("%ACTV", "active", UNIT_PER_MILLE, 5, active, false),
    FIELD("%ACTVS", "active_slow", UNIT_PER_MILLE, 5, active_slow, false),
    FIELD("%ACTVF", "active_fast", UNIT_PER_MILLE, 5, active_fast, false),
    FIELD("%ACTVN", "active_next", UNIT_PER_MILLE, 5, active_next, false),
    FIELD("MCTL?", "mctl", UNIT_FLAG, 5, mctl, false),
    FIELD("MCTLSZ", "mctlsz", UNIT_PAGES, 7, mctlsz, true),
    FIELD("MCTLTGT", "mctltgt", UNIT_PAGES, 7, mctltgt, true),
    FIELD("MCTLMAX", "mctlmax", UNIT_PAGES, 7, mctlmax, true),
    FIELD("SHRD", "shrd", UNIT_PAGES, 7, shrd, true),
    FIELD("SHRDSVD", "shrdsvd", UNIT_PAGES, 7, shrdsvd, true),
    FIELD("ZERO", "zero", UNIT_PAGES, 7, zero, true),
    FIELD("COWH", "cowh", UNIT_PAGES, 7, cowh, true),
    FIELD("LARGE", "large_shareable", UNIT_PAGES, 7, large_shareable, true),
    FIELD("SWCUR", "swcur", UNIT_PAGES, 7, swcur, true),
    FIELD("SWTGT", "swtgt", UNIT_PAGES, 7, swtgt, true),
    FIELD("SWR/s", "swr", UNIT_RATE, 6, swr, true),
    FIELD("SWW/s", "sww", UNIT_RATE, 6, sww, true),
    FIELD("CACHESZ", "cachesz", UNIT_PAGES, 7, cachesz, true),
    FIELD("CACHEUSD", "cacheusd", UNIT_PAGES, 8, cacheusd, true),
    FIELD("ZIPPED", "zipped", UNIT_PAGES, 7, zipped, true),
    FIELD("ZIP/s", "zip", UNIT_RATE, 6, zip, true),
    FIELD("UNZIP/s", "unzip", UNIT_RATE, 7, unzip, true),
    FIELD("%LAT_M", "lat_m", UNIT_PER_MILLE, 6, latency, false),
    FIELD("SCAN/s", "scan", UNIT_NUMBER, 7, scan, true),
    FIELD("MERGE/s", "merge", UNIT_NUMBER, 7, merge, true),
    FIELD("BREAK/s", "broken", UNIT_NUMBER, 7, broken, true),
    FIELD("FAULT/s", "faults", UNIT_NUMBER, 7, faults, true),
    FIELD("1G", "large_1g", UNIT_NUMBER, 4, large_1g, true),
    FIELD("2M", "large_2m", UNIT_NUMBER, 6, large_2m, true),
    FIELD("4K", "small_4k", UNIT_NUMBER, 8, small_4k, true),
    FIELD("OVHD/KB", "ovhd", UNIT_BYTES, 8, overhead, true),
    FIELD("MIN", "min", UNIT_PAGES, 7, min, true),
    FIELD("MAX", "max", UNIT_PAGES, 7, max, true),
    FIELD("SHARES", "shares", UNIT_NUMBER, 7, shares, true),
};

static struct spinlock past_lock = SPINLOCK_INIT(RANK_CALL, "memory rates");
static int64_t overcommit[3]; /* averages in 1/1000, times 2^16 (atomic) */

/* ---- One VM ---- */

/* What sharing saves a VM: its shared pages but for its part of the frames that they stand on, which
 * all pages on shared frames bear alike. The VMs' savings and the zero frame make the host's. */
static uint64_t saved_by(const struct p2m_counters *p, const struct share_stats *host)
{
    uint64_t pages = host->pages - MIN(host->zero, host->pages);
    uint64_t frames = MIN(host->common, pages);

    return p->zero + p->shared - (pages != 0 ? MIN(p->shared * frames / pages, p->shared) : 0);
}

/* For how long its vCPUs stood still for want of their pages: awake, while the p2m decompressed or copied
 * them, and asleep, while they were read or there was no frame. */
static uint64_t stalled_ns(const struct vm *vm, const struct p2m_counters *p)
{
    uint64_t sum = p->stalled_ns;

    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        sum +=
            vm->vcpus[i] != NULL ? __atomic_load_n(&vm->vcpus[i]->stalled_ns, __ATOMIC_RELAXED) : 0;
    }
    return sum;
}

static void fill_memory(const struct p2m_counters *p, const struct share_stats *host,
                        struct memstat_vm *out)
{
    uint64_t large = p->large_2m * BIT(ORDER_2M) + p->large_1g * BIT(ORDER_1G);

    out->grant = p->granted;
    out->shrd = p->shared + p->zero;
    out->shrdsvd = saved_by(p, host);
    out->cnsm = p->granted - MIN(out->shrdsvd, p->granted);
    out->zero = p->zero;
    out->large_1g = p->large_1g;
    out->large_2m = p->large_2m;
    out->small_4k = p->granted - MIN(large, p->granted);
    out->swcur = p->swapped;
    out->zipped = p->compressed;
    out->cacheusd = p->zip_frames;
}

static void fill_balloon(struct vm *vm, struct memstat_vm *out)
{
    struct balloon_state b;

    ballooning_state(vm, &b);
    out->mctl = b.present;
    out->mctlsz = b.size;
    out->mctltgt = b.target;
    out->mctlmax = b.max;
}

static uint64_t per_mille(unsigned part)
{
    return (uint64_t)part * PER_MILLE / SAMPLE_ONE;
}

/* What the reclaimer knows of it. */
static void fill_reclaim(struct vm *vm, struct memstat_vm *out)
{
    struct reclaim_numbers n;
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);

    if (p == NULL) {
        return;
    }
    if (reclaim_numbers(p, &n)) {
        out->min = n.min;
        out->max = n.max;
        out->shares = n.shares;
        out->sztgt = n.target;
        out->tchd = n.touched;
        out->active = per_mille(n.estimate.active);
        out->active_slow = per_mille(n.estimate.slow);
        out->active_fast = per_mille(n.estimate.fast);
        out->active_next = per_mille(n.estimate.next);
    }
    share_release(member);
}

static void fill_rates(struct vm *vm, struct memstat_vm *out)
{
    uint64_t rate[NR_MEMSTAT_COUNTS];

    spin_lock(&past_lock);
    memcpy(rate, vm->past.rate, sizeof(rate));
    spin_unlock(&past_lock);
    out->swr = rate[COUNT_SWAPPED_IN];
    out->sww = rate[COUNT_SWAPPED_OUT];
    out->zip = rate[COUNT_ZIPPED];
    out->unzip = rate[COUNT_UNZIPPED];
    out->scan = rate[COUNT_SCANNED];
    out->merge = rate[COUNT_MERGED];
    out->broken = rate[COUNT_BROKEN];
    out->faults = rate[COUNT_FAULTS];
    out->latency = MIN(rate[COUNT_STALLED_NS] / MS_NS / vm->nr_vcpus, (uint64_t)PER_MILLE);
}

void memstat_of_vm(struct vm *vm, struct memstat_vm *out)
{
    struct p2m_counters p;
    struct view_stats view;
    struct share_stats share;
    struct scan_stats scan;
    struct swapping_numbers swap;

    *out = (struct memstat_vm){.memsz = vm->config.memory_bytes >> PAGE_SHIFT};
    str_copy(out->name, sizeof(out->name), vm->config.name);
    vm_memory_counters(vm, &p, &view);
    share_stats(&share);
    fill_memory(&p, &share, out);
    sharing_stats(vm, &scan);
    out->cowh = scan.hints;
    out->large_shareable = scan.under_large;
    fill_balloon(vm, out);
    fill_reclaim(vm, out);
    swapping_numbers(vm, &swap);
    out->swtgt = p.swapped + swap.owed;
    out->cachesz = swap.cache_max;
    out->overhead = vm_overhead_bytes(vm);
    fill_rates(vm, out);
}

/* ---- Ticks ---- */

static void count_vm(struct vm *vm, uint64_t count[NR_MEMSTAT_COUNTS])
{
    struct p2m_counters p;
    struct view_stats view;
    struct scan_stats scan;

    vm_memory_counters(vm, &p, &view);
    sharing_stats(vm, &scan);
    count[COUNT_SWAPPED_IN] = p.swapped_in;
    count[COUNT_SWAPPED_OUT] = p.swapped_out;
    count[COUNT_ZIPPED] = p.zipped;
    count[COUNT_UNZIPPED] = p.unzipped;
    count[COUNT_SCANNED] = scan.pages;
    count[COUNT_MERGED] = p.merged;
    count[COUNT_BROKEN] = p.broken;
    count[COUNT_FAULTS] = p.faults_4k + p.faults_2m;
    count[COUNT_STALLED_NS] = stalled_ns(vm, &p);
}

/* The first time, what has grown since the VM started; a restart begins to count anew: no growth then. */
static bool tick_vm(struct vm *vm, void *arg)
{
    const uint64_t *now_ns = arg;
    uint64_t count[NR_MEMSTAT_COUNTS];
    struct memstat_past *past = &vm->past;

    count_vm(vm, count);
    spin_lock(&past_lock);
    uint64_t since_ns =
        past->time_ns != 0 ? past->time_ns : __atomic_load_n(&vm->started_ns, __ATOMIC_RELAXED);
    uint64_t ms = (*now_ns - MIN(since_ns, *now_ns)) / MS_NS;
    bool known = since_ns != 0 && ms != 0;

    for (unsigned i = 0; i < NR_MEMSTAT_COUNTS; i++) {
        uint64_t more = count[i] - MIN(past->count[i], count[i]);

        past->rate[i] = known ? more * PER_MILLE / ms : 0;
        past->count[i] = count[i];
    }
    past->time_ns = *now_ns;
    spin_unlock(&past_lock);
    return true;
}

static bool add_memory(struct vm *vm, void *arg)
{
    uint64_t *pages = arg;

    *pages += vm_has_ended(vm) ? 0 : vm->config.memory_bytes >> PAGE_SHIFT;
    return true;
}

/* Averages that forget by a 60th, 300th, 900th a second. */
static void tick_overcommit(void)
{
    static const int64_t seconds[ARRAY_SIZE(overcommit)] = {60, 300, 900};
    struct buddy_stats s;
    uint64_t pages = 0;

    buddy_stats(&s);
    vm_for_each(add_memory, &pages);
    uint64_t available = s.total - MIN(s.used[FRAME_HOST], s.total - 1);
    uint64_t now = pages > available ? (pages - available) * PER_MILLE / available : 0;

    for (unsigned i = 0; i < ARRAY_SIZE(overcommit); i++) {
        int64_t was = __atomic_load_n(&overcommit[i], __ATOMIC_RELAXED);

        __atomic_store_n(&overcommit[i], was + (((int64_t)now << 16) - was) / seconds[i],
                         __ATOMIC_RELAXED);
    }
}

void memstat_tick(void)
{
    uint64_t now_ns = clock_now_ns();

    vm_for_each(tick_vm, &now_ns);
    tick_overcommit();
}

/* ---- The host ---- */

static bool add_vm(struct vm *vm, void *arg)
{
    struct memstat_host *h = arg;
    struct memstat_vm m;

    memstat_of_vm(vm, &m);
    h->vms++;
    h->swap_curr += m.swcur;
    h->swap_tgt += m.swtgt;
    h->swap_r += m.swr;
    h->swap_w += m.sww;
    h->zipped += m.zipped;
    h->zip_saved += m.zipped - MIN(m.cacheusd, m.zipped);
    h->balloon_curr += m.mctlsz;
    h->balloon_tgt += m.mctltgt;
    h->balloon_max += m.mctlmax;
    h->reserved += vm_has_ended(vm) ? 0 : m.min + m.overhead / PAGE_SIZE;
    return true;
}

static void fill_machine(struct memstat_host *h)
{
    struct buddy_stats s;

    buddy_stats(&s);
    h->overhead = s.used[FRAME_P2M] + s.used[FRAME_VIEW] + s.used[FRAME_VM];
    h->guest = s.used[FRAME_GUEST] + s.used[FRAME_SHARED] + s.used[FRAME_ZIP];
    h->total = s.total;
    h->vmk = s.used[FRAME_HOST];
    h->other = h->guest + h->overhead;
    h->free = s.free;
    h->retired = s.used[FRAME_RETIRED];
    h->small_bytes = kmalloc_bytes(OWNER_HOST);
    h->managed = s.total;
    h->table_bytes = s.table_bytes;
    h->table_at = s.table.a;
    h->total_high = s.total_high;
    h->free_high = s.free_high;
}

static void fill_sharing(struct memstat_host *h)
{
    struct share_stats s;

    share_stats(&s);
    h->shared = s.pages;
    h->common = s.common;
    h->saving = s.pages - MIN(s.common, s.pages);
    h->zero = s.zero;
    h->index_bytes = s.table_bytes;
    h->index_max_bytes = s.table_max_bytes;
}

static void fill_state(struct memstat_host *h)
{
    struct largepages_state large;
    struct memwait_stats wait;

    largepages_state(&large);
    memwait_stats(&wait);
    h->min_free = reclaim_min_free();
    h->state = policy_state_name(reclaim_state());
    h->split = large.split;
    h->joined = large.joined;
    h->compacted = large.compacted;
    h->waiting = wait.waiting;
    h->waits = wait.waits;
}

void memstat_of_host(struct memstat_host *out)
{
    *out = (struct memstat_host){.time_ns = clock_now_ns()};
    fill_machine(out);
    fill_sharing(out);
    fill_state(out);
    vm_for_each(add_vm, out);
    out->unreserved = out->managed - MIN(out->managed, out->vmk + out->reserved);
    for (unsigned i = 0; i < ARRAY_SIZE(overcommit); i++) {
        out->overcommit[i] = (uint64_t)__atomic_load_n(&overcommit[i], __ATOMIC_RELAXED) >> 16;
    }
}
