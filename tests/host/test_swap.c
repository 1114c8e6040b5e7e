/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages leave for the cache and the store and come back, against the model of swapenv.h: what goes where and
 * what it costs, who may run before whom, what is touched meanwhile; then everything at random. Stores that fail
 * are the business of test_swap_faults.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "mm/buddy.h"
#include "mm/compact.h"
#include "mm/p2m.h"
#include "mm/p2m_internal.h" /* its tallies */
#include "mm/p2m_large.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/slots.h"
#include "mm/share/scan.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/swapenv.h"

static void sizes_and_costs(void **state)
{
    struct p2m_counters count;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 100;
    swapenv_fill_pages(KIND_ZERO, 0, 100);
    swapenv_fill_pages(KIND_FILLED, 100, 100);
    swapenv_fill_pages(KIND_QUARTER, 200, 100);
    swapenv_fill_pages(KIND_HALF, 300, 100);
    swapenv_fill_pages(KIND_RANDOM, 400, 100);
    swapenv_take_all();
    swapenv_count_pages(&count);
    assert_int_equal(count.zero, 100);
    assert_int_equal(count.compressed, 300);
    assert_int_equal(count.zip_frames, 100 / 4 + 100 / 2);
    assert_int_equal(count.swapped, 100);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = 0; gfn < 500; gfn++) {
        swapenv_expect(0, gfn);
    }
    swapenv_count_pages(&count);
    assert_true(count.compressed == 0 && count.zip_frames == 0 && count.swapped == 0);
    swapenv_stop();
}

/* VM 0 reads or writes a page as `access` says; how long its vCPUs stood still for that. */
static uint64_t stalled_by(uint64_t gfn, uint32_t access)
{
    struct p2m_counters before, after;
    struct p2m_entry e;
    enum hv_err err;

    swapenv_count_pages(&before);
    do {
        err = p2m_populate(swapenv.vms[0].p2m, GFN(gfn), access, &e);
    } while (err == HV_EAGAIN && !(access & P2M_FAST));
    assert_true(err == HV_OK || (access & P2M_FAST));
    swapenv_count_pages(&after);
    return after.stalled_ns - before.stalled_ns;
}

/* A vCPU stands still while its page is decompressed, read back or copied; for nothing else, and nobody but it. */
static void stalls_are_counted(void **state)
{
    static const enum swapenv_kind kinds[] = {KIND_HALF, KIND_FILLED, KIND_RANDOM, KIND_ZERO};
    const uint64_t untouched = 900;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 100;
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uint64_t gfn = 100 * (i + 1);

        swapenv_fill_pages(kinds[i], gfn, 8);
    }
    swapenv_take_all();
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        uint64_t gfn = 100 * (i + 1);
        bool away = kinds[i] != KIND_ZERO;

        assert_int_equal(stalled_by(gfn, P2M_WRITE), 0);
        assert_int_equal(stalled_by(gfn + 3, P2M_WRITE | P2M_FAST), 0);
        assert_int_equal(stalled_by(gfn + 7, P2M_READ | P2M_VCPU) != 0, away);
        assert_true(stalled_by(gfn + 5, P2M_WRITE | P2M_VCPU) >= 1000);
        assert_int_equal(stalled_by(gfn + 5, P2M_WRITE | P2M_VCPU), 0);
    }
    assert_int_equal(stalled_by(untouched, P2M_WRITE | P2M_VCPU), 0);
    swapenv_check_all(true);
    swapenv_stop();
}

/* At its bound the cache gives its oldest to the store. */
static void cache_has_a_bound(void **state)
{
    struct p2m_counters count;
    struct p2m_entry e;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 2; /* 22 frames: 44 pages */
    swapenv_fill_pages(KIND_HALF, 0, 32);
    swapenv_take_all();
    swapenv_fill_pages(KIND_HALF, 32, 500);
    swapenv_take_all();
    swapenv_count_pages(&count);
    assert_true(count.zip_frames <= 22 + SWAP_BATCH / 2 && count.zip_frames > 5);
    assert_int_equal(count.compressed + count.swapped, 532);
    p2m_query(swapenv.vms[0].p2m, GFN(0), &e);
    assert_int_equal(e.state, P2M_SWAPPED);
    swapenv_check_all(true);
    swapenv_stop();
}

static unsigned swap_out_some(void)
{
    struct swap_step step;

    (void)!swap_out(swapenv.vms[0].p2m, SWAP_BATCH, &swapenv.how, &step);
    return (unsigned)step.started;
}

