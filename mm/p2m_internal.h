/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tree and its words: what the files of the p2m (mm/p2m*.c) share with those that change words as
 * they do: mm/share, and compress.c and swap*.c of mm/reclaim. A few others want fields only: mm/compact.c
 * owner and member; sample.c RAM, owner and view; reclaim.c and reclaim_vms.c the owner, and `blocked` and
 * `reclaim`, which are theirs; mm/shadow/sync.c pins. Nobody else includes this but tests.
 *
 * A word is, from bit 0: 4 bits of kind (a p2m_state, or one of the kinds below), 20 bits of
 * sequence number, 36 bits of frame number, 4 bits of heat: how often the sharing scan shall pass the
 * page by. Words are read at any time and written under the p2m lock by single stores. Nodes stay in
 * memory until the p2m is destroyed, so that a lockless walk is safe anywhere; the words of a node that left
 * the tree are marked, and the walk starts again.
 *
 * A private page of 4 KiB that is about to lose its frame is first nominated: write-protected in the
 * view, after its word changed. Whoever wants to write makes it plainly private again, by another
 * change of the word; so a nominated word that stayed the same means contents that stayed the same.
 *
 * A reference to a shared frame is *loose* while no word accounts for it: a page that was broken drops
 * its one after the flush. The audit of references waits until none is.
 *
 * A node's frame record holds, for nodes of 2 MiB words: in refs the number of private words, in gfn
 * the first frame of the 1 GiB block that they come from (FRAME_GFN_NONE: from anywhere).
 */
#pragma once

#include "kernel/lib/spinlock.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m.h"
#include "mm/reclaim/compress.h"
#include "mm/share/index.h"

#define NODE_WORDS 512u
#define NODE_SHIFT 9u
#define ROOT_LEVEL 3u
#define RAM_LEVEL 2u /* the highest whose words may describe RAM: 1 GiB */
#define GFN_BITS (NODE_SHIFT * (ROOT_LEVEL + 1))
#define LOW_GFNS BIT(NODE_SHIFT *ROOT_LEVEL)

#define KIND_MASK 0xfULL
#define KIND_NOMINATED 13u /* private, write-protected, about to lose its frame */
#define KIND_NODE 14u      /* a node of the next lower level */
#define KIND_RETIRED 15u   /* this node has left the tree */
#define SEQ_ONE 0x10ULL
#define SEQ_MASK 0xfffff0ULL
#define MFN_SHIFT 24
#define MFN_MASK 0x0fffffffff000000ULL
#define HEAT_SHIFT 60
#define HEAT_MASK (0xfULL << HEAT_SHIFT)
#define HEAT_MAX 15u
/* Kinds whose words name a frame. */
#define FRAME_KINDS (BIT(P2M_PRIVATE) | BIT(P2M_SHARED) | BIT(P2M_ZERO) | BIT(KIND_NOMINATED))

/* Kinds whose words say where else the contents are. */
#define PAGED_KINDS (BIT(P2M_COMPRESSED) | BIT(P2M_SWAPPED) | BIT(P2M_INCOMING))

struct p2m_range {
    gfn_t first;
    uint64_t nr;
};

