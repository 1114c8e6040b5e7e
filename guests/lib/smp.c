/* SPDX-License-Identifier: BSD-2-Clause */
/* INIT, SIPI, SIPI to all others, the C entry of the processors that answer, and a barrier. */
#include "guests/lib/smp.h"

#include "guests/lib/arch.h"
#include "guests/lib/lapic.h"
#include "guests/lib/string.h"
#include "guests/lib/trap.h"

#define TRAMPOLINE_ADDR 0x8000UL
#define TRAMPOLINE_PAGE (TRAMPOLINE_ADDR >> 12)
#define SETTLE_TICKS 1000000UL

extern char entry_trampoline[], entry_trampoline_end[];

static volatile uint32_t arrived;
static smp_fn volatile ap_fn;

void smp_ap_main(uint32_t index);

void smp_ap_main(uint32_t index)
{
    trap_load();
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    ap_fn(index);
}

static void wait_ticks(uint64_t ticks)
{
    uint64_t start = rdtsc();
    while (rdtsc() - start < ticks) {
        cpu_pause();
    }
}

uint32_t smp_start(smp_fn fn, uint32_t expected, uint64_t ticks)
{
    /* The compiler must not reason about an object at a literal address: launder it. */
    void *dst = (void *)TRAMPOLINE_ADDR;
    __asm__("" : "+r"(dst));
    memcpy(dst, entry_trampoline, (size_t)(entry_trampoline_end - entry_trampoline));
    ap_fn = fn;
    lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | LAPIC_ICR_INIT);
    wait_ticks(SETTLE_TICKS);
    for (int i = 0; i < 2; i++) {
        lapic_ipi(0, LAPIC_ICR_OTHERS | LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | TRAMPOLINE_PAGE);
        wait_ticks(SETTLE_TICKS);
    }
    uint64_t start = rdtsc();
    while (arrived < expected && rdtsc() - start < ticks) {
        cpu_pause();
    }
    return arrived;
}

void smp_again(uint32_t dest)
{
    for (int i = 0; i < 2; i++) {
        lapic_ipi(dest, LAPIC_ICR_ASSERT | LAPIC_ICR_STARTUP | TRAMPOLINE_PAGE);
        wait_ticks(SETTLE_TICKS);
    }
}

void smp_barrier_wait(struct smp_barrier *b, uint32_t nr)
{
    uint32_t mine = __atomic_load_n(&b->sense, __ATOMIC_SEQ_CST);

    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_SEQ_CST) == nr) {
        __atomic_store_n(&b->arrived, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&b->sense, !mine, __ATOMIC_SEQ_CST);
    }
    while (__atomic_load_n(&b->sense, __ATOMIC_SEQ_CST) == mine) {
        cpu_pause();
    }
}