/* However late the store is, each page of the cache goes there once; if it cannot, it is chosen again. */
static void cache_leaves_once(void **state)
{
    struct p2m *p;

    (void)state;
    for (unsigned fails = 0; fails < 2; fails++) {
        struct p2m_counters count;
        struct swap_step step;
        uint64_t started = 0;

        swapenv_quiet_start();
        p = swapenv.vms[0].p2m;
        swapenv.how.zip_pct = 4; /* 44 frames: 88 pages */
        swapenv_fill_pages(KIND_HALF, 0, 88);
        while (swapenv_count_pages(&count), count.compressed < 88) {
            assert_int_equal(swap_out_some(), 0);
        }
        swapenv.store.deferred = true;
        swapenv.store.fail_write = fails ? 1000 : 0;
        swapenv.how.urgent = true;
        for (unsigned i = 0; i < 8; i++) {
            started += swap_out_some();
        }
        assert_int_equal(started, 88);
        assert_int_equal(swap_out(p, SWAP_BATCH, &swapenv.how, &step), HV_EAGAIN);
        swapenv_drain();
        swapenv_count_pages(&count);
        assert_int_equal(count.swapped, fails ? 0 : 88);
        assert_int_equal(count.compressed, fails ? 88 : 0);
        assert_int_equal(p->swap_stayed, 0);
        if (fails) {
            swapenv.store.fail_write = 0;
            assert_int_equal(swap_out_some(), SWAP_BATCH);
            swapenv_drain();
        } else {
            assert_int_equal(swapenv.store.slots_written, 88);
        }
        swapenv.store.deferred = false;
        swapenv_check_all(true);
        swapenv_stop();
    }
}

/* A page that comes into a frame beside one that is leaving leaves in its turn, and the other one not twice. */
static void cache_frames_are_mixed(void **state)
{
    struct p2m_counters count;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 2;
    swapenv_fill_pages(KIND_HALF, 0, 43); /* the last one has room beside it */
    while (swapenv_count_pages(&count), count.compressed < 43) {
        assert_int_equal(swap_out_some(), 0);
    }
    swapenv.store.deferred = true;
    swapenv.how.urgent = true;
    assert_int_equal(swap_out_some() + swap_out_some(), 43);
    /* Some come back, so that the cache has room, and go there once more. */
    for (uint64_t gfn = 0; gfn < 8; gfn++) {
        swapenv_expect(0, gfn);
    }
    while (swapenv_count_pages(&count), count.compressed < 43) {
        assert_int_equal(swap_out_some(), 0);
    }
    swapenv.how.zip_pct = 0;
    assert_int_equal(swap_out_some(), 8);
    assert_int_equal(swap_out_some(), 0);
    swapenv_drain();
    swapenv.store.deferred = false;
    swapenv_count_pages(&count);
    assert_int_equal(count.compressed, 0);
    swapenv_check_all(true);
    swapenv_stop();
}

/* Frames of the cache that became free count when its pages have been written. */
static void cache_frees_frames(void **state)
{
    struct p2m_counters count;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 2;
    swapenv_fill_pages(KIND_HALF, 0, 44);
    while (swapenv_count_pages(&count), count.zip_frames < 22) {
        assert_int_equal(swap_out_some(), 0);
    }
    swapenv.store.deferred = true;
    assert_int_equal(swap_out_some(), SWAP_BATCH);
    faultstore_serve(&swapenv.store, 1000);
    assert_int_equal(swap_reap(), SWAP_BATCH / 2);
    swapenv_count_pages(&count);
    assert_int_equal(count.zip_frames, 22 - SWAP_BATCH / 2);
    swapenv.store.deferred = false;
    swapenv_stop();
}

/* Disk reads of a guest that touches 1000 pages, which compress to half, at random, with memory for two thirds of
 * them, the cache's frames included. */
static uint64_t reads_with(bool compress, unsigned zip_pct)
{
    enum { USED = 1000, MEMORY = USED * 2 / 3, TOUCHES = 5000 };
    struct p2m_counters count;
    struct swap_step done;
    uint64_t reads;

    swapenv_quiet_start();
    swapenv.how.compress = compress;
    swapenv.how.zip_pct = zip_pct;
    swapenv.how.urgent = true;
    swapenv_fill_pages(KIND_HALF, 0, USED);
    for (unsigned i = 0; i < TOUCHES; i++) {
        if (i == TOUCHES / 5) {
            swapenv.store.reads = 0; /* it has settled */
        }
        swapenv_expect(0, rng_below(&swapenv.rng, USED));
        while (swapenv_count_pages(&count), count.consumed + count.zip_frames > MEMORY) {
            assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_OK);
            swapenv_drain();
        }
    }
    reads = swapenv.store.reads;
    swapenv_check_all(true);
    swapenv_stop();
    return reads;
}

/* What the cache's bound means: at Mem.MemZipMaxPct's default of 10 it holds a part of what is away, and saves the
 * reads of that; without a bound that matters nearly nothing comes from the disk. */
static void cache_saves_reads(void **state)
{
    uint64_t without = reads_with(false, 10), some = reads_with(true, 10),
             all = reads_with(true, 100);

    (void)state;
    printf(
        "reads: %llu without compression, %llu in 10 %% of the VM, %llu in as much as it takes\n",
        (unsigned long long)without, (unsigned long long)some, (unsigned long long)all);
    assert_true(without > 1000);
    assert_true(some < without * 9 / 10 && some > without / 3);
    assert_true(all < without / 10);
}

