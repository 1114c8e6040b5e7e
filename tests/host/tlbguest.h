/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guests for tests of what happens to their pages meanwhile: sharing, swapping. Their processors have
 * model TLBs, which keep every translation until a recorded flush of their VM, so that a missing flush
 * lets an access land in a frame that is another page's by then. What pages are to hold is the test's
 * business. One set of guests at a time.
 */
#pragma once

#include "kernel/lib/rng.h"
#include "mm/flush.h"
#include "mm/types.h"

struct p2m;
struct view;

struct tlbguest_entry {
    bool valid, writable;
    mfn_t mfn;
};

struct tlbguest {
    struct p2m *p2m; /* NULL: there is no such VM now */
    struct view *view;
    struct tlbguest_entry *tlb; /* [nr_cpus][nr_aliases][nr_pages] */
};

/* What tests differ in. */
struct tlbguest_rules {
    struct tlbguest *vms;
    unsigned nr_vms, nr_cpus;
    unsigned nr_aliases; /* guest-virtual addresses of a page */
    uint64_t nr_pages;
    struct rng *rng;
    uint64_t (*any_page)(void);
    /* A page must hold what its guest wrote last; the guest writes something else. */
    void (*check_contents)(const struct tlbguest *vm, uint64_t gfn, const uint64_t *page);
    void (*write_page)(struct tlbguest *vm, uint64_t gfn, uint64_t *page);
    /* As vCPUs do. The error that remains must be one that this page may have now. */
    enum hv_err (*fault)(struct tlbguest *vm, gfn_t gfn, uint32_t access);
    void (*check_error)(uint64_t gfn, enum hv_err err);
    /* While a flush is on its way: translations that are looked at; one in so many writes. */
    unsigned late_looks, late_writes;
};

/* Of guests running inside hooks. From TLBGUEST_MUTE on no guest does anything while a flush is on its way. */
extern unsigned tlbguest_depth;
#define TLBGUEST_MUTE 3u

/* The rules stay where they are. */
void tlbguest_start(const struct tlbguest_rules *rules);
struct tlbguest_entry *tlbguest_entry(const struct tlbguest *vm, unsigned cpu, unsigned alias,
                                      uint64_t gfn);
/* Translate as this processor does; NULL with *err: the access cannot be made. */
uint64_t *tlbguest_translate(struct tlbguest *vm, uint64_t gfn, bool write, enum hv_err *err);
/* This processor looks at some page, and writes to it. */
void tlbguest_step(struct tlbguest *vm, bool write);
/* Empty a VM's TLBs. */
void tlbguest_forget(struct tlbguest *vm);
/* test_env.on_flush: accesses by translations that the processors still have, while a flush is on its way to
 * them. */
void tlbguest_flush(struct flush_domain *d);
