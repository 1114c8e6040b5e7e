/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The local APIC's two register faces: the xAPIC page and the x2APIC MSRs, over one pair of register
 * functions. Manual: "Local APIC Register Address Map", "Extended XAPIC (x2APIC)". The first lines of
 * vlapic_write_msr serve what guests write all the time. Callers: MSR exits, the emulator; always the
 * vCPU's thread.
 */
#include "arch/x86_64/msr.h"
#include "kernel/devices/vlapic_internal.h"

#define LVT_RW_COMMON 0x000100ffu /* mask, vector */
#define LVT_RW_DELIVERY 0x00000700u
#define LVT_RW_TIMER_MODE 0x00060000u
#define LVT_RW_TRIGGER 0x0000a000u /* polarity, trigger mode */
#define ICR_RW 0x000ccfffu
#define X2APIC_ICR_RW (0xffffffff00000000ull | ICR_RW)
#define SVR_RW 0x000003ffu

static const uint32_t lvt_writable[NR_LVTS] = {
    LVT_RW_COMMON | LVT_RW_TIMER_MODE,                /* timer */
    LVT_RW_COMMON | LVT_RW_DELIVERY,                  /* thermal */
    LVT_RW_COMMON | LVT_RW_DELIVERY,                  /* performance counters */
    LVT_RW_COMMON | LVT_RW_DELIVERY | LVT_RW_TRIGGER, /* LINT0 */
    LVT_RW_COMMON | LVT_RW_DELIVERY | LVT_RW_TRIGGER, /* LINT1 */
    LVT_RW_COMMON,                                    /* error */
};

/* 32 bits of a 256-bit register at `reg - first`. */
static uint32_t map_word(const uint64_t map[4], uint32_t delta)
{
    unsigned word = (delta >> 4) & 7;
    uint64_t bits = __atomic_load_n(&map[word / 2], __ATOMIC_RELAXED);

    return (uint32_t)(bits >> (32 * (word % 2)));
}

/* False if there is no such register to read. */
static bool reg_read(struct vlapic *a, uint32_t reg, uint64_t *out)
{
    switch (reg) {
    case APIC_ID:
        *out = apic_x2(a) ? a->v->id : a->v->id << 24;
        return true;
    case APIC_VERSION:
        *out = APIC_VERSION_VALUE;
        return true;
    case APIC_TPR:
        *out = vlapic_tpr(a);
        return true;
    case APIC_PPR:
        *out = apic_ppr(a);
        return true;
    case APIC_LDR:
        *out = apic_ldr(a);
        return true;
    case APIC_DFR:
        *out = a->dfr;
        return !apic_x2(a);
    case APIC_SVR:
        *out = a->svr;
        return true;
    case APIC_ISR ... APIC_ISR + 0x70:
        *out = map_word(a->isr, reg - APIC_ISR);
        return true;
    case APIC_TMR ... APIC_TMR + 0x70:
        *out = map_word(a->tmr, reg - APIC_TMR);
        return true;
    case APIC_IRR ... APIC_IRR + 0x70:
        *out = map_word(a->irr, reg - APIC_IRR);
        return true;
    case APIC_ESR:
        *out = a->esr;
        return true;
    case APIC_ICR:
        *out = apic_x2(a) ? a->icr : (uint32_t)a->icr;
        return true;
    case APIC_ICR_HIGH:
        *out = a->icr >> 32;
        return !apic_x2(a);
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        *out = a->lvt[(reg - APIC_LVT_TIMER) >> 4];
        return true;
    case APIC_TIMER_INITIAL:
        *out = a->initial_count;
        return true;
    case APIC_TIMER_CURRENT:
        *out = apic_timer_count(a);
        return true;
    case APIC_TIMER_DIVIDE:
        *out = a->divide;
        return true;
    case APIC_APR:
    case APIC_RRD: /* of old processors: there, and nothing in it */
        *out = 0;
        return !apic_x2(a);
    default:
        *out = 0;
        return false;
    }
}

