/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of memory: first touches, and a guest's own page-table work. */
#include <stddef.h>

#include "guests/bench/bench.h"
#include "guests/lib/console.h"
#include "guests/lib/paging.h"
#include "guests/lib/string.h"

#define PAGE 4096UL
#define SIZE_2M (2 * BENCH_MIB)
#define NR_4K 4096
#define NR_2M 32
#define NR_PTES 256
#define NR_SHARED 1024UL
#define SHARE_TICKS 500000000UL /* in which the host has scanned */
#define ABSENT_PORT 0x1234
#define WINDOW_SLOT 1
#define WINDOW PAGING_WINDOW(WINDOW_SLOT)
#define PTE_READ_ONLY 0x65UL /* present, user, accessed, dirty */

extern uint64_t entry_pml4[512];
static uint64_t second_root[512] __attribute__((aligned(4096)));

static void touch_all(uint64_t base, uint64_t size, uint64_t step)
{
    for (uint64_t a = base; a < base + size; a += step) {
        bench_write(a);
    }
}

/* Let the host put frames behind an area without the guest touching it: string input writes there on
 * the host's side. Only a host that emulates string input outside the guest's tables does it so. */
static void fill_by_input(uint64_t base, uint64_t size, uint64_t step)
{
    for (uint64_t a = base; a < base + size; a += step) {
        uint64_t count = 1, to = a;
        __asm__ volatile("rep insb"
                         : "+D"(to), "+c"(count)
                         : "d"((uint16_t)ABSENT_PORT)
                         : "memory");
    }
}

void bench_touch_4k(enum bench_present present)
{
    BENCH("fresh 4K, host page absent", NR_4K, bench_write(BENCH_4K_ABSENT + i * PAGE));
    if (present == PRESENT_BY_INPUT) {
        fill_by_input(BENCH_4K_PRESENT, NR_4K * PAGE, PAGE);
    }
    if (present != PRESENT_NO) {
        BENCH("fresh 4K, host page present", NR_4K, bench_write(BENCH_4K_PRESENT + i * PAGE));
    } else {
        touch_all(BENCH_4K_PRESENT, NR_4K * PAGE, PAGE);
    }
    BENCH("4K again (mapped)", NR_4K, bench_write(BENCH_4K_PRESENT + i * PAGE));
}

void bench_touch_2m(enum bench_present present)
{
    BENCH("fresh 2M, host page absent", NR_2M, bench_write(BENCH_2M_ABSENT + i * SIZE_2M));
    if (present == PRESENT_BY_INPUT) {
        fill_by_input(BENCH_2M_PRESENT, NR_2M * SIZE_2M, SIZE_2M);
    }
    if (present != PRESENT_NO) {
        BENCH("fresh 2M, host page present", NR_2M, bench_write(BENCH_2M_PRESENT + i * SIZE_2M));
    } else {
        touch_all(BENCH_2M_PRESENT, NR_2M * SIZE_2M, SIZE_2M);
    }
    BENCH("next 4K inside fresh 2M", NR_2M, bench_write(BENCH_2M_PRESENT + i * SIZE_2M + PAGE));
}

