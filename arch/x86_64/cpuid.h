/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The CPUID instruction. Leaf contents that only one file needs are named there; what the host's
 * feature detection reads is in arch/x86_64/cpu.c.
 */
#pragma once

#include "kernel/lib/types.h"

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(subleaf)
                     : "memory");
    return r;
}

#define CPUID_BASIC 0x00000000u
#define CPUID_FEATURES 0x00000001u
#define CPUID_MONITOR 0x00000005u
#define CPUID_STRUCTURED 0x00000007u
#define CPUID_TOPOLOGY 0x0000000bu
#define CPUID_XSTATE 0x0000000du
#define CPUID_TSC_CRYSTAL 0x00000015u
#define CPUID_FREQUENCY 0x00000016u
#define CPUID_HYPERVISOR 0x40000000u
#define CPUID_HYPERVISOR_TIMING 0x40000010u
#define CPUID_EXTENDED 0x80000000u
#define CPUID_EXT_FEATURES 0x80000001u
#define CPUID_BRAND 0x80000002u
#define CPUID_EXT_POWER 0x80000007u
#define CPUID_ADDRESS_SIZES 0x80000008u
#define CPUID_SVM 0x8000000au
