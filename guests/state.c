/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers that the hypervisor has to switch: each processor of the VM fills its x87, SSE, AVX and AVX-512
 * registers, as far as CPUID offers them, and its debug registers with a pattern of its own, lets others
 * run, and looks whether all is still there. Also: XSAVEC, where offered, keeps all of it; XCR0 takes what it
 * should and nothing else, absent MSRs and counters fault, and the time stamp counters of all processors are
 * one clock. Command line: cpus=N (1), rounds=N (40), and name=, which goes into the pattern.
 */
#include "guests/lib/arch.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/lapic.h"
#include "guests/lib/report.h"
#include "guests/lib/smp.h"
#include "guests/lib/string.h"
#include "guests/lib/trap.h"

#define MAX_CPUS 16U
#define AREA_SIZE 4096U
#define LEGACY_SIZE 512U
#define HEADER 512U
#define MXCSR_AT 24U
#define CR4_OSFXSR (1UL << 9)
#define CR4_OSXMMEXCPT (1UL << 10)
#define CR4_OSXSAVE (1UL << 18)
#define CPUID_D1_EAX_XSAVEC 2U
#define CPUID_1_ECX_XSAVE (1U << 26)
#define XCR0_X87 1UL
#define XCR0_SSE 2UL
#define XCR0_AVX 4UL
#define XCR0_AVX512 0xe0UL
#define XCR0_PLAIN (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512) /* any bits are a valid value */
#define PATIENCE 60000000000UL
#define TIMER_VECTOR 0x40
#define TSC_STEPS 20000U

struct area {
    uint8_t bytes[AREA_SIZE];
} __attribute__((aligned(64)));

static const uint32_t mxcsr = 0x1f80; /* the initial value */
static struct area fill[MAX_CPUS], seen[MAX_CPUS];
static volatile uint32_t finished, wrong_vectors, wrong_debug, ready;
static volatile uint64_t tsc_last, tsc_backwards, tsc_steps;
static uint32_t tsc_lock;
static uint32_t nr_cpus, rounds;
static uint64_t mask, seed;

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15UL;
    return x ^ x >> 29;
}

static void xsetbv(uint64_t v)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}

static bool xsetbv_faults(uint64_t v)
{
    __asm__ volatile(TRAP_GUARDED("xsetbv")
                     :
                     : "c"(0), "a"((uint32_t)v), "d"((uint32_t)(v >> 32))
                     : "r10", "memory");
    return trap_vector() == TRAP_GP;
}

static void enable(void)
{
    uint64_t cr4 = read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | (mask ? CR4_OSXSAVE : 0);

    __asm__ volatile("mov %0, %%cr4" : : "r"(cr4) : "memory");
    if (mask) {
        xsetbv(mask);
    }
}

static void restore(const struct area *a)
{
    if (mask) {
        __asm__ volatile("xrstor64 (%0)"
                         :
                         : "r"(a), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                         : "memory");
    } else {
        __asm__ volatile("fxrstor64 (%0)" : : "r"(a) : "memory");
    }
}

static void save(struct area *a)
{
    if (mask) {
        __asm__ volatile("xsave64 (%0)"
                         :
                         : "r"(a), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                         : "memory");
    } else {
        __asm__ volatile("fxsave64 (%0)" : : "r"(a) : "memory");
    }
}

/* Calls fn(offset, bytes) for each stretch of the area that holds registers. */
static void for_each_part(void (*fn)(uint32_t cpu, uint32_t at, uint32_t bytes), uint32_t cpu)
{
    for (uint32_t i = 0; i < 8; i++) {
        fn(cpu, 32 + 16 * i, 10); /* ST(i) */
    }
    fn(cpu, 160, 256); /* XMM */
    for (uint32_t i = 2; i < 32; i++) {
        if (mask >> i & 1) {
            struct cpuid_regs r = cpuid(0xd, i);

            fn(cpu, r.ebx, r.eax);
        }
    }
}

static uint64_t pattern;

static void fill_part(uint32_t cpu, uint32_t at, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes && at + i < AREA_SIZE; i++) {
        fill[cpu].bytes[at + i] = (uint8_t)mix(pattern + at + i);
    }
}

