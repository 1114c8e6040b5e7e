/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of single instructions: CPUID, MSRs, local APIC, ports, control registers. */
#include <stdbool.h>

#include "guests/bench/bench.h"
#include "guests/lib/lapic.h"
#include "guests/lib/smp.h"
#include "guests/lib/trap.h"

#define MSR_TSC_ADJUST 0x3bU
#define MSR_X2APIC_ID 0x802U
#define MSR_X2APIC_EOI 0x80bU
#define MSR_X2APIC_ICR 0x830U
#define MSR_X2APIC_TMICT 0x838U
#define MSR_X2APIC_LVT_TIMER 0x832U
#define MSR_X2APIC_DIVIDE 0x83eU
#define MSR_TSC_DEADLINE 0x6e0U
#define LVT_TSC_DEADLINE 0x40000U
#define CPUID_1_ECX_TSC_DEADLINE (1U << 24)
#define MSR_X2APIC_SELF_IPI 0x83fU

#define VENDOR_EBX_INTEL 0x756e6547U /* "Genu" */
#define NO_RAM 0x3f000000UL          /* below 4 GiB, above the VM's memory */
#define PONG_VECTOR 0x41
#define REPS 512
#define SMP_PATIENCE 2000000000UL

static uint64_t source[REPS], target[REPS];
static volatile int ponging;

static void string_rows(void)
{
    BENCH("rep stosq x512 (what a rep iteration costs)", 100, ({
              uint64_t n = REPS;
              void *d = target;
              __asm__ volatile("rep stosq" : "+c"(n), "+D"(d) : "a"(0) : "memory");
          }));
    BENCH("rep movsq x512", 100, ({
              uint64_t n = REPS;
              void *d = target, *s = source;
              __asm__ volatile("rep movsq" : "+c"(n), "+D"(d), "+S"(s) : : "memory");
          }));
}

/* The hypercall of the processor's vendor; both have three bytes. */
static void hypercall_row(void)
{
    bool intel = cpuid(0, 0).ebx == VENDOR_EBX_INTEL;
    bench_traps_skip_ud(3);
    BENCH("vmmcall (KVM_HC 1)", 1000, ({
              uint64_t a = 1;
              if (intel) {
                  __asm__ volatile("vmcall" : "+a"(a) : : "memory");
              } else {
                  __asm__ volatile("vmmcall" : "+a"(a) : : "memory");
              }
          }));
    bench_traps_skip_ud(2);
}

static void msr_rows(void)
{
    BENCH("cpuid leaf 0", 2000, (void)cpuid(0, 0));
    BENCH("cpuid leaf 0x40000000", 500, (void)cpuid(0x40000000, 0));
    hypercall_row();
    BENCH("wrmsr TSC_ADJUST-like 0x3b", 1000, wrmsr(MSR_TSC_ADJUST, 0));
    BENCH("wrmsr EFER (same value)", 1000, wrmsr(MSR_EFER, rdmsr(MSR_EFER)));
    BENCH("rdmsr EFER", 1000, (void)rdmsr(MSR_EFER));
    BENCH("rdmsr APIC_BASE", 1000, (void)rdmsr(MSR_APIC_BASE));
    BENCH("wrmsr FS_BASE (pass-through)", 1000, wrmsr(MSR_FS_BASE, 0));
}

static void x2apic_rows(void)
{
    if (!lapic_has_x2apic()) {
        return;
    }
    lapic_enable(true);
    BENCH("wrmsr x2APIC TMICT=0", 1000, wrmsr(MSR_X2APIC_TMICT, 0));
    BENCH("rdmsr x2APIC ID", 1000, (void)rdmsr(MSR_X2APIC_ID));
    BENCH("wrmsr x2APIC EOI", 1000, wrmsr(MSR_X2APIC_EOI, 0));
    irq_enable();
    BENCH("x2APIC self-IPI taken (0x83f)", 1000, ({
              uint64_t before = bench_irqs;
              wrmsr(MSR_X2APIC_SELF_IPI, BENCH_VECTOR);
              while (bench_irqs == before) {
                  cpu_pause();
              }
          }));
    BENCH("x2APIC ICR self-IPI taken", 1000, ({
              uint64_t before = bench_irqs;
              wrmsr(MSR_X2APIC_ICR, LAPIC_ICR_SELF | BENCH_VECTOR);
              while (bench_irqs == before) {
                  cpu_pause();
              }
          }));
    irq_disable();
}