/* Pages leave in few requests: one for all of a batch that slots in a row can be had for. */
static void writes_are_clustered(void **state)
{
    struct p2m_counters count;
    uint64_t runs = 0;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 1024);
    swapenv_take_all();
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 1024);
    assert_int_equal(swapenv.store.slots_written, 1024);
    printf("1024 pages in %llu writes\n", (unsigned long long)swapenv.store.writes);
    assert_true(swapenv.store.writes <= 1024 / (SWAP_BATCH / 2));
    /* And neighbours lie side by side. */
    for (uint64_t gfn = 1; gfn < 1024; gfn++) {
        struct p2m_entry before, e;

        p2m_query(swapenv.vms[0].p2m, GFN(gfn - 1), &before);
        p2m_query(swapenv.vms[0].p2m, GFN(gfn), &e);
        runs += word_place(e.seq) != word_place(before.seq) + 1;
    }
    assert_true(runs <= 1024 / 8);
    swapenv_check_all(true);
    swapenv_stop();
}

/*
 * A page that has left has a new frame as soon as somebody wants it, while the flush that takes its old one
 * from the other processors is still to come: none of them may read there once the new one was written.
 */
enum way { BY_GUEST, BY_PIN, BY_OVERWRITE, NR_WAYS };
static struct {
    enum way way;
    unsigned written;
} comes_back;

static enum hv_err write_all(void *arg, void *page)
{
    swapenv_make(page, *(const uint64_t *)arg);
    return HV_OK;
}

static void write_anew(uint64_t gfn)
{
    uint64_t contents = 7 * NR_KINDS + KIND_HALF;
    void *page;

    switch (comes_back.way) {
    case BY_GUEST:
        swapenv_put(0, gfn, contents);
        break;
    case BY_PIN:
        assert_int_equal(p2m_get(swapenv.vms[0].p2m, GFN(gfn), P2M_WRITE, &page), HV_OK);
        swapenv_make(page, contents);
        p2m_put(swapenv.vms[0].p2m, GFN(gfn), page);
        break;
    default:
        assert_int_equal(swap_overwrite(swapenv.vms[0].p2m, GFN(gfn), write_all, &contents), HV_OK);
        break;
    }
    swapenv.contents[0][gfn] = contents;
    comes_back.written++;
}

static void read_and_write_hook(void)
{
    test_env.on_relax = NULL;
    for (uint64_t gfn = 0; gfn < 64; gfn++) {
        struct p2m_entry e;

        p2m_query(swapenv.vms[0].p2m, GFN(gfn), &e);
        if (e.state == P2M_COMPRESSED) {
            write_anew(gfn);
        }
        env_set_cpu(1);
        swapenv_expect(0, gfn);
        env_set_cpu(0);
    }
    test_env.on_relax = read_and_write_hook;
}

