/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local APIC ("Advanced Programmable Interrupt Controller", "Extended xAPIC (x2APIC)"). The mode
 * is the same on all processors and constant after lapic_init. Callers: interrupt dispatch, timers,
 * smp.c.
 */
#include "arch/x86_64/lapic.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "arch/x86_64/irq.h"
#include "arch/x86_64/irqflags.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/percpu.h"
#include "kernel/lib/muldiv.h"
#include "kernel/log.h"

/* Register offsets; x2APIC has the same as MSR 800H + offset / 16. */
#define REG_ID 0x020u
#define REG_TPR 0x080u
#define REG_EOI 0x0b0u
#define REG_SVR 0x0f0u
#define SVR_ENABLE 0x100u
#define REG_ISR 0x100u
#define REG_ESR 0x280u
#define REG_ICR_LOW 0x300u
#define REG_ICR_HIGH 0x310u
#define ICR_NMI 0x0400u
#define ICR_INIT 0x0500u
#define ICR_STARTUP 0x0600u
#define ICR_PENDING 0x1000u
#define ICR_ASSERT 0x4000u
#define REG_LVT_TIMER 0x320u
#define LVT_MASKED 0x10000u
#define LVT_NMI 0x400u
#define LVT_EXTINT 0x700u
#define LVT_TSC_DEADLINE 0x40000u
#define REG_LVT_LINT0 0x350u
#define REG_LVT_LINT1 0x360u
#define REG_LVT_ERROR 0x370u
#define REG_TIMER_INITIAL 0x380u
#define REG_TIMER_CURRENT 0x390u
#define REG_TIMER_DIVIDE 0x3e0u
#define DIVIDE_BY_1 0x0bu

#define CALIBRATION_US 500
#define CALIBRATION_TRIES 5

static bool x2apic, tsc_deadline; /* constant after lapic_init */
static volatile uint8_t *mmio;    /* NULL in x2APIC mode; constant after lapic_init */
static uint64_t timer_hz;         /* constant after lapic_timer_calibrate, as the next two */
static uint64_t ticks_per_tsc;    /* timer ticks per TSC tick, 32.32 fixed point */
static uint64_t max_tsc;          /* longest wait that the counter holds, TSC ticks */

static uint32_t read_reg(uint32_t reg)
{
    return x2apic ? (uint32_t)rdmsr(MSR_X2APIC_FIRST + reg / 16) : mmio_read32(mmio + reg);
}

static void write_reg(uint32_t reg, uint32_t v)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC_FIRST + reg / 16, v);
    } else {
        mmio_write32(mmio + reg, v);
    }
}

/* x2APIC where the firmware chose it, where identifiers need it, and under a hypervisor, where a
 * register access by MSR costs less; elsewhere xAPIC, which no firmware objects to. */
static bool want_x2apic(uint64_t base)
{
    if (!cpu_features.x2apic) {
        return false;
    }
    if ((base & APIC_BASE_X2APIC) || cpu_features.hypervisor) {
        return true;
    }
    const struct acpi_info *info = acpi_info();
    for (unsigned i = 0; i < info->nr_cpus; i++) {
        if (info->cpus[i].apic_id >= 255) {
            return true;
        }
    }
    return false;
}

static void take_error(void *arg)
{
    (void)arg;
    write_reg(REG_ESR, 0); /* latches */
    log_warn("cpu %u: local APIC error, status 0x%x", this_cpu()->id, read_reg(REG_ESR));
}

enum hv_err lapic_init(void)
{
    uint64_t base;

    if (!rdmsr_safe(MSR_APIC_BASE, &base)) {
        return HV_ENOTSUP;
    }
    x2apic = want_x2apic(base);
    tsc_deadline = cpu_features.tsc_deadline;
    if (!x2apic) {
        uint64_t pa = base & (BIT(cpu_features.phys_bits) - 1) & PAGE_MASK;
        mmio = hostmap_device(HPA(pa), PAGE_SIZE, false);
        if (!mmio) {
            return HV_ENOMEM;
        }
    }
    return irq_install(VEC_ERROR, take_error, NULL);
}

static void set_mode(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;

    /* "x2APIC State Transitions": x2APIC is entered from enabled xAPIC. */
    wrmsr(MSR_APIC_BASE, base);
    if (x2apic) {
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
    }
}

/* End what firmware or an earlier kernel left in service, or its priority would stay blocked. */
static void end_leftovers(void)
{
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t in_service = read_reg(REG_ISR + i * 16);
        while (in_service) {
            lapic_eoi();
            in_service &= in_service - 1;
        }
    }
}

