/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The queues of a virtio balloon. Pages given up and taken back come as arrays of page numbers; statistics
 * as one buffer that the device keeps and returns when it wants new ones; free pages as ranges, which are
 * discarded: the guest may touch them at any time, and finds zeros. Work on pages begins with nothing
 * pinned, for a pin would hold on to all of a large page around it.
 *
 * Which queue is for what: by the standard the numbers are fixed; Linux counts only those it has
 * negotiated, so that reports are queue 3 there and 4 elsewhere. What the driver made ready tells which.
 * Manual: Virtual I/O Device (VIRTIO) 1.2, "Traditional Memory Balloon Device".
 */
#include "kernel/devices/vballoon.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/vmmio.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/vm.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/slab.h"

#define DEVICE_ID 5u
#define TICK_NS 1000000000ull

#define F_MUST_TELL_HOST BIT(0)
#define F_STATS BIT(1)
#define F_DEFLATE_ON_OOM BIT(2)
#define F_PAGE_POISON BIT(4)
#define F_REPORTING BIT(5)

#define CONFIG_NUM_PAGES 0u
#define CONFIG_ACTUAL 4u
#define CONFIG_POISON 12u
#define CONFIG_SIZE 16u

#define PFNS_AT_ONCE 1024u /* of one request; drivers send 256 */
#define RANGES_MAX VRING_SIZE_MAX
#define STAT_BYTES 10u
#define GIVE_ATTEMPTS 3u
#define GIVE_AGAIN_NS 1000000ull /* who pinned a page has let go of it by then */
#define DELAY_SLICE_NS 20000000ull
#define RELAX_EVERY 32u /* pages */

#define LOG_BURST 6
#define LOG_INTERVAL_NS 10000000000ull

enum role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING, NR_ROLES };

struct range {
    uint64_t gpa, len;
};

/* All but the first two are the device thread's, or of who holds it. */
struct vballoon {
    struct vm *vm;
    struct vmmio *transport;
    struct ratelimit limit; /* of lines about drivers, in ns */
    bool started;
    unsigned queue[NR_ROLES]; /* VMMIO_QUEUES_MAX: none */
    bool have_stats;          /* a buffer is kept: its head */
    uint16_t stats_head;
    uint64_t size; /* of the balloon at the last tick */
    /* The request that is being carried out. */
    uint16_t head;
    uint32_t nr_pfns, nr_ranges;
    union {
        uint32_t pfn[PFNS_AT_ONCE];
        struct range range[RANGES_MAX];
    };
};

static uint64_t balloon_size(const struct vballoon *d)
{
    struct p2m_counters count;

    p2m_counters(d->vm->p2m, &count);
    return count.ballooned;
}

/* The driver works. It cannot be told to start anew. */
static void heard(struct vballoon *d)
{
    (void)!balloon_heard(d->vm->balloon, d->vm->p2m, clock_now_ns());
}

/* ---- The driver comes and goes ---- */

static void find_queues(struct vballoon *d)
{
    bool stats = vmmio_has(d->transport, F_STATS);
    bool reports = vmmio_has(d->transport, F_REPORTING);
    bool fixed =
        (!stats || vmmio_queue_ready(d->transport, 2)) && vmmio_queue_ready(d->transport, 4);

    d->queue[ROLE_INFLATE] = 0;
    d->queue[ROLE_DEFLATE] = 1;
    d->queue[ROLE_STATS] = stats ? 2 : VMMIO_QUEUES_MAX;
    d->queue[ROLE_REPORTING] = !reports ? VMMIO_QUEUES_MAX : fixed ? 4u : 2u + stats;
    if (reports) {
        vmmio_set_ranges(d->transport, d->queue[ROLE_REPORTING]);
    }
}

static void started(void *dev)
{
    struct vballoon *d = dev;
    struct vm *vm = d->vm;

    find_queues(d);
    ballooning_set_limits(vm);
    balloon_start(vm->balloon, vm->p2m, BALLOON_VIRTIO, clock_now_ns());
    d->started = true;
    d->have_stats = false; /* one taken before the queues had their roles is not ours to return */
    d->size = 0;
    uint32_t suppressed = 0;
    if (ratelimit_take(&d->limit, clock_now_ns(), &suppressed)) {
        log_info("vm %s: balloon driver started: virtio%s%s (%u lines like it not shown)",
                 vm->config.name, d->queue[ROLE_STATS] != VMMIO_QUEUES_MAX ? ", statistics" : "",
                 d->queue[ROLE_REPORTING] != VMMIO_QUEUES_MAX ? ", reports of free pages" : "",
                 suppressed);
    }
}