static void written_before_flush(void **state)
{
    (void)state;
    for (comes_back.way = BY_GUEST; comes_back.way < NR_WAYS; comes_back.way++) {
        struct swap_step done;

        swapenv_quiet_start_with(2, false, true);
        swapenv.how.zip_pct = 100;
        env_set_cpu(0);
        swapenv_fill_pages(KIND_QUARTER, 0, 64);
        comes_back.written = 0;
        test_env.on_relax = read_and_write_hook;
        for (unsigned i = 0; i < 10; i++) {
            (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
        }
        test_env.on_relax = NULL;
        assert_true(comes_back.written >= 32);
        swapenv_drain();
        swapenv_stop();
    }
}

/* Shared pages are no refuge: the last one on a frame leaves like any other, and where nothing else is left all
 * of them do. */
static void shared_pages_leave(void **state)
{
    struct p2m_counters count;

    (void)state;
    for (unsigned zip_pct = 0; zip_pct <= 100; zip_pct += 100) {
        swapenv_quiet_start();
        swapenv.how.zip_pct = zip_pct;
        for (uint64_t gfn = 0; gfn < 120; gfn++) {
            swapenv_put(0, gfn, gfn / 2 * NR_KINDS + KIND_HALF);
        }
        scan_pages(swapenv.vms[0].p2m, 4 * PAGES);
        swapenv_count_pages(&count);
        assert_true(count.shared >= 100);
        /* One of a pair is written; its twin has the frame to itself. */
        for (uint64_t gfn = 0; gfn < 60; gfn += 2) {
            swapenv_put(0, gfn, (1000 + gfn) * NR_KINDS + KIND_HALF);
        }
        swapenv_take_all();
        swapenv_count_pages(&count);
        assert_int_equal(count.shared, 0);
        assert_int_equal(count.consumed, 0);
        assert_int_equal(count.swapped + count.compressed, 120);
        assert_true(zip_pct != 0 || count.swapped == 120);
        swapenv_check_all(true);
        swapenv_stop();
    }
}

/* Pages that are written all the time stay, and do not stand before the shared ones. */
static uint64_t nr_hot;

static void rewrite_hook(struct flush_domain *d)
{
    static uint64_t times;

    swapenv_quiet_flush_hook(d);
    test_env.on_flush = swapenv_quiet_flush_hook;
    for (uint64_t i = 1; i <= nr_hot; i++) {
        swapenv_put(0, PAGES - i, ++times * NR_KINDS + KIND_RANDOM);
    }
    test_env.on_flush = rewrite_hook;
}

static void hot_pages_stay(void **state)
{
    struct p2m_counters count;
    struct swap_step done;

    (void)state;
    for (nr_hot = 1; nr_hot <= 200; nr_hot += 199) {
        swapenv_quiet_start();
        swapenv.how.compress = false;
        for (uint64_t gfn = 0; gfn < 120; gfn++) {
            swapenv_put(0, gfn, gfn / 2 * NR_KINDS + KIND_HALF);
        }
        scan_pages(swapenv.vms[0].p2m, 4 * PAGES);
        rewrite_hook(NULL);
        for (unsigned i = 0; i < 200; i++) {
            (void)!swap_out(swapenv.vms[0].p2m, 32, &swapenv.how, &done);
            swapenv_drain();
        }
        test_env.on_flush = swapenv_quiet_flush_hook;
        swapenv_count_pages(&count);
        assert_int_equal(count.swapped, 120);
        assert_int_equal(count.consumed, nr_hot);
        swapenv_check_all(true);
        swapenv_stop();
    }
}

/* Pages on a frame count as freed once, when the last has left; who reads without a lock what no view maps is waited
 * for all the same. */
static void shared_pages_are_counted(void **state)
{
    struct flush_batch batch;
    struct swap_step done;
    uint64_t epoch, freed = 0;
    struct p2m *p;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    p = swapenv.vms[0].p2m;
    for (uint64_t gfn = 0; gfn < 24; gfn++) {
        swapenv_put(0, gfn, KIND_RANDOM);
    }
    scan_pages(p, 4 * PAGES);
    flush_batch_init(&batch, p2m_flush_domain(p));
    swapenv.vms[0].view->ops->drop(swapenv.vms[0].view, GFN(0), PAGES, &batch);
    flush_batch_commit(&batch);
    epoch = p2m_flush_domain(p)->epoch;
    for (unsigned i = 0; i < 20; i++) {
        (void)!swap_out(p, 32, &swapenv.how, &done);
        freed += done.freed;
        (void)faultstore_serve(&swapenv.store, 100);
        freed += swap_reap();
    }
    assert_int_equal(freed, 1);
    assert_true(p2m_flush_domain(p)->epoch > epoch);
    swapenv_check_all(true);
    swapenv_stop();
}

/* Written while it is on its way: it stays, and what was written stays. */
static void touched_meanwhile(void **state)
{
    struct swap_step done;
    struct p2m_counters count;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv.store.deferred = true;
    swapenv_fill_pages(KIND_RANDOM, 0, 16);
    for (unsigned started = 0; started < 16; started += (unsigned)done.started) {
        assert_int_equal(swap_out(swapenv.vms[0].p2m, 16, &swapenv.how, &done), HV_OK);
    }
    swapenv_fill_pages(KIND_RANDOM, 4, 4);
    swapenv_put(0, 9, 12345);
    swapenv_expect(0, 0); /* reading does not matter */
    swapenv_drain();
    swapenv_count_pages(&count);
    assert_int_equal(count.swapped, 11);
    swapenv_check_all(true);
    swapenv_stop();
}

/* A region of which something is away becomes one large page, once that is back; not if it is too much,
 * or cannot be read. */
static void back_for_a_large_page(void **state)
{
    struct p2m_region r;
    struct swap_step done;
    struct p2m_counters count;
    struct p2m *p;
    mfn_t block;

    (void)state;
    swapenv_quiet_start();
    p = swapenv.vms[0].p2m;
    swapenv.store.deferred = true;
    swapenv_fill_pages(KIND_RANDOM, 0, 32);
    swapenv_fill_pages(KIND_FILLED, 32, 32); /* compressed to nothing */
    swapenv_take_all();
    swapenv_fill_pages(KIND_HALF, 64, 448);
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block), HV_OK);

    assert_false(p2m_large_joinable(p, GFN(5), 510, 63, &r));
    assert_int_equal(r.away, 64);
    assert_true(p2m_large_joinable(p, GFN(5), 510, 64, &r));
    assert_int_equal(r.fresh, 0);
    assert_int_equal(p2m_large_join(p, GFN(5), 510, block), HV_EBUSY);
    assert_int_equal(p2m_large_bring_back(p, GFN(5)), 32); /* decompressed; being read */
    swapenv_drain();
    assert_int_equal(p2m_large_bring_back(p, GFN(5)), 0);
    assert_true(p2m_large_joinable(p, GFN(5), 510, 0, &r));
    assert_int_equal(p2m_large_join(p, GFN(5), 510, block), HV_OK);
    swapenv_count_pages(&count);
    assert_true(count.large_2m == 1 && count.swapped == 0 && count.compressed == 0);
    swapenv_check_all(true);

    swapenv_fill_pages(KIND_RANDOM, 512, 1);
    assert_int_equal(p2m_large_split(p, GFN(0), NULL), HV_OK);
    while (swap_out(p, 600, &swapenv.how, &done) != HV_ENOENT) {
        swapenv_drain();
    }
    swapenv.store.gone = true;
    test_env.quiet = swapenv.errors = true;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(p2m_large_bring_back(p, GFN(0)) > 0);
        swapenv_drain();
    }
    assert_int_equal(p2m_large_join(p, GFN(0), 512, MFN_NONE), HV_EBUSY);
    swapenv.store.gone = false; /* each page says once more that it could not be read */
    swapenv_check_all(true);
    swapenv_stop();
}

