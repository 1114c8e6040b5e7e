/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of swapping: a p2m with a view, but without a VM, whose pages leave for a store that only copies,
 * at once, and come back one by one. What is not bookkeeping has rows of its own: compression, checksum,
 * encryption, the copy that stands for the driver, and a request through the block layer. With swap =
 * off and swap.encrypt = off.
 */
#include "kernel/bench_swap.h"

#include "arch/x86_64/clock.h"
#include "kernel/bench_share.h"
#include "kernel/drivers/blk.h"
#include "kernel/drivers/ramdisk.h"
#include "kernel/lib/rng.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/backend.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/reclaim/compress.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/store.h"
#include "mm/reclaim/swap.h"
#include "mm/share/hash.h"
#include "mm/view.h"

#define OWNER (OWNER_MAX - 1)              /* nobody's */
#define PAGES (SWAP_BATCH * BENCH_SAMPLES) /* that leave */
#define RAM_PAGES (3 * PAGES)              /* of which: as at 1.5 times more than there is */
#define SLOTS_ORDER 10u
_Static_assert(BIT(SLOTS_ORDER) >= PAGES, "a slot for each page");

static uint64_t samples[BENCH_SAMPLES];
static mfn_t frames[2];
static uint64_t zip_state[ZIP_STATE_BYTES / 8];

/* ---- What is done to each page's contents ---- */

static void checksum(void *page, void *other)
{
    (void)other;
    *(uint64_t *)page ^= hash_page(page);
}

static void compress(void *page, void *other)
{
    (void)zip_page(zip_state, page, other);
}

static void encrypt(void *page, void *other)
{
    crypt_encrypt(other, page, 7);
}

static void decrypt(void *page, void *other)
{
    crypt_decrypt(other, page, 7);
}

static void copy(void *page, void *other)
{
    env_copy_page(other, page);
}

static uint64_t step(const char *name, void (*fn)(void *page, void *other))
{
    for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
        uint64_t start = rdtsc();

        fn(env_frame_ptr(frames[0]), env_frame_ptr(frames[1]));
        samples[i] = rdtsc() - start;
    }
    return bench_row(name, samples, 0);
}

/* Half of it noise, as LZ4's worst case that still fits. */
static void fill_half(uint64_t *words)
{
    struct rng rng;

    rng_seed(&rng, 1);
    memset(words, 0, PAGE_SIZE);
    for (unsigned i = 0; i < PAGE_SIZE / sizeof(*words) * 2 / 5; i++) {
        words[i] = rng_next(&rng);
    }
}

static void decompress_row(struct p2m *p)
{
    const struct swap_how how = {.compress = true, .zip_pct = 100, .urgent = true};
    struct view *view = p2m_view(p);
    struct swap_step done;
    void *page;

    for (uint64_t i = 0; i < BENCH_SAMPLES; i++) {
        if (p2m_get(p, GFN(i), P2M_WRITE, &page) == HV_OK) {
            fill_half(page);
            p2m_put(p, GFN(i), page);
        }
    }
    while (swap_out(p, SWAP_BATCH, &how, &done) == HV_OK) {
        (void)swap_reap();
    }
    for (uint64_t i = 0; i < BENCH_SAMPLES; i++) {
        uint64_t start = rdtsc();

        (void)!view->ops->fault(view, gfn_gpa(GFN(i)), P2M_READ);
        samples[i] = rdtsc() - start;
    }
    (void)bench_row("swap: fault on a compressed page, LZ4 included", samples, 0);
}

/* ---- The way out and in ---- */

static bool fill(struct p2m *p, uint64_t gfn)
{
    struct view *view = p2m_view(p);
    void *page;

    if (view->ops->fault(view, gfn_gpa(GFN(gfn)), P2M_WRITE) != HV_OK ||
        p2m_get(p, GFN(gfn), P2M_WRITE, &page) != HV_OK) {
        return false;
    }
    memset(page, (int)gfn, PAGE_SIZE);
    p2m_put(p, GFN(gfn), page);
    return true;
}

