/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each page of the test zone has a frame of its own; a run of pages is one request. All requests of a
 * phase are submitted at once: the queue decides the order.
 */
#include "kernel/drivers/swaptest.h"

#include "kernel/drivers/swaparea.h"
#include "kernel/lib/random.h"
#include "kernel/lib/string.h"
#include "kernel/sched/sched.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

#define PAGES SWAPAREA_TEST_PAGES
#define RUNS_MAX 64u /* at least PAGES / BLK_RUN_MAX */

struct test {
    struct swaparea area;
    struct thread *thread;
    uint32_t pending; /* atomic */
    unsigned nr_frames;
    mfn_t frames[PAGES];
    uint16_t run_start[RUNS_MAX];
    struct blk_request runs[RUNS_MAX];
    struct rng rng;
    uint64_t salt;
    struct swaptest_result *out;
};

static uint64_t word(uint64_t salt, unsigned page, unsigned i)
{
    uint64_t v = (salt + page * 512ull + i) * 0x9e3779b97f4a7c15ull;

    return v ^ v >> 29;
}

static void fill(struct test *t, unsigned page)
{
    uint64_t *p = env_frame_ptr(t->frames[page]);

    for (unsigned i = 0; i < 512; i++) {
        p[i] = word(t->salt, page, i);
    }
}

static bool same(const struct test *t, unsigned page)
{
    const uint64_t *p = env_frame_ptr(t->frames[page]);

    for (unsigned i = 0; i < 512; i++) {
        if (p[i] != word(t->salt, page, i)) {
            return false;
        }
    }
    return true;
}

static void run_done(struct blk_request *r)
{
    struct test *t = r->arg;
    struct thread *waiter = t->thread;

    if (__atomic_sub_fetch(&t->pending, 1, __ATOMIC_ACQ_REL) == 0) {
        thread_wake(waiter);
    }
}

/* Cut the zone into runs; returns how many. */
static unsigned cut(struct test *t)
{
    unsigned nr = 0;

    for (unsigned at = 0; at < PAGES; nr++) {
        unsigned left = PAGES - at;
        unsigned rest = RUNS_MAX - nr - 1; /* what they can take is at most BLK_RUN_MAX each */
        unsigned least = left > rest * BLK_RUN_MAX ? left - rest * BLK_RUN_MAX : 1;
        unsigned len = MAX((unsigned)rng_below(&t->rng, BLK_RUN_MAX) + 1, least);

        t->run_start[nr] = (uint16_t)at;
        t->runs[nr].nr_frames = MIN(len, left);
        at += t->runs[nr].nr_frames;
    }
    return nr;
}

static void bad(struct test *t, unsigned page)
{
    if (t->out->failed + t->out->wrong == 1) {
        t->out->first_bad = page;
    }
}

/* Move the whole zone one way; returns nanoseconds. */
static uint64_t phase(struct test *t, enum blk_op op)
{
    uint8_t order[RUNS_MAX];
    unsigned nr = cut(t);
    uint64_t start = env_now_ns();

    t->pending = nr;
    for (unsigned i = 0; i < nr; i++) {
        struct blk_request *r = &t->runs[i];

        r->op = op;
        r->sector = t->area.first + (1 + t->run_start[i]) * BLK_PAGE_SECTORS;
        r->frames = &t->frames[t->run_start[i]];
        r->done = run_done;
        r->arg = t;
        order[i] = (uint8_t)i;
    }
    for (unsigned left = nr; left > 0; left--) {
        unsigned pick = (unsigned)rng_below(&t->rng, left);
        unsigned run = order[pick];

        order[pick] = order[left - 1];
        blk_submit(t->area.disk, &t->runs[run]);
    }
    while (__atomic_load_n(&t->pending, __ATOMIC_ACQUIRE) != 0) {
        thread_block();
    }
    for (unsigned i = 0; i < nr; i++) {
        if (t->runs[i].result != HV_OK) {
            t->out->failed++;
            bad(t, t->run_start[i]);
        }
    }
    t->out->requests += nr;
    return env_now_ns() - start;
}

static void round_of(struct test *t, uint64_t round)
{
    random_stream(&t->rng, "swap test", t->area.name);
    for (uint64_t i = 0; i <= round; i++) {
        t->salt = rng_next(&t->rng);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        fill(t, i);
    }
    t->out->write_ns = phase(t, BLK_WRITE);
    if (t->out->failed == 0) {
        for (unsigned i = 0; i < PAGES; i++) {
            memset(env_frame_ptr(t->frames[i]), 0xa5, PAGE_SIZE);
        }
        t->out->read_ns = phase(t, BLK_READ);
    }
    for (unsigned i = 0; i < PAGES && t->out->failed == 0; i++) {
        if (!same(t, i)) {
            t->out->wrong++;
            bad(t, i);
        }
    }
}

enum hv_err swaptest_round(const struct swaparea *a, uint64_t round, struct swaptest_result *out)
{
    struct test *t = kmalloc(sizeof(*t), OWNER_HOST);
    enum hv_err err = HV_OK;

    *out = (struct swaptest_result){.pages = PAGES};
    if (t == NULL) {
        return HV_ENOMEM;
    }
    t->thread = thread_current();
    t->out = out;
    t->area = *a;
    while (err == HV_OK && t->nr_frames < PAGES) {
        err = buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &t->frames[t->nr_frames]);
        t->nr_frames += err == HV_OK;
    }
    if (err == HV_OK) {
        round_of(t, round);
        err = out->failed + out->wrong != 0 ? HV_EIO : HV_OK;
    }
    while (t->nr_frames > 0) {
        buddy_free(t->frames[--t->nr_frames], 0);
    }
    kfree(t);
    return err;
}
