/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One VM's balloon: what the host wants of it, what the driver in the guest is told, which pages the
 * driver has given up, and whether to believe it. One interface for every kind of driver:
 *
 *     policy, operator                                    the driver's device
 *     balloon_set_target  --->  goal  --ramp--> told --->  balloon_poll
 *     balloon_set_by_hand        ^                         balloon_give, balloon_take
 *     balloon_read        <--- state <--- distress, trust <--- balloon_start, balloon_stop
 *
 * The device makes its calls one after the other; all others may come at any time. Sizes are in 4 KiB
 * pages, times in nanoseconds of one clock. Waldspurger, OSDI 2002, "Ballooning".
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/p2m_balloon.h"
#include "mm/types.h"

struct balloon;
struct p2m;

#define BALLOON_SECOND_NS 1000000000ull
#define BALLOON_DEAD_NS (5 * BALLOON_SECOND_NS)   /* a driver so long silent is dead */
#define BALLOON_STUCK_NS (3 * BALLOON_SECOND_NS)  /* so long without progress: its guest is short */
#define BALLOON_RELIEF_NS (5 * BALLOON_SECOND_NS) /* rest after a first sign of distress */
#define BALLOON_RELIEF_MOST_NS (120 * BALLOON_SECOND_NS)
#define BALLOON_CALM_NS (300 * BALLOON_SECOND_NS)   /* so long without distress: the first again */
#define BALLOON_FORGIVE_NS (10 * BALLOON_SECOND_NS) /* a strike is forgotten after */
#define BALLOON_STRIKES 6u                          /* so many: the driver is not believed */
#define BALLOON_SLACK 512u /* pages: a driver that deals in 2 MiB is as far off as that */

enum balloon_driver { BALLOON_NO_DRIVER, BALLOON_VMWARE, BALLOON_VIRTIO };

/* Without a driver; `owner` is the VM's id. HV_ENOMEM. Destroyed when nothing of the VM runs any more. */
enum hv_err balloon_create(uint32_t owner, struct balloon **out) __must_check;
void balloon_destroy(struct balloon *b);

/* ---- Policy and operator ---- */

/* RAM of the VM, and the most that its balloon may hold (ESX MCTLMAX). */
void balloon_set_limits(struct balloon *b, uint64_t ram, uint64_t max);
/* The most by ESX's rules: `percent` of RAM (Mem.CtlMaxPercent), and no more than `maxmemctl`. */
uint64_t balloon_most(uint64_t ram, uint64_t percent, uint64_t maxmemctl);
/* What the policy wants it to hold. */
void balloon_set_target(struct balloon *b, uint64_t pages);
/* What the operator wants; then the policy's word does not count until balloon_set_auto. */
void balloon_set_by_hand(struct balloon *b, uint64_t pages);
void balloon_set_auto(struct balloon *b);
/* The host sees that the guest suffers (it swaps in): some memory goes back, and no more is asked for
 * a while, longer each time. `size` is what the balloon holds. */
void balloon_note_distress(struct balloon *b, uint64_t size, uint64_t now_ns);

/* A guest's own statistics, by virtio's tags: bytes, but for faults and failures, which are numbers. */
enum balloon_stat {
    BALLOON_STAT_SWAP_IN,
    BALLOON_STAT_SWAP_OUT,
    BALLOON_STAT_MAJOR_FAULTS,
    BALLOON_STAT_MINOR_FAULTS,
    BALLOON_STAT_FREE,
    BALLOON_STAT_TOTAL,
    BALLOON_STAT_AVAILABLE,
    BALLOON_STAT_CACHES,
    BALLOON_STAT_HUGE_ALLOCATED,
    BALLOON_STAT_HUGE_FAILED,
    NR_BALLOON_STATS
};
struct balloon_guest {
    uint32_t known; /* bits of those that it told */
    uint64_t value[NR_BALLOON_STATS];
};

struct balloon_state {
    bool present; /* a driver answers, and is believed (ESX MCTL?) */
    enum balloon_driver driver;
    bool by_hand;
    bool silent;                    /* started, and not heard for BALLOON_DEAD_NS */
    bool distrusted;                /* touched what it gave up, or started anew, too often */
    bool relieved;                  /* in distress, and left alone for now */
    uint64_t size;                  /* held now (ESX MCTLSZ) */
    uint64_t target;                /* wanted, within max (ESX MCTLTGT) */
    uint64_t told;                  /* what the driver was told: on its way to target */
    uint64_t max;                   /* at most (ESX MCTLMAX) */
    uint64_t starts;                /* of drivers */
    uint64_t resets;                /* the driver had to start anew, for pages were touched */
    uint64_t distresses;            /* signs of distress */
    uint64_t given, taken, refused; /* pages, since the VM was built */
    uint64_t reported;              /* likewise: reported free by the guest, and discarded */
    struct balloon_guest guest;     /* what it said last */
};
/* `size` is p2m_counters.ballooned. */
void balloon_read(struct balloon *b, uint64_t size, uint64_t now_ns, struct balloon_state *out);

/* ---- The driver's device; thread context, off the guest fast path, no lock held ---- */

/* A VM's power-on: no driver, nothing pending. Targets stay. */
void balloon_reset(struct balloon *b);
/* A driver starts: everything that was given up is the guest's again. Long. */
void balloon_start(struct balloon *b, struct p2m *p, enum balloon_driver driver, uint64_t now_ns);
/* It ends; likewise. */
void balloon_stop(struct balloon *b, struct p2m *p);
/* A command arrived. False: no driver has started, or a page that was given up was touched: it has to
 * start (anew). A virtio driver has no way to: the touched page is its guest's again, and that is all. */
bool balloon_heard(struct balloon *b, struct p2m *p, uint64_t now_ns) __must_check;
/* What the driver knows cannot be right any more: the next balloon_heard says so. */
void balloon_require_start(struct balloon *b);
/* What it is to hold now. `asked`: it asks for that alone, between rounds of giving and taking. */
uint64_t balloon_poll(struct balloon *b, struct p2m *p, bool asked, uint64_t now_ns);

/* What the driver says of its guest; that it reported free pages, of which so many were discarded. */
void balloon_set_guest(struct balloon *b, const struct balloon_guest *g);
void balloon_note_reported(struct balloon *b, uint64_t pages);

/* Pages that are given up together. On the stack. */
struct balloon_giving {
    struct balloon *balloon;
    uint64_t size;
    struct p2m_balloon_batch pages;
};
void balloon_give_begin(struct balloon *b, struct p2m *p, struct balloon_giving *g);
/* Errors as p2m_balloon, and HV_ERANGE: the balloon holds all that it may. */
enum hv_err balloon_give(struct balloon_giving *g, gfn_t gfn, unsigned order) __must_check;
void balloon_give_end(struct balloon_giving *g);
/* Errors as p2m_unballoon. */
enum hv_err balloon_take(struct balloon *b, struct p2m *p, gfn_t gfn, unsigned order,
                         uint64_t now_ns) __must_check;
