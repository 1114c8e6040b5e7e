/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See vmx_caps.h. A control is switched on only where its MSR allows it, and is never switched off
 * where its MSR forbids that; the "true" MSRs are used where the processor has them.
 */
#include "vmx/vmx_caps.h"

#include "arch/x86_64/cpu.h"
#include "arch/x86_64/msr.h"
#include "arch/x86_64/regs.h"
#include "vmx/vmcs.h"

#define BASIC_REVISION 0x7fffffffu
#define BASIC_SIZE_SHIFT 32
#define BASIC_SIZE_MASK 0x1fffu
#define BASIC_ADDRESSES_32 BIT(48)
#define BASIC_STRING_INFO BIT(54)
#define BASIC_TRUE_CONTROLS BIT(55)

#define MISC_TIMER_SHIFT 0x1fu

#define NEED_PIN (PIN_INTERRUPT | PIN_NMI | PIN_VIRTUAL_NMI)
#define WANT_PIN (NEED_PIN | PIN_TIMER)
#define WINDOWS (PROC_IRQ_WINDOW | PROC_NMI_WINDOW) /* opened when somebody waits */
#define NEED_PROC                                                                            \
    (PROC_TSC_OFFSET | PROC_HLT | PROC_MWAIT | PROC_MONITOR | PROC_RDPMC | PROC_IO_BITMAPS | \
     PROC_MSR_BITMAP)
#define SOFTWARE_MMU (PROC_CR3_LOAD | PROC_CR3_STORE | PROC_INVLPG)
#define WANT_PROC (NEED_PROC | PROC_TPR_SHADOW | PROC_SECONDARY)
#define WANT_PROC2 \
    (PROC2_EPT | PROC2_VPID | PROC2_UNRESTRICTED | PROC2_RDTSCP | PROC2_INVPCID | PROC2_WBINVD)
#define WANT_EXIT                                                                            \
    (EXITC_SAVE_DEBUG | EXITC_HOST_64 | EXITC_LOAD_PAT | EXITC_SAVE_EFER | EXITC_LOAD_EFER | \
     EXITC_SAVE_TIMER)
#define WANT_ENTRY (ENTRY_LOAD_DEBUG | ENTRY_LOAD_PAT | ENTRY_LOAD_EFER)

/* Low half: bits that must be 1. High half: bits that may be. */
static struct vmx_allowed controls(uint32_t msr)
{
    uint64_t v = rdmsr(msr);

    return (struct vmx_allowed){.must = (uint32_t)v, .may = v >> 32};
}

static struct vmx_allowed fixed(uint32_t msr_fixed0, uint32_t msr_fixed1)
{
    return (struct vmx_allowed){.must = rdmsr(msr_fixed0), .may = rdmsr(msr_fixed1)};
}

void vmx_caps_read(struct vmx_caps *c)
{
    uint64_t basic = rdmsr(MSR_VMX_BASIC);
    bool exact = (basic & BASIC_TRUE_CONTROLS) != 0;

    *c = (struct vmx_caps){
        .revision = (uint32_t)(basic & BASIC_REVISION),
        .vmcs_bytes = (uint32_t)(basic >> BASIC_SIZE_SHIFT & BASIC_SIZE_MASK),
        .string_info = (basic & BASIC_STRING_INFO) != 0,
        .addresses_32 = (basic & BASIC_ADDRESSES_32) != 0,
        .pin = controls(exact ? MSR_VMX_TRUE_PIN : MSR_VMX_PIN),
        .proc = controls(exact ? MSR_VMX_TRUE_PROC : MSR_VMX_PROC),
        .exit = controls(exact ? MSR_VMX_TRUE_EXIT : MSR_VMX_EXIT),
        .entry = controls(exact ? MSR_VMX_TRUE_ENTRY : MSR_VMX_ENTRY),
        .cr0 = fixed(MSR_VMX_CR0_FIXED0, MSR_VMX_CR0_FIXED1),
        .cr4 = fixed(MSR_VMX_CR4_FIXED0, MSR_VMX_CR4_FIXED1),
        .phys_bits = cpu_features.phys_bits,
        .timer_shift = rdmsr(MSR_VMX_MISC) & MISC_TIMER_SHIFT,
    };
    if (c->proc.may & PROC_SECONDARY) {
        c->proc2 = controls(MSR_VMX_PROC2);
    }
    if (c->proc2.may & (PROC2_EPT | PROC2_VPID)) {
        c->ept_vpid = rdmsr(MSR_VMX_EPT_VPID_CAP);
    }
    vmx_caps_choose(c);
}

