/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One disk's queue. Reads go first, for a guest sleeps on each of them; but after BLK_OVERTAKE of them
 * the first waiting write takes its turn. Writes never fill the device: a quarter of its depth is kept
 * for reads that are yet to come.
 *
 * A request that the device fails is tried BLK_ATTEMPTS times, the last time alone in the device: some
 * merge neighbours and then fail them together. One that does not come back within the
 * timeout costs a reset, which takes all requests from the device; they start again. After
 * BLK_RESETS resets without any success, or when the driver says so, the disk is gone: everything
 * fails, now and later.
 */
#include "kernel/drivers/blk_queue.h"

#include "kernel/log.h"
#include "mm/env.h"

#define LOG_BURST 8
#define LOG_INTERVAL_NS 10000000000ull

void blkq_init(struct blk_disk *d)
{
    struct blk_queue *q = &d->queue;

    spin_init(&q->lock, RANK_BLK, "disk queue");
    list_init(&q->reads);
    list_init(&q->writes);
    list_init(&q->finished);
    ratelimit_init(&q->limit, LOG_BURST, LOG_INTERVAL_NS);
    if (d->timeout_ns == 0) {
        d->timeout_ns = BLK_TIMEOUT_NS;
    }
}

static bool acceptable(const struct blk_disk *d, const struct blk_request *r)
{
    uint64_t mask = d->sector_bytes / BLK_SECTOR - 1;

    if (r->op == BLK_FLUSH) {
        return r->nr_frames == 0;
    }
    if (r->op == BLK_WRITE && d->read_only) {
        return false;
    }
    return r->nr_frames >= 1 && r->nr_frames <= BLK_RUN_MAX && (r->sector & mask) == 0 &&
           r->sector <= d->nr_sectors && blk_nr_sectors(r) <= d->nr_sectors - r->sector;
}

void blkq_submit(struct blk_disk *d, struct blk_request *r)
{
    struct blk_queue *q = &d->queue;

    r->attempts = 0;
    r->bounced = false;
    r->result = acceptable(d, r) ? HV_OK : HV_EINVAL;
    spin_lock(&q->lock);
    list_add_tail(r->op == BLK_READ ? &q->reads : &q->writes, &r->node);
    spin_unlock(&q->lock);
}

bool blkq_idle(struct blk_disk *d)
{
    struct blk_queue *q = &d->queue;

    spin_lock(&q->lock);
    bool idle = list_empty(&q->reads) && list_empty(&q->writes);

    spin_unlock(&q->lock);
    return idle && q->nr_flight == 0 && list_empty(&q->finished);
}

/* ---- Frames that the device cannot reach ---- */

static void copy_bounced(struct blk_disk *d, const struct blk_request *r, bool to_device)
{
    for (unsigned i = 0; i < r->nr_frames; i++) {
        void *bounce = env_frame_ptr(d->queue.bounce[i]);
        void *frame = env_frame_ptr(r->frames[i]);

        env_copy_page(to_device ? bounce : frame, to_device ? frame : bounce);
    }
}

/* False: another request has the bounce frames. */
static bool bounce(struct blk_disk *d, struct blk_request *r)
{
    bool needed = false;

    for (unsigned i = 0; d->reach != 0 && i < r->nr_frames; i++) {
        needed = needed || r->frames[i].n >= d->reach;
    }
    r->bounced = needed;
    if (!needed) {
        return true;
    }
    if (d->queue.bouncing != NULL) {
        return false;
    }
    d->queue.bouncing = r;
    d->queue.stats.bounced++;
    if (r->op == BLK_WRITE) {
        copy_bounced(d, r, true);
    }
    return true;
}

static void unbounce(struct blk_disk *d, struct blk_request *r, bool succeeded)
{
    if (!r->bounced) {
        return;
    }
    if (succeeded && r->op == BLK_READ) {
        copy_bounced(d, r, false);
    }
    r->bounced = false;
    d->queue.bouncing = NULL;
}

/* ---- Ends ---- */

/* Back to the front of its queue. */
static void put_back(struct blk_queue *q, struct blk_request *r)
{
    spin_lock(&q->lock);
    list_add(r->op == BLK_READ ? &q->reads : &q->writes, &r->node);
    spin_unlock(&q->lock);
}

static struct blk_request *leave_flight(struct blk_disk *d, unsigned tag, bool succeeded)
{
    struct blk_queue *q = &d->queue;
    struct blk_request *r = q->flight[tag];

    q->flight[tag] = NULL;
    q->alone = false;
    q->nr_flight--;
    q->nr_writes -= r->op != BLK_READ;
    unbounce(d, r, succeeded);
    return r;
}

static void finish(struct blk_queue *q, struct blk_request *r, enum hv_err result)
{
    r->result = result;
    q->stats.errors += result != HV_OK;
    list_add_tail(&q->finished, &r->node);
}

void blkq_complete(struct blk_disk *d, unsigned tag, enum hv_err result)
{
    struct blk_queue *q = &d->queue;

    if (tag >= d->depth || q->flight[tag] == NULL) {
        uint32_t suppressed = 0;

        if (ratelimit_take(&q->limit, env_now_ns(), &suppressed)) {
            log_warn("disk %s: completed request %u, which it does not have (%u lines like it not "
                     "shown)",
                     d->name, tag, suppressed);
        }
        return;
    }
    struct blk_request *r = leave_flight(d, tag, result == HV_OK);
    bool final = result == HV_OK || result == HV_EINVAL || result == HV_ENOTSUP;

    q->stats.ns_busy += env_now_ns() - r->since_ns;
    if (result == HV_OK) {
        q->nr_resets = 0;
        q->stats.reads += r->op == BLK_READ;
        q->stats.writes += r->op == BLK_WRITE;
        q->stats.flushes += r->op == BLK_FLUSH;
        q->stats.frames_read += r->op == BLK_READ ? r->nr_frames : 0;
        q->stats.frames_written += r->op == BLK_WRITE ? r->nr_frames : 0;
    }
    if (final || r->attempts >= BLK_ATTEMPTS) {
        finish(q, r, final ? result : HV_EIO);
        return;
    }
    q->stats.retries++;
    put_back(q, r);
}