/* IEEE Std 1619, Annex B, vector 4: XTS-AES-128 of the bytes 0 to 255 twice, data unit 0. A block's cipher depends on
 * what is before it in the unit by its number only, so that the first 512 bytes of a page must be these. */
static const char xts_key[] = "27182818284590452353602874713526"
                              "31415926535897932384626433832795";
static const char xts_cipher[] = "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
                                 "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
                                 "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
                                 "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
                                 "5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
                                 "a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
                                 "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
                                 "5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
                                 "94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
                                 "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
                                 "e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
                                 "b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
                                 "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
                                 "afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
                                 "bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
                                 "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";

static void from_hex(const char *hex, uint8_t *out)
{
    for (; *hex != '\0'; hex += 2) {
        unsigned byte;

        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        *out++ = (uint8_t)byte;
    }
}

static void cipher_is_the_standards(void **state)
{
    uint8_t page[PAGE_SIZE], cipher[PAGE_SIZE], other[PAGE_SIZE], expected[512];
    uint8_t key[CRYPT_KEY_BYTES];

    (void)state;
    from_hex(xts_key, key);
    from_hex(xts_cipher, expected);
    for (unsigned i = 0; i < PAGE_SIZE; i++) {
        page[i] = (uint8_t)i;
    }
    crypt_set_key(key);
    crypt_encrypt(cipher, page, 0);
    assert_memory_equal(cipher, expected, sizeof(expected));
    crypt_decrypt(other, cipher, 0);
    assert_memory_equal(other, page, PAGE_SIZE);
    memcpy(other, page, PAGE_SIZE);
    crypt_encrypt(other, other, 0); /* in place, as swap_batch.c does */
    assert_memory_equal(other, cipher, PAGE_SIZE);
    for (unsigned bit = 0; bit < 64; bit++) {
        crypt_encrypt(other, page, BIT(bit));
        assert_memory_not_equal(other, cipher, 16);
    }
}

/* Of pages that are all alike: what a slot holds is their cipher for this slot and this use of it, other than in
 * any other slot and than after the last use. */
static void slots_are_encrypted(void **state)
{
    static uint8_t was[32][PAGE_SIZE];
    uint64_t page[WORDS], cipher[WORDS];

    (void)state;
    swapenv.nr_slots = 32;
    swapenv_quiet_start();
    swapenv.nr_slots = NR_SLOTS;
    swapenv.how.compress = false;
    swapenv_make(page, KIND_HALF);
    for (unsigned use = 0; use < 2; use++) {
        for (uint64_t gfn = 0; gfn < 32; gfn++) {
            swapenv_put(0, gfn, KIND_HALF);
        }
        swapenv_take_all();
        for (uint64_t i = 0; i < 32; i++) {
            const uint8_t *slot = faultstore_slot(&swapenv.store, i);

            crypt_encrypt(cipher, page, slots_tweak(i));
            assert_memory_equal(slot, cipher, PAGE_SIZE);
            assert_memory_not_equal(slot, page, 16);
            assert_memory_not_equal(slot, was[i], 16);
            memcpy(was[i], slot, PAGE_SIZE);
            for (uint64_t k = 0; k < i; k++) {
                assert_memory_not_equal(slot, was[k], 16);
            }
        }
    }
    swapenv_check_all(true);
    swapenv_stop();
}

/* Whoever takes or reaps may leave a page's contents in its processor's caches, and says so for each. */
static void contents_are_seen(void **state)
{
    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 32);
    assert_int_equal(test_env.saw_contents, 0);
    swapenv_take_all();
    assert_int_equal(test_env.saw_contents, 32);
    for (uint64_t gfn = 0; gfn < 32; gfn++) {
        swapenv_expect(0, gfn);
    }
    assert_int_equal(test_env.saw_contents, 64);
    swapenv_stop();
}

/* Every frame that there is has been given away: pages leave all the same, those of large pages too. */
static void taking_allocates_nothing(void **state)
{
    struct p2m_counters count;

    (void)state;
    for (unsigned large = 0; large < 2; large++) {
        swapenv_quiet_start_with(1, large, true);
        swapenv.how.zip_pct = 100;
        swapenv_fill_pages(KIND_QUARTER, 0, 100);
        swapenv_fill_pages(KIND_HALF, 100, 100);
        swapenv_fill_pages(KIND_RANDOM, 200, 824);
        swapenv_count_pages(&count);
        assert_int_equal(count.large_2m, 2 * large);
        /* A page for the cache takes a frame that was set aside, and so does splitting a large page. */
        test_env.fail_rate = 1;
        swapenv_take_all();
        swapenv_count_pages(&count);
        assert_true(count.consumed == 0 && count.large_2m == 0 && count.swapped >= 824);
        assert_int_equal(count.compressed + count.swapped, 1024);
        test_env.fail_rate = 0;
        swapenv_check_all(true);
        swapenv_stop();
    }
}

static uint64_t frames_in_use(enum frame_use use)
{
    struct buddy_stats s;

    buddy_stats(&s);
    return s.used[use];
}

