/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compression and swapping against a naive model: an array of pages per VM, each with the contents that
 * its guest wrote. Guests read and write through model TLBs, which keep every translation until a
 * recorded flush, while their pages are taken, while the store is late, fails, flips bits or is gone.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/compact.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m.h"
#include "mm/p2m_large.h"
#include "mm/pt/fmt_x86.h"
#include "mm/reclaim/compress.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/slots.h"
#include "mm/reclaim/swap.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/faultstore.h"
#include "tests/host/refmmu.h"

#define BASE MFN(0x200)
#define NR_FRAMES 8192ull
#define NR_VMS 2u
#define NR_CPUS 2u
#define PAGES 1100ull
#define NR_SLOTS 4096ull
#define NR_KINDS 5u
#define WORDS (PAGE_SIZE / 8)

/* A page's contents are a function of one number: its kind, and the seed of what is random in it. */
enum kind { KIND_ZERO, KIND_FILLED, KIND_QUARTER, KIND_HALF, KIND_RANDOM };

struct tlb_entry {
    bool valid, writable;
    mfn_t mfn;
};

struct vm {
    struct p2m *p2m;
    struct view *view;
    uint64_t contents[PAGES];
    void *pin[PAGES];
    struct tlb_entry tlb[NR_CPUS][PAGES];
};

static struct vm vms[NR_VMS];
static struct faultstore store;
static struct rng rng;
static unsigned depth; /* of guests running inside hooks */
static bool errors;    /* the store may fail: pages may be out of reach */
static uint64_t nr_eio, nr_wakes, nr_wakes_of_all;
static uint64_t nr_slots = NR_SLOTS; /* of the next store */
static struct swap_how how;

/* ---- Contents ---- */

static void make(uint64_t *page, uint64_t contents)
{
    static const unsigned random_words[NR_KINDS] = {0, 0, 60, 200, WORDS};
    enum kind kind = contents % NR_KINDS;
    struct rng r;

    rng_seed(&r, contents);
    memset(page, 0, PAGE_SIZE);
    if (kind == KIND_FILLED) {
        uint64_t word = (contents & 0xffffffff) | 1;

        for (unsigned i = 0; i < WORDS; i++) {
            page[i] = word << 32 | word;
        }
    }
    for (unsigned i = 0; i < random_words[kind]; i++) {
        page[i] = rng_next(&r);
    }
}

static bool has(const void *page, uint64_t contents)
{
    uint64_t expected[WORDS];

    make(expected, contents);
    return memcmp(expected, page, PAGE_SIZE) == 0;
}

static void check_contents(const struct vm *vm, uint64_t gfn, const void *page)
{
    if (!has(page, vm->contents[gfn])) {
        fail_msg("VM %u page %#llx has lost its contents %#llx (kind %u)", (unsigned)(vm - vms),
                 (unsigned long long)gfn, (unsigned long long)vm->contents[gfn],
                 (unsigned)(vm->contents[gfn] % NR_KINDS));
    }
}

static void write_page(struct vm *vm, uint64_t gfn, void *page)
{
    vm->contents[gfn] = rng_below(&rng, 4000) * (rng_below(&rng, 4) != 0 ? 1 : NR_KINDS);
    make(page, vm->contents[gfn]);
}

/* ---- The guests ---- */

static void woken(struct p2m *p)
{
    (void)p;
    __atomic_fetch_add(&nr_wakes, 1, __ATOMIC_RELAXED);
}

static void all_woken(void)
{
    nr_wakes_of_all++;
}

static void let_store_work(void)
{
    (void)faultstore_serve(&store, 1 + rng_below(&rng, 4));
    if (rng_below(&rng, 2)) {
        swap_reap();
    }
}

/* Until there is an answer, as a vCPU does. */
static enum hv_err fault(struct vm *vm, gfn_t gfn, uint32_t access)
{
    for (unsigned i = 0; i < 1000; i++) {
        enum hv_err err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access | P2M_FAST);

        if (err == HV_EAGAIN) {
            err = vm->view->ops->fault(vm->view, gfn_gpa(gfn), access);
        }
        if (err == HV_EAGAIN) {
            let_store_work();
            continue;
        }
        if (err == HV_EIO) {
            struct swap_failure why;

            swap_error(vm->p2m, gfn, &why);
            assert_true(errors && why.slot < NR_SLOTS && why.why != NULL);
            nr_eio++;
            if (i < 3) {
                continue; /* vm NAME resume */
            }
        }
        return err;
    }
    fail_msg("gfn %#llx never comes", (unsigned long long)gfn.n);
    return HV_EAGAIN;
}

static uint64_t *translate(struct vm *vm, uint64_t gfn, bool write, enum hv_err *err)
{
    struct tlb_entry *entry = &vm->tlb[env_cpu()][gfn];
    struct ref_mapping seen;
    hpa_t root;

    while (!entry->valid || (write && !entry->writable)) {
        assert_int_equal(vm->view->ops->root(vm->view, &root), HV_OK);
        if (ref_walk(root.a, gfn << PAGE_SHIFT, &seen) && (seen.writable || !write)) {
            *entry = (struct tlb_entry){true, seen.writable, hpa_mfn(HPA(seen.pa))};
            break;
        }
        *err = fault(vm, GFN(gfn), write ? P2M_WRITE : P2M_READ);
        if (*err != HV_OK) {
            return NULL;
        }
    }
    return env_frame_ptr(entry->mfn);
}

