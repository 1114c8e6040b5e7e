/* SPDX-License-Identifier: BSD-2-Clause */
/* Forbidden instructions and register values. */
#include "guests/bad/bad.h"
#include "guests/lib/arch.h"
#include "guests/lib/console.h"
#include "guests/lib/report.h"
#include "guests/lib/trap.h"

#define MSR_X2APIC_ICR 0x830U
#define CPUID_SVM (1U << 2)

/* Runs one instruction with RAX = a page of memory, RCX = RDX = 0. */
#define TRY(name, insn)                                                            \
    do {                                                                           \
        uint64_t a_ = (uint64_t)scratch, c_ = 0, d_ = 0;                           \
        __asm__ volatile(TRAP_GUARDED(insn)                                        \
                         : "+a"(a_), "+c"(c_), "+d"(d_)                            \
                         :                                                         \
                         : "r10", "rbx", "memory", "cc");                          \
        int v_ = trap_vector();                                                    \
        console_printf("badguest: %s gave vector %d\n", name, v_);                 \
        report_check(v_ == TRAP_UD || v_ == TRAP_GP, name, "neither #UD nor #GP"); \
    } while (0)

static uint8_t scratch[4096] __attribute__((aligned(4096)));

static void svm_instructions(void)
{
    TRY("vmrun", "vmrun");
    TRY("vmload", "vmload");
    TRY("vmsave", "vmsave");
    TRY("clgi", "clgi");
    TRY("stgi", "stgi");
    TRY("skinit", "skinit");
    TRY("invlpga", ".byte 0x0f, 0x01, 0xdf");
}

void bad_vmrun(void)
{
    svm_instructions();
    uint64_t efer = rdmsr(MSR_EFER);
    bool on = trap_wrmsr(MSR_EFER, efer | EFER_SVME);
    if (!(cpuid(0x80000001, 0).ecx & CPUID_SVM)) {
        report_check(!on, "efer-svme", "EFER.SVME could be set without SVM in CPUID");
    }
    if (!on) {
        svm_instructions();
    } else {
        trap_wrmsr(MSR_EFER, efer);
    }
    /* A call to the hypervisor with numbers that mean nothing, then monitor instructions of Intel. */
    uint64_t a = 0xbadc0de;
    __asm__ volatile(TRAP_GUARDED("vmmcall") : "+a"(a) : : "r10", "rcx", "rdx", "memory");
    console_printf("badguest: vmmcall gave vector %d\n", trap_vector());
    TRY("vmxoff", "vmxoff");
    TRY("vmcall", "vmcall");
}

static void try_msr(uint32_t msr, unsigned int *readable, unsigned int *writable)
{
    uint64_t old;
    bool read = trap_rdmsr(msr, &old);
    *readable += read;
    if (msr == MSR_TSC || msr == MSR_X2APIC_ICR) {
        return;
    }
    bool wrote = false;
    static const uint64_t values[] = {~0UL, 0x5555aaaa12345678UL};
    for (unsigned int i = 0; i < 2; i++) {
        wrote |= trap_wrmsr(msr, values[i]);
    }
    if (read) {
        wrote |= trap_wrmsr(msr, old);
    }
    *writable += wrote;
}

void bad_msrs(void)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        {0, 0x1fff},
        {0x40000000, 0x40001fff},
        {0xc0000000, 0xc0001fff},
        {0xc0010000, 0xc0011fff},
    };
    irq_disable();
    for (unsigned int r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
        unsigned int readable = 0, writable = 0;
        for (uint32_t msr = ranges[r].first; msr <= ranges[r].last; msr++) {
            try_msr(msr, &readable, &writable);
        }
        console_printf("badguest: MSRs 0x%x..0x%x: %u readable, %u writable\n", ranges[r].first,
                       ranges[r].last, readable, writable);
    }
    report_check(true, "msrs", "");
}

enum reg { CR0, CR3, CR4, CR8, EFER };