struct p2m {
    struct spinlock lock; /* words, counters, guest frames' records */
    uint64_t *root;
    uint64_t *low;    /* the node for the first 512 GiB, where nearly all RAM is */
    uint32_t retired; /* chain of nodes out of the tree, through the frame records' next; prev says
                       * which region a node was for */
    uint32_t owner;
    bool large_pages;
    unsigned max_order;
    struct view *view;
    struct flush_domain domain;
    struct p2m_counters count;
    struct p2m_range ram[P2M_MAX_RANGES]; /* in the order of p2m_add_ram, neighbours joined */
    unsigned nr_ram;
    uint32_t salt;           /* constant */
    unsigned member;         /* its number in mm/share, 0: none */
    uint64_t shared_pins;    /* of the pins, those on shared frames */
    uint64_t changes;        /* of references to shared frames: for the audit that recounts them */
    uint64_t loose;          /* references that no page accounts for just now (atomic) */
    bool orphan;             /* left mm/share, and its pages are not freed yet */
    struct share_scan *scan; /* mm/share/scan.c; its owner is who scans */
    bool no_paging;          /* constant */
    struct zip_cache zip;    /* mm/reclaim/compress.c; under the lock */
    enum hv_err swap_result; /* of the last page that could not be read back; under the lock */
    gfn_t last_in;  /* the last page that was read because it was touched; under the lock */
    unsigned along; /* neighbours that are read with the next one; likewise */
    uint32_t io;    /* requests of mm/reclaim/swap.c that name this p2m (atomic) */
    uint32_t reads; /* those of swap_in.c among them; swap.lock */
    uint32_t swap_went,
        swap_stayed; /* of late: pages that left, that were written meanwhile; under the lock */
    bool blocked;    /* it has to wait before it gets another frame (atomic); reclaim.c */
    struct reclaim_vm *reclaim; /* its entry there; reclaim_lock */
};

static inline unsigned word_kind(uint64_t word)
{
    return (unsigned)(word & KIND_MASK);
}

static inline mfn_t word_mfn(uint64_t word)
{
    return MFN((word & MFN_MASK) >> MFN_SHIFT);
}

/* What a word of a page that is not in memory says in place of a frame number: where it is. */
static inline uint64_t word_place(uint64_t word)
{
    return word_mfn(word).n;
}

/* The successor of a word: a new kind and frame, the next sequence number, the same heat. */
static inline uint64_t word_next(uint64_t was, unsigned kind, mfn_t mfn)
{
    return kind | ((was + SEQ_ONE) & SEQ_MASK) | (was & HEAT_MASK) | mfn.n << MFN_SHIFT;
}

static inline uint64_t word_load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void word_store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline unsigned word_index(gfn_t gfn, unsigned level)
{
    return (unsigned)(gfn.n >> (NODE_SHIFT * level)) & (NODE_WORDS - 1);
}

static inline uint64_t *word_node(uint64_t word)
{
    return env_frame_ptr(word_mfn(word));
}

/* The frame of the node that contains a word. */
static inline mfn_t node_of(const uint64_t *word)
{
    return env_ptr_frame((const void *)((uintptr_t)word & PAGE_MASK));
}

/* Frames that a word of `level` describes. */
static inline uint64_t level_frames(unsigned level)
{
    return BIT(NODE_SHIFT * level);
}

/* The word that describes gfn, with its value; gfn must be below 2^GFN_BITS. */
static inline uint64_t *p2m_find(const struct p2m *p, gfn_t gfn, uint64_t *value, unsigned *level)
{
    uint64_t *node = likely(gfn.n < LOW_GFNS) ? p->low : p->root;
    unsigned at = likely(gfn.n < LOW_GFNS) ? RAM_LEVEL : ROOT_LEVEL;

    for (;;) {
        uint64_t *word = &node[word_index(gfn, at)];
        uint64_t v = word_load(word);

        if (word_kind(v) == KIND_NODE) {
            node = word_node(v);
            at--;
        } else if (likely(word_kind(v) != KIND_RETIRED)) {
            *value = v;
            *level = at;
            return word;
        } else {
            node = p->root;
            at = ROOT_LEVEL;
        }
    }
}

/* As p2m_query, of gfn; `e` describes the page before: without another walk, where both are in one node. */
void p2m_query_next(struct p2m *p, gfn_t gfn, struct p2m_entry *e);

static inline unsigned word_heat(uint64_t word)
{
    return (unsigned)(word >> HEAT_SHIFT);
}

/* Lock for a change by `access`. False: the fast path found it taken. */
static inline bool p2m_lock_for(struct p2m *p, uint32_t access)
{
    if (access & P2M_FAST) {
        return spin_trylock(&p->lock);
    }
    spin_lock(&p->lock);
    return true;
}