static void pte_rows(volatile uint64_t *pt, uint64_t frames)
{
    bench_pf_entry = NULL;
    BENCH("pte: first ever map+access x1", 1, ({
              pt[511] = (frames + 511 * PAGE) | PAGING_RW;
              bench_read2(WINDOW + 511 * PAGE);
          }));
    BENCH("pte write (absent->present)", NR_PTES, pt[i] = (frames + i * PAGE) | PAGING_RW);
    BENCH("first access after pte write", NR_PTES, bench_read2(WINDOW + i * PAGE));
    BENCH("access again", NR_PTES, bench_read2(WINDOW + i * PAGE));
    BENCH("pte clear", NR_PTES, pt[i] = 0);
    BENCH("invlpg after clear", NR_PTES, invlpg(WINDOW + i * PAGE));
    BENCH("guest #PF, handler skips", NR_PTES, bench_read2(WINDOW + i * PAGE));
    BENCH("map new page: pte write+access", NR_PTES, ({
              pt[i] = (frames + i * PAGE) | PAGING_RW;
              bench_read2(WINDOW + i * PAGE);
          }));
    BENCH("remap: pte write+invlpg+access", NR_PTES, ({
              pt[i] = (frames + BENCH_MIB + i * PAGE) | PAGING_RW;
              invlpg(WINDOW + i * PAGE);
              bench_read2(WINDOW + i * PAGE);
          }));
    BENCH("write-protect: pte+invlpg", NR_PTES, ({
              pt[i] = (frames + BENCH_MIB + i * PAGE) | PTE_READ_ONLY;
              invlpg(WINDOW + i * PAGE);
          }));
    BENCH("unmap: pte clear+invlpg", NR_PTES, ({
              pt[i] = 0;
              invlpg(WINDOW + i * PAGE);
          }));
    BENCH("guest demand fault: #PF+map+iret", NR_PTES, ({
              bench_pf_value = (frames + i * PAGE) | PAGING_RW;
              bench_pf_entry = &pt[i];
              bench_read2(WINDOW + i * PAGE);
          }));
    bench_pf_entry = NULL;
}

static void root_rows(volatile uint64_t *pt, uint64_t frames)
{
    uint64_t a = read_cr3(), b = (uint64_t)second_root;
    memcpy(second_root, entry_pml4, sizeof second_root);
    BENCH("mov cr3 (same root)", 1000, write_cr3(a));
    for (int k = 0; k < 4; k++) {
        write_cr3(b);
        write_cr3(a);
    }
    BENCH("mov cr3 (alternate two roots)", 1000, write_cr3(i & 1 ? a : b));
    write_cr3(a);
    BENCH("cr3 switch + touch 16 x 4K", 500, ({
              write_cr3(i & 1 ? a : b);
              for (uint64_t k = 0; k < 16; k++) {
                  bench_read2(WINDOW + k * PAGE);
              }
          }));
    write_cr3(a);
    BENCH("cr3 switch + 1 pte edit + access", 500, ({
              write_cr3(i & 1 ? a : b);
              uint64_t q = i % NR_PTES;
              pt[q] = (frames + (i & 1 ? BENCH_MIB : 0) + q * PAGE) | PAGING_RW;
              invlpg(WINDOW + q * PAGE);
              bench_read2(WINDOW + q * PAGE);
          }));
    write_cr3(a);
    BENCH("full TLB flush: cr4.pge toggle", 200, ({
              uint64_t v;
              __asm__ volatile("mov %%cr4, %0\n\tbtc $7, %0\n\tmov %0, %%cr4\n\t"
                               "btc $7, %0\n\tmov %0, %%cr4"
                               : "=r"(v)
                               :
                               : "memory", "cc");
          }));
}

void bench_paging(void)
{
    volatile uint64_t *pt = paging_window(WINDOW_SLOT);
    if (!pt) {
        console_printf("bench: no page tables left\n");
        return;
    }
    touch_all(BENCH_4K_PRESENT, 2 * SIZE_2M, PAGE);
    pte_rows(pt, BENCH_4K_PRESENT);
    root_rows(pt, BENCH_4K_PRESENT);
}

/* Pages of equal contents, which the host merges when it is told that they are there. */
static void fill_pages(uint64_t base, uint64_t value)
{
    for (uint64_t a = base; a < base + NR_SHARED * PAGE; a += sizeof(uint64_t)) {
        *(volatile uint64_t *)a = value;
    }
}

void bench_share(void)
{
    fill_pages(BENCH_4K_ABSENT, 0x5a5a5a5a5a5a5a5aUL);
    fill_pages(BENCH_4K_PRESENT, 0);
    console_printf("bench: share\n");
    for (uint64_t start = rdtsc(); rdtsc() - start < SHARE_TICKS;) {
        cpu_pause();
    }
    /* The last page on a frame keeps it: that one is not of the row. */
    BENCH("share: write to a shared page (copied)", NR_SHARED - 24,
          bench_write(BENCH_4K_ABSENT + i * PAGE));
    BENCH("share: write to a zero page", NR_SHARED - 24, bench_write(BENCH_4K_PRESENT + i * PAGE));
}