/* What splitting took of the frames that were set aside comes back from what left, as soon as that can be had. */
static void spares_are_replaced(void **state)
{
    struct p2m_counters count;
    uint64_t host;

    (void)state;
    swapenv_quiet_start_with(1, true, true);
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 1024);
    host = frames_in_use(FRAME_HOST);
    test_env.fail_rate = 1;
    for (unsigned i = 0; i < 20 && (swapenv_count_pages(&count), count.large_2m != 0); i++) {
        assert_true(swap_out_some() > 0);
        swapenv_drain();
    }
    assert_int_equal(count.large_2m, 0);
    assert_int_equal(frames_in_use(FRAME_HOST), host - 2);
    assert_true(count.swapped > 0 && count.swapped < 1024);
    test_env.fail_rate = 0;
    assert_true(swap_out_some() > 0);
    swapenv_drain();
    assert_int_equal(frames_in_use(FRAME_HOST), host);
    swapenv_check_all(true);
    swapenv_stop();
}

/* A large page part of which is pinned stays as it is, and costs nothing: not a frame of who splits it, nor of
 * those that are set aside. */
static void pinned_large_page_stays(void **state)
{
    uint64_t host, nodes;
    struct p2m_counters count;
    struct swap_step done;
    mfn_t spare, block, none = MFN_NONE;
    struct p2m *p;
    void *page;

    (void)state;
    swapenv_quiet_start_with(1, true, true);
    p = swapenv.vms[0].p2m;
    swapenv_fill_pages(KIND_RANDOM, 0, 512);
    assert_int_equal(p2m_get(p, GFN(77), P2M_READ, &page), HV_OK);
    assert_int_equal(buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &spare), HV_OK);
    host = frames_in_use(FRAME_HOST);
    nodes = frames_in_use(FRAME_P2M);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(swap_out(p, SWAP_BATCH, &swapenv.how, &done), HV_ENOENT);
        assert_int_equal(p2m_large_split(p, GFN(0), &spare), HV_EBUSY);
        assert_true(mfn_valid(spare));
        assert_int_equal(p2m_large_split(p, GFN(0), NULL), HV_EBUSY);
    }
    assert_int_equal(frames_in_use(FRAME_HOST), host);
    assert_int_equal(frames_in_use(FRAME_P2M), nodes);
    p2m_put(p, GFN(77), page);

    assert_int_equal(p2m_large_split(p, GFN(0), &none), HV_ENOMEM);
    swapenv_count_pages(&count);
    assert_int_equal(count.large_2m, 1);
    assert_int_equal(p2m_large_split(p, GFN(0), &spare), HV_OK);
    assert_false(mfn_valid(spare));
    assert_int_equal(frames_in_use(FRAME_HOST), host - 1);
    assert_int_equal(frames_in_use(FRAME_P2M), nodes + 1);

    /* Once it is large again, its node is still there: whoever splits it needs no frame, and if he cannot, the node
     * waits for the next one. */
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block), HV_OK);
    assert_int_equal(p2m_large_join(p, GFN(0), 0, block), HV_OK);
    assert_int_equal(p2m_get(p, GFN(77), P2M_READ, &page), HV_OK);
    assert_int_equal(p2m_large_split(p, GFN(0), &none), HV_EBUSY);
    p2m_put(p, GFN(77), page);
    assert_true(p2m_audit(p));
    assert_int_equal(p2m_large_split(p, GFN(0), &none), HV_OK);
    assert_int_equal(frames_in_use(FRAME_P2M), nodes + 1);
    swapenv_check_all(true);
    swapenv_stop();
}

/* Touches in a row bring ever more neighbours along, scattered ones none. */
static void neighbours_come_along(void **state)
{
    struct swap_stats s, before;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 1024);
    swapenv_take_all();
    for (uint64_t gfn = 0; gfn < 256; gfn++) {
        swapenv_expect(0, gfn);
    }
    swap_stats(&before);
    assert_int_equal(before.read, 256);
    assert_true(before.along >= 256 * 3 / 4);
    for (uint64_t i = 0; i < 96; i++) {
        swapenv_expect(0, 256 + i * 389 % 768);
    }
    swap_stats(&s);
    assert_true(s.along - before.along <= 16);
    swapenv_stop();
}

/* Who takes stands back while somebody waits for a page, but is never held up for good. */
static void readers_go_first(void **state)
{
    struct swap_step done;
    struct p2m_entry e;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, 64);
    swapenv_take_all();
    swapenv_fill_pages(KIND_RANDOM, 64, 1000);
    swapenv.store.deferred = true;
    assert_int_equal(p2m_populate(swapenv.vms[0].p2m, GFN(3), P2M_READ, &e), HV_EAGAIN);
    assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_OK);
    assert_true(done.started > 0);
    assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_EAGAIN);
    swapenv.how.urgent = true;
    assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_OK);
    swapenv.how.urgent = false;
    swapenv_drain();
    assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_OK);
    assert_int_equal(swap_out(swapenv.vms[0].p2m, 8, &swapenv.how, &done), HV_OK);
    swapenv_check_all(true);
    swapenv_stop();
}

