/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bench guest: rows of operations, each measured by RDTSC on both sides. Under QEMU's
 * -icount shift=0 one tick is one instruction, the hypervisor's included. The rows have the names
 * and meanings of tests/bench/peer-figures.csv.
 */
#pragma once

#include <stdint.h>

#include "guests/lib/arch.h"

#define BENCH_MAX_SAMPLES 4096

/* Areas that the memory rows touch; the VM must reach to BENCH_AREA_END. */
#define BENCH_MIB (1UL << 20)
#define BENCH_4K_ABSENT (32 * BENCH_MIB)
#define BENCH_4K_PRESENT (64 * BENCH_MIB)
#define BENCH_2M_ABSENT (128 * BENCH_MIB)
#define BENCH_2M_PRESENT (256 * BENCH_MIB)
#define BENCH_AREA_END (384 * BENCH_MIB)

extern uint64_t bench_samples[BENCH_MAX_SAMPLES];

/* Interrupts taken by vector BENCH_VECTOR on the boot processor. */
#define BENCH_VECTOR 0x40
extern volatile uint64_t bench_irqs;

/* What the #PF handler does: skip the two-byte load, or enter a mapping and retry. */
extern volatile uint64_t *volatile bench_pf_entry; /* NULL: skip */
extern volatile uint64_t bench_pf_value;

/* Sorts the first n samples, takes off the cost of RDTSC and keeps the row for printing. */
void bench_record(const char *name, unsigned int n);

/* Installs the handlers that the rows rely on. */
void bench_traps_init(void);

/* #UD handlers: VMMCALL has three bytes, UD2 two. */
void bench_traps_skip_ud(unsigned int bytes);

/* Who puts frames behind the *_PRESENT areas for the "host page present" rows. */
enum bench_present { PRESENT_NO, PRESENT_BY_HOST, PRESENT_BY_INPUT };

/* The groups of rows. */
void bench_basic(void);
void bench_touch_4k(enum bench_present present);
void bench_touch_2m(enum bench_present present);
void bench_paging(void);
void bench_smp(void);
void bench_share(void);
void bench_sample(void);

/* Measures `stmt` n times; `i` counts inside it. */
#define BENCH(name, n, stmt)                         \
    do {                                             \
        for (unsigned long i_ = 0; i_ < (n); i_++) { \
            unsigned long i = i_;                    \
            (void)i;                                 \
            uint64_t start_ = rdtsc();               \
            stmt;                                    \
            uint64_t end_ = rdtsc();                 \
            bench_samples[i_] = end_ - start_;       \
        }                                            \
        bench_record(name, n);                       \
    } while (0)

/* WRMSR of a small value for interrupt functions, which may not call anything. */
#define BENCH_WRMSR(msr, value) \
    __asm__ volatile("wrmsr" : : "c"(msr), "a"(value), "d"(0) : "memory")

static inline void bench_write(uint64_t addr)
{
    *(volatile uint8_t *)addr = 1;
}

/* A load of exactly two bytes (8a 10), which the #PF handler can step over. */
static inline void bench_read2(uint64_t addr)
{
    __asm__ volatile("movb (%%rax), %%dl" : : "a"(addr) : "rdx", "memory");
}