static uint32_t choose(const struct vmx_allowed *a, uint64_t want)
{
    return (uint32_t)((want & a->may) | a->must);
}

/* INVVPID in a form that drops all of one tag. */
static bool vpid_usable(const struct vmx_caps *c)
{
    return (c->ept_vpid & EPTCAP_INVVPID) != 0 &&
           (c->ept_vpid & (EPTCAP_INVVPID_SINGLE | EPTCAP_INVVPID_ALL)) != 0;
}

/* Four levels, write-back tables, 2 MiB pages, and an INVEPT that drops them. */
static bool ept_usable(const struct vmx_caps *c)
{
    const uint64_t needs = EPTCAP_WALK_4 | EPTCAP_WB | EPTCAP_2M | EPTCAP_INVEPT;

    return (c->ept_vpid & needs) == needs &&
           (c->ept_vpid & (EPTCAP_INVEPT_SINGLE | EPTCAP_INVEPT_ALL)) != 0;
}

void vmx_caps_choose(struct vmx_caps *c)
{
    uint64_t want2 = WANT_PROC2;

    if (!vpid_usable(c)) {
        want2 &= ~PROC2_VPID;
    }
    if (!ept_usable(c)) {
        want2 &= ~(PROC2_EPT | PROC2_UNRESTRICTED);
    }
    c->chosen = (struct vmx_controls){
        .pin = choose(&c->pin, WANT_PIN),
        .proc = choose(&c->proc, WANT_PROC),
        .proc2 = choose(&c->proc2, want2),
        .exit = choose(&c->exit, WANT_EXIT),
        .entry = choose(&c->entry, WANT_ENTRY),
    };
    /* These are of use in pairs only. */
    if (!(c->chosen.pin & PIN_TIMER) || !(c->chosen.exit & EXITC_SAVE_TIMER)) {
        c->chosen.pin &= (uint32_t)~PIN_TIMER;
        c->chosen.exit &= (uint32_t)~EXITC_SAVE_TIMER;
        /* What holds interrupts back (vmcs_wind_timer) must not keep a waiting guest for ever. */
        c->chosen.proc |= (uint32_t)(PROC_PAUSE & c->proc.may);
    }
    if (!(c->chosen.exit & EXITC_LOAD_PAT) || !(c->chosen.entry & ENTRY_LOAD_PAT)) {
        c->chosen.exit &= (uint32_t)~EXITC_LOAD_PAT;
        c->chosen.entry &= (uint32_t)~ENTRY_LOAD_PAT;
    }
    const uint32_t efer = (uint32_t)(EXITC_LOAD_EFER | EXITC_SAVE_EFER);
    if ((c->chosen.exit & efer) != efer || !(c->chosen.entry & ENTRY_LOAD_EFER)) {
        c->chosen.exit &= ~efer;
        c->chosen.entry &= (uint32_t)~ENTRY_LOAD_EFER;
        /* A guest that changes its mode without an exit changes EFER.LMA. */
        c->chosen.proc2 &= (uint32_t)~PROC2_UNRESTRICTED;
    }
    if (!(c->chosen.proc & PROC_TPR_SHADOW)) {
        c->chosen.proc |= (uint32_t)(PROC_CR8_LOAD | PROC_CR8_STORE);
    }
}

bool vmx_caps_software(const struct vmx_caps *c)
{
    return (c->proc.may & SOFTWARE_MMU) == SOFTWARE_MMU;
}

const char *vmx_caps_missing(const struct vmx_caps *c)
{
    if ((c->pin.may & NEED_PIN) != NEED_PIN) {
        return "VMX is there, but without exits by interrupts and NMIs, or without virtual NMIs";
    }
    if ((c->proc.may & (NEED_PROC | WINDOWS)) != (NEED_PROC | WINDOWS)) {
        return "VMX is there, but without some of the basic controls (bitmaps for ports and MSRs, "
               "TSC offset, windows)";
    }
    if (!(c->chosen.proc2 & PROC2_EPT) && !vmx_caps_software(c)) {
        return "VMX is there, but without nested paging (extended page tables) that we can use, "
               "and "
               "without exits by CR3 and INVLPG";
    }
    if (!(c->exit.may & EXITC_HOST_64) || !(c->entry.may & ENTRY_IA32E)) {
        return "VMX is there, but without 64-bit hosts and guests";
    }
    return NULL;
}