static uint64_t any_page(void)
{
    return rng_below(&rng, 3) != 0 ? rng_below(&rng, 96) : rng_below(&rng, PAGES);
}

static void guest_step(struct vm *vm, bool write)
{
    uint64_t gfn = any_page();
    enum hv_err err = HV_OK;
    uint64_t *page = translate(vm, gfn, write, &err);

    if (page == NULL) {
        assert_true(err == HV_EIO || (err == HV_ENOMEM && test_env.fail_rate != 0));
        return;
    }
    check_contents(vm, gfn, page);
    if (write) {
        write_page(vm, gfn, page);
    }
}

/* Writes by translations that the processors have, while a flush is on its way to them. */
static void flush_hook(struct flush_domain *d)
{
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct vm *vm = &vms[i];

        if (vm->p2m == NULL || p2m_flush_domain(vm->p2m) != d) {
            continue;
        }
        for (unsigned k = 0; k < 20 && depth < 3; k++) {
            unsigned cpu = (unsigned)rng_below(&rng, test_env.nr_cpus);
            uint64_t gfn = any_page();
            const struct tlb_entry *entry = &vm->tlb[cpu][gfn];

            if (entry->valid) {
                check_contents(vm, gfn, env_frame_ptr(entry->mfn));
            }
            if (entry->valid && entry->writable && rng_below(&rng, 4) == 0) {
                write_page(vm, gfn, env_frame_ptr(entry->mfn));
            }
        }
        memset(vm->tlb, 0, sizeof(vm->tlb));
    }
}

static void quiet_flush_hook(struct flush_domain *d)
{
    (void)d;
    for (unsigned i = 0; i < NR_VMS; i++) {
        memset(vms[i].tlb, 0, sizeof(vms[i].tlb));
    }
}

/* The guests go on, on every processor, while translations that were removed may wait for a flush. */
static void relax_hook(void)
{
    unsigned cpu = env_cpu();

    if (depth != 0 || rng_below(&rng, 4) != 0) {
        return;
    }
    depth++;
    env_set_cpu((unsigned)rng_below(&rng, test_env.nr_cpus));
    guest_step(&vms[rng_below(&rng, NR_VMS)], rng_below(&rng, 3) == 0);
    env_set_cpu(cpu);
    depth--;
}

static void pin_step(struct vm *vm)
{
    uint64_t gfn = any_page();
    bool write = rng_below(&rng, 2);
    enum hv_err err = HV_EAGAIN;
    void *page;

    if (vm->pin[gfn] != NULL) {
        p2m_put(vm->p2m, GFN(gfn), vm->pin[gfn]);
        vm->pin[gfn] = NULL;
        return;
    }
    for (unsigned i = 0; i < 1000 && err == HV_EAGAIN; i++) {
        err = p2m_get(vm->p2m, GFN(gfn), write ? P2M_WRITE : P2M_READ, &page);
        if (err == HV_EAGAIN) {
            let_store_work();
        }
    }
    if (err != HV_OK) {
        assert_true((err == HV_EIO && errors) || (err == HV_ENOMEM && test_env.fail_rate != 0));
        return;
    }
    check_contents(vm, gfn, page);
    if (write) {
        write_page(vm, gfn, page);
    }
    if (write && rng_below(&rng, 4) == 0) {
        vm->pin[gfn] = page;
    } else {
        p2m_put(vm->p2m, GFN(gfn), page);
    }
}

/* ---- The machine ---- */

static void create(unsigned nr, bool large_pages)
{
    const struct p2m_config cfg = {
        .owner = nr + 1, .max_order = ORDER_2M, .large_pages = large_pages, .salt = 7};
    struct vm *vm = &vms[nr];

    memset(vm, 0, sizeof(*vm));
    assert_int_equal(p2m_create(&cfg, &vm->p2m), HV_OK);
    assert_int_equal(p2m_add_ram(vm->p2m, GFN(0), PAGES), HV_OK);
    assert_int_equal(nested_create(vm->p2m, &fmt_x86_npt, nr + 1, &vm->view), HV_OK);
    share_join(vm->p2m);
}

static void destroy(unsigned nr)
{
    p2m_destroy(vms[nr].p2m);
    vms[nr].p2m = NULL;
    assert_true(mm_audit_gone(nr + 1));
    assert_int_equal(slots_owned(nr + 1), 0);
}

static void start_with(const struct swap_config *cfg, unsigned nr_cpus, bool large_pages)
{
    env_start(BASE, NR_FRAMES, nr_cpus);
    assert_int_equal(share_init(NR_FRAMES), HV_OK);
    share_seed(rng_next(&rng));
    assert_int_equal(swap_init(cfg), HV_OK);
    test_env.on_flush = flush_hook;
    test_env.on_relax = relax_hook;
    errors = false;
    how = (struct swap_how){.compress = true, .zip_pct = 10, .share = true};
    for (unsigned i = 0; i < NR_VMS; i++) {
        create(i, large_pages);
    }
}

static void start(unsigned nr_cpus, bool large_pages, bool encrypt)
{
    static const uint8_t key[CRYPT_KEY_BYTES] = {1, 2, 3, [20] = 9};
    const struct swap_config cfg = {.store = &store.store,
                                    .encrypt = encrypt,
                                    .seed = rng_next(&rng),
                                    .read_along = 16,
                                    .wake = woken,
                                    .wake_all = all_woken};

    crypt_set_key(key);
    faultstore_start(&store, nr_slots, rng_next(&rng));
    start_with(&cfg, nr_cpus, large_pages);
}

