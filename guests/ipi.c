/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interprocessor interrupts of every kind, to and from processors that halt in between: physical, logical
 * in both models, lowest priority, shorthands, NMI, INIT and start-up again, in xAPIC and in x2APIC mode.
 * Each message must arrive where it should, once, and nowhere else. Command line: cpus=N (4).
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"
#include "guests/lib/trap.h"

#define MAX_CPUS 16U
#define VECTOR 0x60U
#define VECTOR_MODE 0x61U
#define PATIENCE 4000000000UL /* TSC ticks */
#define SETTLE 300000UL
#define ROUNDS 200U

#define LAPIC_LDR 0xd0U
#define LAPIC_DFR 0xe0U
#define ICR_LOGICAL 0x800U
#define ICR_LOWEST 0x100U
#define ICR_NMI 0x400U
#define ICR_ALL 0x80000U

enum mode { MODE_FLAT, MODE_CLUSTER, MODE_X2APIC };

static volatile enum mode mode;
static volatile uint32_t got[MAX_CPUS], nmis[MAX_CPUS], changed, started;
static uint32_t nr_cpus;

/* By CPUID, which says the same in each mode. */
static uint32_t self(void)
{
    return (cpuid(1, 0).ebx >> 24) % MAX_CPUS;
}

/* Logical destination of processor `n`: two processors per cluster in the cluster model. */
static uint32_t logical(uint32_t n)
{
    switch (mode) {
    case MODE_FLAT:
        return 1U << n;
    case MODE_CLUSTER:
        return n / 2 << 4 | 1U << n % 2;
    default:
        return 1U << n;
    }
}

static void set_mode(void)
{
    uint32_t id = self();

    if (mode == MODE_X2APIC) {
        lapic_enable(true);
        return;
    }
    lapic_write(LAPIC_DFR, mode == MODE_FLAT ? 0xffffffff : 0x0fffffff);
    lapic_write(LAPIC_LDR, logical(id) << 24);
}

static void on_message(struct trap_frame *frame)
{
    (void)frame;
    __atomic_add_fetch(&got[self()], 1, __ATOMIC_SEQ_CST);
    lapic_eoi();
}

/* In x2APIC mode the EOI of this very interrupt goes the new way. */
static void on_mode(struct trap_frame *frame)
{
    (void)frame;
    set_mode();
    lapic_eoi();
    __atomic_add_fetch(&changed, 1, __ATOMIC_SEQ_CST);
}

static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
    __atomic_add_fetch(&nmis[self()], 1, __ATOMIC_SEQ_CST);
}

static void wait_ticks(uint64_t ticks)
{
    for (uint64_t start = rdtsc(); rdtsc() - start < ticks;) {
        irq_window();
        cpu_pause();
    }
}

static void other(uint32_t index)
{
    (void)index;
    lapic_enable(mode == MODE_X2APIC);
    set_mode();
    __atomic_add_fetch(&started, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        irq_wait();
    }
}

static uint32_t sum(volatile uint32_t *counts)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < nr_cpus; i++) {
        n += counts[i];
    }
    return n;
}

/* Sends and expects `counts` to rise by one in each processor of `set` (in any one: `one`), in no other. */
static bool arrives(uint32_t dest, uint32_t icr, volatile uint32_t *counts, uint32_t set, bool one)
{
    uint32_t want = 0;
    bool right = true;

    for (uint32_t i = 0; i < nr_cpus; i++) {
        counts[i] = 0;
        want += set >> i & 1;
    }
    want = one ? 1 : want;
    lapic_ipi(dest, icr | LAPIC_ICR_ASSERT);
    for (uint64_t start = rdtsc(); sum(counts) < want && rdtsc() - start < PATIENCE;) {
        irq_window();
        cpu_pause();
    }
    wait_ticks(SETTLE);
    for (uint32_t i = 0; i < nr_cpus; i++) {
        right = right && counts[i] <= (set >> i & 1);
        right = right && (one || counts[i] == (set >> i & 1));
    }
    return right && sum(counts) == want;
}

