/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Side channels between guests that share a processor one after the other: what one VM leaves in the
 * branch predictors, in the L1 data cache and in the processor's buffers is dropped before another VM
 * runs there, where the processor says that it has the flaw and the means. So is what a thread of the host's
 * leaves in cache and buffers. While a processor stays with one VM and runs none of those, nothing is done.
 *
 * The means: IBPB ("Indirect Branch Prediction Barrier"), IA32_FLUSH_CMD ("L1 Data Cache Flush"), VERW
 * of processors with MD_CLEAR ("Microarchitectural Data Sampling"). Deciding is pure (mitigate_plan.c).
 * One flaw more belongs here, for it is decided alike: processors before PSCHANGE_MC_NO may stop with a machine
 * check when a guest executes a page and changes its size meanwhile ("Machine Check Error on Page Size
 * Change"). There no large leaf may be executed (env_large_code).
 *
 * Callers: kernel/main.c (mitigate_init), kernel/machine.c (what was decided); what a processor runs is
 * said by kernel/vm/run.c (guests), kernel/sched/sched.c and arch/x86_64/mm_env.c (the host's threads).
 *
 * Guests get none of the registers for speculation control (CPUID and MSR policy hide them): they are
 * not virtualised.
 */
#pragma once

#include "arch/x86_64/cpu.h"

/* CPUID and MSRs as the decision needs them; what a processor lacks is 0. */
struct mitigate_facts {
    enum cpu_vendor vendor;
    uint32_t family, model;
    uint32_t l7_ebx, l7_edx; /* leaf 7 */
    uint32_t ext8_ebx;       /* leaf 80000008H */
    uint64_t arch_caps;      /* IA32_ARCH_CAPABILITIES */
};

enum mitigate_state {
    MITIGATE_NOT_NEEDED, /* the processor does not have the flaw */
    MITIGATE_ACTIVE,
    MITIGATE_NO_MEANS /* it has the flaw, and this microcode no means */
};

struct mitigate_plan {
    /* Branch predictors (Spectre variant 2); L1 data cache (L1 terminal fault); fill, store and load
     * buffers and their relatives (MDS, TAA, MMIO stale data, RFDS). */
    enum mitigate_state predictors, l1_data, buffers;
    bool small_code; /* nothing larger than 4 KiB may be executed */
};

/* What a processor ran last. Only that processor looks at it: the thread that runs there, or the switch of
 * threads with interrupts off; no interrupt handler does. So nobody comes between two accesses. */
struct mitigate_cpu {
    uint32_t vm; /* 0: none yet */
    bool served; /* the host's threads ran since */
};

/* What is to be dropped. */
struct mitigate_flushes {
    bool predictors, l1_data, buffers;
};

/* What the machine needs, and whether it has the means. Pure, like the next two but for *c. */
void mitigate_decide(const struct mitigate_facts *f, struct mitigate_plan *plan);
/* What the processor of *c has to drop before it runs guest `vm` (not 0). Notes that it runs it. */
struct mitigate_flushes mitigate_at_entry(const struct mitigate_plan *plan, struct mitigate_cpu *c,
                                          uint32_t vm);
/* Note that a thread that worked for guest `vm` leaves the processor of *c. */
void mitigate_at_leave(struct mitigate_cpu *c, uint32_t vm);

/* Decide for this machine. Once, before guests run. */
void mitigate_init(void);
/* What was decided, and a state in words. */
const struct mitigate_plan *mitigate_plan(void);
const char *mitigate_state_name(enum mitigate_state s);
/* This processor is about to run the guest whose number is `vm` (not 0): drop what has to be. Interrupts
 * may be on, for their handlers look at no VM's pages. No other thread gets the processor in between. */
void mitigate_switch(uint32_t vm);
/* What runs on it may have looked at any VM's pages: a thread of the host's does. By that thread, or with
 * interrupts off, as it gets the processor. */
void mitigate_served(void);
/* A thread that works for guest `vm` leaves it: it may have done so without ever entering the guest.
 * Interrupts off. */
void mitigate_left(uint32_t vm);
