/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages to share. Fills memory with contents that are partly the same in every VM, partly the same
 * within one, partly zero and partly its own; then checks every byte again and again, on all vCPUs. Now
 * and then all vCPUs write to every page at once, each its own words of it, and the checks go on with
 * the new contents.
 * Command line: mb=N (how much, 16), cpus=N (1), rounds=N (0: for ever), break=N (every Nth round
 * writes, 0: never), pause=N (TSC ticks between rounds).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define MIB (1UL << 20)
#define LARGE (2 * MIB)
#define PATIENCE 4000000000UL

static uint64_t base, nr_pages, own;
static uint32_t nr_cpus = 1;
static uint64_t nr_rounds, break_every, pause_ticks;
static volatile uint64_t generation;
static uint64_t bad; /* words; atomic */

static struct smp_barrier meeting;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdUL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53UL;
    return x ^ (x >> 33);
}

/* All vCPUs come here before any goes on. */
static void barrier(void)
{
    smp_barrier_wait(&meeting, nr_cpus);
}

/* What the words of a page hold; word w adds w, but for zero pages. */
static uint64_t contents(uint64_t page, uint64_t gen)
{
    switch (page % 8) {
    case 0:
    case 1:
        return 0;
    case 2:
    case 3:
    case 4:
    case 5: /* as in every VM */
        return mix(page + (gen << 40)) | 1;
    case 6: /* as some others here */
        return mix(page / 8 % 4 + own + (gen << 40)) | 1;
    default: /* nowhere else */
        return mix(page + own + (gen << 40)) | 1;
    }
}

static uint64_t expected(uint64_t first, uint64_t w)
{
    return first != 0 ? first + w : 0;
}

/* This vCPU's words of every page. */
static void write_words(uint32_t cpu, uint64_t gen)
{
    uint64_t from = WORDS * cpu / nr_cpus, to = WORDS * (cpu + 1) / nr_cpus;

    for (uint64_t page = 0; page < nr_pages; page++) {
        volatile uint64_t *p = (volatile uint64_t *)(base + page * PAGE);
        uint64_t first = contents(page, gen);

        for (uint64_t w = from; w < to; w++) {
            p[w] = expected(first, w);
        }
    }
}

static void check(uint32_t cpu, uint64_t gen, uint64_t round)
{
    /* Each round another vCPU looks at the page. */
    for (uint64_t page = (cpu + round) % nr_cpus; page < nr_pages; page += nr_cpus) {
        const volatile uint64_t *p = (const volatile uint64_t *)(base + page * PAGE);
        uint64_t first = contents(page, gen);

        for (uint64_t w = 0; w < WORDS; w++) {
            if (p[w] != expected(first, w) && __atomic_add_fetch(&bad, 1, __ATOMIC_SEQ_CST) <= 8) {
                console_printf("share: FAIL round %lu cpu %u page %lu word %lu holds 0x%lx, not "
                               "0x%lx\n",
                               round, cpu, page, w, p[w], expected(first, w));
            }
        }
    }
}

static void rest(void)
{
    uint64_t start = rdtsc();

    while (rdtsc() - start < pause_ticks) {
        cpu_pause();
    }
}

static void run(uint32_t cpu)
{
    write_words(cpu, 0);
    for (uint64_t round = 1; nr_rounds == 0 || round <= nr_rounds; round++) {
        barrier();
        if (break_every != 0 && round % break_every == 0) {
            write_words(cpu, round);
            barrier();
            if (cpu == 0) {
                generation = round;
            }
            barrier();
        }
        check(cpu, generation, round);
        barrier();
        if (cpu == 0) {
            console_printf("share: round %lu, %lu words bad\n", round, bad);
        }
        rest();
    }
    barrier();
}

static void ap_main(uint32_t index)
{
    run(index + 1);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

static bool find_memory(uint64_t bytes)
{
    for (uint64_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = boot_ram[i].base + boot_ram[i].size_bytes;
        uint64_t start = boot_ram[i].base > boot_loaded_end ? boot_ram[i].base : boot_loaded_end;

        start = (start + LARGE - 1) & ~(LARGE - 1);
        if (start + bytes <= end) {
            base = start;
            nr_pages = bytes / PAGE;
            return true;
        }
    }
    return false;
}

void guest_main(void)
{
    uint32_t want = (uint32_t)boot_option_u64("cpus", 1);

    nr_rounds = boot_option_u64("rounds", 0);
    break_every = boot_option_u64("break", 0);
    pause_ticks = boot_option_u64("pause", 0);
    for (const char *c = boot_name("share"); *c; c++) {
        own = mix(own + (uint64_t)(unsigned char)*c);
    }
    bool fits = find_memory(boot_option_u64("mb", 16) * MIB);
    report_check(fits, "share-memory", "too little memory");
    if (!fits) {
        report_summary();
        return;
    }
    nr_cpus = want;
    if (want > 1) {
        lapic_enable(false);
        report_check(smp_start(ap_main, want - 1, PATIENCE) == want - 1, "share-cpus",
                     "a processor is missing");
    }
    run(0);
    report_check(bad == 0, "share-contents", "pages changed");
    report_summary();
}
