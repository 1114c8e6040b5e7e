/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Model-specific registers that exit: one table of what each answers. Registers that the backend
 * keeps (SYSENTER, STAR family, bases, PAT) need no line for reading. What is not here does not
 * exist: #GP(0). Memory types are the nested tables' business, so MTRRs only remember.
 * Callers: the exit handler, vCPU reset. Owner thread.
 */
#include "arch/x86_64/msr.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/fpu.h"
#include "arch/x86_64/regs.h"
#include "kernel/devices/vlapic.h"
#include "kernel/lib/string.h"
#include "kernel/vm/exit.h"

#define MSR_NB_CFG 0xc001001fu
#define MSR_INT_PENDING 0xc0010055u
#define MSR_DE_CFG 0xc0011029u
#define DE_CFG_LFENCE_SERIALIZING BIT(1)
#define HWCR_TSC_FREQ_SEL BIT(24) /* the TSC counts at P0 frequency */
#define EXT1_EDX_FFXSR BIT(25)
#define NR_VAR_MTRRS 8u
#define MTRRCAP_FIXED BIT(8)
#define MTRRCAP_WC BIT(10)
#define MTRR_DEF_RESET 0xc06u /* enabled, write-back: what firmware would leave */
#define MTRR_DEF_VALID 0xcffu
#define MTRR_BASE_RESERVED 0xf00ull
#define MTRR_MASK_RESERVED 0x7ffull
#define MTRR_FIXED_WB 0x0606060606060606ULL

typedef enum hv_err (*msr_read_t)(struct vcpu *v, uint32_t index, uint64_t *out);
typedef enum hv_err (*msr_write_t)(struct vcpu *v, uint32_t index, uint64_t value);

/* ---- Answers that several registers share ---- */

static enum hv_err read_zero(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)v;
    (void)index;
    *out = 0;
    return HV_OK;
}

static enum hv_err write_ignored(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)v;
    (void)index;
    (void)value;
    return HV_OK;
}

static enum hv_err write_zero_only(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)v;
    (void)index;
    return value == 0 ? HV_OK : HV_EPERM;
}

static enum hv_err read_apic(struct vcpu *v, uint32_t index, uint64_t *out)
{
    return vlapic_read_msr(v->lapic, index, out);
}

static enum hv_err write_apic(struct vcpu *v, uint32_t index, uint64_t value)
{
    return vlapic_write_msr(v->lapic, index, value);
}

/* ---- What the backend keeps ---- */

/* What WRMSR takes ("Canonical Addressing"); the backend looks at no value. Some processors use the low
 * halves of SYSENTER's addresses and would take any; others enter no guest where they are not canonical. */
static bool kept_takes(uint32_t index, uint64_t value)
{
    switch (index) {
    case MSR_PAT:
        return pat_is_valid(value);
    case MSR_STAR:
    case MSR_SYSENTER_CS:
        return true;
    case MSR_SYSCALL_MASK:
        return value <= UINT32_MAX;
    default:
        return is_canonical(value);
    }
}

static enum hv_err write_kept(struct vcpu *v, uint32_t index, uint64_t value)
{
    return kept_takes(index, value) && hv->set_msr(v, index, value) == HV_OK ? HV_OK : HV_EPERM;
}

/* ---- Time ---- */

static void move_tsc(struct vcpu *v, uint64_t delta)
{
    v->guest_tsc_offset += delta;
    v->msr.tsc_adjust += delta;
    hv->set_tsc_offset(v, v->guest_tsc_offset);
    vlapic_tsc_moved(v->lapic);
}

static enum hv_err read_tsc(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)index;
    *out = vcpu_guest_tsc(v);
    return HV_OK;
}

static enum hv_err write_tsc(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)index;
    move_tsc(v, value - vcpu_guest_tsc(v));
    return HV_OK;
}

static enum hv_err read_tsc_adjust(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)index;
    *out = v->msr.tsc_adjust;
    return HV_OK;
}

static enum hv_err write_tsc_adjust(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)index;
    move_tsc(v, value - v->msr.tsc_adjust);
    return HV_OK;
}

static enum hv_err read_tsc_aux(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)index;
    *out = v->msr.tsc_aux;
    return cpu_features.rdtscp ? HV_OK : HV_EPERM;
}

static enum hv_err write_tsc_aux(struct vcpu *v, uint32_t index, uint64_t value)
{
    if (!cpu_features.rdtscp || value > UINT32_MAX) {
        return HV_EPERM;
    }
    v->msr.tsc_aux = value;
    /* Off the fast path v may have waited for its code, and come to a processor that holds another's. */
    if (this_cpu()->loaded_vcpu == v) {
        wrmsr(index, value);
    }
    return HV_OK;
}

/* ---- EFER ("Extended Feature Enable Register") ---- */

static enum hv_err read_efer(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)index;
    *out = hv->get_reg(v, REG_EFER);
    return HV_OK;
}

