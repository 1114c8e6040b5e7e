/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The clock. The TSC's frequency is what the processor or an outer hypervisor claims, if a counter
 * of known frequency confirms the claim (emulators copy CPUID leaves of machines that they are not),
 * else what that counter shows. All processors' TSCs are taken to run together; smp.c warns of those
 * that do not. Callers: everybody.
 */
#include "arch/x86_64/clock.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "arch/x86_64/irqflags.h"
#include "kernel/lib/muldiv.h"
#include "kernel/log.h"

#define NS_PER_S 1000000000ull
#define WINDOW_US 5000
#define MAX_TRIES 5
#define MAX_READS 2000000u /* of a counter that may stand still */
#define AGREE_PPM 50       /* two measurements this close end the series */
#define CLAIM_PPM 10000    /* a claim further than this from the measurement is not believed */

/* A counter of known frequency. */
struct reference {
    const char *name;
    uint64_t hz;
    uint32_t mask;
    uint32_t (*read)(void); /* the time of reading is that of its first device access */
};

static uint64_t tsc_hz;      /* all constant after clock_init */
static uint64_t ns_per_tick; /* 32.32 fixed point */
static uint64_t tick_per_ns; /* 32.32 fixed point */
static uint64_t tsc_start;
static const char *source = "none";

/* ---- Counters of known frequency --------------------------------------------------------------- */

#define PIT_HZ 1193182u
#define PIT_CHANNEL2 0x42
#define PIT_COMMAND 0x43
#define PIT_CH2_RATE 0xb4  /* channel 2, low and high byte, rate generator */
#define PIT_CH2_LATCH 0x80 /* counter latch command for channel 2 */
#define PORT_B 0x61
#define PORT_B_GATE2 0x01
#define PORT_B_SPEAKER 0x02

static uint32_t pit_read(void)
{
    outb(PIT_COMMAND, PIT_CH2_LATCH);
    uint32_t low = inb(PIT_CHANNEL2);
    return 0u - (low | (uint32_t)inb(PIT_CHANNEL2) << 8); /* it counts down */
}

static bool pit_open(struct reference *ref)
{
    outb(PORT_B, (uint8_t)((inb(PORT_B) & ~PORT_B_SPEAKER) | PORT_B_GATE2));
    outb(PIT_COMMAND, PIT_CH2_RATE);
    outb(PIT_CHANNEL2, 0); /* 65,536 */
    outb(PIT_CHANNEL2, 0);
    *ref = (struct reference){"PIT", PIT_HZ, 0xffff, pit_read};
    return true;
}

#define PM_TIMER_HZ 3579545u

static uint32_t pm_timer_read(void)
{
    return inl((uint16_t)acpi_info()->pm_timer.address);
}

static bool pm_timer_open(struct reference *ref)
{
    const struct acpi_register *r = &acpi_info()->pm_timer;

    *ref = (struct reference){"ACPI PM timer", PM_TIMER_HZ, 0xffffff, pm_timer_read};
    return r->present && r->space == ACPI_SPACE_IO;
}

#define HPET_PERIOD 0x004 /* femtoseconds */
#define HPET_CONFIG 0x010
#define HPET_CONFIG_ENABLE 0x1u
#define HPET_COUNTER 0x0f0
#define HPET_MAX_PERIOD 100000000u

static volatile uint8_t *hpet;

static uint32_t hpet_read(void)
{
    return mmio_read32(hpet + HPET_COUNTER);
}

static bool hpet_open(struct reference *ref)
{
    if (!acpi_info()->have_hpet) {
        return false;
    }
    hpet = hostmap_device(HPA(acpi_info()->hpet_pa), PAGE_SIZE, false);
    if (!hpet) {
        return false;
    }
    uint32_t period = mmio_read32(hpet + HPET_PERIOD);
    if (period == 0 || period > HPET_MAX_PERIOD) {
        return false;
    }
    mmio_write32(hpet + HPET_CONFIG, mmio_read32(hpet + HPET_CONFIG) | HPET_CONFIG_ENABLE);
    *ref = (struct reference){"HPET", 1000000000000000ull / period, UINT32_MAX, hpet_read};
    return true;
}

/* ---- Measuring --------------------------------------------------------------------------------- */

/* Read counter and TSC together: of a few attempts the one that took least. */
static uint32_t read_pair(const struct reference *ref, uint64_t *tsc)
{
    uint64_t least = UINT64_MAX;
    uint32_t value = 0;

    for (unsigned i = 0; i < 4; i++) {
        uint64_t before = rdtsc();
        uint32_t v = ref->read();
        uint64_t took = rdtsc() - before;
        if (took < least) {
            least = took;
            value = v;
            *tsc = before + took / 2;
        }
    }
    return value;
}

