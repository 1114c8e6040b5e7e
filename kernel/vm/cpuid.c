/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What CPUID tells guests: one table of policies. Each leaf keeps the bits of the host's answer that
 * its line allows (never more than the hardware has), then its function fills in what is the VM's
 * own. Answers are computed when the VM is built; leaves that depend on the vCPU, its registers or
 * ECX have a second function that runs at the exit.
 */
#include "arch/x86_64/cpuid.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"
#include "mm/slab.h"

#define MAX_BASIC 0x0du
#define MAX_EXTENDED 0x8000001au
#define NR_BASIC (MAX_BASIC + 1)
#define NR_EXTENDED (MAX_EXTENDED - CPUID_EXTENDED + 1)
#define VMWARE_TIMING CPUID_HYPERVISOR_TIMING
#define NR_VMWARE (VMWARE_TIMING - CPUID_HYPERVISOR + 1)
#define NR_XSTATE 64u

#define L1_ECX_PCID BIT(17)
#define L1_ECX_X2APIC BIT(21)
#define L1_ECX_TSC_DEADLINE BIT(24)
#define L1_ECX_OSXSAVE BIT(27)
#define L1_ECX_HYPERVISOR BIT(31)
#define L1_EDX_APIC BIT(9)
#define L1_EDX_HTT BIT(28)
#define L7_ECX_PKU BIT(3)
#define L7_ECX_OSPKE BIT(4)
#define L7_EBX_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define L7_EBX_AVX2 BIT(5)
#define L7_EBX_INVPCID BIT(10)
#define LD1_EAX_XSAVEC BIT(1)
#define EXT1_ECX_CMP_LEGACY BIT(1)
#define EXT1_EDX_PAGE1GB BIT(26)
#define L6_EAX_ARAT BIT(2)

struct cpuid_table {
    struct cpuid basic[NR_BASIC];
    struct cpuid extended[NR_EXTENDED];
    struct cpuid vmware[NR_VMWARE]; /* zero if the VM shows no identity */
};

/* At VM creation. */
typedef void (*build_t)(const struct vm *vm, struct cpuid *r);
/* At the exit. */
typedef void (*answer_t)(struct vcpu *v, uint32_t subleaf, struct cpuid *r);

struct policy {
    uint32_t leaf;
    struct cpuid keep;
    build_t build;
    answer_t answer;
};

static unsigned log2_ceil(unsigned n)
{
    unsigned bits = 0;

    while ((1u << bits) < n) {
        bits++;
    }
    return bits;
}

/* ---- Functions of single leaves ---- */

static void build_max_basic(const struct vm *vm, struct cpuid *r)
{
    const uint32_t topology = CPUID_TOPOLOGY; /* ours, whatever the host has */

    (void)vm;
    r->eax = MAX(MIN(r->eax, MAX_BASIC), topology);
}

static void build_features(const struct vm *vm, struct cpuid *r)
{
    unsigned ids = 1u << log2_ceil(vm->nr_vcpus);

    r->ebx = (r->ebx & 0x0000ffff) | ids << 16;
    r->ecx |= (uint32_t)(L1_ECX_X2APIC | L1_ECX_TSC_DEADLINE);
    if (vm->config.identity != IDENTITY_NONE) {
        r->ecx |= (uint32_t)L1_ECX_HYPERVISOR;
    }
    if (vm->software_mmu) {
        r->ecx &= (uint32_t)~L1_ECX_PCID;
    }
    r->edx |= (uint32_t)L1_EDX_APIC;
    if (vm->nr_vcpus > 1) {
        r->edx |= (uint32_t)L1_EDX_HTT;
    }
}

static void answer_features(struct vcpu *v, uint32_t subleaf, struct cpuid *r)
{
    (void)subleaf;
    r->ebx |= v->id << 24;
    if (!vlapic_is_on(v->lapic)) {
        r->edx &= (uint32_t)~L1_EDX_APIC;
    }
    if (hv->get_reg(v, REG_CR4) & CR4_OSXSAVE) {
        r->ecx |= (uint32_t)L1_ECX_OSXSAVE;
    }
}