/* Until nothing is in flight: what failed starts again when it is reaped. */
static void drain(void)
{
    struct swap_stats s;

    do {
        (void)faultstore_serve(&store, 100);
        swap_reap();
        swap_stats(&s);
    } while (s.writes != 0 || s.reads != 0);
}

static void stop(void)
{
    test_env.on_relax = NULL;
    for (unsigned i = 0; i < NR_VMS; i++) {
        for (uint64_t gfn = 0; gfn < PAGES; gfn++) {
            if (vms[i].pin[gfn] != NULL) {
                p2m_put(vms[i].p2m, GFN(gfn), vms[i].pin[gfn]);
            }
        }
        drain();
        destroy(i);
    }
    assert_true(slots_audit());
    swap_fini();
    share_fini();
    env_stop();
    if (store.data != NULL) {
        faultstore_stop(&store);
        store.data = NULL;
    }
}

/* Counted, owned, as written. With `touch`, everything is brought back. */
static void check_all(bool touch)
{
    void (*relax)(void) = test_env.on_relax;
    uint64_t fail_rate = test_env.fail_rate, swapped = 0;
    struct slots_stats s;

    test_env.on_relax = NULL;
    test_env.fail_rate = 0;
    drain();
    for (unsigned i = 0; i < NR_VMS; i++) {
        struct p2m_counters count;

        assert_true(p2m_audit(vms[i].p2m));
        assert_true(vms[i].view->ops->audit(vms[i].view));
        p2m_counters(vms[i].p2m, &count);
        assert_int_equal(count.incoming, 0);
        assert_int_equal(slots_owned(i + 1), count.swapped);
        for (uint64_t gfn = 0; touch && gfn < PAGES; gfn++) {
            enum hv_err err = HV_OK;
            uint64_t *page = translate(&vms[i], gfn, false, &err);

            if (page != NULL) {
                check_contents(&vms[i], gfn, page);
            } else {
                assert_true(errors && err == HV_EIO);
            }
        }
        p2m_counters(vms[i].p2m, &count);
        swapped += count.swapped;
    }
    slots_stats(&s);
    assert_int_equal(s.used, swapped);
    assert_true(slots_audit());
    assert_true(mm_audit());
    test_env.on_relax = relax;
    test_env.fail_rate = fail_rate;
}

static void large_step(struct vm *vm)
{
    gfn_t gfn = GFN(512 * rng_below(&rng, 2));
    mfn_t block;

    if (rng_below(&rng, 2)) {
        (void)p2m_large_bring_back(vm->p2m, gfn);
    }
    if (buddy_alloc(ORDER_2M, FRAME_GUEST, (uint32_t)(vm - vms) + 1, 0, &block) == HV_OK &&
        p2m_large_join(vm->p2m, gfn, 512, block) != HV_OK) {
        buddy_free(block, ORDER_2M);
    }
    if (compact_block((uint32_t)(vm - vms) + 1, &block) == HV_OK) {
        buddy_free(block, ORDER_2M);
    }
}

static void random_step(void)
{
    struct vm *vm = &vms[rng_below(&rng, NR_VMS)];
    struct swap_step done;

    env_set_cpu((unsigned)rng_below(&rng, test_env.nr_cpus));
    switch (rng_below(&rng, 40)) {
    case 0:
    case 1:
        (void)!swap_out(vm->p2m, 1 + rng_below(&rng, 64), &how, &done);
        break;
    case 2:
        scan_pages(vm->p2m, rng_below(&rng, 100));
        break;
    case 3:
    case 4:
        pin_step(vm);
        break;
    case 5:
        if (rng_below(&rng, 20) == 0) {
            large_step(vm);
        }
        break;
    case 6:
    case 7:
    case 8:
        let_store_work();
        break;
    case 9:
        how.compress = rng_below(&rng, 4) != 0;
        how.zip_pct = (unsigned)rng_below(&rng, 12);
        how.urgent = rng_below(&rng, 2);
        break;
    default:
        guest_step(vm, rng_below(&rng, 3) == 0);
        break;
    }
}

static void random_operations(void **state)
{
    struct swap_stats s;
    uint64_t zipped = 0, unzipped = 0, out = 0, in = 0, failures = 0, along = 0;

    (void)state;
    rng_seed(&rng, env_seed("swap: random operations"));
    nr_eio = 0;
    for (unsigned round = 0; round < 8; round++) {
        start(round % 2 == 0 ? NR_CPUS : 1, round % 4 == 3, round != 1);
        unsigned logged = test_env.logged;

        rng_seed(&test_env.rng, rng_next(&rng));
        store.deferred = round != 2;
        errors = round >= 4;
        test_env.quiet = errors;
        store.fail_rate = round == 4 || round == 6 ? 20 : 0;
        store.flip_rate = round == 5 || round == 6 ? 20 : 0;
        test_env.fail_rate = round == 7 ? 30 : 0;
        for (unsigned step = 0; step < 12000; step++) {
            random_step();
            if (step % 1000 == 999) {
                check_all(step % 4000 == 3999);
            }
        }
        failures += test_env.failures;
        test_env.fail_rate = store.fail_rate = store.flip_rate = 0;
        check_all(true);
        swap_stats(&s);
        along += s.along;
        assert_true(test_env.logged - logged <= 16 &&
                    (s.write_errors == 0 || test_env.logged > logged));
        assert_true((s.write_errors != 0) == (round == 4 || round == 6));
        assert_true((s.mismatches != 0) == (round == 5 || round == 6));
        for (unsigned i = 0; i < NR_VMS; i++) {
            struct p2m_counters count;

            p2m_counters(vms[i].p2m, &count);
            zipped += count.zipped;
            unzipped += count.unzipped;
            out += count.swapped_out;
            in += count.swapped_in;
        }
        stop();
    }
    printf("zipped %llu, unzipped %llu, out %llu, in %llu (along %llu), HV_EIO %llu\n",
           (unsigned long long)zipped, (unsigned long long)unzipped, (unsigned long long)out,
           (unsigned long long)in, (unsigned long long)along, (unsigned long long)nr_eio);
    assert_true(zipped > 10000 && unzipped > 5000 && out > 10000 && in > 5000 && along > 100);
    assert_true(failures > 50 && nr_eio > 20);
}

