/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory checker. Walks the RAM above the image (above 4 GiB too): each page must read as zero on
 * first touch, then gets a pattern that depends on its frame number, which later rounds verify and
 * renew. A page that shows up in two places, loses a write or arrives dirty is found. With several
 * vCPUs all walk all pages in the same order at once, each with words of its own of every page, which
 * another one wrote the round before: every byte is checked once a round, and a page that is away is
 * wanted by all of them.
 * Command line: mb=N (how much, default all), rounds=N (2), order=linear|random, zero=no (memory that
 * firmware has used), fill=linear|random|half (pages hard to compress, or to less than half),
 * from=high (take the highest region first, to reach beyond 4 GiB with a small mb), cpus=N (1).
 */
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define MIB (1UL << 20)
#define FOUR_GIB (1UL << 32)
#define PATIENCE 4000000000UL /* ticks, for the other vCPUs to come */

static struct boot_region area[BOOT_MAX_REGIONS];
static size_t nr_areas;
static uint64_t nr_pages;
static uint32_t nr_cpus = 1;
static uint64_t nr_rounds;
static bool in_random_order, expect_zero;
static struct smp_barrier meeting;
static uint64_t bad; /* pages of this round; atomic */

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdUL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53UL;
    return x ^ (x >> 33);
}

static void collect(uint64_t limit_pages, bool from_high)
{
    for (size_t n = 0; n < boot_nr_ram && nr_pages < limit_pages; n++) {
        const struct boot_region *r = &boot_ram[from_high ? boot_nr_ram - 1 - n : n];
        uint64_t base = (r->base + PAGE - 1) & ~(PAGE - 1);
        uint64_t end = (r->base + r->size_bytes) & ~(PAGE - 1);
        if (base < boot_loaded_end) {
            base = boot_loaded_end;
        }
        if (base >= end) {
            continue;
        }
        uint64_t pages = (end - base) / PAGE;
        if (pages > limit_pages - nr_pages) {
            pages = limit_pages - nr_pages;
        }
        if (base + pages * PAGE > FOUR_GIB && !paging_identity(base, pages * PAGE)) {
            console_printf("memtouch: no tables for 0x%lx, skipped\n", base);
            continue;
        }
        area[nr_areas++] = (struct boot_region){base, pages * PAGE};
        nr_pages += pages;
    }
}

static uint64_t page_at(uint64_t index)
{
    for (size_t i = 0; i < nr_areas; i++) {
        uint64_t pages = area[i].size_bytes / PAGE;
        if (index < pages) {
            return area[i].base + index * PAGE;
        }
        index -= pages;
    }
    return 0;
}

/* A permutation of 0..2^bits-1 (odd multiplier, then an xor-shift, both invertible). */
static uint64_t permute(uint64_t i, unsigned int bits)
{
    uint64_t mask = (1UL << bits) - 1;
    i = (i * 0x9e3779b97f4a7c15UL + 0x7f4a7c15UL) & mask;
    i ^= i >> (bits / 2 + 1);
    return (i * 0xd1b54a32d192ed03UL) & mask;
}

static uint64_t pattern(uint64_t addr, uint64_t round)
{
    return mix(addr / PAGE + (round << 48));
}

/* Words of a page that are noise; the rest of one with noise is zero. */
static uint64_t nr_noise;
static bool noisy;

/* Word w of a page with this pattern; 0: of a fresh one. */
static uint64_t word(uint64_t base, uint64_t w, uint64_t step)
{
    if (!noisy || step == 0) {
        return base + w * step;
    }
    return w < nr_noise ? mix(base + w) : 0;
}

/* The first of a vCPU's words of each page in this round; they are nr_cpus apart. */
static uint64_t first_word(uint32_t cpu, uint64_t round)
{
    return (cpu + round) % nr_cpus;
}

/* First word from w on that differs, or WORDS. */
static uint64_t verify(const volatile uint64_t *p, uint64_t w, uint64_t base, uint64_t step)
{
    for (; w < WORDS; w += nr_cpus) {
        if (p[w] != word(base, w, step)) {
            return w;
        }
    }
    return WORDS;
}

static void fill(volatile uint64_t *p, uint64_t w, uint64_t base)
{
    for (; w < WORDS; w += nr_cpus) {
        p[w] = word(base, w, 1);
    }
}

/* A vCPU's words of one page. */
static void touch(uint32_t cpu, uint64_t addr, uint64_t round)
{
    volatile uint64_t *p = (volatile uint64_t *)addr;
    uint64_t first = first_word(cpu, round), w = WORDS;

    if (round > 0) {
        w = verify(p, first, pattern(addr, round - 1), 1);
    } else if (expect_zero) {
        w = verify(p, first, 0, 0);
    }
    if (w < WORDS && __atomic_add_fetch(&bad, 1, __ATOMIC_SEQ_CST) <= 8) {
        console_printf("memtouch: round %lu address 0x%lx holds 0x%lx\n", round, addr + w * 8,
                       p[w]);
    }
    fill(p, first, pattern(addr, round));
}

/* One pass of a vCPU over all pages. */
static void pass(uint32_t cpu, uint64_t round)
{
    unsigned int bits = 2;
    while ((1UL << bits) < nr_pages) {
        bits++;
    }
    uint64_t count = in_random_order ? 1UL << bits : nr_pages;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t index = in_random_order ? permute(i, bits) : i;
        if (index < nr_pages) {
            touch(cpu, page_at(index), round);
        }
    }
}

static void report_round(uint64_t round)
{
    if (round == 0) {
        report_check(bad == 0, "memtouch-zero", "page not zero on first touch");
    } else {
        report_check(bad == 0, "memtouch-pattern", "pattern lost");
        console_printf("memtouch: round %lu of %lu done\n", round, nr_rounds);
    }
    bad = 0;
}

/* What each vCPU does; no one begins a round before all have ended the last. */
static void run(uint32_t cpu)
{
    for (uint64_t r = 0; r <= nr_rounds; r++) {
        pass(cpu, r);
        smp_barrier_wait(&meeting, nr_cpus);
        if (cpu == 0) {
            report_round(r);
        }
        smp_barrier_wait(&meeting, nr_cpus);
    }
}

static void ap_main(uint32_t index)
{
    run(index + 1);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

void guest_main(void)
{
    uint32_t want = (uint32_t)boot_option_u64("cpus", 1);

    nr_rounds = boot_option_u64("rounds", 2);
    in_random_order = boot_option_is("order", "random");
    noisy = boot_option_is("fill", "random") || boot_option_is("fill", "half");
    nr_noise = boot_option_is("fill", "half") ? WORDS * 2 / 5 : WORDS;
    expect_zero = !boot_option_is("zero", "no");
    collect(boot_option_u64("mb", 1UL << 40) * MIB / PAGE, boot_option_is("from", "high"));
    console_printf("memtouch: %lu MiB in %lu areas, %lu rounds, %s order\n", nr_pages * PAGE / MIB,
                   nr_areas, nr_rounds, in_random_order ? "random" : "linear");
    report_check(nr_pages > 0, "memtouch-map", "no RAM above the image");
    nr_cpus = want;
    if (want > 1) {
        lapic_enable(false);
        if (smp_start(ap_main, want - 1, PATIENCE) != want - 1) {
            report_check(false, "memtouch-cpus", "a processor is missing");
            report_summary();
            return;
        }
    }
    run(0);
    report_summary();
}