static void check(const char *name, uint32_t dest, uint32_t icr, volatile uint32_t *counts,
                  uint32_t set, bool one)
{
    bool right = arrives(dest, icr, counts, set, one);

    if (!right) {
        for (uint32_t i = 0; i < nr_cpus; i++) {
            console_printf("ipi: processor %u got %u\n", i, counts[i]);
        }
    }
    report_check(right, name, "did not arrive where it should, once");
}

static void run(const char *name)
{
    uint32_t all = (1U << nr_cpus) - 1, last = nr_cpus - 1;

    console_printf("ipi: %s\n", name);
    for (uint32_t i = 0; i < nr_cpus; i++) {
        check("ipi-physical", i, VECTOR, got, 1U << i, false);
        check("ipi-logical", logical(i), ICR_LOGICAL | VECTOR, got, 1U << i, false);
    }
    uint32_t two = mode == MODE_CLUSTER ? 0x03 : logical(0) | logical(last);
    uint32_t set = mode == MODE_CLUSTER ? 0x3 & all : 1U | 1U << last;
    check("ipi-logical-two", two, ICR_LOGICAL | VECTOR, got, set, false);
    check("ipi-lowest", two, ICR_LOGICAL | ICR_LOWEST | VECTOR, got, set, true);
    uint32_t everybody = mode == MODE_X2APIC ? 0xffffffff : 0xff;
    check("ipi-broadcast", everybody, VECTOR, got, all, false);
    check("ipi-logical-broadcast", everybody, ICR_LOGICAL | VECTOR, got, all, false);
    check("ipi-self", 0, LAPIC_ICR_SELF | VECTOR, got, 1, false);
    check("ipi-all", 0, ICR_ALL | VECTOR, got, all, false);
    check("ipi-others", 0, LAPIC_ICR_OTHERS | VECTOR, got, all & ~1U, false);
    check("ipi-nmi", last, ICR_NMI, nmis, 1U << last, false);
    check("ipi-nmi-others", 0, LAPIC_ICR_OTHERS | ICR_NMI, nmis, all & ~1U, false);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        lost += !arrives(0, LAPIC_ICR_OTHERS | VECTOR, got, all & ~1U, false);
    }
    report_check(lost == 0, "ipi-many", "broadcasts got lost or came twice");
}

static void go_to(enum mode to)
{
    changed = 0;
    mode = to;
    lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | VECTOR_MODE);
    set_mode();
    for (uint64_t start = rdtsc(); changed < nr_cpus - 1 && rdtsc() - start < PATIENCE;) {
        cpu_pause();
    }
    report_check(changed == nr_cpus - 1, "ipi-mode", "a processor did not change its mode");
}

/* INIT stops a processor, whatever it does; a start-up message begins again. */
static void restart(void)
{
    uint32_t last = nr_cpus - 1, before = started;

    lapic_ipi(last, LAPIC_ICR_INIT | LAPIC_ICR_ASSERT);
    wait_ticks(SETTLE);
    got[last] = 0;
    lapic_ipi(last, VECTOR | LAPIC_ICR_ASSERT);
    wait_ticks(SETTLE);
    report_check(got[last] == 0, "ipi-init", "a processor in INIT took an interrupt");
    smp_again(last);
    for (uint64_t start = rdtsc(); started == before && rdtsc() - start < PATIENCE;) {
        cpu_pause();
    }
    report_check(started == before + 1, "ipi-startup", "it did not start again");
    check("ipi-restarted", last, VECTOR, got, 1U << last, false);
}

void guest_main(void)
{
    nr_cpus = (uint32_t)boot_option_u64("cpus", 4);
    trap_set(VECTOR, on_message);
    trap_set(VECTOR_MODE, on_mode);
    trap_set(TRAP_NMI, on_nmi);
    lapic_enable(false);
    set_mode();
    uint32_t found = 1 + smp_start(other, nr_cpus - 1, PATIENCE);
    report_check(found == nr_cpus, "ipi-cpus", "wrong number of processors");
    while (started < nr_cpus - 1) {
        cpu_pause();
    }
    run("flat");
    go_to(MODE_CLUSTER);
    run("cluster");
    restart();
    go_to(MODE_X2APIC);
    run("x2APIC");
    report_summary();
}