/* Intel's cache leaf: only its sharing fields are the VM's. */
static void answer_caches(struct vcpu *v, uint32_t subleaf, struct cpuid *r)
{
    const uint32_t sharing = 0xffffc000;

    *r = cpuid(4, subleaf);
    if ((r->eax & 0x1f) != 0) {
        r->eax = (r->eax & ~sharing) | ((1u << log2_ceil(v->vm->nr_vcpus)) - 1) << 26;
    }
}

static void build_power(const struct vm *vm, struct cpuid *r)
{
    (void)vm;
    r->eax = (uint32_t)L6_EAX_ARAT; /* the virtual timer never stops */
}

static void build_structured(const struct vm *vm, struct cpuid *r)
{
    uint64_t xcr0 = fpu_xcr0_mask();

    r->eax = 0; /* no further subleaves */
    if (vm->software_mmu) {
        r->ebx &= (uint32_t)~L7_EBX_INVPCID;
        r->ecx &= (uint32_t)~L7_ECX_PKU;
    }
    if (!(xcr0 & XCR0_AVX)) {
        r->ebx &= (uint32_t)~L7_EBX_AVX2;
    }
    if (!(xcr0 & XCR0_OPMASK)) {
        r->ebx &= (uint32_t)~L7_EBX_AVX512;
    }
    if (!(xcr0 & XCR0_PKRU)) {
        r->ecx &= (uint32_t)~L7_ECX_PKU;
    }
}

static void answer_structured(struct vcpu *v, uint32_t subleaf, struct cpuid *r)
{
    if (subleaf != 0) {
        *r = (struct cpuid){0};
    } else if ((r->ecx & L7_ECX_PKU) && (hv->get_reg(v, REG_CR4) & CR4_PKE)) {
        r->ecx |= (uint32_t)L7_ECX_OSPKE;
    }
}

/* "Extended Topology Enumeration": one thread per core, all cores in one package. */
static void answer_topology(struct vcpu *v, uint32_t subleaf, struct cpuid *r)
{
    const uint32_t smt = 1, core = 2;

    *r = (struct cpuid){.ecx = subleaf & 0xff, .edx = v->id};
    if (subleaf == 0) {
        r->ebx = 1;
        r->ecx |= smt << 8;
    } else if (subleaf == 1) {
        r->eax = log2_ceil(v->vm->nr_vcpus);
        r->ebx = v->vm->nr_vcpus;
        r->ecx |= core << 8;
    }
}

/* Bytes of an XSAVE area with components `mask`, in the standard or the compacted format. */
static uint32_t xsave_size(uint64_t mask, bool compacted)
{
    const uint32_t legacy_and_header = 576;
    const uint32_t aligned64 = 0x2;
    uint32_t size = legacy_and_header;

    for (unsigned i = 2; i < NR_XSTATE; i++) {
        if (!(mask & BIT(i))) {
            continue;
        }
        struct cpuid c = cpuid(CPUID_XSTATE, i);
        uint32_t offset = c.ebx;

        if (compacted) {
            offset = (c.ecx & aligned64) ? ALIGN_UP(size, 64u) : size;
        }
        size = MAX(size, offset + c.eax);
    }
    return size;
}

static void answer_xstate(struct vcpu *v, uint32_t subleaf, struct cpuid *r)
{
    /* XSAVEOPT, XGETBV with ECX = 1, and XSAVEC unless it is broken (fpu_init_cpu). */
    const uint32_t offered = 0x5 | (cpu_features.xsavec ? LD1_EAX_XSAVEC : 0);
    uint64_t mask = fpu_xcr0_mask();

    *r = (struct cpuid){0};
    if (mask == 0) {
        return;
    }
    if (subleaf == 0) {
        r->eax = (uint32_t)mask;
        r->ebx = xsave_size(fpu_get_xcr0(v->fpu), false);
        r->ecx = xsave_size(mask, false);
        r->edx = (uint32_t)(mask >> 32);
    } else if (subleaf == 1) {
        r->eax = cpuid(CPUID_XSTATE, 1).eax & offered;
        if (r->eax & LD1_EAX_XSAVEC) {
            r->ebx = xsave_size(fpu_get_xcr0(v->fpu), true);
        }
    } else if (subleaf < NR_XSTATE && (mask & BIT(subleaf))) {
        *r = cpuid(CPUID_XSTATE, subleaf);
    }
}