static void lose(struct blk_disk *d, const char *why)
{
    struct blk_queue *q = &d->queue;

    if (q->gone) {
        return;
    }
    log_error("disk %s: %s; it counts as gone", d->name, why);
    if (d->driver->cut != NULL) {
        d->driver->cut(d); /* before its frames go back to their owners */
    }
    __atomic_store_n(&q->gone, true, __ATOMIC_RELEASE);
    for (unsigned tag = 0; tag < d->depth; tag++) {
        if (q->flight[tag] != NULL) {
            finish(q, leave_flight(d, tag, false), HV_ENOENT);
        }
    }
}

/* Everything that is in the device starts again, or has had its chances. */
static void reset(struct blk_disk *d)
{
    struct blk_queue *q = &d->queue;

    q->stats.resets++;
    log_warn("disk %s: no answer within %llu s; reset", d->name,
             (unsigned long long)(d->timeout_ns / 1000000000));
    if (++q->nr_resets > BLK_RESETS) {
        lose(d, "resets do not help");
        return;
    }
    if (d->driver->reset(d) != HV_OK) {
        lose(d, "a reset failed");
        return;
    }
    for (unsigned tag = d->depth; tag-- > 0;) {
        if (q->flight[tag] == NULL) {
            continue;
        }
        struct blk_request *r = leave_flight(d, tag, false);

        if (r->attempts >= BLK_ATTEMPTS) {
            finish(q, r, HV_EIO);
        } else {
            put_back(q, r);
        }
    }
}

static bool anything_late(const struct blk_disk *d, uint64_t now_ns)
{
    for (unsigned tag = 0; tag < d->depth; tag++) {
        const struct blk_request *r = d->queue.flight[tag];

        if (r != NULL && now_ns > r->since_ns && now_ns - r->since_ns > d->timeout_ns) {
            return true;
        }
    }
    return false;
}

/* ---- Starts ---- */

/* The next request that may start, out of its list; NULL: none. */
static struct blk_request *take_next(struct blk_disk *d)
{
    struct blk_queue *q = &d->queue;
    bool room_to_write = q->nr_writes < d->depth - d->depth / 4;

    spin_lock(&q->lock);
    struct list *read = list_first(&q->reads);
    struct list *write = room_to_write || q->gone ? list_first(&q->writes) : NULL;
    struct list *next = read;

    if (write != NULL && (read == NULL || q->overtaken >= BLK_OVERTAKE)) {
        next = write;
        q->overtaken = 0;
    } else if (write != NULL) {
        q->overtaken++;
    }
    if (next != NULL) {
        list_del(next);
    }
    spin_unlock(&q->lock);
    return next != NULL ? list_entry(next, struct blk_request, node) : NULL;
}

static unsigned free_tag(const struct blk_disk *d)
{
    unsigned tag = 0;

    while (d->queue.flight[tag] != NULL) {
        tag++;
    }
    return tag;
}

/* False: the device takes no more for now. */
static bool start(struct blk_disk *d, struct blk_request *r, uint64_t now_ns)
{
    struct blk_queue *q = &d->queue;
    bool last_chance = r->attempts == BLK_ATTEMPTS - 1;

    if ((last_chance && q->nr_flight != 0) || !bounce(d, r)) {
        put_back(q, r);
        return false;
    }
    unsigned tag = free_tag(d);

    r->tag = (uint8_t)tag;
    r->since_ns = now_ns;
    r->attempts++;
    q->flight[tag] = r;
    q->nr_flight++;
    q->nr_writes += r->op != BLK_READ;
    q->alone = last_chance;
    enum hv_err err = d->driver->submit(d, r);

    if (err == HV_OK) {
        return true;
    }
    (void)leave_flight(d, tag, false);
    if (err == HV_EBUSY) {
        r->attempts--;
        put_back(q, r);
        return false;
    }
    put_back(q, r);
    lose(d, "it does not answer");
    return true;
}

static void start_all(struct blk_disk *d, uint64_t now_ns)
{
    struct blk_queue *q = &d->queue;
    struct blk_request *r;

    while ((q->gone || (q->nr_flight < d->depth && !q->alone)) && (r = take_next(d)) != NULL) {
        if (q->gone) {
            finish(q, r, HV_ENOENT);
        } else if (r->result != HV_OK) {
            finish(q, r, r->result);
        } else if (r->op == BLK_FLUSH && !d->can_flush) {
            finish(q, r, HV_OK); /* it has no cache that could be lost */
        } else if (!start(d, r, now_ns)) {
            return;
        }
    }
}

static unsigned call_back(struct blk_queue *q)
{
    unsigned nr = 0;

    for (struct list *node; (node = list_first(&q->finished)) != NULL; nr++) {
        list_del(node);
        struct blk_request *r = list_entry(node, struct blk_request, node);

        r->done(r); /* r is no longer ours */
    }
    return nr;
}

unsigned blkq_run(struct blk_disk *d, uint64_t now_ns)
{
    struct blk_queue *q = &d->queue;

    if (!q->gone && d->driver->reap(d) != HV_OK) {
        lose(d, "it is no longer there");
    }
    if (!q->gone && anything_late(d, now_ns)) {
        reset(d);
    }
    /* Keep the device busy before the callers hear of what is done. */
    start_all(d, now_ns);
    return call_back(q);
}
