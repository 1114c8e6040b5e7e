/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rows of kernel/bench_swap.c in native time: mm/reclaim as a user program, with a p2m and nested
 * tables, a store in memory, and no processor to flush. Prints "row",nanoseconds (medians) for bench.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/reclaim/compress.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/swap.h"
#include "mm/share/hash.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"
#include "tests/host/faultstore.h"

#define SAMPLES 256u
#define PAGES (SAMPLES * SWAP_BATCH)

static double samples[SAMPLES];
static uint64_t page[PAGE_SIZE / 8], other[PAGE_SIZE / 8], zip_state[ZIP_STATE_BYTES / 8];
static struct faultstore store;

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double row(const char *name, double without)
{
    qsort(samples, SAMPLES, sizeof(samples[0]), compare);
    printf("\"%s\",%.0f\n", name, samples[SAMPLES / 2] - without);
    return samples[SAMPLES / 2];
}

static void compress(void)
{
    (void)zip_page(zip_state, page, other);
}

static void encrypt(void)
{
    crypt_encrypt(other, page, 7);
}

static void decrypt(void)
{
    crypt_decrypt(other, page, 7);
}

static void copy(void)
{
    env_copy_page(other, page);
}

static void checksum(void)
{
    page[0] ^= hash_page(page);
}

static double step(const char *name, void (*fn)(void))
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        double start = now_ns();

        for (unsigned k = 0; k < 16; k++) {
            fn();
        }
        samples[i] = (now_ns() - start) / 16;
    }
    return row(name, 0);
}

static void woken(struct p2m *p)
{
    (void)p;
}

static void all_woken(void)
{
}

static void die(const char *what)
{
    fprintf(stderr, "native_swap: %s\n", what);
    exit(1);
}

static void fill(struct p2m *p, uint64_t gfn)
{
    struct view *view = p2m_view(p);
    void *ptr;

    if (view->ops->fault(view, gfn_gpa(GFN(gfn)), P2M_WRITE) != HV_OK ||
        p2m_get(p, GFN(gfn), P2M_WRITE, &ptr) != HV_OK) {
        die("no page");
    }
    memset(ptr, (int)gfn, PAGE_SIZE);
    p2m_put(p, GFN(gfn), ptr);
}

static void ways(struct p2m *p, double without)
{
    const struct swap_how how = {.urgent = true};
    struct view *view = p2m_view(p);
    unsigned nr = 0;

    for (unsigned i = 0; i < SAMPLES; i++) {
        struct swap_step done = {0};
        double start = now_ns();

        if (swap_out(p, SWAP_BATCH, &how, &done) != HV_OK) {
            die("nothing leaves");
        }
        (void)swap_reap();
        samples[i] = (now_ns() - start) / (double)MAX(done.started, (uint64_t)1);
    }
    (void)row("swap: take a page, less checksum and copy to the store", without);
    for (uint64_t i = 0; i < PAGES && nr < SAMPLES; i++) {
        gfn_t gfn = GFN((i * 389 + 7) % PAGES);
        double start = now_ns();

        if (swap_is_away(p, gfn)) {
            if (view->ops->fault(view, gfn_gpa(gfn), P2M_READ) != HV_OK) {
                die("a page does not come back");
            }
            samples[nr++] = now_ns() - start;
        }
    }
    (void)row("swap: fault on a page in the store, less checksum and copy", without);
}

int main(void)
{
    static const uint8_t key[CRYPT_KEY_BYTES] = {1, 2, 3};
    const struct p2m_config cfg = {.owner = 1, .max_order = ORDER_4K, .salt = 7};
    const struct swap_config swap = {.store = &store.store,
                                     .seed = 1,
                                     .read_along = UINT64_MAX,
                                     .wake = woken,
                                     .wake_all = all_woken};
    struct view *view;
    struct rng rng;
    struct p2m *p;
    double sum;

    rng_seed(&rng, 1);
    for (unsigned i = 0; i < PAGE_SIZE / 8 * 2 / 5; i++) {
        page[i] = rng_next(&rng);
    }
    env_start(MFN(0x200), 4 * PAGES, 1);
    faultstore_start(&store, PAGES, 1);
    crypt_set_key(key);
    if (share_init(4 * PAGES) != HV_OK || swap_init(&swap) != HV_OK ||
        p2m_create(&cfg, &p) != HV_OK || p2m_add_ram(p, GFN(0), PAGES) != HV_OK ||
        nested_create(p, &fmt_x86_npt, 1, &view) != HV_OK) {
        die("no memory");
    }
    (void)step("swap: compress a page to half (LZ4)", compress);
    (void)step("swap: encrypt a page (AES-128-XTS)", encrypt);
    (void)step("swap: decrypt a page (AES-128-XTS)", decrypt);
    sum = step("swap: checksum of a page", checksum) + step("swap: copy a page", copy);
    for (uint64_t i = 0; i < PAGES; i++) {
        fill(p, i);
    }
    ways(p, sum);
    return 0;
}