/* Change the word that `e` describes, p2m locked, and describe it anew. */
static inline void p2m_change(struct p2m_entry *e, uint64_t value)
{
    word_store((uint64_t *)e->word, value);
    e->seq = value;
    e->state = word_kind(value) == KIND_NOMINATED ? P2M_PRIVATE : (enum p2m_state)word_kind(value);
    e->writable = word_kind(value) == P2M_PRIVATE;
}

/* `nr` references to shared frames are loose from now on (p2m locked), until they are dropped or a word
 * has them. Dropped after `b` was committed: the frames are not mapped maybe, but readers by p2m_peek
 * may stand there. NULL: nobody does, or the caller sees to it. */
void p2m_let_go(struct p2m *p, uint64_t nr, struct flush_batch *b);

static inline void p2m_dropped(struct p2m *p, uint64_t nr)
{
    __atomic_fetch_sub(&p->loose, nr, __ATOMIC_RELEASE);
}

/* Drop one that was let go. True: the last on its frame, which is free. Not on the fast path. */
static inline bool p2m_drop(struct p2m *p, mfn_t mfn)
{
    bool last = index_put(mfn);

    p2m_dropped(p, 1);
    return last;
}

/* A frame of p's for the 4 KiB page that `e` describes, which has none; p2m locked. */
static inline void p2m_enter_private(struct p2m *p, gfn_t gfn, mfn_t mfn, struct p2m_entry *e)
{
    frame_of(mfn)->gfn = gfn.n;
    p2m_change(e, word_next(e->seq, P2M_PRIVATE, mfn));
    e->mfn = mfn;
    p->count.granted++;
    p->count.consumed++;
}

extern bool p2m_thrift; /* p2m_set_thrift (atomic) */

/* The record that counts the pins of a private entry. */
struct frame *p2m_pin_record(const struct p2m_entry *e);
/* Pin gfn if it is private now; takes the p2m lock. */
bool p2m_pin_private(struct p2m *p, gfn_t gfn, struct p2m_entry *e, void **ptr) __must_check;
/* Undo it. */
void p2m_unpin_private(struct p2m *p, gfn_t gfn, const struct p2m_entry *e, void *ptr);

/*
 * A node for the words below the aligned region of `order` at `first`: one that was retired from there,
 * or a fresh one, not counted yet. A fresh one is allocated, or, unless `spare` is NULL, made of *spare, a
 * frame of use FRAME_HOST, which is MFN_NONE afterwards. HV_ENOMEM: no frame, or no *spare.
 * p2m_node_retire takes it out of use again: its words are marked, and it waits for the next one who needs a
 * node there. The p2m is not locked for taking (retired nodes of one region are taken by one thread at a
 * time), and locked for retiring.
 */
enum hv_err p2m_node_take(struct p2m *p, gfn_t first, unsigned order, mfn_t *spare, mfn_t *out,
                          bool *fresh) __must_check;
void p2m_node_retire(struct p2m *p, gfn_t first, unsigned order, mfn_t node);

/* A node whose words all have `state`. HV_ENOMEM. Any lock below RANK_ALLOC may be held. */
enum hv_err p2m_node_alloc(const struct p2m *p, enum p2m_state state, mfn_t *out) __must_check;

/* Replace the untouched or ballooned word that `e` describes by a node of words of the same state.
 * HV_EBUSY: done, or something changed; look again. HV_ENOMEM. Takes the p2m lock. */
enum hv_err p2m_divide(struct p2m *p, struct p2m_entry *e) __must_check;

/* A touch of the ballooned gfn, which `e` describes: untouched from now on. HV_EBUSY: done, or something
 * changed; look again. HV_ENOMEM. Takes the p2m lock; not on the fast path. */
enum hv_err p2m_pop(struct p2m *p, gfn_t gfn, struct p2m_entry *e) __must_check;

/*
 * First touch of the untouched gfn that `e` describes. HV_OK: private now, and `e` says so.
 * HV_EBUSY: something changed; look again. HV_EAGAIN: off the fast path, please. HV_ENOMEM.
 */
enum hv_err p2m_touch(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e) __must_check;
