/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The p2m: per VM, what stands behind each guest frame. It is the truth; views are caches of it.
 * A 512-way radix tree whose word describes 4 KiB, 2 MiB or 1 GiB; states change under the p2m
 * lock, each change keeps the counters, and p2m_audit recounts them from scratch.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/flush.h"
#include "mm/types.h"

struct p2m;
struct view;

enum p2m_state {
    P2M_HOLE = 0,  /* nothing: accesses are emulated as MMIO */
    P2M_UNTOUCHED, /* RAM nobody has touched: reads as zero, allocated on first touch */
    P2M_PRIVATE,   /* RAM backed by a frame of its own */
    P2M_SHARED,    /* RAM backed, read-only, by a frame that others stand on too (4 KiB) */
    P2M_ZERO,      /* RAM backed, read-only, by the zero frame of the whole host (4 KiB) */
    P2M_BALLOONED, /* RAM that its guest has given up: no frame; a touch pops it (p2m_balloon.h) */
    P2M_COMPRESSED = 8, /* RAM kept compressed: mm/reclaim/compress.h (4 KiB) */
    P2M_SWAPPED,        /* RAM whose contents are in a slot of the store (4 KiB) */
    P2M_INCOMING,       /* the same, and on its way back */
    NR_P2M_STATES
};

#define P2M_READ 0x1u
#define P2M_WRITE 0x2u
#define P2M_EXEC 0x4u
#define P2M_FAST 0x8u /* guest fast path: HV_EAGAIN rather than wait, allocate large or block */
#define P2M_WALK \
    0x10u /* the processor's own walk of a guest page table: such a page is left alone */
#define P2M_VCPU \
    0x20u /* a vCPU's own access, off the fast path: waits while its VM is blocked; counted (stalled_ns) */
#define P2M_LINE 0x40u /* no frame now: others wait for them and come first */

/* What stands behind a gfn; `order` says how large the block of the same state around it is. */
struct p2m_entry {
    enum p2m_state state;
    mfn_t mfn;      /* frame behind this very gfn; MFN_NONE without */
    unsigned order; /* ORDER_4K, ORDER_2M, ORDER_1G: the block is aligned in gfn and mfn alike */
    bool writable;  /* may be entered for writing; a write to RAM that is not resolves it first */
    uint64_t seq;   /* bumped whenever the word changes; a view fill rechecks it (p2m_same) */
    const uint64_t *word; /* for p2m_same; lives as long as the p2m */
};

struct p2m_config {
    uint32_t owner;     /* VM id, for the frame table */
    void *vm;           /* for the flush domain */
    bool large_pages;   /* 2 MiB (1 GiB) on first touch where region allows */
    unsigned max_order; /* largest order the processor's nested tables can map */
    uint32_t salt;      /* once it joins mm/share: pages are shared among p2ms of equal salt only */
    bool no_paging;     /* its pages are never compressed or swapped */
};

/* A p2m of holes, the caller's until p2m_destroy; *cfg is copied. HV_EINVAL: not a VM's id. HV_ENOMEM.
 * After errors *out is as it was. Thread context, no lock held. */
enum hv_err p2m_create(const struct p2m_config *cfg, struct p2m **out) __must_check;
/* Free every frame and table, and the view if it is still there. No vCPU runs any more, nothing is
 * pinned. Sleeps. */
void p2m_destroy(struct p2m *p);

/* Declare [first, first+nr) as RAM: it becomes untouched. HV_EEXIST if any of it is RAM already,
 * HV_ERANGE if it is empty or ends beyond 256 TiB, HV_ENOMEM, also beyond P2M_MAX_RANGES separate ranges;
 * after errors no more is RAM than before. Takes the p2m lock. */
enum hv_err p2m_add_ram(struct p2m *p, gfn_t first, uint64_t nr) __must_check;
#define P2M_MAX_RANGES 8u

/* The state behind gfn. Looks only: never allocates, never waits, takes no lock. */
void p2m_query(struct p2m *p, gfn_t gfn, struct p2m_entry *out);
/*
 * A page that is about to be mapped for writing may have a new frame, while others still read its old one:
 * somebody has not yet taken those translations away, or not yet flushed. p2m_settled: surely not so (any
 * context). p2m_settle: waits for the former and sees to the latter, after which the page may be mapped as
 * long as its word stays; takes the p2m lock and flushes: no lock held, not on the fast path. One does
 * without: nested_fault on the fast path, to whom the view's lock and the slot tell as much (mm/nested.c).
 */
bool p2m_settled(const struct p2m *p);
void p2m_settle(struct p2m *p);
/* Does the gfn still stand as it was described? A view asks under its own lock, before it fills. */
static inline bool p2m_same(const struct p2m_entry *e)
{
    return __atomic_load_n(e->word, __ATOMIC_ACQUIRE) == e->seq;
}

/* Where the contents of a 4 KiB page are: number of its frame, slot or place in the cache. For
 * comparisons only. */
uint64_t p2m_place(const struct p2m_entry *e);

