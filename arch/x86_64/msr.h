/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Model-specific registers: numbers, bits, accessors. The *_safe forms survive a register that the
 * processor does not have: the general-protection fault is caught through the exception table
 * (arch/x86_64/trap.c), whose entries pair an instruction with the place to go on at.
 */
#pragma once

#include "kernel/lib/types.h"

#define MSR_TSC 0x00000010u
#define MSR_APIC_BASE 0x0000001bu
#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2APIC BIT(10)
#define APIC_BASE_ENABLE BIT(11)
#define MSR_FEATURE_CONTROL 0x0000003au
#define FEATURE_CONTROL_LOCK BIT(0)
#define FEATURE_CONTROL_VMX_IN_SMX BIT(1)
#define FEATURE_CONTROL_VMX BIT(2)
#define MSR_TSC_ADJUST 0x0000003bu
#define MSR_SPEC_CTRL 0x00000048u
#define MSR_PRED_CMD 0x00000049u
#define MSR_BIOS_SIGN_ID 0x0000008bu
#define MSR_MPERF 0x000000e7u
#define MSR_APERF 0x000000e8u
#define MSR_MTRRCAP 0x000000feu
#define MSR_ARCH_CAPABILITIES 0x0000010au
#define MSR_FLUSH_CMD 0x0000010bu
#define MSR_SYSENTER_CS 0x00000174u
#define MSR_SYSENTER_ESP 0x00000175u
#define MSR_SYSENTER_EIP 0x00000176u
#define MSR_MCG_CAP 0x00000179u
#define MCG_CAP_COUNT 0xffu
#define MCG_CAP_CTL_P BIT(8)
#define MSR_MCG_STATUS 0x0000017au
#define MCG_STATUS_RIPV BIT(0)
#define MCG_STATUS_EIPV BIT(1)
#define MCG_STATUS_MCIP BIT(2)
#define MSR_MCG_CTL 0x0000017bu
#define MSR_MISC_ENABLE 0x000001a0u
#define MSR_DEBUGCTL 0x000001d9u
#define MSR_MTRR_PHYSBASE(n) (0x00000200u + 2u * (n))
#define MSR_MTRR_PHYSMASK(n) (0x00000201u + 2u * (n))
#define MSR_MTRR_FIX64K 0x00000250u
#define MSR_MTRR_FIX16K_80000 0x00000258u
#define MSR_MTRR_FIX16K_A0000 0x00000259u
#define MSR_MTRR_FIX4K_C0000 0x00000268u
#define MSR_PAT 0x00000277u
#define MSR_MTRR_DEF_TYPE 0x000002ffu
#define MSR_MC_CTL(bank) (0x00000400u + 4u * (bank))
#define MSR_MC_STATUS(bank) (0x00000401u + 4u * (bank))
#define MSR_MC_ADDR(bank) (0x00000402u + 4u * (bank))
#define MSR_MC_MISC(bank) (0x00000403u + 4u * (bank))
#define MC_STATUS_VAL BIT(63)
#define MC_STATUS_OVER BIT(62)
#define MC_STATUS_UC BIT(61)
#define MC_STATUS_EN BIT(60)
#define MC_STATUS_MISCV BIT(59)
#define MC_STATUS_ADDRV BIT(58)
#define MC_STATUS_PCC BIT(57)
#define MSR_VMX_BASIC 0x00000480u
#define MSR_VMX_PIN 0x00000481u
#define MSR_VMX_PROC 0x00000482u
#define MSR_VMX_EXIT 0x00000483u
#define MSR_VMX_ENTRY 0x00000484u
#define MSR_VMX_MISC 0x00000485u
#define MSR_VMX_CR0_FIXED0 0x00000486u
#define MSR_VMX_CR0_FIXED1 0x00000487u
#define MSR_VMX_CR4_FIXED0 0x00000488u
#define MSR_VMX_CR4_FIXED1 0x00000489u
#define MSR_VMX_PROC2 0x0000048bu
#define MSR_VMX_EPT_VPID_CAP 0x0000048cu
#define MSR_VMX_TRUE_PIN 0x0000048du
#define MSR_VMX_TRUE_PROC 0x0000048eu
#define MSR_VMX_TRUE_EXIT 0x0000048fu
#define MSR_VMX_TRUE_ENTRY 0x00000490u
#define MSR_TSC_DEADLINE 0x000006e0u
#define MSR_X2APIC_FIRST 0x00000800u
#define MSR_X2APIC_LAST 0x000008ffu
#define MSR_XSS 0x00000da0u
#define MSR_EFER 0xc0000080u
#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)
#define EFER_SVME BIT(12)
#define EFER_LMSLE BIT(13)
#define EFER_FFXSR BIT(14)
#define EFER_TCE BIT(15)
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SYSCALL_MASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_SYSCFG 0xc0010010u
#define MSR_HWCR 0xc0010015u
#define MSR_VM_CR 0xc0010114u
#define VM_CR_LOCK BIT(3)
#define VM_CR_SVMDIS BIT(4)
#define MSR_VM_HSAVE_PA 0xc0010117u

/* One exception-table entry: when the instruction at label `from` faults, go on at label `to`. */
#define EXTABLE(from, to)                   \
    ".pushsection .rodata.extable, \"a\"\n" \
    ".quad " from ", " to "\n"              \
    ".popsection\n"

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
    return ((uint64_t)hi << 32) | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

/* True if the register exists; its value in *v (zero otherwise). */
static inline __must_check bool rdmsr_safe(uint32_t msr, uint64_t *v)
{
    uint32_t lo = 0, hi = 0, ok = 0;
    __asm__ volatile("1: rdmsr\n"
                     "movl $1, %2\n"
                     "2:\n" EXTABLE("1b", "2b")
                     : "+a"(lo), "+d"(hi), "+r"(ok)
                     : "c"(msr)
                     : "memory");
    *v = ok ? ((uint64_t)hi << 32) | lo : 0;
    return ok != 0;
}

/* True if the register took the value. */
static inline __must_check bool wrmsr_safe(uint32_t msr, uint64_t v)
{
    uint32_t ok = 0;
    __asm__ volatile("1: wrmsr\n"
                     "movl $1, %0\n"
                     "2:\n" EXTABLE("1b", "2b")
                     : "+r"(ok)
                     : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32))
                     : "memory");
    return ok != 0;
}