/* ---- One thing at a time ---- */

static void quiet_start(void)
{
    rng_seed(&rng, 3);
    start(1, false, true);
    test_env.on_relax = NULL;
    test_env.on_flush = quiet_flush_hook;
    how.share = false;
}

static void put(unsigned nr, uint64_t gfn, uint64_t contents)
{
    enum hv_err err;
    uint64_t *page = translate(&vms[nr], gfn, true, &err);

    assert_non_null(page);
    vms[nr].contents[gfn] = contents;
    make(page, contents);
}

static void expect(unsigned nr, uint64_t gfn)
{
    enum hv_err err;
    uint64_t *page = translate(&vms[nr], gfn, false, &err);

    assert_non_null(page);
    check_contents(&vms[nr], gfn, page);
}

static void fill_pages(enum kind kind, uint64_t first, uint64_t nr)
{
    for (uint64_t gfn = first; gfn < first + nr; gfn++) {
        put(0, gfn, gfn * NR_KINDS + kind);
    }
}

/* Take all that can be taken. */
static void take_all(void)
{
    struct swap_step done;
    enum hv_err err;

    do {
        err = swap_out(vms[0].p2m, UINT64_MAX, &how, &done);
        drain();
    } while (err != HV_ENOENT);
}

static void count_pages(struct p2m_counters *count)
{
    p2m_counters(vms[0].p2m, count);
}

static void sizes_and_costs(void **state)
{
    struct p2m_counters count;

    (void)state;
    quiet_start();
    how.zip_pct = 100;
    fill_pages(KIND_ZERO, 0, 100);
    fill_pages(KIND_FILLED, 100, 100);
    fill_pages(KIND_QUARTER, 200, 100);
    fill_pages(KIND_HALF, 300, 100);
    fill_pages(KIND_RANDOM, 400, 100);
    take_all();
    count_pages(&count);
    assert_int_equal(count.zero, 100);
    assert_int_equal(count.compressed, 300);
    assert_int_equal(count.zip_frames, 100 / 4 + 100 / 2);
    assert_int_equal(count.swapped, 100);
    assert_int_equal(count.consumed, 0);
    for (uint64_t gfn = 0; gfn < 500; gfn++) {
        expect(0, gfn);
    }
    count_pages(&count);
    assert_true(count.compressed == 0 && count.zip_frames == 0 && count.swapped == 0);
    stop();
}

/* At its bound the cache gives its oldest to the store. */
static void cache_has_a_bound(void **state)
{
    struct p2m_counters count;
    struct p2m_entry e;

    (void)state;
    quiet_start();
    how.zip_pct = 2; /* 22 frames: 44 pages */
    fill_pages(KIND_HALF, 0, 32);
    take_all();
    fill_pages(KIND_HALF, 32, 500);
    take_all();
    count_pages(&count);
    assert_true(count.zip_frames <= 22 + SWAP_BATCH / 2 && count.zip_frames > 5);
    assert_int_equal(count.compressed + count.swapped, 532);
    p2m_query(vms[0].p2m, GFN(0), &e);
    assert_int_equal(e.state, P2M_SWAPPED);
    check_all(true);
    stop();
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
    make(page, *(const uint64_t *)arg);
    return HV_OK;
}

static void write_anew(uint64_t gfn)
{
    uint64_t contents = 7 * NR_KINDS + KIND_HALF;
    void *page;

    switch (comes_back.way) {
    case BY_GUEST:
        put(0, gfn, contents);
        break;
    case BY_PIN:
        assert_int_equal(p2m_get(vms[0].p2m, GFN(gfn), P2M_WRITE, &page), HV_OK);
        make(page, contents);
        p2m_put(vms[0].p2m, GFN(gfn), page);
        break;
    default:
        assert_int_equal(swap_overwrite(vms[0].p2m, GFN(gfn), write_all, &contents), HV_OK);
        break;
    }
    vms[0].contents[gfn] = contents;
    comes_back.written++;
}

static void read_and_write_hook(void)
{
    test_env.on_relax = NULL;
    for (uint64_t gfn = 0; gfn < 64; gfn++) {
        struct p2m_entry e;

        p2m_query(vms[0].p2m, GFN(gfn), &e);
        if (e.state == P2M_COMPRESSED) {
            write_anew(gfn);
        }
        env_set_cpu(1);
        expect(0, gfn);
        env_set_cpu(0);
    }
    test_env.on_relax = read_and_write_hook;
}

