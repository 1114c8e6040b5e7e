/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of page sharing: a p2m with a view, but without a VM, is filled with pages and scanned. Under QEMU's -icount shift=0 a TSC tick is an instruction. The rows have the bench guest's
 * format: "name",samples,minimum,median,maximum,0. Caller: kernel/main.c.
 */
#include "kernel/bench_share.h"

#include "arch/x86_64/clock.h"
#include "kernel/bench_swap.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/backend.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/view.h"

#define OWNER (OWNER_MAX - 1) /* nobody's */
#define SLICE 32u             /* pages scanned together, as the scan does */
#define SAMPLES BENCH_SAMPLES
#define PAGES (SLICE * SAMPLES) /* of each kind */
#define SALT 0x7fffffffu

static uint64_t samples[SAMPLES];

uint64_t bench_row(const char *name, uint64_t *samples, uint64_t without)
{
    for (unsigned i = 1; i < SAMPLES; i++) {
        uint64_t v = samples[i];
        unsigned at = i;

        for (; at > 0 && samples[at - 1] > v; at--) {
            samples[at] = samples[at - 1];
        }
        samples[at] = v;
    }
    uint64_t median = samples[SAMPLES / 2];

    log_info("\"%s\",%u,%llu,%llu,%llu,0", name, SAMPLES,
             (unsigned long long)(samples[0] - MIN(without, samples[0])),
             (unsigned long long)(median - MIN(without, median)),
             (unsigned long long)(samples[SAMPLES - 1] - MIN(without, samples[SAMPLES - 1])));
    return median;
}

static uint64_t row(const char *name, uint64_t without)
{
    return bench_row(name, samples, without);
}

/* Page gfn, mapped writable in the view and filled with words that begin with `value`. */
static bool fill(struct p2m *p, uint64_t gfn, uint64_t value)
{
    struct view *view = p2m_view(p);
    uint64_t *words;
    void *ptr;

    if (view->ops->fault(view, gfn_gpa(GFN(gfn)), P2M_WRITE) != HV_OK ||
        p2m_get(p, GFN(gfn), P2M_WRITE, &ptr) != HV_OK) {
        return false;
    }
    words = ptr;
    for (unsigned i = 0; i < PAGE_SIZE / sizeof(*words); i++) {
        words[i] = value + i;
    }
    p2m_put(p, GFN(gfn), ptr);
    return true;
}

/* Scan the pages of one kind slice by slice; a sample is a page's part of its slice. */
static void measure(struct p2m *p, uint64_t first)
{
    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t start = rdtsc();

        scan_range(p, GFN(first + i * SLICE), SLICE);
        samples[i] = (rdtsc() - start) / SLICE;
    }
}

/* Pages [0, n): alone. [n, 2n): like those. [2n, 3n): like those too, which are shared by then.
 * [3n, 4n): zero. */
static bool fill_all(struct p2m *p)
{
    for (uint64_t i = 0; i < 3 * PAGES; i++) {
        if (!fill(p, i, (i % PAGES + 1) << 32)) {
            return false;
        }
    }
    for (uint64_t i = 3 * PAGES; i < 4 * PAGES; i++) {
        struct view *view = p2m_view(p);

        if (view->ops->fault(view, gfn_gpa(GFN(i)), P2M_WRITE) != HV_OK) {
            return false;
        }
    }
    return true;
}

static void measure_all(struct p2m *p)
{
    uint64_t look;

    /* What comes first pays for the index's tables. */
    scan_range(p, GFN(0), PAGES);
    measure(p, 0);
    look = row("share: hash and look up a page", 0);
    measure(p, PAGES);
    (void)row("share: merge with a hint", look);
    measure(p, 2 * PAGES);
    (void)row("share: merge with a shared frame", look);
    measure(p, 3 * PAGES);
    (void)row("share: merge a zero page, hash spared", 0);
}

static void bench_share(void)
{
    const struct p2m_config cfg = {.owner = OWNER, .max_order = ORDER_4K, .salt = SALT};
    struct view *view;
    struct p2m *p;

    if (p2m_create(&cfg, &p) != HV_OK) {
        log_error("bench share: no memory");
        return;
    }
    if (p2m_add_ram(p, GFN(0), 4 * PAGES) == HV_OK &&
        nested_create(p, hv_caps.nested_format, OWNER, &view) == HV_OK) {
        share_join(p);
        if (share_member(p) != 0 && fill_all(p)) {
            measure_all(p);
        }
    }
    p2m_destroy(p);
    log_info("bench share: done");
}

void bench_run(const char *cmdline)
{
    char word[16];

    if (!parse_option(cmdline, "bench", word, sizeof(word))) {
        return;
    }
    if (str_equal(word, "share")) {
        bench_share();
    } else if (str_equal(word, "swap")) {
        bench_swap();
    } else {
        log_error("command line: bench=%s: accepted: share, swap", word);
    }
}
