/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reclaimer: what each VM should have, and the one carrier that takes it back to that.
 *
 *     sample.c   what does it use?        tax.c      what is it owed?
 *     policy.c   how short is memory?     reclaim.c  who gives, how much, by which means; why
 *
 * A VM takes part from reclaim_join to reclaim_leave, by its p2m. reclaim_balance computes all targets:
 * it divides what the VMs hold and what is free above the goal, so that targets that are met leave the
 * goal free. reclaim_carry compares targets with what the VMs hold. If memory is short, what lacks to
 * the goal is asked of those above their targets, each its part; nobody is asked to come below his. It
 * is ordered from the means of taking memory, in the order share, balloon, compress and swap, each if
 * the present level permits it. Each order leaves a record.
 *
 * The options come from the caller (struct reclaim_options): mm/ knows none. Callers:
 * kernel/vm/balance.c (its thread: everything that moves), the means, the shell (numbers, records).
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/reclaim/policy.h"
#include "mm/reclaim/sample.h"
#include "mm/reclaim/tax.h"
#include "mm/types.h"

struct p2m;

/* ---- Means of taking memory: one table each, registered at boot ---- */

struct reclaim_order {
    uint64_t excess;     /* pages by which the VM is to come down from what it holds now; 0: none */
    uint64_t room;       /* pages by which it may grow instead; 0 if there is an excess */
    uint64_t target;     /* pages that it should hold (SZTGT) */
    unsigned actions;    /* MEM_DO_* of the present level */
    uint64_t elapsed_ns; /* since the last order; the first time a second */
    bool deaf; /* the means before could not be used at all: nobody answers in the guest */
};

struct reclaim_answer {
    uint64_t taken;   /* frames that are free by now because of this order */
    uint64_t pending; /* pages of the excess that it will see to, by itself or when asked again */
    const char
        *why;  /* constant text; why not all of it: "its driver does not answer". May be NULL */
    bool deaf; /* it cannot be used with this VM */
};

struct reclaim_means {
    const char *name;  /* "balloon", for records */
    unsigned action;   /* MEM_DO_*: without it there is no excess in its orders */
    bool for_the_deaf; /* also at MEM_DO_PAGE_DEAF, if the order says `deaf` */
    /*
     * Asked about once a second for every VM while there is something to take or give back, and when
     * targets change. Bounded work; may sleep; no lock held. Fill *a, which is zero before.
     */
    void (*order)(struct p2m *p, const struct reclaim_order *o, struct reclaim_answer *a);
};

/* In the order in which they are to be asked. Boot only; at most RECLAIM_MAX_MEANS. */
#define RECLAIM_MAX_MEANS 6u
void reclaim_register(const struct reclaim_means *m);

/* ---- Taking part ---- */

#define RECLAIM_NAME_MAX 32u

struct reclaim_setup {
    const char *name;  /* of the VM; copied */
    uint64_t memory;   /* pages */
    uint64_t min, max; /* pages of machine memory that it is guaranteed, that it gets at most */
    uint64_t shares;
    uint64_t seed; /* of its samples */
};

#define RECLAIM_MAX_VMS 1024u
/* p has RAM and view. HV_ENOMEM, HV_EBUSY: too many. */
enum hv_err reclaim_join(struct p2m *p, const struct reclaim_setup *s) __must_check;
/* Its guarantees are others from the next balance on. */
void reclaim_change(struct p2m *p, uint64_t min, uint64_t max, uint64_t shares);
/* Waits until the carrier does not use p. Idempotent. No lock held. */
void reclaim_leave(struct p2m *p);
/* Grows with every join, leave and change: time for a balance. Any thread. */
uint64_t reclaim_generation(void);

/* ---- The carrier's thread ---- */

struct reclaim_options {
    enum mem_states states;
    unsigned min_free_pct;
    uint64_t balance_ns; /* Mem.BalancePeriod */
    unsigned tax_pct;
    enum tax_type tax_type;
    struct sample_options sample;
};

/* What the caller says of a VM. */
struct reclaim_guest {
    uint64_t time_ns; /* for how long it has run */
    bool runs;        /* else it uses nothing, and nothing is guaranteed to it */
};
/* Called with a VM that takes part and stays so meanwhile; no lock held. */
typedef void (*reclaim_guest_t)(struct p2m *p, struct reclaim_guest *out);

/* How short is memory? True: the level changed; a change of state was logged with its cause. Cheap: to
 * be called many times a second. */
bool reclaim_look(const struct reclaim_options *o);
/* Sample of all VMs what is due. About once a second. */
void reclaim_sample(const struct reclaim_options *o, reclaim_guest_t guest);
/* New targets for all; `cause` (constant text) is for the records. */
void reclaim_balance(const struct reclaim_options *o, const char *cause);
/* Orders for all VMs. True: something is being taken or given back. */
bool reclaim_carry(void);