static void reset(void *dev)
{
    static const uint8_t zeros[CONFIG_SIZE];
    struct vballoon *d = dev;

    if (d->started) {
        uint32_t suppressed = 0;

        balloon_stop(d->vm->balloon, d->vm->p2m);
        if (ratelimit_take(&d->limit, clock_now_ns(), &suppressed)) {
            log_info("vm %s: balloon driver stopped (%u lines like it not shown)",
                     d->vm->config.name, suppressed);
        }
    }
    d->started = d->have_stats = false;
    vmmio_config_write(d->transport, 0, zeros, sizeof(zeros));
}

/* ---- Requests: taken here, ... ---- */

static enum role role_of(const struct vballoon *d, unsigned queue)
{
    unsigned role = 0;

    while (role < NR_ROLES && d->queue[role] != queue) {
        role++;
    }
    return (enum role)role;
}

static enum hv_err take_pfns(struct vballoon *d, struct vring *r, struct vring_chain *c)
{
    if (c->readable % sizeof(d->pfn[0]) != 0 || c->readable > sizeof(d->pfn)) {
        return vring_wrong(r, "page numbers in %u bytes", c->readable);
    }
    d->nr_pfns = (uint32_t)(vring_read(c, d->pfn, sizeof(d->pfn)) / sizeof(d->pfn[0]));
    d->head = c->head;
    return HV_EEXIST;
}

static enum hv_err take_stats(struct vballoon *d, struct vring *r, struct vring_chain *c)
{
    struct balloon_guest g = {.known = 0};
    uint8_t stat[STAT_BYTES];

    if (d->have_stats) {
        return vring_wrong(r, "a second buffer of statistics");
    }
    while (vring_read(c, stat, sizeof(stat)) == sizeof(stat)) {
        uint16_t tag;

        memcpy(&tag, stat, sizeof(tag));
        if (tag < NR_BALLOON_STATS) {
            memcpy(&g.value[tag], stat + sizeof(tag), sizeof(g.value[tag]));
            g.known |= (uint32_t)BIT(tag);
        }
    }
    balloon_set_guest(d->vm->balloon, &g);
    heard(d);
    d->have_stats = true;
    d->stats_head = c->head;
    return HV_EEXIST;
}

static enum hv_err take_ranges(struct vballoon *d, struct vring_chain *c)
{
    for (unsigned i = 0; i < c->nr_segs; i++) {
        d->range[i] = (struct range){c->seg[i].gpa, c->seg[i].len};
    }
    d->nr_ranges = c->nr_segs;
    d->head = c->head;
    return HV_EEXIST;
}

static enum hv_err serve(void *dev, unsigned queue, struct vring *r, struct vring_chain *c,
                         uint32_t *written)
{
    struct vballoon *d = dev;

    (void)written;
    switch (role_of(d, queue)) {
    case ROLE_INFLATE:
    case ROLE_DEFLATE:
        return take_pfns(d, r, c);
    case ROLE_STATS:
        return take_stats(d, r, c);
    case ROLE_REPORTING:
        return take_ranges(d, c);
    default:
        return vring_wrong(r, "a queue of no use to the features");
    }
}

/* ---- ... carried out here, with nothing pinned ---- */

static void give(struct vballoon *d)
{
    struct balloon_giving giving;
    unsigned left = d->nr_pfns;

    for (unsigned attempt = 0; attempt < GIVE_ATTEMPTS && left != 0; attempt++) {
        unsigned nr = left;

        if (attempt != 0) {
            thread_sleep_ns(GIVE_AGAIN_NS);
        }
        left = 0;
        balloon_give_begin(d->vm->balloon, d->vm->p2m, &giving);
        for (unsigned i = 0; i < nr; i++) {
            enum hv_err err = balloon_give(&giving, GFN(d->pfn[i]), ORDER_4K);

            /* Somebody works with the page, or with one beside it. */
            if (err == HV_EBUSY || err == HV_ENOMEM) {
                d->pfn[left++] = d->pfn[i];
            }
            if (i % RELAX_EVERY == 0) {
                env_relax();
            }
        }
        balloon_give_end(&giving);
    }
}

static void take_back(struct vballoon *d)
{
    for (unsigned i = 0; i < d->nr_pfns; i++) {
        /* One that was refused, or touched meanwhile, is the guest's already. */
        (void)!balloon_take(d->vm->balloon, d->vm->p2m, GFN(d->pfn[i]), ORDER_4K, clock_now_ns());
        if (i % RELAX_EVERY == 0) {
            env_relax();
        }
    }
}

/* Discard the whole pages of a range; adds how many went. HV_ENOENT: some of it is no RAM. */
static enum hv_err discard_range(struct vballoon *d, struct p2m_balloon_batch *b,
                                 const struct range *r, unsigned order, uint64_t *nr)
{
    uint64_t gfn = ALIGN_UP(r->gpa, PAGE_SIZE) >> PAGE_SHIFT, end = (r->gpa + r->len) >> PAGE_SHIFT;

    if (end <= gfn || end - gfn < BIT(order)) {
        return HV_OK;
    }
    while (gfn < end && !vmmio_is_stopping(d->transport)) {
        unsigned size =
            gfn % BIT(ORDER_2M) == 0 && end - gfn >= BIT(ORDER_2M) ? ORDER_2M : ORDER_4K;
        enum hv_err err = p2m_discard(b, GFN(gfn), size, nr);

        if (err == HV_ENOENT) {
            return err;
        }
        gfn += BIT(size);
        env_relax();
    }
    return HV_OK;
}

