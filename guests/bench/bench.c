/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Runs the groups that rows= on the command line names (basic, 4k, 2m, pt, smp, comma-separated, or
 * all) and prints one CSV line per row on COM1, when all are measured: serial exits disturb nothing.
 * present=1: the host has populated half of the areas, as guests/bench/kvm_vmm.c does; present=ins:
 * the guest makes the host do so by string input.
 */
#include "guests/bench/bench.h"

#include <stdbool.h>

#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/string.h"

#define MAX_ROWS 80

static struct row {
    const char *name;
    uint64_t n, min, median, mean, max;
} rows[MAX_ROWS];
static unsigned int nr_rows;

/* Cost of two RDTSC in a row; not taken off its own row. */
static uint64_t overhead;

uint64_t bench_samples[BENCH_MAX_SAMPLES];

static void sort(uint64_t *a, unsigned int n)
{
    for (unsigned int gap = n / 2; gap > 0; gap /= 2) {
        for (unsigned int i = gap; i < n; i++) {
            uint64_t v = a[i];
            unsigned int j = i;
            for (; j >= gap && a[j - gap] > v; j -= gap) {
                a[j] = a[j - gap];
            }
            a[j] = v;
        }
    }
}

void bench_record(const char *name, unsigned int n)
{
    uint64_t sum = 0;
    for (unsigned int i = 0; i < n; i++) {
        uint64_t s = bench_samples[i];
        bench_samples[i] = s > overhead ? s - overhead : 0;
        sum += bench_samples[i];
    }
    sort(bench_samples, n);
    if (nr_rows < MAX_ROWS) {
        rows[nr_rows++] = (struct row){
            name, n, bench_samples[0], bench_samples[n / 2], sum / n, bench_samples[n - 1],
        };
    }
}

/* True when the comma-separated list has the group. */
static bool wanted(const char *list, const char *group)
{
    size_t n = strlen(group);
    for (const char *p = list; *p; p++) {
        bool at_start = p == list || p[-1] == ',';
        if (at_start && strlen(p) >= n && memcmp(p, group, n) == 0 && (!p[n] || p[n] == ',')) {
            return true;
        }
    }
    return string_equal(list, "all");
}

static bool has_areas(void)
{
    for (size_t i = 0; i < boot_nr_ram; i++) {
        if (boot_ram[i].base <= BENCH_4K_ABSENT &&
            boot_ram[i].base + boot_ram[i].size_bytes >= BENCH_AREA_END) {
            return true;
        }
    }
    return false;
}

static void print_rows(void)
{
    console_printf("row,n,min,median,mean,max\n");
    for (unsigned int i = 0; i < nr_rows; i++) {
        const struct row *r = &rows[i];
        console_printf("\"%s\",%lu,%lu,%lu,%lu,%lu\n", r->name, r->n, r->min, r->median, r->mean,
                       r->max);
    }
}

void guest_main(void)
{
    char list[64] = "all";
    boot_option("rows", list, sizeof list);
    enum bench_present present = boot_option_is("present", "ins") ? PRESENT_BY_INPUT
                                 : boot_option_u64("present", 0)  ? PRESENT_BY_HOST
                                                                  : PRESENT_NO;
    if (!has_areas()) {
        console_printf("bench: needs %lu MiB of RAM\n", BENCH_AREA_END / BENCH_MIB);
        return;
    }
    bench_traps_init();
    BENCH("rdtsc;rdtsc (overhead, not subtracted)", 1000, );
    overhead = rows[0].min;
    if (wanted(list, "basic")) {
        bench_basic();
    }
    if (wanted(list, "4k")) {
        bench_touch_4k(present);
    }
    if (wanted(list, "2m")) {
        bench_touch_2m(present);
    }
    if (wanted(list, "pt")) {
        bench_paging();
    }
    if (wanted(list, "share") && !string_equal(list, "all")) { /* it takes a host that scans */
        bench_share();
    }
    if (wanted(list, "sample") &&
        !string_equal(list, "all")) { /* it takes a host that is told how */
        bench_sample();
    }
    if (wanted(list, "smp")) {
        bench_smp();
    }
    print_rows();
    console_printf("bench: done\n");
}
