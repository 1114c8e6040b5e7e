/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mm/share as a user program, for make bench-native: over pages dumped from Linux guests, with a p2m
 * and nested tables for each guest, as in the hypervisor; but no processor runs the guests, so a flush
 * costs nothing.
 *
 *     native_share scan FILE    share them in one pass each; prints what that took
 *     native_share hold FILE    keep them in memory for Linux KSM until the standard input ends
 *
 * FILE is a sequence of struct dumped, made by native.py.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mm/env.h"
#include "mm/p2m.h"
#include "mm/pt/fmt_x86.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"
#include "tests/host/env.h"

#define BASE MFN(0x200)
#define MAX_GUESTS 64u
#define SPARE_FRAMES 65536u /* for tables */

struct dumped {
    uint32_t guest, unused;
    uint64_t gfn;
    uint8_t contents[PAGE_SIZE];
};

static struct guest {
    struct p2m *p2m;
    struct view *view;
    uint64_t gfns;
} guests[MAX_GUESTS];

static void die(const char *what)
{
    fprintf(stderr, "native_share: %s\n", what);
    exit(1);
}

static const struct dumped *open_dump(const char *path, uint64_t *nr)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    void *map;

    if (fd < 0 || fstat(fd, &st) != 0) {
        die("no such dump");
    }
    *nr = (uint64_t)st.st_size / sizeof(struct dumped);
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (map == MAP_FAILED) {
        die("the dump cannot be mapped");
    }
    return map;
}

static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- Ours ---- */

static void create_guest(unsigned i)
{
    const struct p2m_config cfg = {.owner = i + 1, .max_order = ORDER_4K, .salt = 1};
    struct guest *g = &guests[i];

    if (p2m_create(&cfg, &g->p2m) != HV_OK || p2m_add_ram(g->p2m, GFN(0), g->gfns) != HV_OK ||
        nested_create(g->p2m, &fmt_x86_npt, i + 1, &g->view) != HV_OK) {
        die("no memory for a guest");
    }
    share_join(g->p2m);
}

/* Writable in the guest's tables, with these contents. */
static void give_page(const struct dumped *d)
{
    struct guest *g = &guests[d->guest];
    void *page;

    if (g->view->ops->fault(g->view, gfn_gpa(GFN(d->gfn)), P2M_WRITE) != HV_OK ||
        p2m_get(g->p2m, GFN(d->gfn), P2M_WRITE, &page) != HV_OK) {
        die("no memory for a page");
    }
    memcpy(page, d->contents, PAGE_SIZE);
    p2m_put(g->p2m, GFN(d->gfn), page);
}

static void scan(const struct dumped *dump, uint64_t nr)
{
    struct share_stats stats;
    uint64_t merged = 0, scanned = 0;
    double start, seconds;

    for (uint64_t i = 0; i < nr; i++) {
        if (dump[i].guest >= MAX_GUESTS) {
            die("too many guests");
        }
        if (dump[i].gfn >= guests[dump[i].guest].gfns) {
            guests[dump[i].guest].gfns = dump[i].gfn + 1;
        }
    }
    env_start(BASE, (nr + SPARE_FRAMES) & ~511ull, 1);
    /* As the hypervisor maps memory: by large pages. Contents come before the clock starts. */
    (void)!madvise(env_frame_ptr(BASE), ((nr + SPARE_FRAMES) & ~511ull) * PAGE_SIZE, MADV_HUGEPAGE);
    if (share_init(nr) != HV_OK) {
        die("no memory for the index");
    }
    share_seed(1);
    for (unsigned i = 0; i < MAX_GUESTS && guests[i].gfns != 0; i++) {
        create_guest(i);
    }
    for (uint64_t i = 0; i < nr; i++) {
        give_page(&dump[i]);
    }
    start = cpu_seconds();
    for (unsigned i = 0; i < MAX_GUESTS && guests[i].gfns != 0; i++) {
        scan_all(guests[i].p2m);
    }
    seconds = cpu_seconds() - start;
    for (unsigned i = 0; i < MAX_GUESTS && guests[i].gfns != 0; i++) {
        struct scan_stats s;

        scan_stats(guests[i].p2m, &s);
        merged += s.merged;
    }
    scanned = nr;
    share_stats(&stats);
    printf("%llu %llu %llu %.6f\n", (unsigned long long)scanned, (unsigned long long)merged,
           (unsigned long long)(stats.pages - stats.common), seconds);
}

/* ---- For KSM ---- */

static void hold(const struct dumped *dump, uint64_t nr)
{
    uint8_t *memory =
        mmap(NULL, nr * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char c;

    if (memory == MAP_FAILED) {
        die("no memory");
    }
    /* As mm/share sees them: pages of 4 KiB. */
    (void)!madvise(memory, nr * PAGE_SIZE, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < nr; i++) {
        memcpy(memory + i * PAGE_SIZE, dump[i].contents, PAGE_SIZE);
    }
    if (madvise(memory, nr * PAGE_SIZE, MADV_MERGEABLE) != 0) {
        die("madvise(MERGEABLE) is refused");
    }
    printf("ready\n");
    fflush(stdout);
    while (read(0, &c, 1) > 0) {}
}

int main(int argc, char **argv)
{
    const struct dumped *dump;
    uint64_t nr;

    if (argc != 3) {
        die("scan FILE or hold FILE");
    }
    dump = open_dump(argv[2], &nr);
    if (strcmp(argv[1], "scan") == 0) {
        scan(dump, nr);
    } else {
        hold(dump, nr);
    }
    return 0;
}
