/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory checker. Walks the RAM above the image (above 4 GiB too): each page must read as zero on
 * first touch, then gets a pattern that depends on its frame number, which later rounds verify and
 * renew. A page that shows up in two places, loses a write or arrives dirty is found.
 * Command line: mb=N (how much, default all), rounds=N (2), order=linear|random, zero=no (memory that
 * firmware has used), fill=linear|random|half (pages hard to compress, or to less than half),
 * from=high (take the highest region first, to reach beyond 4 GiB with a small mb).
 */
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/report.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define MIB (1UL << 20)
#define FOUR_GIB (1UL << 32)

static struct boot_region area[BOOT_MAX_REGIONS];
static size_t nr_areas;
static uint64_t nr_pages;

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

/* First word that differs, or WORDS. */
static uint64_t verify(const volatile uint64_t *p, uint64_t base, uint64_t step)
{
    for (uint64_t w = 0; w < WORDS; w++) {
        if (p[w] != word(base, w, step)) {
            return w;
        }
    }
    return WORDS;
}

static void fill(volatile uint64_t *p, uint64_t base)
{
    for (uint64_t w = 0; w < WORDS; w++) {
        p[w] = word(base, w, 1);
    }
}

/* One pass over all pages; returns the number of bad ones. */
static uint64_t pass(uint64_t round, bool random, bool check_zero)
{
    unsigned int bits = 2;
    while ((1UL << bits) < nr_pages) {
        bits++;
    }
    uint64_t bad = 0;
    uint64_t count = random ? 1UL << bits : nr_pages;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t index = random ? permute(i, bits) : i;
        if (index >= nr_pages) {
            continue;
        }
        uint64_t addr = page_at(index);
        volatile uint64_t *p = (volatile uint64_t *)addr;
        uint64_t w = WORDS;
        if (round > 0) {
            w = verify(p, pattern(addr, round - 1), 1);
        } else if (check_zero) {
            w = verify(p, 0, 0);
        }
        if (w != WORDS && bad++ < 8) {
            console_printf("memtouch: round %lu address 0x%lx holds 0x%lx\n", round, addr + w * 8,
                           p[w]);
        }
        fill(p, pattern(addr, round));
    }
    return bad;
}

void guest_main(void)
{
    uint64_t rounds = boot_option_u64("rounds", 2);
    bool random = boot_option_is("order", "random");
    noisy = boot_option_is("fill", "random") || boot_option_is("fill", "half");
    nr_noise = boot_option_is("fill", "half") ? WORDS * 2 / 5 : WORDS;
    bool check_zero = !boot_option_is("zero", "no");
    collect(boot_option_u64("mb", 1UL << 40) * MIB / PAGE, boot_option_is("from", "high"));
    console_printf("memtouch: %lu MiB in %lu areas, %lu rounds, %s order\n", nr_pages * PAGE / MIB,
                   nr_areas, rounds, random ? "random" : "linear");
    report_check(nr_pages > 0, "memtouch-map", "no RAM above the image");
    report_check(pass(0, random, check_zero) == 0, "memtouch-zero", "page not zero on first touch");
    for (uint64_t r = 1; r <= rounds; r++) {
        report_check(pass(r, random, false) == 0, "memtouch-pattern", "pattern lost");
        console_printf("memtouch: round %lu of %lu done\n", r, rounds);
    }
    report_summary();
}