static void build_max_extended(const struct vm *vm, struct cpuid *r)
{
    (void)vm;
    r->eax = MIN(r->eax, MAX_EXTENDED);
}

static void build_ext_features(const struct vm *vm, struct cpuid *r)
{
    if (vm->nr_vcpus > 1 && cpu_features.vendor == CPU_VENDOR_AMD) {
        r->ecx |= (uint32_t)EXT1_ECX_CMP_LEGACY;
    }
}

static void build_sizes(const struct vm *vm, struct cpuid *r)
{
    r->ecx = cpu_features.vendor == CPU_VENDOR_AMD
                 ? (vm->nr_vcpus - 1) | log2_ceil(vm->nr_vcpus) << 12
                 : 0;
}

/* ---- The table ---- */

#define ALL UINT32_MAX
#define KEEP_ALL           \
    {                      \
        ALL, ALL, ALL, ALL \
    }

/* SSE3 PCLMUL SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND */
#define KEEP_1_ECX 0x76da3203u
/* FPU VME DE PSE TSC MSR PAE CX8 SEP MTRR PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2; neither machine
 * checks nor thermal control */
#define KEEP_1_EDX 0x078bb97fu
/* FSGSBASE TSC_ADJUST BMI1 AVX2 SMEP BMI2 ERMS INVPCID AVX512F/DQ RDSEED ADX SMAP AVX512IFMA
 * CLFLUSHOPT CLWB AVX512CD SHA AVX512BW/VL */
#define KEEP_7_EBX 0xf1bf07abu
/* VBMI UMIP PKU VBMI2 GFNI VAES VPCLMUL VNNI BITALG VPOPCNTDQ RDPID; no five-level paging */
#define KEEP_7_ECX 0x00405f4eu
#define KEEP_7_EDX 0x00000010u /* FSRM */
/* LAHF CR8 ABM SSE4A MISALIGN 3DNOWPREFETCH XOP FMA4 TBM; no SVM, no performance counters */
#define KEEP_EXT1_ECX 0x002109f1u
/* as leaf 1, and SYSCALL NX MMXEXT FFXSR 1G RDTSCP LM 3DNOW */
#define KEEP_EXT1_EDX 0xefd3b97fu
#define KEEP_EXT8_EBX 0x00000005u /* CLZERO, XSAVE error pointers */

/* Ascending. A leaf without a line is all zeros. */
static const struct policy policies[] = {
    {0x00, KEEP_ALL, build_max_basic, NULL},
    {0x01, {ALL, ALL, KEEP_1_ECX, KEEP_1_EDX}, build_features, answer_features},
    {0x02, KEEP_ALL, NULL, NULL},
    {0x04, {0}, NULL, answer_caches},
    {0x06, {0}, build_power, NULL},
    {0x07, {0, KEEP_7_EBX, KEEP_7_ECX, KEEP_7_EDX}, build_structured, answer_structured},
    {0x0b, {0}, NULL, answer_topology},
    {0x0d, {0}, NULL, answer_xstate},
    {0x80000000, KEEP_ALL, build_max_extended, NULL},
    {0x80000001, {ALL, ALL, KEEP_EXT1_ECX, KEEP_EXT1_EDX}, build_ext_features, NULL},
    {0x80000002, KEEP_ALL, NULL, NULL},
    {0x80000003, KEEP_ALL, NULL, NULL},
    {0x80000004, KEEP_ALL, NULL, NULL},
    {0x80000005, KEEP_ALL, NULL, NULL},
    {0x80000006, KEEP_ALL, NULL, NULL},
    {0x80000007, {0, 0, 0, 0x100}, NULL, NULL}, /* invariant TSC */
    {0x80000008, {ALL, KEEP_EXT8_EBX, 0, 0}, build_sizes, NULL},
    {0x80000019, KEEP_ALL, NULL, NULL},
    {0x8000001a, KEEP_ALL, NULL, NULL},
};