static enum hv_err write_efer(struct vcpu *v, uint32_t index, uint64_t value)
{
    /* What the processor lacks would make it refuse the next entry. */
    const uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | (cpu_features.nx ? EFER_NXE : 0) |
                             (cpuid(CPUID_EXT_FEATURES, 0).edx & EXT1_EDX_FFXSR ? EFER_FFXSR : 0);
    uint64_t old = hv->get_reg(v, REG_EFER);

    (void)index;
    if (value & ~allowed) {
        return HV_EPERM;
    }
    if (((old ^ value) & EFER_LME) && (hv->get_reg(v, REG_CR0) & CR0_PG)) {
        return HV_EPERM;
    }
    /* LMA follows LME and CR0.PG; writes to it are ignored. */
    hv->set_reg(v, REG_EFER, (value & ~EFER_LMA) | (old & EFER_LMA));
    if (v->vm->software_mmu && ((old ^ value) & EFER_NXE)) {
        softmmu_changed(v);
    }
    return HV_OK;
}

/* ---- Memory types ---- */

static bool valid_type(uint8_t type)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static enum hv_err read_mtrrcap(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)v;
    (void)index;
    *out = MTRRCAP_WC | MTRRCAP_FIXED | NR_VAR_MTRRS;
    return HV_OK;
}

static uint64_t *mtrr_slot(struct vcpu *v, uint32_t index)
{
    if (index == MSR_MTRR_DEF_TYPE) {
        return &v->msr.mtrr_def_type;
    }
    if (index < MSR_MTRR_FIX64K) {
        return &v->msr.mtrr_var[index - MSR_MTRR_PHYSBASE(0)];
    }
    if (index == MSR_MTRR_FIX64K) {
        return &v->msr.mtrr_fixed[0];
    }
    if (index < MSR_MTRR_FIX4K_C0000) {
        return &v->msr.mtrr_fixed[1 + index - MSR_MTRR_FIX16K_80000];
    }
    return &v->msr.mtrr_fixed[3 + index - MSR_MTRR_FIX4K_C0000];
}

static enum hv_err read_mtrr(struct vcpu *v, uint32_t index, uint64_t *out)
{
    *out = *mtrr_slot(v, index);
    return HV_OK;
}

/* "MTRR Feature Identification" and what follows it: types that exist, no reserved bits. */
static bool mtrr_valid(uint32_t index, uint64_t value)
{
    if (index == MSR_MTRR_DEF_TYPE) {
        return !(value & ~MTRR_DEF_VALID) && valid_type(value & 0xff);
    }
    if (index < MSR_MTRR_FIX64K) {
        bool is_mask = (index - MSR_MTRR_PHYSBASE(0)) % 2;
        uint64_t reserved = is_mask ? MTRR_MASK_RESERVED : MTRR_BASE_RESERVED;

        return !(value & reserved) && value >> cpu_features.phys_bits == 0 &&
               (is_mask || valid_type(value & 0xff));
    }
    for (unsigned i = 0; i < 8; i++) {
        if (!valid_type((uint8_t)(value >> (8 * i)))) {
            return false;
        }
    }
    return true;
}

static enum hv_err write_mtrr(struct vcpu *v, uint32_t index, uint64_t value)
{
    if (!mtrr_valid(index, value)) {
        return HV_EPERM;
    }
    *mtrr_slot(v, index) = value;
    return HV_OK;
}

/* ---- Rest ---- */

static enum hv_err read_hwcr(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)v;
    (void)index;
    *out = HWCR_TSC_FREQ_SEL;
    return cpu_features.vendor == CPU_VENDOR_AMD ? HV_OK : HV_EPERM;
}

static enum hv_err read_de_cfg(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)v;
    (void)index;
    *out = DE_CFG_LFENCE_SERIALIZING;
    return cpu_features.vendor == CPU_VENDOR_AMD ? HV_OK : HV_EPERM;
}

static enum hv_err read_misc_enable(struct vcpu *v, uint32_t index, uint64_t *out)
{
    (void)index;
    *out = v->msr.misc_enable;
    return cpu_features.vendor == CPU_VENDOR_INTEL ? HV_OK : HV_EPERM;
}

static enum hv_err write_misc_enable(struct vcpu *v, uint32_t index, uint64_t value)
{
    (void)index;
    v->msr.misc_enable = value;
    return cpu_features.vendor == CPU_VENDOR_INTEL ? HV_OK : HV_EPERM;
}

struct msr_policy {
    uint32_t first, last;
    msr_read_t read;   /* NULL: the backend keeps it */
    msr_write_t write; /* NULL: likewise, by write_kept */
};