void lapic_enable(void)
{
    set_mode();
    write_reg(REG_SVR, SVR_ENABLE | VEC_SPURIOUS);
    write_reg(REG_TPR, 0);
    write_reg(REG_LVT_TIMER, LVT_MASKED | VEC_TIMER);
    write_reg(REG_LVT_LINT0, LVT_MASKED | LVT_EXTINT);
    write_reg(REG_LVT_LINT1, LVT_NMI);
    write_reg(REG_ESR, 0);
    write_reg(REG_LVT_ERROR, VEC_ERROR);
    end_leftovers();
    if (tsc_deadline) {
        write_reg(REG_LVT_TIMER, LVT_TSC_DEADLINE | VEC_TIMER);
        /* "TSC-Deadline Mode": orders the MMIO write before writes of the deadline MSR. */
        __asm__ volatile("mfence" ::: "memory");
    } else {
        write_reg(REG_TIMER_DIVIDE, DIVIDE_BY_1);
        write_reg(REG_TIMER_INITIAL, 0);
        write_reg(REG_LVT_TIMER, VEC_TIMER);
    }
}

uint32_t lapic_id(void)
{
    return x2apic ? read_reg(REG_ID) : read_reg(REG_ID) >> 24;
}

bool lapic_is_x2apic(void)
{
    return x2apic;
}

void lapic_eoi(void)
{
    write_reg(REG_EOI, 0);
}

static void send(uint32_t apic_id, uint32_t command)
{
    if (x2apic) {
        /* The write is not serialising: what the receiver shall see must be visible before it. */
        __asm__ volatile("mfence; lfence" ::: "memory");
        wrmsr(MSR_X2APIC_FIRST + REG_ICR_LOW / 16, (uint64_t)apic_id << 32 | command);
        return;
    }
    uint64_t flags = irq_save(); /* a handler may send too, between the two writes */
    while (read_reg(REG_ICR_LOW) & ICR_PENDING) {
        __builtin_ia32_pause();
    }
    write_reg(REG_ICR_HIGH, apic_id << 24);
    write_reg(REG_ICR_LOW, command);
    irq_restore(flags);
}

void lapic_ipi(uint32_t apic_id, unsigned vector)
{
    send(apic_id, ICR_ASSERT | vector);
}

void lapic_nmi(uint32_t apic_id)
{
    send(apic_id, ICR_ASSERT | ICR_NMI);
}

void lapic_init_ipi(uint32_t apic_id)
{
    send(apic_id, ICR_ASSERT | ICR_INIT);
}

void lapic_startup_ipi(uint32_t apic_id, unsigned page)
{
    send(apic_id, ICR_ASSERT | ICR_STARTUP | page);
}

/* ---- Timer ------------------------------------------------------------------------------------- */

/* One measurement in Hz: as many timer ticks as TSC ticks pass in CALIBRATION_US. */
static uint64_t measure(void)
{
    uint64_t flags = irq_save();
    uint64_t window = clock_ns_to_tsc(CALIBRATION_US * 1000ull);

    write_reg(REG_TIMER_INITIAL, UINT32_MAX);
    uint32_t c0 = read_reg(REG_TIMER_CURRENT);
    uint64_t t0 = rdtsc(), t1;
    do {
        t1 = rdtsc();
    } while (t1 - t0 < window);
    uint32_t c1 = read_reg(REG_TIMER_CURRENT);
    t1 = rdtsc();
    write_reg(REG_TIMER_INITIAL, 0);
    irq_restore(flags);
    return mul_div(c0 - c1, clock_tsc_hz(), t1 - t0);
}

/* The median of several: a measurement that a firmware interrupt disturbed lies at an end. */
static uint64_t median_measurement(void)
{
    uint64_t hz[CALIBRATION_TRIES];

    for (unsigned n = 0; n < CALIBRATION_TRIES; n++) {
        uint64_t v = measure();
        unsigned i = n;
        for (; i > 0 && hz[i - 1] > v; i--) {
            hz[i] = hz[i - 1];
        }
        hz[i] = v;
    }
    return hz[CALIBRATION_TRIES / 2];
}

void lapic_timer_calibrate(void)
{
    if (tsc_deadline) {
        timer_hz = clock_tsc_hz();
        return;
    }
    write_reg(REG_LVT_TIMER, LVT_MASKED | VEC_TIMER);
    timer_hz = median_measurement();
    write_reg(REG_LVT_TIMER, VEC_TIMER);
    if (timer_hz < 1000000) {
        panic("the local APIC timer does not count (%llu Hz)", (unsigned long long)timer_hz);
    }
    ticks_per_tsc = mul_div(timer_hz, BIT(32), clock_tsc_hz());
    max_tsc = mul_div(UINT32_MAX - 1, BIT(32), ticks_per_tsc + 1);
}

void lapic_timer_arm(uint64_t tsc)
{
    if (tsc_deadline) {
        wrmsr(MSR_TSC_DEADLINE, tsc ? tsc : 1); /* zero would disarm */
        return;
    }
    uint64_t now = rdtsc();
    uint64_t wait = tsc > now ? tsc - now : 0;
    if (wait > max_tsc) {
        wait = max_tsc;
    }
    /* Rounded up, and never zero, which would stop the timer. */
    write_reg(REG_TIMER_INITIAL, (uint32_t)mul_fixed32(wait, ticks_per_tsc) + 1);
}

uint64_t lapic_timer_hz(void)
{
    return timer_hz;
}