/* ---- What others ask; any thread, no lock held unless said ---- */

/* Of this moment; no lock. */
enum mem_state reclaim_state(void);
unsigned reclaim_actions(void);
uint64_t reclaim_min_free(void);
/* Must p wait before it gets another frame: memory is low and it holds more than its target? Any
 * context, no lock. */
bool reclaim_is_blocked(const struct p2m *p);
/* Is there hope that memory becomes free: was any taken within `lately_ns`, or has anybody just promised
 * some? */
bool reclaim_has_hope(uint64_t lately_ns);

struct reclaim_numbers { /* of a VM, in pages */
    uint64_t memory, min, max, shares;
    uint64_t held;    /* machine memory that it stands on, common frames by its part (CNSM) */
    uint64_t target;  /* SZTGT; overhead not included */
    uint64_t active;  /* of what it was granted; A of the idle tax */
    uint64_t touched; /* TCHD: by the slow average */
    uint64_t excess;  /* what the means were last asked for */
    uint64_t pending; /* what they promised of it */
    struct sample_estimate estimate; /* %ACTV active, %ACTVS slow, %ACTVF fast, %ACTVN next */
    struct sample_stats sampled;
    bool blocked;
};
/* False: p takes no part. */
bool reclaim_numbers(struct p2m *p, struct reclaim_numbers *out);

struct reclaim_host {
    enum mem_states table;
    enum mem_state state;
    unsigned actions;
    uint64_t free, min_free, goal;   /* frames */
    uint64_t available;              /* frames that the last balance divided */
    uint64_t entered[NR_MEM_STATES]; /* how often */
    uint64_t state_since_ns;
    uint64_t balances, orders;
    uint64_t taken; /* frames by which VMs came down while they were asked to */
};
/* Takes the lock of reclaiming. */
void reclaim_host(struct reclaim_host *out);

/* ---- Records ---- */

enum reclaim_rule {
    RULE_ABOVE_TARGET, /* it holds more than it is owed, and memory is short */
    RULE_ABOVE_MAX,    /* it holds more than its max, however much is free */
    RULE_BELOW_TARGET, /* it may have some back */
};

/* An order, or several in a row that differ in numbers only: then the numbers are the last one's, but
 * `taken` and `cost_ns`, which are sums. */
struct reclaim_record {
    uint64_t nr;                /* 1, 2, ...; 0: none */
    uint64_t first_ns, time_ns; /* of the first and the last order */
    uint64_t orders;
    uint32_t owner;
    char name[RECLAIM_NAME_MAX]; /* of the VM */
    enum reclaim_rule rule;
    enum mem_state state;
    const char *means;                     /* who was asked */
    const char *cause;                     /* of the balance that set the target */
    const char *why;                       /* the means' answer; may be NULL */
    uint64_t free, min_free;               /* inputs, frames */
    uint64_t held, target, active, shares; /* inputs of the VM, pages */
    uint64_t asked, taken, pending;        /* pages; RULE_BELOW_TARGET: asked is the room */
    uint64_t cost_ns;
};
/* The newest record of `owner` (0: of anybody) older than record `before` (0: the newest there is).
 * False: none. The last RECLAIM_RECORDS are kept. */
#define RECLAIM_RECORDS 512u
bool reclaim_record(uint32_t owner, uint64_t before, struct reclaim_record *out);

/* What happened to a page; noted by who did it, off the fast path. */
enum page_event {
    PAGE_MERGED,      /* shared; detail: pages on that frame */
    PAGE_BALLOONED,   /* surrendered by the guest */
    PAGE_UNBALLOONED, /* taken back by the guest */
    PAGE_POPPED,      /* touched while surrendered */
    PAGE_COMPRESSED,  /* detail: bytes */
    PAGE_DECOMPRESSED,
    PAGE_SWAPPED, /* detail: slot */
    PAGE_READ_BACK,
    PAGE_SPLIT, /* the large page around it */
    PAGE_JOINED,
    NR_PAGE_EVENTS
};
/* Any context that may write memory; no lock taken. */
void reclaim_note_page(uint32_t owner, gfn_t gfn, enum page_event event, uint64_t detail);
/* The same of the aligned block of `order` at gfn: ORDER_4K, or ORDER_2M in one note. */
void reclaim_note_pages(uint32_t owner, gfn_t gfn, unsigned order, enum page_event event,
                        uint64_t detail);

struct page_note {
    uint64_t nr; /* 1, 2, ... */
    uint64_t time_ns;
    enum page_event event;
    bool region; /* it happened to the 2 MiB around the page */
    uint64_t detail;
};
/* The newest note on the page older than `before` (0: newest). False: none is left: the last
 * RECLAIM_NOTES of all VMs together are kept. */
#define RECLAIM_NOTES 8192u
bool reclaim_page_note(uint32_t owner, gfn_t gfn, uint64_t before, struct page_note *out);
