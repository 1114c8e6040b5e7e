/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine for tests of the shadow view: one VM, its memory, and model processors that keep every translation which
 * they ever read from the shadow tables until they are told to flush. They check rights themselves and ask the
 * view about faults, as hardware and the fault path do; refguest.h knows what the guest must get.
 */
#pragma once

#include "kernel/lib/rng.h"
#include "mm/flush.h"
#include "mm/shadow/shadow.h"
#include "mm/view.h"
#include "tests/host/refguest.h"

#define VM 7u
#define RAM_PAGES 6144ull /* 24 MiB */
#define NR_CPUS_MAX 2u
#define NR_GVAS 48u
#define TLB_SIZE 512u

struct p2m;

struct shadowenv_translation {
    bool valid, writable, user, exec;
    uint64_t page; /* gva / 4 KiB */
    mfn_t mfn;
};

struct shadowenv_cpu {
    struct shadow_cpu cpu;
    struct ref_paging paging;
    bool smep, smap; /* as the processor has them: never while the guest's paging is off */
    hpa_t root;
    struct shadowenv_translation tlb[TLB_SIZE];
    uint8_t stale[NR_GVAS]; /* what the guest owes before it uses this address */
};

#define STALE_TABLES 1u /* an INVLPG of any address: only upper levels may be cached */
#define STALE_PAGE 2u   /* an INVLPG of this one */

struct shadowenv {
    struct p2m *p2m;
    struct view *view;
    struct shadowenv_cpu cpus[NR_CPUS_MAX];
    unsigned nr_cpus;
    enum ref_mode mode;
    uint64_t gvas[NR_GVAS]; /* those that the guest uses, if it is a random one */
    bool scarce;            /* memory may be refused */
    bool page1gb;           /* the guest was offered pages of 1 GiB; set before the start */
    struct rng rng;
    struct {
        uint64_t accesses, faults, hidden, devices, emulated, edits, invlpgs, loads, nominated;
    } seen;
};
extern struct shadowenv shadowenv;

/* A VM whose shadows may take so many frames beyond what they must; no processor has loaded anything. */
void shadowenv_start(enum ref_mode m, unsigned cpus_wanted, bool large, uint64_t overhead);
void shadowenv_stop(void);
/* test_env.on_flush. */
void shadowenv_flush_all(struct flush_domain *d);

/* Guest memory, beside its own paging; NULL: not RAM. */
char *shadowenv_guest_page(uint64_t gfn);
/* Entries of the mode's size? */
bool shadowenv_is_wide(void);
uint64_t shadowenv_read_entry(uint64_t table, unsigned index, bool wide);
/* Write an entry as a device does. */
void shadowenv_poke(uint64_t gfn, unsigned index, uint64_t entry);

enum shadowenv_outcome { DONE, FAULT, DEVICE, EMULATE };
/* One access; *mfn is the frame it reached, *f what was said of a fault. */
enum shadowenv_outcome shadowenv_touch(struct shadowenv_cpu *c, uint64_t gva, struct ref_access a,
                                       mfn_t *mfn, struct shadow_fault *f);
/* The guest's registers by these settings. */
void shadowenv_paging_registers(const struct ref_paging *p, struct guest_paging *out);
/* Load c->paging. */
void shadowenv_load(struct shadowenv_cpu *c);
/* INVLPG of an address in gvas. */
void shadowenv_invlpg(struct shadowenv_cpu *c, unsigned gva);
/* Nobody writes there by an old translation. */
void shadowenv_check_no_writer(mfn_t mfn);
/* Another frame with the same contents, as compaction and sharing do; the batch is still to be flushed. */
bool shadowenv_move_frame(gfn_t gfn, struct flush_batch *batch);