/* By leaf, for the exit: NULL where the stored answer is complete. */
static answer_t basic_answers[NR_BASIC]; /* written while the first VM is built, always the same */

static struct cpuid *slot_of(struct cpuid_table *t, uint32_t leaf)
{
    if (leaf < NR_BASIC) {
        return &t->basic[leaf];
    }
    if (leaf - CPUID_EXTENDED < NR_EXTENDED) {
        return &t->extended[leaf - CPUID_EXTENDED];
    }
    if (leaf - CPUID_HYPERVISOR < NR_VMWARE) {
        return &t->vmware[leaf - CPUID_HYPERVISOR];
    }
    return NULL;
}

static void build_leaf(const struct vm *vm, const struct policy *p)
{
    bool extended = p->leaf >= CPUID_EXTENDED;
    uint32_t max = extended ? cpu_features.max_extended : cpu_features.max_basic;
    struct cpuid r = p->leaf <= max ? cpuid(p->leaf, 0) : (struct cpuid){0};

    r.eax &= p->keep.eax;
    r.ebx &= p->keep.ebx;
    r.ecx &= p->keep.ecx;
    r.edx &= p->keep.edx;
    if (p->build != NULL) {
        p->build(vm, &r);
    }
    *slot_of(vm->cpuid, p->leaf) = r;
    /* Intel's cache leaf, where AMD has nothing, stays away. */
    if (p->answer != NULL && (p->leaf != 4 || cpu_features.vendor == CPU_VENDOR_INTEL)) {
        basic_answers[p->leaf] = p->answer;
    }
}

/* VMware's identity and clock ("Mechanisms to determine if software is running in a VMware virtual
 * machine"): TSC and local APIC timer frequency in kHz. */
static void build_vmware(const struct vm *vm)
{
    struct cpuid *t = vm->cpuid->vmware;

    memcpy(&t[0].ebx, "VMwareVMware", 12);
    t[0].eax = VMWARE_TIMING;
    t[VMWARE_TIMING - CPUID_HYPERVISOR] = (struct cpuid){
        .eax = (uint32_t)(clock_tsc_hz() / 1000),
        .ebx = (uint32_t)(vlapic_bus_hz() / 1000),
    };
}
_Static_assert(offsetof(struct cpuid, edx) == 12, "the signature fills EBX, ECX, EDX");

enum hv_err cpuid_create(struct vm *vm)
{
    vm->cpuid = kmalloc(sizeof(*vm->cpuid), vm->id);
    if (vm->cpuid == NULL) {
        return HV_ENOMEM;
    }
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        build_leaf(vm, &policies[i]);
    }
    if (vm->config.identity == IDENTITY_VMWARE) {
        build_vmware(vm);
    }
    vm->page1gb = (slot_of(vm->cpuid, 0x80000001)->edx & EXT1_EDX_PAGE1GB) != 0;
    return HV_OK;
}

void cpuid_destroy(struct vm *vm)
{
    kfree(vm->cpuid);
    vm->cpuid = NULL;
}

void cpuid_execute(struct vcpu *v)
{
    uint32_t leaf = (uint32_t)v->gpr[GPR_RAX], subleaf = (uint32_t)v->gpr[GPR_RCX];
    const struct cpuid *slot = slot_of(v->vm->cpuid, leaf);
    struct cpuid r = {0};

    if (likely(slot != NULL)) {
        r = *slot;
        if (leaf < NR_BASIC && basic_answers[leaf] != NULL) {
            basic_answers[leaf](v, subleaf, &r);
        }
    }
    v->gpr[GPR_RAX] = r.eax;
    v->gpr[GPR_RBX] = r.ebx;
    v->gpr[GPR_RCX] = r.ecx;
    v->gpr[GPR_RDX] = r.edx;
}
