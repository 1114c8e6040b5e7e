/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Feature detection and control-register set-up. cpu_features is written by cpu_detect on the boot
 * processor before any other processor runs, and only read afterwards.
 */
#include "arch/x86_64/cpu.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/mce.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "kernel/lib/string.h"

struct cpu_features cpu_features;

static bool bit(uint32_t word, unsigned n)
{
    return ((word >> n) & 1u) != 0;
}

static void id_string(char out[13], uint32_t a, uint32_t b, uint32_t c)
{
    memcpy(out, &a, 4);
    memcpy(out + 4, &b, 4);
    memcpy(out + 8, &c, 4);
    out[12] = '\0';
}

static void detect_identity(struct cpu_features *f)
{
    struct cpuid c = cpuid(CPUID_BASIC, 0);

    f->max_basic = c.eax;
    id_string(f->vendor_id, c.ebx, c.edx, c.ecx);
    if (strcmp(f->vendor_id, "GenuineIntel") == 0) {
        f->vendor = CPU_VENDOR_INTEL;
    } else if (strcmp(f->vendor_id, "AuthenticAMD") == 0 ||
               strcmp(f->vendor_id, "HygonGenuine") == 0) {
        f->vendor = CPU_VENDOR_AMD;
    }

    uint32_t max = cpuid(CPUID_EXTENDED, 0).eax;
    f->max_extended = max >= CPUID_EXTENDED && max < CPUID_EXTENDED + 0x10000u ? max : 0;

    /* "Processor Signature": the extended fields count only from family 15 (model: also 6) on. */
    uint32_t sig = cpuid(CPUID_FEATURES, 0).eax;
    f->stepping = sig & 0xf;
    f->family = (sig >> 8) & 0xf;
    f->model = (sig >> 4) & 0xf;
    if (f->family == 6 || f->family == 15) {
        f->model |= ((sig >> 16) & 0xf) << 4;
    }
    if (f->family == 15) {
        f->family += (sig >> 20) & 0xff;
    }

    if (f->max_extended >= CPUID_BRAND + 2) {
        for (uint32_t i = 0; i < 3; i++) {
            c = cpuid(CPUID_BRAND + i, 0);
            memcpy(f->brand + 16 * i, &c, 16);
        }
        f->brand[48] = '\0';
    }
}

static void detect_basic(struct cpu_features *f)
{
    struct cpuid c = cpuid(CPUID_FEATURES, 0);

    f->monitor = bit(c.ecx, 3);
    f->vmx = bit(c.ecx, 5);
    f->pcid = bit(c.ecx, 17);
    f->sse42 = bit(c.ecx, 20);
    f->x2apic = bit(c.ecx, 21);
    f->tsc_deadline = bit(c.ecx, 24);
    f->aes = bit(c.ecx, 25);
    f->xsave = bit(c.ecx, 26);
    f->avx = bit(c.ecx, 28);
    f->rdrand = bit(c.ecx, 30);
    f->hypervisor = bit(c.ecx, 31);
    f->mce = bit(c.edx, 7);
    f->mtrr = bit(c.edx, 12);
    f->pge = bit(c.edx, 13);
    f->mca = bit(c.edx, 14);
    f->pat = bit(c.edx, 16);
    f->fxsr = bit(c.edx, 24);
    f->sse2 = bit(c.edx, 26);

    if (f->max_basic >= 6) {
        f->arat = bit(cpuid(6, 0).eax, 2);
    }
    if (f->max_basic >= CPUID_STRUCTURED) {
        c = cpuid(CPUID_STRUCTURED, 0);
        f->fsgsbase = bit(c.ebx, 0);
        f->tsc_adjust = bit(c.ebx, 1);
        f->avx2 = bit(c.ebx, 5);
        f->smep = bit(c.ebx, 7);
        f->erms = bit(c.ebx, 9);
        f->invpcid = bit(c.ebx, 10);
        f->avx512f = bit(c.ebx, 16);
        f->rdseed = bit(c.ebx, 18);
        f->smap = bit(c.ebx, 20);
        f->clflushopt = bit(c.ebx, 23);
        f->umip = bit(c.ecx, 2);
        f->la57 = bit(c.ecx, 16);
        f->fsrm = bit(c.edx, 4);
    }
    if (f->xsave && f->max_basic >= CPUID_XSTATE) {
        c = cpuid(CPUID_XSTATE, 1);
        f->xsaveopt = bit(c.eax, 0);
        f->xsavec = bit(c.eax, 1);
        f->xsaves = bit(c.eax, 3);
    }
}

