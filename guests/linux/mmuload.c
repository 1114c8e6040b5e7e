/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Works for comparing nested and shadow paging under Linux (tests/bench/mmu_linux.py): each is done a fixed
 * number of times on every processor at once. A work's workers prepare (memory is touched here), all
 * wait, and the host's counters are read in the quiet seconds before and behind it, in which nothing is
 * printed either. Static: the guest has no C library.
 *
 *   mmuload: WORK ready                              QUIET_S of silence, the work, QUIET_S of silence
 *   mmuload: WORK done cpus=N units=N ticks=N        units: of all processors; ticks: of the TSC
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define QUIET_S 4
#define PAGE 4096ul
#define MIB (1ul << 20)
#define AREA_BYTES (64 * MIB)
#define MAP_PAGES 64ul

static volatile uint64_t *area; /* of AREA_BYTES, of one worker */

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    check(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

static void put(int fd)
{
    check(write(fd, "", 1) == 1, "write");
}

static void get(int fd)
{
    char c;

    check(read(fd, &c, 1) == 1, "read");
}

/* --- Heavy on page tables --- */

static void fork_exec(unsigned long n)
{
    for (; n > 0; n--) {
        pid_t child = fork();
        int status;

        check(child >= 0, "fork");
        if (child == 0) {
            execl("/proc/self/exe", "mmuload", "exit", (char *)NULL);
            _exit(1);
        }
        check(waitpid(child, &status, 0) == child && status == 0, "waitpid");
    }
}

/* A unit is a page: mapped, touched, unmapped. */
static void map_touch(unsigned long n)
{
    for (; n > 0; n -= MAP_PAGES) {
        char *p = mmap(NULL, MAP_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                       -1, 0);

        check(p != MAP_FAILED, "mmap");
        for (unsigned long i = 0; i < MAP_PAGES; i++) {
            *(volatile char *)(p + i * PAGE) = 1;
        }
        munmap(p, MAP_PAGES * PAGE);
    }
}

/* Two processes on this processor hand a byte to and fro: a unit is a switch. */
static void switch_context(unsigned long n)
{
    int there[2], back[2];

    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    if (fork() == 0) {
        for (unsigned long i = 0; i < n; i += 2) {
            get(there[0]);
            put(back[1]);
        }
        _exit(0);
    }
    for (unsigned long i = 0; i < n; i += 2) {
        put(there[1]);
        get(back[0]);
    }
    wait(NULL);
}

/* --- Heavy on the TLB --- */

static void make_area(int advice)
{
    char *p = mmap(NULL, AREA_BYTES + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);

    check(p != MAP_FAILED, "mmap");
    p = (char *)(((uintptr_t)p + 2 * MIB - 1) & ~(2 * MIB - 1));
    check(madvise(p, AREA_BYTES, advice) == 0, "madvise");
    for (unsigned long i = 0; i < AREA_BYTES; i += PAGE) {
        *(volatile char *)(p + i) = 1;
    }
    area = (volatile uint64_t *)p;
}

static void make_small(void)
{
    make_area(MADV_NOHUGEPAGE);
}

static void make_large(void)
{
    char line[128];
    unsigned long kib, found = 0;
    FILE *f;

    make_area(MADV_HUGEPAGE);
    check((f = fopen("/proc/self/smaps_rollup", "r")) != NULL, "smaps_rollup");
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "AnonHugePages: %lu", &kib) == 1) {
            found = kib;
        }
    }
    fclose(f);
    if (found < AREA_BYTES / 1024) {
        fprintf(stderr, "mmuload: only %lu KiB in large pages; Linux makes none below 512 MiB\n",
                found);
        exit(1);
    }
}

static void access_random(unsigned long n)
{
    uint64_t x = 1;

    for (; n > 0; n--) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        (void)area[(x >> 32) % (AREA_BYTES / sizeof(*area))];
    }
}

static void nothing(void)
{
}

static void no_units(unsigned long n)
{
    (void)n;
}

static const struct work {
    const char *name;
    unsigned long units; /* of each processor */
    void (*prepare)(void);
    void (*run)(unsigned long units);
} works[] = {
    {"idle", 0, nothing, no_units},
    {"fork-exec", 200, nothing, fork_exec},
    {"mmap-touch", 200 * MAP_PAGES, nothing, map_touch},
    {"switch", 8000, nothing, switch_context},
    {"random-4k", 2000000, make_small, access_random},
    {"random-2m", 2000000, make_large, access_random},
};

static void quiet(void)
{
    sleep(QUIET_S);
}

static void measure(const struct work *w, unsigned cpus)
{
    int ready[2], go[2], done[2];
    uint64_t ticks;
    pid_t worker[cpus];

    check(pipe(ready) == 0 && pipe(go) == 0 && pipe(done) == 0, "pipe");
    for (unsigned i = 0; i < cpus; i++) {
        worker[i] = fork();
        check(worker[i] >= 0, "fork");
        if (worker[i] == 0) {
            pin(i);
            w->prepare();
            put(ready[1]);
            get(go[0]);
            w->run(w->units);
            put(done[1]);
            pause();
        }
    }
    close(ready[1]);
    close(done[1]);
    for (unsigned i = 0; i < cpus; i++) {
        get(ready[0]);
    }
    printf("mmuload: %s ready\n", w->name);
    quiet();
    ticks = __rdtsc();
    for (unsigned i = 0; i < cpus; i++) {
        put(go[1]);
    }
    for (unsigned i = 0; i < cpus; i++) {
        get(done[0]);
    }
    ticks = __rdtsc() - ticks;
    quiet();
    printf("mmuload: %s done cpus=%u units=%lu ticks=%lu\n", w->name, cpus, w->units * cpus, ticks);
    for (unsigned i = 0; i < cpus; i++) {
        kill(worker[i], SIGKILL);
        waitpid(worker[i], NULL, 0);
    }
    close(ready[0]);
    close(go[0]);
    close(go[1]);
    close(done[0]);
}

int main(int argc, char **argv)
{
    unsigned cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);

    if (argc > 1 && strcmp(argv[1], "exit") == 0) {
        return 0;
    }
    setlinebuf(stdout);
    pin(0);
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++) {
        measure(&works[i], cpus);
    }
    printf("mmuload: end\n");
    return 0;
}