static void write_lvt(struct vlapic *a, unsigned index, uint32_t value)
{
    uint32_t old = a->lvt[index];

    value &= lvt_writable[index];
    if (!apic_sw_enabled(a)) {
        value |= LVT_MASKED;
    }
    __atomic_store_n(&a->lvt[index], value, __ATOMIC_RELAXED);
    if (index == LVT_TIMER) {
        apic_timer_lvt_changed(a, old);
    } else if (index == LVT_LINT0) {
        apic_recheck(a); /* the 8259s may be waiting behind it */
    }
}

static void write_svr(struct vlapic *a, uint32_t value)
{
    __atomic_store_n(&a->svr, value & SVR_RW, __ATOMIC_RELAXED);
    if (!apic_sw_enabled(a)) {
        for (unsigned i = 0; i < NR_LVTS; i++) {
            a->lvt[i] |= LVT_MASKED;
        }
    }
    apic_recheck(a);
}

static void write_icr(struct vlapic *a, uint64_t value)
{
    a->icr = value;
    apic_send(a, value);
}

/* False if there is no such register to write. `value` has no reserved bits set in x2APIC mode. */
static bool reg_write(struct vlapic *a, uint32_t reg, uint64_t value)
{
    uint32_t low = (uint32_t)value;

    switch (reg) {
    case APIC_TPR:
        vlapic_set_tpr(a, (uint8_t)low);
        return true;
    case APIC_EOI:
        apic_eoi(a);
        return true;
    case APIC_LDR:
        if (!apic_x2(a)) {
            __atomic_store_n(&a->ldr, low & 0xff000000u, __ATOMIC_RELAXED);
        }
        return !apic_x2(a);
    case APIC_DFR:
        if (!apic_x2(a)) {
            a->dfr = low | 0x0fffffffu;
        }
        return !apic_x2(a);
    case APIC_SVR:
        write_svr(a, low);
        return true;
    case APIC_ESR:
        a->esr = __atomic_exchange_n(&a->esr_pending, 0, __ATOMIC_RELAXED);
        return true;
    case APIC_ICR:
        write_icr(a, apic_x2(a) ? value : (a->icr & ~0xffffffffull) | (low & ICR_RW));
        return true;
    case APIC_ICR_HIGH:
        if (!apic_x2(a)) {
            a->icr = (uint32_t)a->icr | ((uint64_t)(low >> 24) << 32);
        }
        return !apic_x2(a);
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        write_lvt(a, (reg - APIC_LVT_TIMER) >> 4, low);
        return true;
    case APIC_TIMER_INITIAL:
        apic_timer_set_count(a, low);
        return true;
    case APIC_TIMER_DIVIDE:
        apic_timer_set_divide(a, low);
        return true;
    case APIC_ID:
    case APIC_RRD:
        return !apic_x2(a); /* ignored */
    default:
        return false;
    }
}

/* --- xAPIC page --- */

bool vlapic_covers(const struct vlapic *a, gpa_t gpa)
{
    return (gpa.a & ~0xfffull) == (a->base_msr & APIC_BASE_ADDR_MASK) && apic_hw_enabled(a) &&
           !apic_x2(a);
}

/*
 * Registers are 32 bits wide on 16-byte boundaries; the manual leaves all but aligned 32-bit accesses
 * undefined. Narrow reads give the bytes, everything else reads as zero or is ignored.
 */
enum hv_err vlapic_mmio(struct vlapic *a, uint32_t offset, unsigned size, bool write,
                        uint64_t *value)
{
    uint32_t reg = offset & 0xff0, shift = offset & 0xf;
    uint64_t word = 0;

    if (shift >= 4) {
        if (!write) {
            *value = 0;
        }
        return HV_OK;
    }
    if (write) {
        if (shift == 0 && size >= 4 && !reg_write(a, reg, (uint32_t)*value)) {
            apic_error(a, ESR_ILLEGAL_REGISTER);
        }
        return HV_OK;
    }
    if (!reg_read(a, reg, &word)) {
        apic_error(a, ESR_ILLEGAL_REGISTER);
    }
    *value = (uint32_t)word >> (8 * shift);
    return HV_OK;
}