static void written_before_flush(void **state)
{
    (void)state;
    for (comes_back.way = BY_GUEST; comes_back.way < NR_WAYS; comes_back.way++) {
        struct swap_step done;

        rng_seed(&rng, 3);
        start(2, false, true);
        test_env.on_flush = quiet_flush_hook;
        test_env.on_relax = NULL;
        how.zip_pct = 100;
        how.share = false;
        env_set_cpu(0);
        fill_pages(KIND_QUARTER, 0, 64);
        comes_back.written = 0;
        test_env.on_relax = read_and_write_hook;
        for (unsigned i = 0; i < 10; i++) {
            (void)!swap_out(vms[0].p2m, 32, &how, &done);
        }
        test_env.on_relax = NULL;
        assert_true(comes_back.written >= 32);
        drain();
        stop();
    }
}

/* Shared pages are no refuge: the last one on a frame leaves like any other, and where nothing else is left all
 * of them do. */
static void shared_pages_leave(void **state)
{
    struct p2m_counters count;

    (void)state;
    for (unsigned zip_pct = 0; zip_pct <= 100; zip_pct += 100) {
        quiet_start();
        how.zip_pct = zip_pct;
        for (uint64_t gfn = 0; gfn < 120; gfn++) {
            put(0, gfn, gfn / 2 * NR_KINDS + KIND_HALF);
        }
        scan_pages(vms[0].p2m, 4 * PAGES);
        count_pages(&count);
        assert_true(count.shared >= 100);
        /* One of a pair is written; its twin has the frame to itself. */
        for (uint64_t gfn = 0; gfn < 60; gfn += 2) {
            put(0, gfn, (1000 + gfn) * NR_KINDS + KIND_HALF);
        }
        take_all();
        count_pages(&count);
        assert_int_equal(count.shared, 0);
        assert_int_equal(count.consumed, 0);
        assert_int_equal(count.swapped + count.compressed, 120);
        assert_true(zip_pct != 0 || count.swapped == 120);
        check_all(true);
        stop();
    }
}

/* Written while it is on its way: it stays, and what was written stays. */
static void touched_meanwhile(void **state)
{
    struct swap_step done;
    struct p2m_counters count;

    (void)state;
    quiet_start();
    how.compress = false;
    store.deferred = true;
    fill_pages(KIND_RANDOM, 0, 16);
    for (unsigned started = 0; started < 16; started += (unsigned)done.started) {
        assert_int_equal(swap_out(vms[0].p2m, 16, &how, &done), HV_OK);
    }
    fill_pages(KIND_RANDOM, 4, 4);
    put(0, 9, 12345);
    expect(0, 0); /* reading does not matter */
    drain();
    count_pages(&count);
    assert_int_equal(count.swapped, 11);
    check_all(true);
    stop();
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
    quiet_start();
    p = vms[0].p2m;
    store.deferred = true;
    fill_pages(KIND_RANDOM, 0, 32);
    fill_pages(KIND_FILLED, 32, 32); /* compressed to nothing */
    take_all();
    fill_pages(KIND_HALF, 64, 448);
    assert_int_equal(buddy_alloc(ORDER_2M, FRAME_GUEST, 1, 0, &block), HV_OK);

    assert_false(p2m_large_joinable(p, GFN(5), 510, 63, &r));
    assert_int_equal(r.away, 64);
    assert_true(p2m_large_joinable(p, GFN(5), 510, 64, &r));
    assert_int_equal(r.fresh, 0);
    assert_int_equal(p2m_large_join(p, GFN(5), 510, block), HV_EBUSY);
    assert_int_equal(p2m_large_bring_back(p, GFN(5)), 32); /* decompressed; being read */
    drain();
    assert_int_equal(p2m_large_bring_back(p, GFN(5)), 0);
    assert_true(p2m_large_joinable(p, GFN(5), 510, 0, &r));
    assert_int_equal(p2m_large_join(p, GFN(5), 510, block), HV_OK);
    count_pages(&count);
    assert_true(count.large_2m == 1 && count.swapped == 0 && count.compressed == 0);
    check_all(true);

    fill_pages(KIND_RANDOM, 512, 1);
    assert_int_equal(p2m_large_split(p, GFN(0)), HV_OK);
    while (swap_out(p, 600, &how, &done) != HV_ENOENT) {
        drain();
    }
    store.gone = true;
    test_env.quiet = errors = true;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(p2m_large_bring_back(p, GFN(0)) > 0);
        drain();
    }
    assert_int_equal(p2m_large_join(p, GFN(0), 512, MFN_NONE), HV_EBUSY);
    store.gone = false; /* each page says once more that it could not be read */
    check_all(true);
    stop();
}

/* A bad slot is retired, the page goes elsewhere; a full store leaves pages where they are. */
static void bad_slots(void **state)
{
    struct p2m_counters count;
    struct slots_stats s;

    (void)state;
    quiet_start();
    how.compress = false;
    test_env.quiet = true;
    fill_pages(KIND_RANDOM, 0, 64);
    store.bad_write[3] = store.bad_write[40] = true;
    take_all();
    slots_stats(&s);
    count_pages(&count);
    assert_int_equal(s.bad, 2);
    assert_int_equal(count.swapped, 64);
    for (uint64_t i = 0; i < NR_SLOTS; i++) {
        store.bad_write[i] = true;
    }
    errors = true;
    check_all(true); /* all back */
    for (unsigned i = 0; i < 10; i++) {
        struct swap_step done;

        (void)!swap_out(vms[0].p2m, 32, &how, &done);
        drain();
    }
    count_pages(&count);
    assert_int_equal(count.swapped, 0);
    check_all(true);
    stop();
}

static enum hv_err populate(uint64_t gfn)
{
    enum hv_err err = HV_EAGAIN;
    struct p2m_entry e;