/* From programming the local APIC's timer to the end of its interrupt. */
static void timer_rows(void)
{
    if (!lapic_has_x2apic()) {
        return;
    }
    irq_enable();
    wrmsr(MSR_X2APIC_LVT_TIMER, BENCH_VECTOR);
    wrmsr(MSR_X2APIC_DIVIDE, LAPIC_DIVIDE_BY_1);
    BENCH("one-shot timer of one tick, program and fire", 1000, ({
              uint64_t before = bench_irqs;
              wrmsr(MSR_X2APIC_TMICT, 1);
              while (bench_irqs == before) {
                  cpu_pause();
              }
          }));
    if (cpuid(1, 0).ecx & CPUID_1_ECX_TSC_DEADLINE) {
        wrmsr(MSR_X2APIC_LVT_TIMER, LVT_TSC_DEADLINE | BENCH_VECTOR);
        BENCH("tscdeadline_immed, program and fire", 1000, ({
                  uint64_t before = bench_irqs;
                  wrmsr(MSR_TSC_DEADLINE, rdtsc());
                  while (bench_irqs == before) {
                      cpu_pause();
                  }
              }));
    }
    irq_disable();
    wrmsr(MSR_X2APIC_LVT_TIMER, LAPIC_LVT_MASKED);
}

static void other_rows(void)
{
    BENCH("inb 0x21 (PIC, in kernel)", 1000, (void)inb(0x21));
    BENCH("outb 0x80 (exit to VMM)", 1000, outb(0x80, 0));
    BENCH("inb 0x1234 (exit to VMM)", 1000, (void)inb(0x1234));
    BENCH("mov %cr0 write (same)", 1000, ({
              uint64_t v;
              __asm__ volatile("mov %%cr0, %0\n\tmov %0, %%cr0" : "=r"(v) : : "memory");
          }));
    BENCH("mov %cr4 write (same)", 1000, ({
              uint64_t v;
              __asm__ volatile("mov %%cr4, %0\n\tmov %0, %%cr4" : "=r"(v) : : "memory");
          }));
    BENCH("mov %cr8 write", 1000, ({
              uint64_t v = 0;
              __asm__ volatile("mov %0, %%cr8" : : "r"(v) : "memory");
          }));
    BENCH("mov %dr7 write", 1000, ({
              uint64_t v = 0x400;
              __asm__ volatile("mov %0, %%dr7" : : "r"(v) : "memory");
          }));
    BENCH("wbinvd", 500, __asm__ volatile("wbinvd" : : : "memory"));
    BENCH("pause", 500, cpu_pause());
    BENCH("mmio read, no slot (exit to VMM)", 1000, (void)mmio_read32(NO_RAM));
    BENCH("ud2 (in guest)", 1000, __asm__ volatile("ud2"));
}

void bench_basic(void)
{
    string_rows();
    msr_rows();
    x2apic_rows();
    timer_rows();
    other_rows();
}

/* The second processor answers each interrupt with one, halted in between. */
struct interrupt_frame;
__attribute__((interrupt)) static void on_ping(struct interrupt_frame *frame)
{
    (void)frame;
    BENCH_WRMSR(MSR_X2APIC_EOI, 0);
    BENCH_WRMSR(MSR_X2APIC_ICR, BENCH_VECTOR);
}

static void second(uint32_t index)
{
    (void)index;
    lapic_enable(true);
    ponging = 1;
    for (;;) {
        __asm__ volatile("sti; hlt" : : : "memory");
    }
}

void bench_smp(void)
{
    if (!lapic_has_x2apic()) {
        return;
    }
    lapic_enable(true);
    trap_set_raw(PONG_VECTOR, (uint64_t)on_ping);
    if (smp_start(second, 1, SMP_PATIENCE) == 0) {
        return;
    }
    while (!ponging) {
        cpu_pause();
    }
    BENCH("IPI + HLT ping-pong, 2 vCPUs on 1 CPU", 500, ({
              uint64_t before = bench_irqs;
              wrmsr(MSR_X2APIC_ICR, (1UL << 32) | PONG_VECTOR);
              while (bench_irqs == before) {
                  irq_wait();
              }
          }));
}