static void compare_part(uint32_t cpu, uint32_t at, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes && at + i < AREA_SIZE; i++) {
        if (fill[cpu].bytes[at + i] != seen[cpu].bytes[at + i]) {
            __atomic_add_fetch(&wrong_vectors, 1, __ATOMIC_SEQ_CST);
            return;
        }
    }
}

static void prepare(uint32_t cpu, uint64_t value)
{
    const uint16_t fcw = 0x037f;

    pattern = value; /* by one processor at a time: under the lock */
    for_each_part(fill_part, cpu);
    memcpy(fill[cpu].bytes, &fcw, sizeof fcw);
    fill[cpu].bytes[4] = 0xff; /* no x87 register is empty */
    memcpy(fill[cpu].bytes + MXCSR_AT, &mxcsr, sizeof mxcsr);
    memcpy(fill[cpu].bytes + HEADER, &mask, sizeof mask);
}

static void lock(void)
{
    while (__atomic_exchange_n(&tsc_lock, 1, __ATOMIC_ACQUIRE)) {
        cpu_pause();
    }
}

static void unlock(void)
{
    __atomic_store_n(&tsc_lock, 0, __ATOMIC_RELEASE);
}

static void write_debug(uint64_t base)
{
    __asm__ volatile("mov %0, %%dr0" : : "r"(base));
    __asm__ volatile("mov %0, %%dr1" : : "r"(base + 8));
    __asm__ volatile("mov %0, %%dr2" : : "r"(base + 16));
    __asm__ volatile("mov %0, %%dr3" : : "r"(base + 24));
}

static bool debug_is(uint64_t base)
{
    uint64_t a, b, c, d;

    __asm__ volatile("mov %%dr0, %0" : "=r"(a));
    __asm__ volatile("mov %%dr1, %0" : "=r"(b));
    __asm__ volatile("mov %%dr2, %0" : "=r"(c));
    __asm__ volatile("mov %%dr3, %0" : "=r"(d));
    return a == base && b == base + 8 && c == base + 16 && d == base + 24;
}

static void on_timer(struct trap_frame *frame)
{
    (void)frame;
    lapic_eoi();
}

/* Now and then the processor halts, so that others surely run. */
static void let_others_run(uint32_t round)
{
    if (round % 2) {
        lapic_write(LAPIC_TIMER_INITIAL, 20000);
        irq_wait();
    } else {
        for (uint64_t start = rdtsc(); rdtsc() - start < 200000;) {
            cpu_pause();
        }
    }
}

static void registers(uint32_t cpu)
{
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t value = mix(seed + cpu * 1000 + round);

        lock();
        prepare(cpu, value);
        unlock();
        restore(&fill[cpu]);
        write_debug(value >> 20 & ~31UL);
        let_others_run(round);
        save(&seen[cpu]);
        for_each_part(compare_part, cpu);
        if (!debug_is(value >> 20 & ~31UL)) {
            __atomic_add_fetch(&wrong_debug, 1, __ATOMIC_SEQ_CST);
        }
    }
    write_debug(0);
}

/* Each reads the clock after another has: it must not be earlier. */
static void clocks(void)
{
    for (uint32_t i = 0; i < TSC_STEPS; i++) {
        lock();
        uint64_t now = rdtsc();
        if (now < tsc_last) {
            tsc_backwards++;
        }
        tsc_last = now;
        tsc_steps++;
        unlock();
    }
}