/* Pages of a VM on their way until it gets no further read; how many reads that took. */
static unsigned read_all_it_may(unsigned nr, uint64_t pages)
{
    unsigned reads = 0;
    struct p2m_entry e;

    for (uint64_t gfn = 0; gfn < pages; gfn++) {
        p2m_query(swapenv.vms[nr].p2m, GFN(gfn), &e);
        if (e.state != P2M_SWAPPED) {
            continue; /* it came along */
        }
        assert_int_equal(p2m_populate(swapenv.vms[nr].p2m, GFN(gfn), P2M_READ, &e), HV_EAGAIN);
        p2m_query(swapenv.vms[nr].p2m, GFN(gfn), &e);
        if (e.state == P2M_SWAPPED) {
            assert_false(swap_may_retry(swapenv.vms[nr].p2m, GFN(gfn)));
            return reads;
        }
        reads++;
    }
    fail_msg("VM %u never gets enough", nr);
    return 0;
}

/* A VM that wants all reads gets half of them, and another is served at once. When all are used up, who lacks
 * one is woken by each that ends, and nobody gets more than a quarter, until so many are free again. */
static void reads_of_others(void **state)
{
    enum { MANY = 512, READS = 32 };
    uint64_t before;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.compress = false;
    swapenv_fill_pages(KIND_RANDOM, 0, MANY);
    swapenv_take_all();
    for (uint64_t gfn = 0; gfn < MANY; gfn++) {
        swapenv_put(1, gfn, gfn * NR_KINDS + KIND_RANDOM);
    }
    for (struct swap_step done;
         swap_out(swapenv.vms[1].p2m, MANY, &swapenv.how, &done) != HV_ENOENT;) {
        swapenv_drain();
    }
    swapenv.store.deferred = true;
    before = swapenv.nr_wakes_of_all;
    assert_int_equal(read_all_it_may(0, MANY), READS / 2);
    assert_int_equal(faultstore_serve(&swapenv.store, 1), 1);
    swap_reap();
    assert_int_equal(swapenv.nr_wakes_of_all, before);
    assert_int_equal(read_all_it_may(0, MANY), 1);
    assert_int_equal(read_all_it_may(1, MANY), READS / 2);
    for (unsigned i = 1; i <= READS / 4; i++) {
        assert_int_equal(read_all_it_may(0, MANY), 0);
        assert_int_equal(faultstore_serve(&swapenv.store, 1), 1);
        swap_reap();
        assert_int_equal(swapenv.nr_wakes_of_all, before + i);
    }
    assert_int_equal(faultstore_serve(&swapenv.store, 1), 1);
    swap_reap();
    assert_int_equal(swapenv.nr_wakes_of_all, before + READS / 4);
    assert_int_equal(read_all_it_may(0, MANY) + read_all_it_may(1, MANY), READS / 4 + 1);
    swapenv_drain();
    swapenv_check_all(true);
    swapenv_stop();
}

static enum hv_err fill_number(void *arg, void *page)
{
    swapenv_make(page, *(uint64_t *)arg);
    return *(uint64_t *)arg == 0 ? HV_EFAULT : HV_OK;
}

/* What will be overwritten as a whole is not read; what cannot be written stays as it was. */
static void overwritten(void **state)
{
    struct swap_stats s;

    (void)state;
    swapenv_quiet_start();
    swapenv.how.zip_pct = 100;
    swapenv_fill_pages(KIND_RANDOM, 0, 32);
    swapenv_fill_pages(KIND_HALF, 32, 32);
    swapenv_take_all();
    for (uint64_t gfn = 0; gfn < 64; gfn++) {
        uint64_t contents = gfn % 4 == 0 ? 0 : gfn * NR_KINDS + KIND_RANDOM + 1000 * NR_KINDS;

        assert_true(swap_is_away(swapenv.vms[0].p2m, GFN(gfn)));
        assert_int_equal(swap_overwrite(swapenv.vms[0].p2m, GFN(gfn), fill_number, &contents),
                         contents == 0 ? HV_EFAULT : HV_OK);
        if (contents != 0) {
            swapenv.contents[0][gfn] = contents;
            assert_false(swap_is_away(swapenv.vms[0].p2m, GFN(gfn)));
            assert_int_equal(swap_overwrite(swapenv.vms[0].p2m, GFN(gfn), fill_number, &contents),
                             HV_EBUSY);
        }
    }
    test_env.fail_rate = 1;
    assert_int_equal(swap_overwrite(swapenv.vms[0].p2m, GFN(0), fill_number, NULL), HV_ENOMEM);
    test_env.fail_rate = 0;
    swap_stats(&s);
    assert_true(s.read == 0 && s.spared == 48);
    swapenv_check_all(true);
    swapenv_stop();
}

/* ---- Everything at random ---- */

static void large_step(struct tlbguest *vm)
{
    gfn_t gfn = GFN(512 * rng_below(&swapenv.rng, 2));
    mfn_t block;

    if (rng_below(&swapenv.rng, 2)) {
        (void)p2m_large_bring_back(vm->p2m, gfn);
    }
    if (buddy_alloc(ORDER_2M, FRAME_GUEST, (uint32_t)(vm - swapenv.vms) + 1, 0, &block) == HV_OK &&
        p2m_large_join(vm->p2m, gfn, 512, block) != HV_OK) {
        buddy_free(block, ORDER_2M);
    }
    if (compact_block((uint32_t)(vm - swapenv.vms) + 1, &block) == HV_OK) {
        buddy_free(block, ORDER_2M);
    }
}

