/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The kernel half of mm/env.h, but for env_flush_guest (kernel/vm/flush.c).
 */
#include "mm/env.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/mitigate.h"
#include "arch/x86_64/mm_env.h"
#include "arch/x86_64/mtrr.h"
#include "arch/x86_64/percpu.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/sched/sched.h"
#include "mm/pt/pt.h"

/* The image's list of sites; inlining may have repeated some (linker.ld). */
extern const char *const __fail_sites_start[], *const __fail_sites_end[];

static char fail_site[32];      /* empty: nothing fails; set at boot */
static uint64_t fail_every = 1; /* set at boot */
static uint64_t fail_count;     /* atomic */

void *env_frame_ptr(mfn_t mfn)
{
    return mfn_ptr(mfn);
}

mfn_t env_ptr_frame(const void *ptr)
{
    return hpa_mfn(virt_to_phys(ptr));
}

bool env_memory_is_wb(void)
{
    return mtrr_ram_is_wb();
}

bool env_large_code(void)
{
    return !mitigate_plan()->small_code;
}

unsigned env_memory_type(hpa_t pa, uint64_t size)
{
    switch (mtrr_type(pa, size)) {
    case MTRR_WB:
        return PT_WB;
    case MTRR_WT:
        return PT_WT;
    case MTRR_WC:
        return PT_WC;
    default:
        return PT_UC; /* write-protected RAM among them: no format has that type */
    }
}

unsigned env_cpu(void)
{
    return this_cpu()->id;
}

unsigned env_nr_cpus(void)
{
    return nr_cpus();
}

uint64_t env_now_ns(void)
{
    return clock_now_ns();
}

void env_relax(void)
{
    const struct cpu *cpu = this_cpu();

    /* Before the scheduler runs there is nobody to let in. */
    if (cpu->current != NULL && cpu->irq_depth == 0 && irq_enabled()) {
        sched_yield();
    }
}

void env_log(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_error("%s", text);
}

void env_note(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    log_info("%s", text);
}

void env_panic(const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    panic("%s", text);
}

static bool is_listed(const char *site, const char *const *end)
{
    for (const char *const *s = __fail_sites_start; s < end; s++) {
        if (str_equal(*s, site)) {
            return true;
        }
    }
    return false;
}

static void refuse_site(const char *site)
{
    char list[400];
    size_t n = 0;

    for (const char *const *s = __fail_sites_start; s < __fail_sites_end; s++) {
        if (!is_listed(*s, s)) {
            n += (size_t)scnprintf(list + n, sizeof(list) - n, "%s%s", n != 0 ? ", " : "", *s);
        }
    }
    log_error("command line: fail=%s: there is no such site; accepted: %s", site, list);
}

void mm_env_configure(const char *cmdline)
{
    char word[32 + 12];

    if (!parse_option(cmdline, "fail", word, sizeof(word))) {
        return;
    }
    char *colon = strchr(word, ':');

    if (colon != NULL) {
        *colon = '\0';
        if (parse_u64(colon + 1, &fail_every) != HV_OK || fail_every == 0) {
            log_error("command line: fail=%s:%s: accepted: SITE or SITE:N, N from 1 on", word,
                      colon + 1);
            return;
        }
    }
    if (!is_listed(word, __fail_sites_end)) {
        refuse_site(word);
        return;
    }
    (void)str_copy(fail_site, sizeof(fail_site), word);
    log_warn("fail=%s: one in %llu allocations there fails on purpose", fail_site,
             (unsigned long long)fail_every);
}

bool env_site_may_allocate(const char *site)
{
    if (likely(fail_site[0] == '\0') || !str_equal(site, fail_site)) {
        return true;
    }
    return (__atomic_add_fetch(&fail_count, 1, __ATOMIC_RELAXED) % fail_every) != 0;
}

void env_saw_contents(void)
{
    mitigate_served();
}

void env_vector_begin(void)
{
    fpu_begin();
}

void env_vector_end(void)
{
    fpu_end();
}

void env_clear_page(void *page)
{
    uint64_t count = PAGE_SIZE / 8;

    __asm__ volatile("rep stosq" : "+D"(page), "+c"(count) : "a"(0ull) : "memory");
}

void env_clear_pages(void *first, unsigned nr)
{
    uint64_t count = nr * (PAGE_SIZE / 8);

    __asm__ volatile("rep stosq" : "+D"(first), "+c"(count) : "a"(0ull) : "memory");
}

void env_copy_page(void *dst, const void *src)
{
    uint64_t count = PAGE_SIZE / 8;

    __asm__ volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(count)::"memory");
}