    for (unsigned i = 0; i < 3 && err == HV_EAGAIN; i++) {
        err = p2m_populate(vms[0].p2m, GFN(gfn), P2M_READ, &e);
    }
    return err;
}

/* A page that cannot be read says so once per attempt, with its slot, and comes when the disk is well
 * again; one that comes back damaged likewise. */
static void bad_reads(void **state)
{
    struct swap_failure why;
    struct p2m_entry e;

    (void)state;
    quiet_start();
    how.compress = false;
    test_env.quiet = true;
    fill_pages(KIND_RANDOM, 0, 8);
    take_all();
    p2m_query(vms[0].p2m, GFN(5), &e);
    assert_int_equal(e.state, P2M_SWAPPED);
    store.fail_read = 2; /* the run, and the page alone */
    assert_int_equal(populate(5), HV_EIO);
    swap_error(vms[0].p2m, GFN(5), &why);
    assert_string_equal(why.why, "the disk reports an error");
    assert_string_equal(why.store, "faultstore");
    faultstore_slot(&store, why.slot)[77] ^= 4;
    assert_int_equal(populate(5), HV_EIO);
    swap_error(vms[0].p2m, GFN(5), &why);
    assert_non_null(strstr(why.why, "checksum"));
    faultstore_slot(&store, why.slot)[77] ^= 4;
    expect(0, 5);
    /* An old version of the slot, or another's, is no better. */
    take_all();
    p2m_query(vms[0].p2m, GFN(5), &e);
    store.fail_read = 2;
    assert_int_equal(populate(5), HV_EIO);
    swap_error(vms[0].p2m, GFN(5), &why);
    memcpy(faultstore_slot(&store, why.slot), faultstore_slot(&store, why.slot ^ 1), PAGE_SIZE);
    assert_int_equal(populate(5), HV_EIO);
    stop();
}

/* Without the disk what is in memory stays in reach, and nothing more leaves but into the cache. */
static void disk_gone(void **state)
{
    struct p2m_counters count;

    (void)state;
    quiet_start();
    test_env.quiet = true;
    fill_pages(KIND_RANDOM, 0, 40);
    take_all();
    fill_pages(KIND_RANDOM, 40, 40);
    fill_pages(KIND_HALF, 80, 40);
    store.gone = true;
    errors = true;
    assert_int_equal(populate(0), HV_EIO);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(vms[0].p2m, 32, &how, &done);
        drain();
    }
    count_pages(&count);
    assert_int_equal(count.swapped, 40);
    assert_int_equal(count.compressed, 40);
    for (uint64_t gfn = 40; gfn < 120; gfn++) {
        expect(0, gfn);
    }
    stop();
}

/* Nothing but the cache. */
static void no_store(void **state)
{
    const struct swap_config cfg = {.seed = 1, .wake = woken, .wake_all = all_woken};
    struct p2m_counters count;

    (void)state;
    rng_seed(&rng, 3);
    start_with(&cfg, 1, false);
    test_env.on_relax = NULL;
    test_env.on_flush = quiet_flush_hook;
    how.zip_pct = 1; /* a bound that nothing can be moved out of holds new pages back */
    fill_pages(KIND_HALF, 0, 200);
    fill_pages(KIND_RANDOM, 200, 20);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(vms[0].p2m, 32, &how, &done);
    }
    count_pages(&count);
    assert_int_equal(count.swapped, 0);
    assert_true(count.compressed > 0 && count.zip_frames <= 11 + SWAP_BATCH / 2);
    check_all(true);
    stop();
}

/* Every allocation of set-up fails in turn. */
static void set_up_fails(void **state)
{
    static const char *const sites[] = {"slots.table", "swap.batch", "swap.copy", "swap.reads"};
    const struct swap_config cfg = {.store = &store.store, .wake = woken, .wake_all = all_woken};

    (void)state;
    faultstore_start(&store, NR_SLOTS, 1);
    env_start(BASE, NR_FRAMES, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(sites); i++) {
        for (int64_t after = 0; after < (i == 2 ? 40 : 1); after++) {
            test_env.fail_site = sites[i];
            test_env.fail_after = after;
            assert_int_equal(swap_init(&cfg), HV_ENOMEM);
        }
    }
    test_env.fail_after = -1;
    env_stop();
    faultstore_stop(&store);
    store.data = NULL;
}

/* Every frame that there is has been given away: pages leave all the same. */
static void taking_allocates_nothing(void **state)
{
    struct p2m_counters count;

    (void)state;
    quiet_start();
    how.zip_pct = 100;
    fill_pages(KIND_QUARTER, 0, 100);
    fill_pages(KIND_HALF, 100, 100);
    fill_pages(KIND_RANDOM, 200, 300);
    test_env.fail_rate = 1;
    /* A page for the cache takes a frame that was set aside: those are refilled from what has left. */
    take_all();
    count_pages(&count);
    assert_true(count.consumed == 0 && count.swapped >= 300);
    assert_int_equal(count.compressed + count.swapped, 500);
    test_env.fail_rate = 0;
    check_all(true);
    stop();
}

/* Touches in a row bring ever more neighbours along, scattered ones none. */
static void neighbours_come_along(void **state)
{
    struct swap_stats s, before;

    (void)state;
    quiet_start();
    how.compress = false;
    fill_pages(KIND_RANDOM, 0, 1024);
    take_all();
    for (uint64_t gfn = 0; gfn < 256; gfn++) {
        expect(0, gfn);
    }
    swap_stats(&before);
    assert_int_equal(before.read, 256);
    assert_true(before.along >= 256 * 3 / 4);
    for (uint64_t i = 0; i < 96; i++) {
        expect(0, 256 + i * 389 % 768);
    }
    swap_stats(&s);
    assert_true(s.along - before.along <= 16);
    stop();
}