static void random_step(void)
{
    struct tlbguest *vm = &swapenv.vms[rng_below(&swapenv.rng, NR_VMS)];
    struct swap_step done;

    env_set_cpu((unsigned)rng_below(&swapenv.rng, test_env.nr_cpus));
    switch (rng_below(&swapenv.rng, 40)) {
    case 0:
    case 1:
        (void)!swap_out(vm->p2m, 1 + rng_below(&swapenv.rng, 64), &swapenv.how, &done);
        break;
    case 2:
        scan_pages(vm->p2m, rng_below(&swapenv.rng, 100));
        break;
    case 3:
    case 4:
        swapenv_pin_step(vm);
        break;
    case 5:
        if (rng_below(&swapenv.rng, 20) == 0) {
            large_step(vm);
        }
        break;
    case 6:
    case 7:
    case 8:
        swapenv_let_store_work();
        break;
    case 9:
        swapenv.how.compress = rng_below(&swapenv.rng, 4) != 0;
        swapenv.how.zip_pct = (unsigned)rng_below(&swapenv.rng, 12);
        swapenv.how.urgent = rng_below(&swapenv.rng, 2);
        break;
    default:
        tlbguest_step(vm, rng_below(&swapenv.rng, 3) == 0);
        break;
    }
}

static void random_operations(void **state)
{
    struct swap_stats s;
    uint64_t zipped = 0, unzipped = 0, out = 0, in = 0, failures = 0, along = 0;

    (void)state;
    rng_seed(&swapenv.rng, env_seed("swap: random operations"));
    swapenv.nr_eio = 0;
    for (unsigned round = 0; round < 8; round++) {
        swapenv_start(round % 2 == 0 ? NR_CPUS : 1, round % 4 == 3, round != 1);
        unsigned logged = test_env.logged;

        rng_seed(&test_env.rng, rng_next(&swapenv.rng));
        swapenv.store.deferred = round != 2;
        swapenv.errors = round >= 4;
        test_env.quiet = swapenv.errors;
        swapenv.store.fail_rate = round == 4 || round == 6 ? 20 : 0;
        swapenv.store.flip_rate = round == 5 || round == 6 ? 20 : 0;
        test_env.fail_rate = round == 7 ? 30 : 0;
        for (unsigned step = 0; step < 12000; step++) {
            random_step();
            if (step % 1000 == 999) {
                swapenv_check_all(step % 4000 == 3999);
            }
        }
        failures += test_env.failures;
        test_env.fail_rate = swapenv.store.fail_rate = swapenv.store.flip_rate = 0;
        swapenv_check_all(true);
        swap_stats(&s);
        along += s.along;
        assert_true(test_env.logged - logged <= 16 &&
                    (s.write_errors == 0 || test_env.logged > logged));
        assert_true((s.write_errors != 0) == (round == 4 || round == 6));
        assert_true((s.mismatches != 0) == (round == 5 || round == 6));
        for (unsigned i = 0; i < NR_VMS; i++) {
            struct p2m_counters count;

            p2m_counters(swapenv.vms[i].p2m, &count);
            zipped += count.zipped;
            unzipped += count.unzipped;
            out += count.swapped_out;
            in += count.swapped_in;
        }
        swapenv_stop();
    }
    printf("zipped %llu, unzipped %llu, out %llu, in %llu (along %llu), HV_EIO %llu\n",
           (unsigned long long)zipped, (unsigned long long)unzipped, (unsigned long long)out,
           (unsigned long long)in, (unsigned long long)along, (unsigned long long)swapenv.nr_eio);
    assert_true(zipped > 10000 && unzipped > 5000 && out > 10000 && in > 5000 && along > 100);
    assert_true(failures > 50 && swapenv.nr_eio > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_costs),          cmocka_unit_test(cache_has_a_bound),
        cmocka_unit_test(cache_leaves_once),        cmocka_unit_test(cache_frames_are_mixed),
        cmocka_unit_test(cache_frees_frames),       cmocka_unit_test(written_before_flush),
        cmocka_unit_test(shared_pages_leave),       cmocka_unit_test(hot_pages_stay),
        cmocka_unit_test(shared_pages_are_counted), cmocka_unit_test(touched_meanwhile),
        cmocka_unit_test(back_for_a_large_page),    cmocka_unit_test(cipher_is_the_standards),
        cmocka_unit_test(slots_are_encrypted),      cmocka_unit_test(taking_allocates_nothing),
        cmocka_unit_test(neighbours_come_along),    cmocka_unit_test(readers_go_first),
        cmocka_unit_test(reads_of_others),          cmocka_unit_test(overwritten),
        cmocka_unit_test(contents_are_seen),        cmocka_unit_test(spares_are_replaced),
        cmocka_unit_test(writes_are_clustered),     cmocka_unit_test(cache_saves_reads),
        cmocka_unit_test(pinned_large_page_stays),  cmocka_unit_test(random_operations),
        cmocka_unit_test(stalls_are_counted),
    };

    return cmocka_run_group_tests_name("swap", tests, NULL, NULL);
}