static void detect_extended(struct cpu_features *f)
{
    struct cpuid c;

    f->phys_bits = 36;
    f->virt_bits = 48;
    if (f->max_extended >= CPUID_EXT_FEATURES) {
        c = cpuid(CPUID_EXT_FEATURES, 0);
        f->svm = bit(c.ecx, 2);
        f->nx = bit(c.edx, 20);
        f->page1gb = bit(c.edx, 26);
        f->rdtscp = bit(c.edx, 27);
    }
    if (f->max_extended >= CPUID_EXT_POWER) {
        f->invariant_tsc = bit(cpuid(CPUID_EXT_POWER, 0).edx, 8);
    }
    if (f->max_extended >= CPUID_ADDRESS_SIZES) {
        c = cpuid(CPUID_ADDRESS_SIZES, 0);
        f->phys_bits = c.eax & 0xff;
        f->virt_bits = (c.eax >> 8) & 0xff;
    }
    if (f->svm && f->max_extended >= CPUID_SVM) {
        c = cpuid(CPUID_SVM, 0);
        f->nr_asids = c.ebx;
        f->npt = bit(c.edx, 0);
        f->nrips = bit(c.edx, 3);
        f->vmcb_clean = bit(c.edx, 5);
        f->flush_by_asid = bit(c.edx, 6);
        f->decode_assists = bit(c.edx, 7);
        f->pause_filter = bit(c.edx, 10);
        f->avic = bit(c.edx, 13);
        f->vgif = bit(c.edx, 16);
    }
}

void cpu_detect(void)
{
    struct cpu_features *f = &cpu_features;

    memset(f, 0, sizeof(*f));
    detect_identity(f);
    detect_basic(f);
    detect_extended(f);
    if (f->hypervisor) {
        struct cpuid c = cpuid(CPUID_HYPERVISOR, 0);

        f->max_hypervisor = c.eax;
        id_string(f->hypervisor_id, c.ebx, c.ecx, c.edx);
    }
}

const char *cpu_missing(void)
{
    if (!cpu_features.nx) {
        return "no-execute pages (NX); the set-up program may call it 'Execute Disable Bit'";
    }
    if (!cpu_features.fxsr || !cpu_features.sse2) {
        return "FXSAVE and SSE2";
    }
    if (!cpu_features.pge || !cpu_features.pat) {
        return "global pages and the page attribute table";
    }
    return NULL;
}

/* The power-up table with its sixth entry write-combining (framebuffer); see hostmap_device(). */
#define PAT_VALUE 0x0007010600070406ULL

void cpu_init(void)
{
    const struct cpu_features *f = &cpu_features;
    uint64_t cr0 = read_cr0();
    uint64_t cr4 = read_cr4();

    cr0 &= ~(CR0_CD | CR0_NW | CR0_TS | CR0_EM | CR0_AM);
    cr0 |= CR0_WP | CR0_NE | CR0_MP;
    write_cr0(cr0);

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | (f->nx ? EFER_NXE : 0));
    if (f->pat) {
        wrmsr(MSR_PAT, PAT_VALUE);
    }

    cr4 &= ~(CR4_TSD | CR4_PCE | CR4_FSGSBASE | CR4_PCIDE | CR4_PKE | CR4_CET | CR4_VMXE);
    cr4 |= CR4_DE | (f->pge ? CR4_PGE : 0) | (f->mce ? CR4_MCE : 0);
    cr4 |= f->fxsr ? CR4_OSFXSR | CR4_OSXMMEXCPT : 0;
    cr4 |= f->xsave ? CR4_OSXSAVE : 0;
    cr4 |= f->smep ? CR4_SMEP : 0;
    cr4 |= f->smap ? CR4_SMAP : 0;
    cr4 |= f->umip ? CR4_UMIP : 0;
    write_cr4(cr4);
}

/* The manual's advice: ten tries, then there is a hardware failure. */
#define RDRAND_TRIES 10

uint64_t cpu_entropy(void)
{
    uint64_t random = 0;
    bool ok = false;

    for (unsigned i = 0; cpu_features.rdrand && !ok && i < RDRAND_TRIES; i++) {
        __asm__ volatile("rdrand %0" : "=r"(random), "=@ccc"(ok));
    }
    return (ok ? random : 0) ^ rdtsc();
}

void cpu_mce_init(void)
{
    if (cpu_features.mce && cpu_features.mca) {
        mce_init_cpu();
    }
}