/* --- MSRs --- */

/* Manual: "x2APIC State Transitions". */
static enum hv_err write_base(struct vlapic *a, uint64_t value)
{
    bool on = (value & APIC_BASE_ENABLE) != 0, x2 = (value & APIC_BASE_X2APIC) != 0;
    uint64_t known = APIC_BASE_ADDR_MASK | APIC_BASE_ENABLE | APIC_BASE_X2APIC | APIC_BASE_BSP;

    if ((value & ~known) || (x2 && !on)) {
        return HV_EPERM;
    }
    if (apic_x2(a) && on && !x2) {
        return HV_EPERM; /* back to xAPIC only through disabled */
    }
    if (!apic_hw_enabled(a) && x2) {
        return HV_EPERM;
    }
    bool was_on = apic_hw_enabled(a);
    if (was_on && !on) {
        vlapic_init_signal(a->v);
        vlapic_set_tpr(a, 0);
    }
    __atomic_store_n(&a->base_msr, (value & ~APIC_BASE_BSP) | (a->base_msr & APIC_BASE_BSP),
                     __ATOMIC_RELAXED);
    if (x2) {
        a->icr = 0;
    }
    apic_recheck(a);
    return HV_OK;
}

/* Bits that a write in x2APIC mode may set; others raise #GP. */
static uint64_t x2apic_writable(uint32_t reg)
{
    switch (reg) {
    case APIC_TPR:
        return 0xff;
    case APIC_SVR:
        return SVR_RW;
    case APIC_EOI:
    case APIC_ESR:
        return 0;
    case APIC_ICR:
        return X2APIC_ICR_RW;
    case APIC_LVT_TIMER ... APIC_LVT_ERROR:
        /* delivery status and remote IRR are read-only, not reserved */
        return lvt_writable[(reg - APIC_LVT_TIMER) >> 4] | 0x5000;
    case APIC_TIMER_INITIAL:
        return UINT32_MAX;
    case APIC_TIMER_DIVIDE:
        return 0xb;
    default:
        return 0;
    }
}

enum hv_err vlapic_read_msr(struct vlapic *a, uint32_t index, uint64_t *out)
{
    if (index == MSR_APIC_BASE) {
        *out = a->base_msr;
        return HV_OK;
    }
    if (index == MSR_TSC_DEADLINE) {
        *out = apic_timer_deadline(a);
        return HV_OK;
    }
    if (!apic_x2(a) || index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST) {
        return HV_EPERM;
    }
    return reg_read(a, (index & 0xff) << 4, out) ? HV_OK : HV_EPERM;
}

enum hv_err vlapic_write_msr(struct vlapic *a, uint32_t index, uint64_t value)
{
    uint32_t reg = (index & 0xff) << 4;

    if (index == MSR_APIC_BASE) {
        return write_base(a, value);
    }
    if (index == MSR_TSC_DEADLINE) {
        apic_timer_set_deadline(a, value);
        return HV_OK;
    }
    if (!apic_x2(a) || index < MSR_X2APIC_FIRST || index > MSR_X2APIC_LAST) {
        return HV_EPERM;
    }
    if (reg == APIC_EOI) {
        if (value) {
            return HV_EPERM;
        }
        apic_eoi(a);
        return HV_OK;
    }
    if (reg == APIC_SELF_IPI) {
        if (value & ~0xffull) {
            return HV_EPERM;
        }
        apic_send(a, value | (1ull << 18)); /* fixed, edge, to self */
        return HV_OK;
    }
    if (value & ~x2apic_writable(reg)) {
        return HV_EPERM;
    }
    return reg_write(a, reg, value) ? HV_OK : HV_EPERM;
}