/* Who takes stands back while somebody waits for a page, but is never held up for good. */
static void readers_go_first(void **state)
{
    struct swap_step done;
    struct p2m_entry e;

    (void)state;
    quiet_start();
    how.compress = false;
    fill_pages(KIND_RANDOM, 0, 64);
    take_all();
    fill_pages(KIND_RANDOM, 64, 1000);
    store.deferred = true;
    assert_int_equal(p2m_populate(vms[0].p2m, GFN(3), P2M_READ, &e), HV_EAGAIN);
    assert_int_equal(swap_out(vms[0].p2m, 8, &how, &done), HV_OK);
    assert_true(done.started > 0);
    assert_int_equal(swap_out(vms[0].p2m, 8, &how, &done), HV_EAGAIN);
    how.urgent = true;
    assert_int_equal(swap_out(vms[0].p2m, 8, &how, &done), HV_OK);
    how.urgent = false;
    drain();
    assert_int_equal(swap_out(vms[0].p2m, 8, &how, &done), HV_OK);
    assert_int_equal(swap_out(vms[0].p2m, 8, &how, &done), HV_OK);
    check_all(true);
    stop();
}

/* Pages of a VM on their way until it gets no further read; how many reads that took. */
static unsigned read_all_it_may(unsigned nr, uint64_t pages)
{
    unsigned reads = 0;
    struct p2m_entry e;

    for (uint64_t gfn = 0; gfn < pages; gfn++) {
        p2m_query(vms[nr].p2m, GFN(gfn), &e);
        if (e.state != P2M_SWAPPED) {
            continue; /* it came along */
        }
        assert_int_equal(p2m_populate(vms[nr].p2m, GFN(gfn), P2M_READ, &e), HV_EAGAIN);
        p2m_query(vms[nr].p2m, GFN(gfn), &e);
        if (e.state == P2M_SWAPPED) {
            assert_false(swap_may_retry(vms[nr].p2m, GFN(gfn)));
            return reads;
        }
        reads++;
    }
    fail_msg("VM %u never gets enough", nr);
    return 0;
}

/* A VM that wants all reads gets half of them; another is served at once, and who lacks one is woken when one
 * ends. */
static void reads_of_others(void **state)
{
    enum { MANY = 256, READS = 32 };
    uint64_t before;

    (void)state;
    quiet_start();
    how.compress = false;
    fill_pages(KIND_RANDOM, 0, MANY);
    take_all();
    for (uint64_t gfn = 0; gfn < MANY; gfn++) {
        put(1, gfn, gfn * NR_KINDS + KIND_RANDOM);
    }
    for (struct swap_step done; swap_out(vms[1].p2m, MANY, &how, &done) != HV_ENOENT;) {
        drain();
    }
    store.deferred = true;
    assert_int_equal(read_all_it_may(0, MANY), READS / 2);
    assert_int_equal(read_all_it_may(1, MANY), READS / 4);
    before = nr_wakes_of_all;
    assert_int_equal(faultstore_serve(&store, 1), 1);
    swap_reap();
    /* Who wanted one more has been told. */
    assert_int_equal(nr_wakes_of_all, before + 1);
    drain();
    /* And nobody more often than that. */
    assert_int_equal(nr_wakes_of_all, before + 1);
    check_all(true);
    stop();
}

static enum hv_err fill_number(void *arg, void *page)
{
    make(page, *(uint64_t *)arg);
    return *(uint64_t *)arg == 0 ? HV_EFAULT : HV_OK;
}

/* What will be overwritten as a whole is not read; what cannot be written stays as it was. */
static void overwritten(void **state)
{
    struct swap_stats s;

    (void)state;
    quiet_start();
    how.zip_pct = 100;
    fill_pages(KIND_RANDOM, 0, 32);
    fill_pages(KIND_HALF, 32, 32);
    take_all();
    for (uint64_t gfn = 0; gfn < 64; gfn++) {
        uint64_t contents = gfn % 4 == 0 ? 0 : gfn * NR_KINDS + KIND_RANDOM + 1000 * NR_KINDS;

        assert_true(swap_is_away(vms[0].p2m, GFN(gfn)));
        assert_int_equal(swap_overwrite(vms[0].p2m, GFN(gfn), fill_number, &contents),
                         contents == 0 ? HV_EFAULT : HV_OK);
        if (contents != 0) {
            vms[0].contents[gfn] = contents;
            assert_false(swap_is_away(vms[0].p2m, GFN(gfn)));
            assert_int_equal(swap_overwrite(vms[0].p2m, GFN(gfn), fill_number, &contents),
                             HV_EBUSY);
        }
    }
    test_env.fail_rate = 1;
    assert_int_equal(swap_overwrite(vms[0].p2m, GFN(0), fill_number, NULL), HV_ENOMEM);
    test_env.fail_rate = 0;
    swap_stats(&s);
    assert_true(s.read == 0 && s.spared == 48);
    check_all(true);
    stop();
}