/* Ascending. Where the backend keeps both, the guest needs no exit. */
static const struct msr_policy policies[] = {
    {MSR_TSC, MSR_TSC, read_tsc, write_tsc},
    {MSR_APIC_BASE, MSR_APIC_BASE, read_apic, write_apic},
    {MSR_TSC_ADJUST, MSR_TSC_ADJUST, read_tsc_adjust, write_tsc_adjust},
    {MSR_BIOS_SIGN_ID, MSR_BIOS_SIGN_ID, read_zero, write_ignored},
    {MSR_MTRRCAP, MSR_MTRRCAP, read_mtrrcap, NULL},
    {MSR_SYSENTER_CS, MSR_SYSENTER_EIP, NULL, NULL},
    {MSR_MISC_ENABLE, MSR_MISC_ENABLE, read_misc_enable, write_misc_enable},
    {MSR_DEBUGCTL, MSR_DEBUGCTL, read_zero, write_zero_only},
    {MSR_MTRR_PHYSBASE(0), MSR_MTRR_PHYSMASK(NR_VAR_MTRRS - 1), read_mtrr, write_mtrr},
    {MSR_MTRR_FIX64K, MSR_MTRR_FIX64K, read_mtrr, write_mtrr},
    {MSR_MTRR_FIX16K_80000, MSR_MTRR_FIX16K_A0000, read_mtrr, write_mtrr},
    {MSR_MTRR_FIX4K_C0000, MSR_MTRR_FIX4K_C0000 + 7, read_mtrr, write_mtrr},
    {MSR_PAT, MSR_PAT, NULL, write_kept},
    {MSR_MTRR_DEF_TYPE, MSR_MTRR_DEF_TYPE, read_mtrr, write_mtrr},
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE, read_apic, write_apic},
    {MSR_EFER, MSR_EFER, read_efer, write_efer},
    {MSR_STAR, MSR_SYSCALL_MASK, NULL, NULL},
    {MSR_FS_BASE, MSR_KERNEL_GS_BASE, NULL, NULL},
    {MSR_TSC_AUX, MSR_TSC_AUX, read_tsc_aux, write_tsc_aux},
    {MSR_SYSCFG, MSR_SYSCFG, read_zero, write_zero_only},
    {MSR_HWCR, MSR_HWCR, read_hwcr, write_ignored},
    {MSR_NB_CFG, MSR_NB_CFG, read_zero, write_ignored},
    {MSR_INT_PENDING, MSR_INT_PENDING, read_zero, write_ignored},
    {MSR_DE_CFG, MSR_DE_CFG, read_de_cfg, write_ignored},
};

/* The line that covers `index`, or NULL. */
static const struct msr_policy *find(uint32_t index)
{
    size_t low = 0, high = ARRAY_SIZE(policies);

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (index > policies[mid].last) {
            low = mid + 1;
        } else if (index < policies[mid].first) {
            high = mid;
        } else {
            return &policies[mid];
        }
    }
    return NULL;
}

enum hv_err msr_read(struct vcpu *v, uint32_t index, uint64_t *out)
{
    /* Ends of interrupts and interprocessor interrupts are the most frequent of all. */
    if (likely(index - MSR_X2APIC_FIRST <= MSR_X2APIC_LAST - MSR_X2APIC_FIRST)) {
        return vlapic_read_msr(v->lapic, index, out);
    }
    const struct msr_policy *p = find(index);

    if (unlikely(p == NULL)) {
        return HV_EPERM;
    }
    if (p->read != NULL) {
        return p->read(v, index, out);
    }
    return hv->get_msr(v, index, out) == HV_OK ? HV_OK : HV_EPERM;
}

enum hv_err msr_write(struct vcpu *v, uint32_t index, uint64_t value)
{
    /* Ends of interrupts and interprocessor interrupts are the most frequent of all. */
    if (likely(index - MSR_X2APIC_FIRST <= MSR_X2APIC_LAST - MSR_X2APIC_FIRST)) {
        return vlapic_write_msr(v->lapic, index, value);
    }
    const struct msr_policy *p = find(index);

    if (unlikely(p == NULL)) {
        return HV_EPERM;
    }
    if (p->write != NULL) {
        return p->write(v, index, value);
    }
    return write_kept(v, index, value);
}

void msr_open(struct vm *vm)
{
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        const struct msr_policy *p = &policies[i];

        for (uint32_t index = p->first; p->read == NULL && p->write == NULL && index <= p->last;
             index++) {
            hv->direct_msr(vm, index);
        }
    }
}

void msr_reset(struct vcpu *v)
{
    memset(&v->msr, 0, sizeof(v->msr));
    v->msr.mtrr_def_type = MTRR_DEF_RESET;
    v->msr.misc_enable = 1; /* fast strings */
    for (size_t i = 0; i < ARRAY_SIZE(v->msr.mtrr_fixed); i++) {
        v->msr.mtrr_fixed[i] = MTRR_FIXED_WB;
    }
}

void msr_load(struct vcpu *v)
{
    if (cpu_features.rdtscp) {
        wrmsr(MSR_TSC_AUX, v->msr.tsc_aux);
    }
}
