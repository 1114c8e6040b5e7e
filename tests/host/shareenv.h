/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine for tests of page sharing: four guests (tlbguest.h), of which the first two share a salt, and a naive
 * model to compare with: what each page's guest wrote there last. It holds at every access and at every flush,
 * while pages are scanned, merged and broken.
 */
#pragma once

#include "tests/host/tlbguest.h"

#define BASE MFN(0x200)
#define NR_FRAMES 16384ull
#define NR_VMS 4u
#define NR_CPUS 3u
#define PAGES 1700ull
#define HOLE 0x20ull /* first page of the second range; some before it are no RAM */
#define NR_PATTERNS 7u
#define NR_ALIASES 2u /* guest-virtual addresses of a page */
#define WORDS (PAGE_SIZE / 8)

struct shareenv {
    struct tlbguest vms[NR_VMS];
    uint64_t pattern[NR_VMS][PAGES]; /* what every word holds, but for the first */
    uint64_t first[NR_VMS][PAGES];   /* the first word */
    void *pin[NR_VMS][PAGES];
    struct rng rng;
    bool joining; /* a region: guests run seldom, or it would never succeed */
};
extern struct shareenv shareenv;

void shareenv_fill(uint64_t *page, uint64_t pattern, uint64_t first);
void shareenv_check_contents(const struct tlbguest *vm, uint64_t gfn, const uint64_t *page);
/* As its guest does, at random. */
void shareenv_write_page(struct tlbguest *vm, uint64_t gfn, uint64_t *page);
/* As a vCPU does. */
enum hv_err shareenv_fault(struct tlbguest *vm, gfn_t gfn, uint32_t access);

/* A VM; a machine with all of them, whose guests run on in hooks. */
void shareenv_create(unsigned nr, uint32_t salt, bool large_pages);
void shareenv_destroy(unsigned nr);
void shareenv_start(unsigned nr_cpus, bool large_pages);
void shareenv_stop(void);
/* The device or the emulator pins some page, or lets it go. */
void shareenv_pin_step(struct tlbguest *vm);
/* Everything counted, every page as written, no two salts on one frame. */
void shareenv_check_all(void);

/* Guests that do only what the test says. */
void shareenv_quiet_start(unsigned nr_cpus);
void shareenv_quiet_stop(void);
/* A VM fills a page. */
void shareenv_write_pattern(unsigned nr, uint64_t gfn, uint64_t pattern);
