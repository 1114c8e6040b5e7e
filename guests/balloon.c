/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest with a balloon driver. Fills a pool of memory with a pattern and checks all of it, round
 * after round, while its balloon driver gives up pages of the pool and takes them back: what comes back
 * must read as zero, and gets the pattern again.
 * Command line: mb=N (the pool, 16), caps=basic|batched|all (all), rounds=N (0: for ever), pause=N (TSC
 * ticks between rounds), pop=N (every Nth round touches a page that was given up, 0: never), stop=N
 * (ends the driver in that round), deaf (it stops asking after round 4).
 */
#include "guests/lib/balloon.h"

#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define STEP 73 /* words between two that are looked at */
#define MIB (1UL << 20)
#define LARGE (2 * MIB)
#define MAX_PAGES (256 * MIB / PAGE)
#define DEAF_ROUND 4

static bool out[MAX_PAGES];
static struct balloon balloon;
static uint64_t bad; /* words */

static volatile uint64_t *page_at(uint64_t page)
{
    return (volatile uint64_t *)(balloon.base + page * PAGE);
}

static uint64_t pattern(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15UL;
}

static void complain(uint64_t page, uint64_t w, uint64_t is, uint64_t should)
{
    if (bad++ < 8) {
        console_printf("balloon: FAIL page %lu word %lu holds 0x%lx, not 0x%lx\n", page, w, is,
                       should);
    }
}

static void look(uint64_t page, bool zero)
{
    const volatile uint64_t *p = page_at(page);

    for (uint64_t w = page % STEP; w < WORDS; w += STEP) {
        uint64_t should = zero ? 0 : pattern(page) + w;

        if (p[w] != should) {
            complain(page, w, p[w], should);
        }
    }
}

static void fill(uint64_t page)
{
    volatile uint64_t *p = page_at(page);

    for (uint64_t w = 0; w < WORDS; w++) {
        p[w] = pattern(page) + w;
    }
}

static void came_back(uint64_t page)
{
    look(page, true);
    fill(page);
}

static bool find_memory(uint64_t bytes)
{
    for (uint64_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = boot_ram[i].base + boot_ram[i].size_bytes;
        uint64_t start = boot_ram[i].base > boot_loaded_end ? boot_ram[i].base : boot_loaded_end;

        start = (start + LARGE - 1) & ~(LARGE - 1);
        if (start + bytes <= end && bytes / PAGE <= MAX_PAGES) {
            balloon.base = start;
            balloon.nr_pages = bytes / PAGE;
            return true;
        }
    }
    return false;
}

/* A page that the host believes free is touched. */
static void pop(void)
{
    for (uint64_t page = 0; page < balloon.nr_pages; page++) {
        if (out[page]) {
            look(page, true);
            return;
        }
    }
}

static void round(uint64_t nr)
{
    uint64_t every = boot_option_u64("pop", 0);

    if (balloon.started && nr == boot_option_u64("stop", 0)) {
        balloon_stop(&balloon);
    }
    if (balloon.started && (nr < DEAF_ROUND || !boot_option_is("deaf", ""))) {
        balloon_tick(&balloon);
    }
    if (every != 0 && nr % every == 0) {
        pop();
    }
    for (uint64_t page = 0; page < balloon.nr_pages; page++) {
        if (!out[page]) {
            look(page, false);
        }
    }
    console_printf("balloon: round %lu, holds %lu of %lu told, %lu refused, %lu resets, %lu words "
                   "bad\n",
                   nr, balloon.size, balloon.target, balloon.refused, balloon.resets, bad);
}

static void rest(uint64_t ticks)
{
    uint64_t start = rdtsc();

    while (rdtsc() - start < ticks) {
        cpu_pause();
    }
}

void guest_main(void)
{
    uint64_t rounds = boot_option_u64("rounds", 0), pause = boot_option_u64("pause", 0);
    bool fits = find_memory(boot_option_u64("mb", 16) * MIB);

    report_check(fits, "balloon-memory", "too little memory");
    if (!fits) {
        report_summary();
        return;
    }
    balloon.out = out;
    balloon.back = came_back;
    balloon.want = boot_option_is("caps", "basic")     ? BALLOON_CAN_BASIC
                   : boot_option_is("caps", "batched") ? BALLOON_CAN_BASIC | BALLOON_CAN_BATCHED
                                                       : BALLOON_CAN_ALL;
    for (uint64_t page = 0; page < balloon.nr_pages; page++) {
        fill(page);
    }
    report_check(balloon_start(&balloon), "balloon-start", "nobody answers");
    for (uint64_t nr = 1; rounds == 0 || nr <= rounds; nr++) {
        round(nr);
        rest(pause);
    }
    report_check(bad == 0, "balloon-contents", "pages changed, or came back with contents");
    report_summary();
}