/* A full store keeps what it has; pages stay in memory, and leave when there is room again. */
static void store_full(void **state)
{
    struct p2m_counters count;

    (void)state;
    nr_slots = 100;
    quiet_start();
    nr_slots = NR_SLOTS;
    how.compress = false;
    fill_pages(KIND_RANDOM, 0, 300);
    for (unsigned i = 0; i < 40; i++) {
        struct swap_step done;

        (void)!swap_out(vms[0].p2m, 32, &how, &done);
        drain();
    }
    count_pages(&count);
    assert_true(count.swapped == 100 && count.consumed == 200);
    check_all(true);
    count_pages(&count);
    assert_int_equal(count.swapped, 0);
    for (unsigned i = 0; i < 10; i++) {
        struct swap_step done;

        (void)!swap_out(vms[0].p2m, 32, &how, &done);
        drain();
    }
    count_pages(&count);
    assert_int_equal(count.swapped, 100);
    check_all(true);
    stop();
}

/* One run through everything: out, all in, some renewed, out, in. Returns the pages out of reach. */
static uint64_t run_through(void)
{
    uint64_t lost = 0;

    fill_pages(KIND_RANDOM, 0, 24);
    fill_pages(KIND_HALF, 24, 24);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 8; i++) {
            struct swap_step done;

            (void)!swap_out(vms[0].p2m, 16, &how, &done);
            drain();
        }
        for (uint64_t gfn = 0; gfn < 48; gfn++) {
            enum hv_err err = HV_OK;
            uint64_t *page = translate(&vms[0], gfn, gfn % 3 == round, &err);

            if (page == NULL) {
                assert_int_equal(err, HV_EIO);
                lost++;
                continue;
            }
            check_contents(&vms[0], gfn, page);
            if (gfn % 3 == round) {
                vms[0].contents[gfn] = (gfn + 100) * NR_KINDS + KIND_RANDOM;
                make(page, vms[0].contents[gfn]);
            }
        }
    }
    return lost;
}

/* Each request of a run fails in each way, once and for four in a row. What a VM gets to see is what it
 * wrote or an error; an error that does not last loses nothing; the other VM notices nothing. */
static void faults_at_every_step(void **state)
{
    static const uint64_t in_a_row[] = {1, 4};
    uint64_t steps = 0, lost[FAULT_GONE + 1] = {0}, noticed[FAULT_GONE + 1] = {0};

    (void)state;
    for (unsigned k = 0; k < ARRAY_SIZE(in_a_row); k++) {
        for (unsigned fault = FAULT_NONE; fault <= FAULT_GONE; fault++) {
            for (uint64_t at = 0; at < (fault == FAULT_NONE ? 1 : steps); at++) {
                quiet_start();
                test_env.quiet = true;
                errors = true;
                how.compress = at % 2;
                how.zip_pct = 1;
                for (uint64_t gfn = 0; gfn < 16; gfn++) {
                    put(1, gfn, gfn * NR_KINDS + KIND_RANDOM);
                }
                store.fault = fault;
                store.fault_at = at;
                store.nr_faults = in_a_row[k];
                lost[fault] += run_through();
                noticed[fault] += store.failures;
                if (fault == FAULT_NONE) {
                    steps = store.reads + store.writes;
                }
                store.fault = FAULT_NONE;
                store.gone = false;
                for (uint64_t gfn = 0; gfn < 16; gfn++) {
                    expect(1, gfn);
                }
                check_all(true);
                stop();
            }
        }
    }
    printf(
        "%llu requests; pages out of reach: %llu by errors, %llu flipped, %llu lost, %llu gone\n",
        (unsigned long long)steps, (unsigned long long)lost[FAULT_ERROR],
        (unsigned long long)lost[FAULT_FLIP], (unsigned long long)lost[FAULT_LOST],
        (unsigned long long)lost[FAULT_GONE]);
    assert_true(steps > 20 && lost[FAULT_NONE] == 0);
    assert_true(noticed[FAULT_ERROR] != 0 && noticed[FAULT_GONE] != 0);
    assert_true(lost[FAULT_LOST] != 0 && lost[FAULT_FLIP] != 0 && lost[FAULT_GONE] != 0);
}

/* What is in a slot is not what was in the page. */
static void slots_are_encrypted(void **state)
{
    (void)state;
    quiet_start();
    how.compress = false;
    fill_pages(KIND_HALF, 0, 32);
    take_all();
    for (uint64_t i = 0; i < 32; i++) {
        uint64_t words[WORDS];
        unsigned zero = 0;

        memcpy(words, faultstore_slot(&store, i), PAGE_SIZE);
        for (unsigned k = 0; k < WORDS; k++) {
            zero += words[k] == 0;
        }
        assert_true(zero < 3);
    }
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_costs),
        cmocka_unit_test(cache_has_a_bound),
        cmocka_unit_test(written_before_flush),
        cmocka_unit_test(shared_pages_leave),
        cmocka_unit_test(touched_meanwhile),
        cmocka_unit_test(back_for_a_large_page),
        cmocka_unit_test(bad_slots),
        cmocka_unit_test(bad_reads),
        cmocka_unit_test(disk_gone),
        cmocka_unit_test(no_store),
        cmocka_unit_test(set_up_fails),
        cmocka_unit_test(slots_are_encrypted),
        cmocka_unit_test(taking_allocates_nothing),
        cmocka_unit_test(neighbours_come_along),
        cmocka_unit_test(readers_go_first),
        cmocka_unit_test(reads_of_others),
        cmocka_unit_test(overwritten),
        cmocka_unit_test(store_full),
        cmocka_unit_test(faults_at_every_step),
        cmocka_unit_test(random_operations),
    };

    return cmocka_run_group_tests_name("swap", tests, NULL, NULL);
}
