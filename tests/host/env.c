/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mm/env.h for host tests; see env.h.
 */
#include "tests/host/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/env.h"

struct test_env test_env;

static __thread unsigned this_cpu_nr;
static char *arena;
static mfn_t arena_base;
static uint64_t arena_frames;
static uint64_t idle_frames;

void env_set_cpu(unsigned cpu)
{
    this_cpu_nr = cpu;
}

void env_start(mfn_t base, uint64_t nr, unsigned nr_cpus)
{
    struct buddy_stats stats;

    test_env = (struct test_env){.nr_cpus = nr_cpus, .fail_after = -1, .lazy_clear = true};
    this_cpu_nr = 0;
    arena_base = base;
    arena_frames = nr;
    arena = mmap(NULL, nr << PAGE_SHIFT, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED || buddy_init(base, base.n + nr) != HV_OK) {
        abort();
    }
    test_env.lazy_clear = false;
    buddy_add(base, nr);
    buddy_stats(&stats);
    idle_frames = stats.free;
}

void env_stop(void)
{
    struct buddy_stats stats;

    buddy_stats(&stats);
    if (stats.free != idle_frames || !mm_audit()) {
        fprintf(stderr, "machine memory: %llu frames free, %llu at start\n",
                (unsigned long long)stats.free, (unsigned long long)idle_frames);
        abort();
    }
    munmap(arena, arena_frames << PAGE_SHIFT);
    arena = NULL;
}

uint64_t env_idle_frames(void)
{
    return idle_frames;
}

uint64_t env_seed(const char *test)
{
    const char *text = getenv("BALLAST_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : 1;

    printf("%s: seed %llu (BALLAST_SEED)\n", test, (unsigned long long)seed);
    return seed;
}

void *env_frame_ptr(mfn_t mfn)
{
    if (mfn.n < arena_base.n || mfn.n - arena_base.n >= arena_frames) {
        env_panic("frame %#llx is no RAM", (unsigned long long)mfn.n);
    }
    return arena + ((mfn.n - arena_base.n) << PAGE_SHIFT);
}

mfn_t env_ptr_frame(const void *ptr)
{
    return mfn_add(arena_base, (uint64_t)((const char *)ptr - arena) >> PAGE_SHIFT);
}

unsigned env_cpu(void)
{
    return this_cpu_nr;
}

unsigned env_nr_cpus(void)
{
    return test_env.nr_cpus;
}

/* Unless the test links the kernel's (kernel/vm/flush.c). */
__attribute__((weak)) void env_flush_guest(struct flush_domain *d)
{
    if (test_env.broken_flush) {
        return;
    }
    __atomic_add_fetch(&test_env.flushes, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&d->epoch, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&d->flushes, 1, __ATOMIC_RELAXED);
    if (test_env.on_flush != NULL) {
        test_env.on_flush(d);
    }
}

__attribute__((weak)) bool env_flush_is_local(const struct flush_domain *d)
{
    (void)d;
    return test_env.nr_cpus == 1;
}

__attribute__((weak)) void env_flush_local(struct flush_domain *d)
{
    env_flush_guest(d);
}

uint64_t env_now_ns(void)
{
    static uint64_t now;

    return __atomic_add_fetch(&now, 1000, __ATOMIC_RELAXED);
}

void env_relax(void)
{
    __atomic_add_fetch(&test_env.relaxes, 1, __ATOMIC_RELAXED);
    if (test_env.on_relax != NULL) {
        test_env.on_relax();
    }
}

void env_log(const char *fmt, ...)
{
    va_list args;

    test_env.logged++;
    if (test_env.quiet) {
        return;
    }
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

void env_note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(test_env.noted, sizeof(test_env.noted), fmt, args);
    va_end(args);
    test_env.notes++;
}

void env_panic(const char *fmt, ...)
{
    va_list args;

    if (test_env.panic != NULL) {
        longjmp(*test_env.panic, 1);
    }
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

bool env_memory_is_wb(void)
{
    return test_env.memory_type == 0;
}

bool env_large_code(void)
{
    return !test_env.small_code;
}

unsigned env_memory_type(hpa_t pa, uint64_t size)
{
    (void)pa;
    (void)size;
    return test_env.memory_type;
}

void env_saw_contents(void)
{
    __atomic_add_fetch(&test_env.saw_contents, 1, __ATOMIC_RELAXED);
}

bool env_site_may_allocate(const char *site)
{
    bool fails = false;

    if (test_env.fail_site != NULL && strcmp(site, test_env.fail_site) != 0) {
        return true;
    }
    if (test_env.fail_after >= 0) {
        fails = test_env.fail_after == 0;
        test_env.fail_after--;
    }
    if (test_env.fail_rate != 0 && rng_below(&test_env.rng, test_env.fail_rate) == 0) {
        fails = true;
    }
    if (fails) {
        test_env.failures++;
    }
    return !fails;
}

void env_vector_begin(void)
{
}

void env_vector_end(void)
{
}

void env_clear_page(void *page)
{
    if (!test_env.lazy_clear) {
        memset(page, 0, PAGE_SIZE);
    }
}

void env_clear_pages(void *first, unsigned nr)
{
    if (!test_env.lazy_clear) {
        memset(first, 0, nr * PAGE_SIZE);
    }
}

void env_copy_page(void *dst, const void *src)
{
    memcpy(dst, src, PAGE_SIZE);
}