static void wait_for(struct vballoon *d, uint64_t ns)
{
    for (uint64_t slept = 0; slept < ns && !vmmio_is_stopping(d->transport);
         slept += DELAY_SLICE_NS) {
        thread_sleep_ns(MIN(ns - slept, DELAY_SLICE_NS));
    }
}

static void discard(struct vballoon *d)
{
    struct p2m_balloon_batch batch;
    struct ballooning_reports rules;
    enum hv_err err = HV_OK;
    uint64_t nr = 0;

    ballooning_report_rules(&rules);
    wait_for(d, rules.delay_ns);
    /* Who wants to find a pattern in free pages would find zeros. */
    if (vmmio_has(d->transport, F_PAGE_POISON) &&
        vmmio_config_u32(d->transport, CONFIG_POISON) != 0) {
        return;
    }
    p2m_balloon_begin(&batch, d->vm->p2m);
    for (unsigned i = 0; i < d->nr_ranges && err == HV_OK; i++) {
        err = discard_range(d, &batch, &d->range[i], rules.order, &nr);
    }
    p2m_balloon_end(&batch);
    balloon_note_reported(d->vm->balloon, nr);
    if (err != HV_OK) {
        vmmio_broken(d->transport, "reports memory that it does not have");
    }
}

static void kept(void *dev, unsigned queue)
{
    struct vballoon *d = dev;

    switch (role_of(d, queue)) {
    case ROLE_INFLATE:
        give(d);
        break;
    case ROLE_DEFLATE:
        take_back(d);
        break;
    case ROLE_REPORTING:
        discard(d);
        break;
    default:
        return; /* statistics go back at a tick */
    }
    heard(d);
    vmmio_complete(d->transport, queue, d->head, 0);
}

/* ---- Targets ---- */

/* A driver without statistics is heard of only while it does what it is told. */
static bool keeps_up(struct vballoon *d, uint64_t size)
{
    uint32_t told = vmmio_config_u32(d->transport, CONFIG_NUM_PAGES);
    bool moved = size != d->size;

    d->size = size;
    return moved || (size <= told + (uint64_t)BALLOON_SLACK && told <= size + BALLOON_SLACK);
}

static void tick(void *dev)
{
    struct vballoon *d = dev;
    struct vm *vm = d->vm;

    if (d->have_stats) {
        d->have_stats = false;
        vmmio_complete(d->transport, d->queue[ROLE_STATS], d->stats_head, 0);
    }
    if (keeps_up(d, balloon_size(d)) && d->queue[ROLE_STATS] == VMMIO_QUEUES_MAX) {
        heard(d);
    }
    ballooning_set_limits(vm);
    uint32_t told = (uint32_t)MIN(balloon_poll(vm->balloon, vm->p2m, true, clock_now_ns()),
                                  (uint64_t)UINT32_MAX);
    vmmio_config_write(d->transport, CONFIG_NUM_PAGES, &told, sizeof(told));
}

/* ---- Life ---- */

static const struct vmmio_ops ops = {
    .name = "balloon",
    .device_id = DEVICE_ID,
    .nr_queues = 5,
    .tick_ns = TICK_NS,
    .config_size = CONFIG_SIZE,
    .config_writable = CONFIG_ACTUAL,
    .writable_size = CONFIG_SIZE - CONFIG_ACTUAL,
    .started = started,
    .serve = serve,
    .kept = kept,
    .tick = tick,
    .reset = reset,
};

enum hv_err vballoon_create(struct vm *vm, struct vballoon **out)
{
    struct vballoon *d;

    *out = NULL;
    if (vm->config.balloon != BALLOON_KEY_VIRTIO) {
        return HV_OK;
    }
    d = kmalloc(sizeof(*d), vm->id);
    *out = d;
    if (d == NULL) {
        return HV_ENOMEM;
    }
    d->vm = vm;
    ratelimit_init(&d->limit, LOG_BURST, LOG_INTERVAL_NS);
    return vmmio_create(vm, &ops, d,
                        F_MUST_TELL_HOST | F_STATS | F_DEFLATE_ON_OOM | F_PAGE_POISON | F_REPORTING,
                        &d->transport);
}

void vballoon_destroy(struct vballoon *d)
{
    if (d != NULL) {
        vmmio_destroy(d->transport);
        kfree(d);
    }
}

struct vmmio *vballoon_transport(struct vballoon *d)
{
    return d != NULL ? d->transport : NULL;
}