/* Tries to write; true when an exception came. What did get in is put right at once. */
static bool refused(enum reg reg, uint64_t v)
{
    uint64_t old;
    int vector;
    switch (reg) {
    case CR0:
        old = read_cr0();
        __asm__ volatile(TRAP_GUARDED("mov %0, %%cr0") : : "r"(v) : "r10", "memory");
        vector = trap_vector();
        __asm__ volatile("mov %0, %%cr0" : : "r"(old) : "memory");
        break;
    case CR3:
        old = read_cr3();
        __asm__ volatile(TRAP_GUARDED("mov %0, %%cr3") : : "r"(v) : "r10", "memory");
        vector = trap_vector();
        write_cr3(old);
        break;
    case CR4:
        old = read_cr4();
        __asm__ volatile(TRAP_GUARDED("mov %0, %%cr4") : : "r"(v) : "r10", "memory");
        vector = trap_vector();
        __asm__ volatile("mov %0, %%cr4" : : "r"(old) : "memory");
        break;
    case CR8:
        __asm__ volatile(TRAP_GUARDED("mov %0, %%cr8") : : "r"(v) : "r10", "memory");
        vector = trap_vector();
        __asm__ volatile("mov %0, %%cr8" : : "r"(0UL) : "memory");
        break;
    default:
        old = rdmsr(MSR_EFER);
        trap_wrmsr(MSR_EFER, v);
        vector = trap_vector();
        wrmsr(MSR_EFER, old);
        break;
    }
    return vector >= 0;
}

struct illegal {
    const char *what;
    enum reg reg;
    uint64_t v;
};

static void try_all(const struct illegal *cases, unsigned int count)
{
    unsigned int forgiven = 0;
    for (unsigned int i = 0; i < count; i++) {
        bool no = refused(cases[i].reg, cases[i].v);
        console_printf("badguest: %s: %s\n", cases[i].what, no ? "refused" : "not refused");
        forgiven += !no;
    }
    console_printf("badguest: %u of %u values were not refused\n", forgiven, count);
}

/*
 * Manual: AMD64 APM volume 2, "System-Control Registers". An emulated processor forgives some of
 * these (QEMU's does), so what was not refused is counted and told, not failed; surviving is what
 * is checked.
 */
void bad_cr(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
    const struct illegal cases[] = {
        {"cr0 upper half", CR0, cr0 | (1UL << 32)},
        {"cr0 NW without CD", CR0, (cr0 | (1UL << 29)) & ~(1UL << 30)},
        {"cr4 reserved", CR4, cr4 | (1UL << 31)},
        {"cr4 upper half", CR4, cr4 | (1UL << 40)},
        {"cr4 VMXE", CR4, cr4 | (1UL << 13)},
        {"cr8 16", CR8, 16},
        {"efer reserved", EFER, efer | (1UL << 40)},
        {"efer bit 9", EFER, efer | (1UL << 9)},
        {"efer all", EFER, ~0UL},
    };
    irq_disable();
    try_all(cases, sizeof cases / sizeof cases[0]);
    uint64_t seed = rdtsc() | 1;
    for (unsigned int i = 0; i < 2000; i++) {
        seed = seed * 6364136223846793005UL + 1442695040888963407UL;
        refused(EFER, seed | (1UL << 63) | EFER_LME);
        refused(CR4, (seed & ~0xffffffffUL) | (1UL << 63) | cr4);
        refused(CR0, (seed & ~0xffffffffUL) | (1UL << 63) | cr0);
    }
    report_check(read_cr0() == cr0 && read_cr4() == cr4 && rdmsr(MSR_EFER) == efer, "cr",
                 "a register changed");
}

/* Manual: AMD64 APM volume 2, "Long-Mode Consistency Checks". */
void bad_crkill(void)
{
    const struct illegal cases[] = {
        {"cr3 reserved", CR3, read_cr3() | (1UL << 60)},
        {"efer LME off", EFER, rdmsr(MSR_EFER) & ~EFER_LME},
        {"cr4 PAE off", CR4, read_cr4() & ~(1UL << 5)},
        {"cr0 PG without PE", CR0, read_cr0() & ~1UL},
    };
    irq_disable();
    console_printf("badguest: a processor that allows this ends the VM\n");
    try_all(cases, sizeof cases / sizeof cases[0]);
    report_check(true, "crkill", "");
}