static void one(uint32_t cpu)
{
    enable();
    lapic_enable(false);
    lapic_write(LAPIC_TIMER_DIVIDE, LAPIC_DIVIDE_BY_1);
    lapic_write(LAPIC_LVT_TIMER, TIMER_VECTOR);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (ready < nr_cpus) {
        cpu_pause();
    }
    clocks();
    registers(cpu % MAX_CPUS);
    __atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

static void other(uint32_t index)
{
    one(index + 1);
    for (;;) {
        irq_wait();
    }
}

static void check_xcr0(void)
{
    struct cpuid_regs r = cpuid(0xd, 0);
    uint64_t offered = (uint64_t)r.edx << 32 | r.eax;

    report_check(xsetbv_faults(0), "xsetbv-x87", "XCR0 without x87 was accepted");
    report_check(xsetbv_faults(XCR0_X87 | XCR0_AVX), "xsetbv-avx", "AVX without SSE was accepted");
    report_check(xsetbv_faults(offered | 1UL << 62), "xsetbv-unknown",
                 "a reserved bit was accepted");
    report_check(xsetbv_faults(~offered | 1), "xsetbv-absent", "absent state was accepted");
    report_check(!xsetbv_faults(mask), "xsetbv", "what CPUID offers was refused");
}

/* What Linux switches threads by: a compacted area, of all but the initial state. */
static void check_compaction(void)
{
    static struct area compact, initial;

    if (!(cpuid(0xd, 1).eax & CPUID_D1_EAX_XSAVEC)) {
        console_printf("state: XSAVEC is not offered\n");
        return;
    }
    prepare(0, mix(seed));
    restore(&fill[0]);
    __asm__ volatile("xsavec64 (%0)"
                     :
                     : "r"(&compact), "a"((uint32_t)mask), "d"((uint32_t)(mask >> 32))
                     : "memory");
    memcpy(initial.bytes + MXCSR_AT, &mxcsr, sizeof mxcsr);
    restore(&initial);
    restore(&compact);
    save(&seen[0]);
    for_each_part(compare_part, 0);
    report_check(wrong_vectors == 0, "xsavec", "XRSTOR does not find what XSAVEC wrote");
    wrong_vectors = 0;
}

static void check_absent(void)
{
    uint64_t v;

    report_check(!trap_rdmsr(0x12345, &v), "msr-absent", "an absent MSR can be read");
    report_check(!trap_wrmsr(0x12345, 0), "msr-absent-write", "an absent MSR can be written");
    report_check(!trap_wrmsr(0x250, 0x0606060606060602) && !trap_wrmsr(0x200, 0x103) &&
                     !trap_wrmsr(0x201, 1UL << 63) && !trap_wrmsr(0x277, 0x02),
                 "mtrr-reserved", "a memory type that does not exist was accepted");
    report_check(trap_wrmsr(0x250, 0x0606060606060600) && trap_rdmsr(0x250, &v) &&
                     v == 0x0606060606060600 && trap_wrmsr(0x250, 0x0606060606060606),
                 "mtrr", "an MTRR does not keep what it was given");
    report_check(!trap_rdmsr(0xc1, &v) && !trap_rdmsr(0xc0010004, &v), "pmu-absent",
                 "there is a performance counter");
    __asm__ volatile(TRAP_GUARDED("rdpmc") : : "c"(0) : "rax", "rdx", "r10", "memory");
    report_check(trap_vector() == TRAP_GP, "rdpmc", "RDPMC does not fault");
}

void guest_main(void)
{
    char name[32] = "";
    struct cpuid_regs r = cpuid(0xd, 0);

    nr_cpus = (uint32_t)boot_option_u64("cpus", 1);
    rounds = (uint32_t)boot_option_u64("rounds", 40);
    boot_option("name", name, sizeof name);
    for (const char *p = name; *p; p++) {
        seed = mix(seed + (uint8_t)*p);
    }
    if (cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE) {
        mask = ((uint64_t)r.edx << 32 | r.eax) & XCR0_PLAIN;
    }
    console_printf("state: extended state %lx of %x\n", mask, r.eax);
    trap_set(TIMER_VECTOR, on_timer);
    lapic_enable(false);
    enable();
    if (mask) {
        check_xcr0();
        check_compaction();
    }
    check_absent();
    uint32_t found = 1 + smp_start(other, nr_cpus - 1, PATIENCE);
    report_check(found == nr_cpus, "state-cpus", "wrong number of processors");
    one(0);
    for (uint64_t start = rdtsc(); finished < nr_cpus && rdtsc() - start < PATIENCE;) {
        cpu_pause();
    }
    report_check(finished == nr_cpus, "state-finished", "a processor did not finish");
    report_check(wrong_vectors == 0, "state-vectors", "x87 or vector registers changed");
    report_check(wrong_debug == 0, "state-debug", "debug registers changed");
    report_check(tsc_steps == nr_cpus * TSC_STEPS && tsc_backwards == 0, "state-tsc",
                 "time ran backwards between processors");
    report_summary();
}
