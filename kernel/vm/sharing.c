/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The scanning thread. Every tick each VM earns the pages that its rate gives,
 *
 *     min(its pages / Mem.ShareScanTime, Mem.ShareRateMax),
 *
 * all of them scaled down alike if their sum is beyond Mem.ShareScanGHz times the host's GHz, and is
 * scanned for what it has earned. What the reclaimer asks for goes beyond that (sharing_scan_now).
 */
#include "kernel/vm/sharing.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/percpu.h"
#include "kernel/lib/random.h"
#include "kernel/log.h"
#include "kernel/options.h"
#include "kernel/vm/largepages.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/share/index.h"
#include "mm/share/share.h"

#define TICK_NS 100000000u
#define TICKS_PER_SECOND 10u
#define PER_MILLE 1000u
#define PAGES_PER_MB 256u
#define MOST_AT_ONCE 4096u /* pages of one VM in one tick */
#define URGENT_PAGES 2048u /* likewise when memory is short */
#define RESERVE_SHIFT 7u   /* 1/128 of memory for copies of shared pages */

/* What each member has earned and not got, in 1/(1000 * TICKS_PER_SECOND) pages; the thread's. */
static uint64_t earned[INDEX_MAX_MEMBERS];

void sharing_init(void)
{
    struct rng rng;

    random_stream(&rng, "share", "");
    share_seed(random_secret(&rng));
    if (share_init(buddy_total_frames()) != HV_OK) {
        log_error("share: no memory for its table: pages are not shared");
        return;
    }
    buddy_set_reserve(buddy_total_frames() >> RESERVE_SHIFT);
}

/* ---- Rates, in pages per 1,000 seconds ---- */

static uint64_t rate_wanted(struct p2m *p)
{
    struct p2m_counters count;
    uint64_t seconds = options_get(OPT_SHARE_SCAN_TIME) * 60;

    p2m_counters(p, &count);
    return MIN(count.ram * PER_MILLE / seconds, options_get(OPT_SHARE_RATE_MAX) * PER_MILLE);
}

static uint64_t rate_of_host(void)
{
    uint64_t mhz = clock_tsc_hz() / 1000000 * nr_cpus();

    return options_get(OPT_SHARE_SCAN_GHZ) * mhz * PAGES_PER_MB; /* MHz for GHz: per mille */
}

static uint64_t sum_wanted(void)
{
    uint64_t sum = 0;
    unsigned member;

    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = share_member(p);
        sum += rate_wanted(p);
        share_release(member);
    }
    return sum;
}

static uint64_t rate_given(struct p2m *p, uint64_t sum)
{
    uint64_t wanted = rate_wanted(p);
    uint64_t most = rate_of_host();

    return sum <= most ? wanted : wanted * most / sum;
}

/* ---- The thread ---- */

/* True if anybody takes part. */
static bool scan_tick(void)
{
    uint64_t sum = sum_wanted();
    const uint64_t unit = PER_MILLE * TICKS_PER_SECOND;
    unsigned member = 0;

    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = share_member(p);
        earned[member] = MIN(earned[member] + rate_given(p, sum), MOST_AT_ONCE * unit);
        uint64_t pages = earned[member] / unit;

        earned[member] %= unit;
        if (pages != 0) {
            scan_pages(p, pages);
        }
        share_release(member);
    }
    return member != 0;
}

uint64_t sharing_scan_now(struct p2m *p, uint64_t pages)
{
    struct p2m_counters before, after;
    unsigned member = share_member(p);

    p = member != 0 ? share_hold(member) : NULL;
    if (p == NULL) {
        return 0;
    }
    p2m_counters(p, &before);
    scan_pages(p, MIN(pages, (uint64_t)URGENT_PAGES));
    p2m_counters(p, &after);
    share_release(member);
    return after.merged - before.merged;
}

bool sharing_scan_all(void)
{
    unsigned member;
    uint64_t merged = 0;

    if (options_get(OPT_SHARE_SCAN_GHZ) == 0) {
        return false;
    }
    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = share_member(p);
        merged += sharing_scan_now(p, URGENT_PAGES);
        share_release(member);
    }
    return merged != 0;
}

static void sharing_main(void *unused)
{
    uint64_t next_state_ns = 0;

    (void)unused;
    for (;;) {
        uint64_t nap = TICK_NS, now = clock_now_ns();

        if (now >= next_state_ns) {
            next_state_ns = now + TICK_NS * TICKS_PER_SECOND;
            largepages_tick();
        }
        if (!scan_tick()) {
            nap *= TICKS_PER_SECOND; /* nobody shares */
        }
        thread_sleep_ns(nap);
    }
}

void sharing_start(void)
{
    struct thread *t;

    if (thread_create("share", sharing_main, NULL, WEIGHT_NORMAL, OWNER_HOST, &t) != HV_OK) {
        log_error("share: no memory for its thread: pages are shared by command only");
        return;
    }
    thread_start(t);
}

/* ---- At the operator's word ---- */

struct p2m *sharing_hold(struct vm *vm, unsigned *member)
{
    uint64_t flags = spin_lock_irqsave(&vm->lock);

    *member = vm->p2m != NULL ? share_member(vm->p2m) : 0;
    spin_unlock_irqrestore(&vm->lock, flags);
    struct p2m *p = *member != 0 ? share_hold(*member) : NULL;

    /* A reset frees the number, and another VM may have it by now. */
    if (p != NULL && p2m_owner(p) != vm->id) {
        share_release(*member);
        p = NULL;
    }
    return p;
}

enum hv_err sharing_scan(struct vm *vm)
{
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);

    if (p == NULL) {
        return HV_ENOENT;
    }
    scan_all(p);
    share_release(member);
    return HV_OK;
}

void sharing_stats(struct vm *vm, struct scan_stats *out)
{
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);

    *out = (struct scan_stats){0};
    if (p != NULL) {
        scan_stats(p, out);
        share_release(member);
    }
}

uint64_t sharing_rate(struct vm *vm)
{
    unsigned member;
    struct p2m *p = sharing_hold(vm, &member);
    uint64_t rate = 0;

    if (p != NULL) {
        rate = rate_given(p, sum_wanted());
        share_release(member);
    }
    return rate;
}