/* A batch of pages from choice to eviction. */
static void way_out(struct p2m *p, uint64_t without)
{
    const struct swap_how how = {.urgent = true};

    for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
        struct swap_step done = {0};
        uint64_t start = rdtsc();

        (void)!swap_out(p, SWAP_BATCH, &how, &done);
        (void)swap_reap();
        samples[i] = (rdtsc() - start) / MAX(done.started, (uint64_t)1);
    }
    (void)bench_row("swap: take a page, less checksum and copy to the store", samples, without);
}

static void way_in(struct p2m *p, uint64_t without)
{
    struct view *view = p2m_view(p);
    unsigned nr = 0;

    for (uint64_t i = 0; i < RAM_PAGES && nr < BENCH_SAMPLES; i++) {
        gfn_t gfn = GFN((i * 389 + 7) % RAM_PAGES); /* nobody's neighbour */
        uint64_t start;

        if (swap_is_away(p, gfn)) {
            start = rdtsc();
            (void)!view->ops->fault(view, gfn_gpa(gfn), P2M_READ);
            samples[nr++] = rdtsc() - start;
        }
    }
    (void)bench_row("swap: fault on a page in the store, less checksum and copy", samples, without);
}

/* ---- The driver ---- */

static void block_row(void)
{
    struct blk_disk *disk;

    if (ramdisk_create(MIB(4), &disk) != HV_OK) {
        return;
    }
    for (unsigned i = 0; i < BENCH_SAMPLES; i++) {
        uint64_t start = rdtsc();

        (void)!blk_io(disk, BLK_WRITE, 0, frames, 1);
        samples[i] = rdtsc() - start;
    }
    (void)bench_row("swap: write a page through the block layer (RAM disk)", samples, 0);
}

static char *slots;

static void move(struct store *s, struct store_request *r)
{
    (void)s;
    for (unsigned i = 0; i < r->nr; i++) {
        char *slot = slots + (r->slot + i) * PAGE_SIZE;
        char *page = env_frame_ptr(r->frames[i]);

        env_copy_page(r->op == STORE_WRITE ? slot : page, r->op == STORE_WRITE ? page : slot);
    }
    r->result = HV_OK;
    r->done(r);
}

static bool stays(const struct store *s)
{
    (void)s;
    return false;
}

static bool start_store(void)
{
    static const struct store_ops ops = {.submit = move, .gone = stays};
    static struct store store = {.ops = &ops, .nr_slots = PAGES, .name = "bench"};
    mfn_t mfn;

    if (buddy_alloc(SLOTS_ORDER, FRAME_HOST, OWNER_HOST, 0, &mfn) != HV_OK) {
        return false;
    }
    slots = env_frame_ptr(mfn);
    return swap_add_store(&store) == PAGES;
}

void bench_swap(void)
{
    const struct p2m_config cfg = {.owner = OWNER, .max_order = ORDER_4K, .salt = 0x7ffffffe};
    static const uint8_t key[CRYPT_KEY_BYTES] = {1, 2, 3};
    struct view *view;
    struct p2m *p;
    uint64_t sum;

    if (p2m_create(&cfg, &p) != HV_OK || buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &frames[0]) ||
        buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &frames[1])) {
        log_error("bench swap: no memory");
        return;
    }
    crypt_set_key(key); /* no page of a guest is encrypted with it: swap.encrypt = off */
    fill_half(env_frame_ptr(frames[0]));
    (void)step("swap: compress a page to half (LZ4)", compress);
    (void)step("swap: encrypt a page (AES-128-XTS)", encrypt);
    (void)step("swap: decrypt a page (AES-128-XTS)", decrypt);
    sum = step("swap: checksum of a page", checksum) + step("swap: copy a page", copy);
    block_row();
    if (p2m_add_ram(p, GFN(0), RAM_PAGES) == HV_OK &&
        nested_create(p, hv_caps.nested_format, OWNER, &view) == HV_OK && start_store()) {
        bool ok = true;

        for (uint64_t i = 0; ok && i < RAM_PAGES; i++) {
            ok = fill(p, i);
        }
        if (ok) {
            way_out(p, sum);
            way_in(p, sum);
            decompress_row(p);
        }
    }
    swap_leave(p);
    p2m_destroy(p);
    log_info("bench swap: done");
}
