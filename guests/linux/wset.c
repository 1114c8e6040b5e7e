/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A working set by script in a Linux guest (docs/wset.md): wset [-s SEED] [-f FILE] SCRIPT. Without a file
 * the memory is the program's own; with one it is the file's, read 4 KiB at a time through the page
 * cache. Static: the guest has no C library.
 */
#define _GNU_SOURCE
#include "guests/wset/wset.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define AREA_BYTES (1UL << 36)

static unsigned char *area;
static uint64_t nr_pages; /* of the area, or of the file */
static int file = -1;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * WSET_SECOND_NS + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / WSET_SECOND_NS),
                         .tv_nsec = (long)(ns % WSET_SECOND_NS)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL)) {}
}

static void between(void)
{
}

static bool resize(uint64_t pages)
{
    static uint64_t size;

    if (pages > nr_pages) {
        return false;
    }
    if (file < 0 && pages < size) {
        madvise(area + pages * WSET_PAGE, (size - pages) * WSET_PAGE, MADV_DONTNEED);
    }
    size = pages;
    return true;
}

static volatile uint64_t *page(uint64_t index)
{
    static uint64_t copy[WSET_PAGE / sizeof(uint64_t)];

    if (file < 0) {
        return (volatile uint64_t *)(area + index * WSET_PAGE);
    }
    if (pread(file, copy, WSET_PAGE, (off_t)(index * WSET_PAGE)) != (ssize_t)WSET_PAGE) {
        perror("wset");
        exit(1);
    }
    return copy;
}

static void report(const struct wset_report *r)
{
    printf("wset: t=%lu.%03lu step=%u size=%lu touched=%lu bad=%lu\n", r->time_ns / WSET_SECOND_NS,
           r->time_ns % WSET_SECOND_NS / 1000000, r->step, r->size, r->touched, r->bad);
    fflush(stdout);
}

static int usage(void)
{
    fprintf(stderr, "usage: wset [-s SEED] [-f FILE] SCRIPT\n");
    return 2;
}

static bool open_file(const char *name)
{
    struct stat st;

    file = open(name, O_RDONLY);
    if (file < 0 || fstat(file, &st)) {
        perror(name);
        return false;
    }
    nr_pages = (uint64_t)st.st_size / WSET_PAGE;
    return posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM) == 0;
}

static bool make_area(void)
{
    area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    nr_pages = AREA_BYTES / WSET_PAGE;
    return area != MAP_FAILED;
}

int main(int argc, char **argv)
{
    static struct wset_script script;
    struct wset_env env = {.now_ns = now_ns,
                           .sleep_until = sleep_until,
                           .between = between,
                           .resize = resize,
                           .page = page,
                           .report = report,
                           .seed = 1};
    const char *where, *why, *name = NULL;
    int c;

    while ((c = getopt(argc, argv, "s:f:")) != -1) {
        switch (c) {
        case 's':
            env.seed = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            name = optarg;
            break;
        default:
            return usage();
        }
    }
    if (optind + 1 != argc) {
        return usage();
    }
    if (!wset_parse(argv[optind], &script, &where, &why)) {
        fprintf(stderr, "wset: at '%s': expected %s\n", where, why);
        return 2;
    }
    env.read_only = name != NULL;
    if (!(name ? open_file(name) : make_area())) {
        return 1;
    }
    if (!wset_run(&script, &env)) {
        fprintf(stderr, "wset: not so much memory\n");
        return 1;
    }
    return 0;
}
