/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine for tests of compression and swapping: two guests (tlbguest.h), a store in memory (faultstore.h), and
 * a naive model to compare with: what each page's guest wrote there last. It holds at every access, at every
 * flush and after everything was brought back, while the store is late, fails, flips bits or is gone.
 */
#pragma once

#include "mm/reclaim/swap.h"
#include "tests/host/faultstore.h"
#include "tests/host/tlbguest.h"

#define BASE MFN(0x200)
#define NR_FRAMES 8192ull
#define NR_VMS 2u
#define NR_CPUS 2u
#define PAGES 1100ull
#define NR_SLOTS 4096ull
#define NR_KINDS 5u
#define WORDS (PAGE_SIZE / 8)

struct p2m_counters;

/* A page's contents are a function of one number: its kind, and the seed of what is random in it. */
enum swapenv_kind { KIND_ZERO, KIND_FILLED, KIND_QUARTER, KIND_HALF, KIND_RANDOM };

struct swapenv {
    struct tlbguest vms[NR_VMS];
    uint64_t contents[NR_VMS][PAGES];
    void *pin[NR_VMS][PAGES];
    struct faultstore store;
    struct rng rng;
    bool errors; /* the store may fail: pages may be out of reach */
    uint64_t nr_eio, nr_wakes, nr_wakes_of_all;
    uint64_t nr_slots; /* of the next store */
    struct swap_how how;
};
extern struct swapenv swapenv;

/* Fill a page with what the number stands for. */
void swapenv_make(uint64_t *page, uint64_t contents);
void swapenv_check_contents(const struct tlbguest *vm, uint64_t gfn, const uint64_t *page);

/* A machine with both VMs, without a store or on one of nr_slots. The guests run on in hooks. */
void swapenv_start_with(const struct swap_config *cfg, unsigned nr_cpus, bool large_pages);
void swapenv_start(unsigned nr_cpus, bool large_pages, bool encrypt);
void swapenv_stop(void);
/* For swap_config: counts. */
void swapenv_woken(struct p2m *p);
void swapenv_all_woken(void);
/* Until nothing is in flight: what failed starts again when it is reaped. */
void swapenv_drain(void);
/* Some requests are served, as time passes. */
void swapenv_let_store_work(void);
/* The device or the emulator pins some page, or lets it go. */
void swapenv_pin_step(struct tlbguest *vm);
/* Counted, owned, as written. With `touch`, everything is brought back. */
void swapenv_check_all(bool touch);

/* Guests that do only what the test says; without arguments one processor, small pages, encryption. */
void swapenv_quiet_start_with(unsigned nr_cpus, bool large_pages, bool encrypt);
void swapenv_quiet_start(void);
void swapenv_quiet_flush_hook(struct flush_domain *d);
/* A VM writes, reads. */
void swapenv_put(unsigned nr, uint64_t gfn, uint64_t contents);
void swapenv_expect(unsigned nr, uint64_t gfn);
/* Of VM 0: pages of a kind, each another's contents. */
void swapenv_fill_pages(enum swapenv_kind kind, uint64_t first, uint64_t nr);
/* Take all that can be taken. */
void swapenv_take_all(void);
void swapenv_count_pages(struct p2m_counters *count);