/*
 * Resolve gfn for `access` (populate, unshare, decompress, read back) and describe it.
 * HV_ENOENT: a hole. HV_EAGAIN: with P2M_FAST, try again off the fast path; without, I/O was
 * started and the caller sleeps, then restarts. HV_ENOMEM: no frame, or, with P2M_VCPU, the VM is
 * blocked and has to wait before it gets another one (reclaim_is_blocked), or, with P2M_LINE, it is
 * not its turn (with P2M_FAST both are HV_EAGAIN); copies of shared pages wait while the VM is blocked, not for
 * their turn, and pages on their way back for neither. HV_EIO: the page could not be read back (swap_error
 * says why); the next call tries again. Takes the p2m lock.
 */
enum hv_err p2m_populate(struct p2m *p, gfn_t gfn, uint32_t access,
                         struct p2m_entry *out) __must_check;

/*
 * Resolve as p2m_populate and pin: *ptr addresses the 4 KiB until p2m_put, which gets it back. Used by
 * the emulator, loaders and devices. Pins are counted per VM. Pinned with P2M_WRITE, the frame stays
 * behind gfn. Pinned for reading alone, it may be shared, and a write to gfn meanwhile gives gfn
 * another frame while *ptr keeps the old contents: who reads for long pins for writing.
 */
enum hv_err p2m_get(struct p2m *p, gfn_t gfn, uint32_t access, void **ptr) __must_check;
/* Takes the p2m lock, which is never held for long. Not on the fast path. */
void p2m_put(struct p2m *p, gfn_t gfn, void *ptr);

/*
 * Lockless, allocation-free pointer to the 4 KiB behind gfn, or NULL unless there is a frame right
 * now. For reading only: the frame may be shared. Only inside the guest fast path (flush waits for
 * it) or while the VM's vCPUs are paused.
 */
const void *p2m_peek(struct p2m *p, gfn_t gfn);

struct p2m_counters {
    uint64_t ram;       /* configured RAM, in 4 KiB pages (ESX MEMSZ) */
    uint64_t granted;   /* pages backed by some frame (ESX GRANT) */
    uint64_t consumed;  /* machine frames of its own behind them: granted - shared - zero */
    uint64_t shared;    /* pages on shared frames */
    uint64_t zero;      /* pages on the zero frame */
    uint64_t ballooned; /* pages given up (ESX MCTLSZ) */
    uint64_t large_2m;  /* p2m words of 2 MiB */
    uint64_t large_1g;  /* p2m words of 1 GiB */
    uint64_t overhead;  /* frames of radix nodes */
    uint64_t pinned;    /* pins now held */
    uint64_t faults_4k; /* first touches served by size */
    uint64_t faults_2m;
    uint64_t faults_1g;  /* 1 GiB blocks that became full, and one word */
    uint64_t merged;     /* pages that became shared or zero */
    uint64_t broken;     /* shared and zero pages that were written */
    uint64_t popped;     /* ballooned pages that were touched */
    uint64_t compressed; /* pages kept compressed, those of one repeated word included */
    uint64_t zip_frames; /* frames that they take (ESX CACHEUSD) */
    uint64_t swapped;    /* pages in slots of the store, those on their way back included (SWCUR) */
    uint64_t incoming;   /* of these, on their way back */
    uint64_t zipped;     /* pages compressed and decompressed so far */
    uint64_t unzipped;
    uint64_t swapped_out; /* pages written to slots and read back so far */
    uint64_t swapped_in;
    /* What vCPUs' own accesses (P2M_VCPU) took so far because a page had to be copied for a write, decompressed
     * or asked of the store; its reading is not in it. */
    uint64_t stalled_ns;
};
/* All of one moment. Takes the p2m lock. */
void p2m_counters(struct p2m *p, struct p2m_counters *out);
/* The same without waiting for the lock: false, and *out is as it was, if somebody has it. Any context. */
bool p2m_try_counters(struct p2m *p, struct p2m_counters *out) __must_check;
/* Recount from the tree and the frame table; logs disagreements, true if none. */
bool p2m_audit(struct p2m *p);
/* Nothing in the p2m changes between these; for a view's audit. RANK_P2M. */
void p2m_freeze(struct p2m *p);
void p2m_thaw(struct p2m *p);

/* Memory is short: from now on reads of untouched memory get the zero frame, and first touches no
 * large frames. For all p2ms. */
void p2m_set_thrift(bool on);

/* Of whatever removes its translations; lives as long as p. */
struct flush_domain *p2m_flush_domain(struct p2m *p);
/* The view that caches this p2m (one per VM today), or NULL; set once by the view's create. */
void p2m_set_view(struct p2m *p, struct view *v);
struct view *p2m_view(struct p2m *p);
/* Whose frames it uses; whether it is to have large pages. */
uint32_t p2m_owner(const struct p2m *p);
bool p2m_wants_large(const struct p2m *p);
/* Largest order the VM's nested tables may map. */
unsigned p2m_max_order(const struct p2m *p);