/* TSC ticks a second, from one window; 0 if the counter stands still. */
static uint64_t measure_once(const struct reference *ref)
{
    uint64_t flags = irq_save();
    uint32_t window = (uint32_t)(ref->hz * WINDOW_US / 1000000);
    uint64_t t0, t1;
    uint32_t c0 = read_pair(ref, &t0);
    uint32_t passed = 0;

    for (unsigned reads = 0; passed < window && reads < MAX_READS; reads++) {
        passed = (ref->read() - c0) & ref->mask;
    }
    passed = (read_pair(ref, &t1) - c0) & ref->mask;
    irq_restore(flags);
    return passed < window || t1 <= t0 ? 0 : mul_div(t1 - t0, ref->hz, passed);
}

static bool agree(uint64_t a, uint64_t b, uint64_t ppm)
{
    uint64_t difference = a > b ? a - b : b - a;

    return difference <= a / 1000000 * ppm;
}

/* The median of a few measurements, or the first that is confirmed by its predecessor. */
static uint64_t measure(const struct reference *ref)
{
    uint64_t sorted[MAX_TRIES], last = 0;

    for (unsigned n = 0; n < MAX_TRIES; n++) {
        uint64_t hz = measure_once(ref);
        if (hz == 0) {
            return 0;
        }
        if (agree(hz, last, AGREE_PPM)) {
            return (hz + last) / 2;
        }
        unsigned i = n;
        for (; i > 0 && sorted[i - 1] > hz; i--) {
            sorted[i] = sorted[i - 1];
        }
        sorted[i] = hz;
        last = hz;
    }
    return sorted[MAX_TRIES / 2];
}

static uint64_t measure_by_any(const char **name)
{
    static bool (*const open[])(struct reference *) = {hpet_open, pm_timer_open, pit_open};
    struct reference ref;

    for (unsigned i = 0; i < ARRAY_SIZE(open); i++) {
        if (open[i](&ref)) {
            uint64_t hz = measure(&ref);
            if (hz >= 1000000) {
                *name = ref.name;
                return hz;
            }
        }
    }
    return 0;
}

/* ---- Claims ------------------------------------------------------------------------------------ */

/* "Time Stamp Counter and Nominal Core Crystal Clock Information Leaf", "Processor Frequency
 * Information Leaf"; the hypervisors' timing leaf is VMware's. */
static uint64_t claimed(const char **name)
{
    if (cpu_features.max_hypervisor >= CPUID_HYPERVISOR_TIMING) {
        uint32_t khz = cpuid(CPUID_HYPERVISOR_TIMING, 0).eax;
        if (khz != 0) {
            *name = "hypervisor";
            return khz * 1000ull;
        }
    }
    if (cpu_features.max_basic >= CPUID_TSC_CRYSTAL) {
        struct cpuid c = cpuid(CPUID_TSC_CRYSTAL, 0);
        if (c.eax != 0 && c.ebx != 0 && c.ecx != 0) {
            *name = "CPUID 15H";
            return mul_div(c.ecx, c.ebx, c.eax);
        }
    }
    if (cpu_features.max_basic >= CPUID_FREQUENCY) {
        uint64_t mhz = cpuid(CPUID_FREQUENCY, 0).eax & 0xffff;
        if (mhz != 0) {
            *name = "CPUID 16H";
            return mhz * 1000000;
        }
    }
    return 0;
}

enum hv_err clock_init(void)
{
    const char *claim_name = "none", *measured_name = "none";
    uint64_t claim = claimed(&claim_name);
    uint64_t measured = measure_by_any(&measured_name);

    if (claim == 0 && measured == 0) {
        return HV_ENOTSUP;
    }
    bool believed = claim != 0 && (measured == 0 || agree(measured, claim, CLAIM_PPM));
    if (claim != 0 && !believed) {
        log_warn("clock: %s claims %llu kHz, %s shows %llu kHz: believing the latter", claim_name,
                 (unsigned long long)claim / 1000, measured_name,
                 (unsigned long long)measured / 1000);
    }
    tsc_hz = believed ? claim : measured;
    source = believed ? claim_name : measured_name;
    ns_per_tick = mul_div(NS_PER_S, BIT(32), tsc_hz);
    tick_per_ns = mul_div(tsc_hz, BIT(32), NS_PER_S);
    tsc_start = rdtsc();
    return HV_OK;
}

uint64_t clock_tsc_hz(void)
{
    return tsc_hz;
}

const char *clock_source(void)
{
    return source;
}

uint64_t clock_now_ns(void)
{
    uint64_t now = rdtsc();

    return now > tsc_start ? mul_fixed32(now - tsc_start, ns_per_tick) : 0;
}

uint64_t clock_ns_to_tsc(uint64_t ns)
{
    return mul_fixed32(ns, tick_per_ns);
}

uint64_t clock_tsc_to_ns(uint64_t ticks)
{
    return mul_fixed32(ticks, ns_per_tick);
}

void clock_delay_us(uint64_t us)
{
    /* Before clock_init (a reset after an early panic): assume a fast processor. */
    uint64_t ticks = tsc_hz ? clock_ns_to_tsc(us * 1000) : us * 5000;
    uint64_t start = rdtsc();

    while (rdtsc() - start < ticks) {
        __builtin_ia32_pause();
    }
}
