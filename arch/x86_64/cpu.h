/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this processor can do, by name, and the control-register state every processor of ours runs
 * with. Filled once by the boot processor (cpu_detect), read-only afterwards; all processors are
 * taken to be alike, as the manuals ask of symmetric systems (cpu_init checks what we depend on).
 */
#pragma once

#include "kernel/lib/types.h"

enum cpu_vendor { CPU_VENDOR_OTHER, CPU_VENDOR_INTEL, CPU_VENDOR_AMD };

struct cpu_features {
    enum cpu_vendor vendor;
    char vendor_id[13];
    char brand[49];
    uint32_t family, model, stepping;
    uint32_t max_basic, max_extended; /* highest CPUID leaves */
    uint32_t max_hypervisor;          /* highest 400000xxH leaf; 0: not under a hypervisor */
    char hypervisor_id[13];
    unsigned phys_bits, virt_bits;

    /* virtualisation */
    bool svm, vmx;
    bool npt, nrips, decode_assists, flush_by_asid, vmcb_clean, pause_filter, vgif, avic;
    uint32_t nr_asids;

    /* paging and protection */
    bool nx, page1gb, pge, pat, mtrr, pcid, invpcid, la57;
    bool smep, smap, umip;

    /* state */
    bool fxsr, xsave, xsaveopt, xsavec, xsaves;
    bool sse2, sse42, avx, avx2, avx512f, aes;

    /* time and interrupts */
    bool x2apic, tsc_deadline, invariant_tsc, tsc_adjust, rdtscp, arat, monitor;

    /* rest */
    bool mce, mca, rdrand, rdseed, fsgsbase, erms, fsrm, clflushopt, hypervisor;
};

extern struct cpu_features cpu_features;

/* Fill cpu_features. Boot processor, first thing. */
void cpu_detect(void);
/* Set this processor's control registers: WP, NXE, PGE, SMEP, SMAP, UMIP, MCE, OSFXSR, OSXSAVE where
 * present; caches on. Each processor, before it takes traps. */
void cpu_init(void);
/* Take machine checks: enable the banks of this processor, report what an earlier boot left in
 * them. Each processor, once the log works. */
void cpu_mce_init(void);
/* 64 bits that differ from run to run: RDRAND where it answers ("Random Number Generator
 * Instructions"), mixed with the TSC. For seeds, not for secrets. */
uint64_t cpu_entropy(void);
/* What a long-mode hypervisor cannot do without (NX), or NULL; an English phrase for the operator. */
const char *cpu_missing(void);
