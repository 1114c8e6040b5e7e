/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small guest with a working set by script (docs/wset.md). Its memory above the image is a pool: the
 * working set is the beginning of it; a balloon driver, if the host has a balloon, gives up what lies
 * behind, and takes it back when the set grows into it.
 * Command line: name=NAME, script=STEPS with `_` for blanks, seed=N (1), balloon=no, wipe=yes (zero all
 * of the pool first, as some systems do when they boot).
 */
#include "guests/wset/wset.h"

#include "guests/lib/arch.h"
#include "guests/lib/balloon.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/trap.h"

#define MIB (1UL << 20)
#define LARGE (2 * MIB)
#define MAX_PAGES (1024 * MIB / WSET_PAGE)
#define VECTOR 0x40
#define TICK_NS WSET_SECOND_NS
#define FALLBACK_KHZ 1000000U

static bool out[MAX_PAGES];
static struct balloon balloon;
static uint64_t khz, bus_khz, next_tick_ns;
static uint64_t sleepers_end;

static uint64_t now_ns(void)
{
    uint64_t t = rdtsc();

    return t / khz * 1000000 + t % khz * 1000000 / khz;
}

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    lapic_eoi();
}

static void between(void)
{
    if (balloon.started && now_ns() >= next_tick_ns) {
        next_tick_ns = now_ns() + TICK_NS;
        balloon_tick(&balloon);
    }
}

/* Halts; a second at most at a time, for the balloon's sake. */
static void sleep_until(uint64_t ns)
{
    sleepers_end = ns;
    while (now_ns() < sleepers_end) {
        uint64_t left = sleepers_end - now_ns();

        if (left > TICK_NS) {
            left = TICK_NS;
        }
        lapic_write(LAPIC_TIMER_INITIAL, (uint32_t)(left / 1000 * bus_khz / 1000 / 16 + 1));
        irq_wait();
        between();
    }
}

/* The whole pool belongs to the guest; only the balloon makes a difference. */
static bool resize(uint64_t pages)
{
    if (pages > balloon.nr_pages) {
        return false;
    }
    balloon_need(&balloon, pages);
    return true;
}

static volatile uint64_t *page(uint64_t index)
{
    return (volatile uint64_t *)(balloon.base + index * WSET_PAGE);
}

static void report(const struct wset_report *r)
{
    console_printf("wset: t=%lu.%lu%lu%lu step=%u size=%lu touched=%lu bad=%lu balloon=%lu\n",
                   r->time_ns / 1000000000, r->time_ns / 100000000 % 10, r->time_ns / 10000000 % 10,
                   r->time_ns / 1000000 % 10, r->step, r->size, r->touched, r->bad, balloon.size);
    if (r->bad) {
        report_check(false, "wset-contents", "pages changed");
    }
}

static void came_back(uint64_t index)
{
    (void)index; /* it is behind the working set: nobody knows it */
}

static void find_pool(void)
{
    for (size_t i = 0; i < boot_nr_ram; i++) {
        uint64_t end = boot_ram[i].base + boot_ram[i].size_bytes;
        uint64_t start = boot_ram[i].base > boot_loaded_end ? boot_ram[i].base : boot_loaded_end;

        start = (start + LARGE - 1) & ~(LARGE - 1);
        if (start < end && (end - start) / WSET_PAGE > balloon.nr_pages) {
            balloon.base = start;
            balloon.nr_pages = (end - start) / WSET_PAGE;
        }
    }
    if (balloon.nr_pages > MAX_PAGES) {
        balloon.nr_pages = MAX_PAGES;
    }
}

static void find_clocks(void)
{
    struct cpuid_regs r = {0};

    if (cpuid(0x40000000, 0).eax >= 0x40000010) {
        r = cpuid(0x40000010, 0);
    }
    khz = r.eax ? r.eax : FALLBACK_KHZ;
    bus_khz = r.ebx ? r.ebx : FALLBACK_KHZ;
    trap_set(VECTOR, on_timer);
    lapic_enable(false);
    lapic_write(LAPIC_TIMER_DIVIDE, 0x3); /* by 16 */
    lapic_write(LAPIC_LVT_TIMER, VECTOR);
}

static void wipe(void)
{
    for (uint64_t i = 0; i < balloon.nr_pages; i++) {
        volatile uint64_t *p = page(i);

        for (uint64_t w = 0; w < WSET_PAGE / sizeof(uint64_t); w++) {
            p[w] = 0;
        }
    }
}

void guest_main(void)
{
    static char text[1024];
    static struct wset_script script;
    const char *where, *why;
    struct wset_env env = {.now_ns = now_ns,
                           .sleep_until = sleep_until,
                           .between = between,
                           .resize = resize,
                           .page = page,
                           .report = report,
                           .seed = boot_option_u64("seed", 1)};

    find_clocks();
    find_pool();
    boot_option("script", text, sizeof text);
    if (!wset_parse(text, &script, &where, &why)) {
        console_printf("wset: at '%s': expected %s\n", where, why);
        report_check(false, "wset-script", "cannot be read");
        return;
    }
    balloon.out = out;
    balloon.back = came_back;
    balloon.want = BALLOON_CAN_ALL;
    if (boot_option_is("wipe", "yes")) {
        wipe();
        console_printf("wset: wiped %lu MiB\n", balloon.nr_pages * WSET_PAGE / MIB);
    }
    if (!boot_option_is("balloon", "no") && !balloon_start(&balloon)) {
        console_printf("wset: no balloon\n");
    }
    console_printf("wset: %s begins, pool of %lu MiB\n", boot_name("wset"),
                   balloon.nr_pages * WSET_PAGE / MIB);
    report_check(wset_run(&script, &env), "wset", "not so much memory");
    report_summary();
}
