/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the shadow view share. Nobody else includes this.
 *
 * A shadow page is a table of ours for one guest table (its gfn) in one role: level, format, what the
 * levels above allow, and the guest's settings that change what an entry means. A *direct* page
 * translates a stretch of guest memory one to one: the pieces of a large guest page, or everything
 * while paging is off. Entries of ours keep beside them the guest's entry that they were made from
 * (`seen`), so whether one is still true is one comparison.
 *
 * A guest table is *traced* while all its translations are write-protected: then its pages are in
 * sync. Otherwise its pages are in the list of the unsync ones; whatever level, the guest writes
 * to it freely, and they are compared when the guest flushes. That is allowed, for until then the
 * processor could have kept what was there before.
 *
 * Chains: which entries (slots) lead to a gfn, to a 2 MiB block, to a page. A slot is named by its machine
 * address, from which the frame table finds its page.
 *
 * Everything is under the view's lock, p2m words excepted. Guest tables are read and their accessed bits
 * written through the p2m under that lock: who takes a frame away changes the word first, and then
 * comes for the view's lock to drop it, before he frees it.
 */
#pragma once

#include "kernel/lib/list.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/gwalk.h"
#include "mm/p2m.h"
#include "mm/shadow/shadow.h"

#define ENTRIES 512u
#define LEVEL_BITS 9u
#define REGION_PAGES 512u

/* Entries of ours. */
#define SPT_P BIT(0)
#define SPT_W BIT(1)
#define SPT_U BIT(2)
#define SPT_A BIT(5)
#define SPT_D BIT(6)
#define SPT_PS BIT(7)
#define SPT_NX BIT(63)
#define SPT_ADDRESS 0x000ffffffffff000ull
#define SPT_RIGHTS (SPT_W | SPT_U | SPT_NX)
#define SPT_TABLE (SPT_P | SPT_W | SPT_U | SPT_A) /* of a link that restricts nothing */

/* Roles. */
#define ACC_W 0x1u
#define ACC_U 0x2u
#define ACC_X 0x4u
#define ACC_ALL 0x7u
#define ROLE_LEVEL 0x3u
#define ROLE_MODE_SHIFT 2
#define ROLE_QUADRANT_SHIFT 5 /* which part of a table of 1,024 entries */
#define ROLE_DIRECT 0x80u
#define ROLE_ACCESS_SHIFT 8
#define ROLE_NXE 0x800u
#define ROLE_WP 0x1000u
#define ROLE_SMEP 0x2000u /* without WP only: it matters to entries of ours then */
#define ROLE_SMAP 0x4000u /* likewise */

struct shadow_page {
    gfn_t gfn; /* of the guest's table; direct: the first that it translates */
    uint32_t role;
    uint32_t roots;           /* vCPUs that have it as their top table */
    struct shadow_page *next; /* in its bucket, or free */
    struct list lru;
    struct list unsync; /* empty: in sync, or direct */
    uint64_t *table;
    uint64_t *seen;   /* the guest's entries, where ours are present; NULL: direct */
    uint64_t parents; /* chain of the slots that link it */
    uint16_t nr_present;
    bool changed; /* the guest changed what we had, since the last look */
    bool tracing; /* write-protected; traced once everybody has flushed */
    uint64_t present[ENTRIES / 64];
};

/* Of one 2 MiB block of guest memory. */
struct shadow_region {
    uint64_t *heads;  /* per gfn: chain of leaves, SHADOW_TRACED; NULL: never mapped */
    uint64_t large;   /* chain of leaves of 2 MiB */
    uint32_t traced;  /* traced gfns in it: no leaf of 2 MiB then */
    uint32_t watched; /* pieces of it that are being watched: likewise */
};
#define REGIONS_PER_FRAME (PAGE_SIZE / sizeof(struct shadow_region))

#define SHADOW_CHAIN 1ull  /* in a chain's head: a node, not a slot */
#define SHADOW_TRACED 2ull /* in a gfn's head */
#define SHADOW_FLAGS 7ull

/*
 * A removal looks through its chain, and a guest may map one page by as many entries as it likes: a chain of
 * so many full nodes is emptied before it grows (chain_make_room). What was in it comes back by faults.
 */
#define CHAIN_NODES_MAX 64u
#define NODE_SLOTS 3u
struct chain_node {
    uint64_t slot[NODE_SLOTS]; /* filled from the front */
    uint64_t next; /* the next node's address in bits 47:0, above them how many come behind */
};

/* Objects of one size in frames that stay until the view goes. */
struct shadow_pool {
    void *free;
    size_t size;
    mfn_t frames; /* chain through the frame records */
};

struct shadow {
    struct view view;
    struct spinlock lock;
    struct shadow_config cfg;
    uint64_t nr_regions;
    struct shadow_region **regions; /* by gfn / 512 / REGIONS_PER_FRAME */
    struct shadow_page **bucket;    /* by gfn: bucket_of */
    unsigned bucket_bits;
    uint64_t multiplier; /* odd, random: a guest cannot choose gfns of one bucket */
    uint64_t *pae;       /* SHADOW_MAX_CPUS times four entries, below 4 GiB */
    struct shadow_pool pages, nodes;
    struct list lru;    /* recently used first */
    struct list unsync; /* see above */
    unsigned nr_unsync;
    bool tidying; /* somebody has protected tables, and their translations are being flushed */
    uint64_t nr_pages;
    uint64_t frames; /* all that we have */
    uint64_t leaves[2];
    uint64_t fills;
    uint64_t
        steps; /* of removals so far: entries taken out, and nodes of chains looked at for them */
    uint64_t
        removed_epoch; /* translations were removed or weakened without a flush in this epoch */
};

static inline struct shadow *shadow_of(const struct view *v)
{
    return container_of(v, struct shadow, view);
}

static inline unsigned page_level(const struct shadow_page *sp)
{
    return sp->role & ROLE_LEVEL;
}

static inline bool page_direct(const struct shadow_page *sp)
{
    return (sp->role & ROLE_DIRECT) != 0;
}

static inline enum gwalk_mode page_mode(const struct shadow_page *sp)
{
    return (enum gwalk_mode)(sp->role >> ROLE_MODE_SHIFT & 7);
}

/* All pages of a guest table are in one bucket. */
static inline struct shadow_page **bucket_of(const struct shadow *s, gfn_t gfn)
{
    return &s->bucket[gfn.n * s->multiplier >> (64 - s->bucket_bits)];
}

static inline bool page_is_unsync(const struct shadow_page *sp)
{
    return !list_empty(&sp->unsync);
}

static inline uint64_t page_pa(const struct shadow_page *sp)
{
    return mfn_hpa(env_ptr_frame(sp->table)).a;
}

static inline bool entry_present(const struct shadow_page *sp, unsigned i)
{
    return (sp->present[i / 64] >> (i % 64) & 1) != 0;
}

static inline uint64_t slot_pa(const struct shadow_page *sp, unsigned i)
{
    return page_pa(sp) + i * sizeof(uint64_t);
}

/* The page whose table a frame is. */
static inline struct shadow_page *page_at(uint64_t pa)
{
    return (struct shadow_page *)(uintptr_t)frame_of(hpa_mfn(HPA(pa)))->gfn;
}

static inline unsigned slot_index(uint64_t slot)
{
    return (unsigned)(slot & ~PAGE_MASK) / (unsigned)sizeof(uint64_t);
}

/* A present entry of ours refers to a table. */
static inline bool entry_is_table(uint64_t entry, unsigned level)
{
    return level > 0 && !(entry & SPT_PS);
}

static inline uint64_t spt_load(const uint64_t *slot)
{
    return __atomic_load_n(slot, __ATOMIC_RELAXED);
}

static inline void spt_store(uint64_t *slot, uint64_t entry)
{
    __atomic_store_n(slot, entry, __ATOMIC_RELEASE);
}

/* Somebody may still use a translation that was just taken out of the tables, by a locked operation, which
 * is the fence that flush_has_passed wants. */
static inline void shadow_note_removed(struct shadow *s)
{
    s->removed_epoch = __atomic_load_n(&p2m_flush_domain(s->view.p2m)->epoch, __ATOMIC_SEQ_CST);
}

/* ---- pool.c: frames, objects, chains ---- */

/* A frame of the view's; HV_ENOMEM also beyond the limit. With `fast` HV_EAGAIN instead. */
enum hv_err shadow_frame(struct shadow *s, uint32_t flags, bool fast, void **out) __must_check;
void *shadow_object(struct shadow *s, struct shadow_pool *pool, bool fast) __must_check;
void shadow_object_free(struct shadow_pool *pool, void *object);
void shadow_pool_destroy(struct shadow *s, struct shadow_pool *pool);

/* Room for one more chain_add to this chain. HV_EAGAIN with `fast`, HV_ENOMEM. */
enum hv_err chain_make_room(struct shadow *s, const uint64_t *head, bool fast) __must_check;
void chain_add(struct shadow *s, uint64_t *head, uint64_t slot);
void chain_del(struct shadow *s, uint64_t *head, uint64_t slot);

static inline struct chain_node *node_next(const struct chain_node *node)
{
    /* Addresses are canonical. */
    return (struct chain_node *)(uintptr_t)((int64_t)(node->next << 16) >> 16);
}

struct chain_at {
    const struct chain_node *node;
    unsigned i;
    uint64_t single;
};
/* The slots of a chain, one by one; 0: no more. The current one may be removed only by who starts again. */
static inline uint64_t chain_next(struct chain_at *at)
{
    uint64_t slot = at->single;

    at->single = 0;
    while (slot == 0 && at->node != NULL) {
        if (at->i < NODE_SLOTS && at->node->slot[at->i] != 0) {
            slot = at->node->slot[at->i++];
        } else {
            at->node = node_next(at->node);
            at->i = 0;
        }
    }
    return slot;
}
static inline uint64_t chain_first(uint64_t head, struct chain_at *at)
{
    bool many = (head & SHADOW_CHAIN) != 0;

    *at = (struct chain_at){
        .node = many ? (const struct chain_node *)(uintptr_t)(head & ~SHADOW_FLAGS) : NULL,
        .single = many ? 0 : head & ~SHADOW_FLAGS};
    return chain_next(at);
}

/* The region of gfn, NULL: none yet; and made when absent. */
struct shadow_region *region_look(const struct shadow *s, gfn_t gfn);
enum hv_err region_get(struct shadow *s, gfn_t gfn, bool heads, bool fast,
                       struct shadow_region **out) __must_check;
static inline uint64_t *region_head(const struct shadow_region *r, gfn_t gfn)
{
    return &r->heads[gfn.n % REGION_PAGES];
}

/* ---- page.c: shadow pages and their entries ---- */

/* The gfn behind a present leaf. */
gfn_t entry_gfn(const struct shadow_page *sp, unsigned i);
/* Take out a present entry; chains and counters follow. The caller sees to flushes. */
void entry_clear(struct shadow *s, struct shadow_page *sp, unsigned i);
/* Take out all entries of a chain. */
void entry_clear_chain(struct shadow *s, const uint64_t *head);
static inline void entry_mark(struct shadow_page *sp, unsigned i)
{
    sp->present[i / 64] |= BIT(i % 64);
    sp->nr_present++;
}

/* In its bucket; NULL: there is none. */
struct shadow_page *page_find(const struct shadow *s, gfn_t gfn, uint32_t role);
/* Find or make. What is found and not in sync is compared first. HV_EAGAIN, HV_ENOMEM: no frames. */
enum hv_err page_get(struct shadow *s, gfn_t gfn, uint32_t role, bool fast,
                     struct shadow_page **out) __must_check;
/* Take a page that is nobody's top table out of everything, and free it with the batch. */
void page_zap(struct shadow *s, struct shadow_page *sp, struct flush_batch *b);
/* Zap some of the pages that were not used for longest. False: all are in use. */
bool page_evict(struct shadow *s, struct flush_batch *b);
void page_touch(struct shadow *s, struct shadow_page *sp);

/* ---- sync.c: keeping up with the guest's tables ---- */

/* How long comparing may go on, by s->steps. */
#define SYNC_FAST 1024u
static inline uint64_t sync_until(const struct shadow *s, bool fast)
{
    return fast ? s->steps + SYNC_FAST : UINT64_MAX;
}
/* Compare a page's entries with the guest's, and take out those that differ. False: that would take longer
 * than `until`. */
bool sync_page(struct shadow *s, struct shadow_page *sp, uint64_t until) __must_check;
/* All pages that are not in sync, of `level` and above. False: with `fast`, the rest is not for the fast
 * path. */
bool sync_all(struct shadow *s, unsigned level, bool fast) __must_check;
/* The same of one entry, present or not. */
void sync_entry(struct shadow *s, struct shadow_page *sp, unsigned i);
/* Is gfn a traced table? */
bool sync_is_traced(const struct shadow *s, gfn_t gfn);
/* A page is new, in its bucket: what may write to its table now goes on writing. */
void sync_adopt(struct shadow *s, struct shadow_page *sp);
/* Its guest may write to it from now on. */
void sync_untrace(struct shadow *s, gfn_t gfn);
/* Trace what was just compared, at `level` and above, and found unchanged; the caller has everybody drop
 * his translations before he enters. */
void sync_trace_clean(struct shadow *s, unsigned level);

/* ---- audit.c ---- */

bool shadow_audit(struct view *v);

/* ---- fill.c ---- */

/* Enter the translation that the walk `res` found, to what `e` describes. HV_EPERM: cannot be entered.
 * HV_EAGAIN, HV_ENOMEM: no frames. */
enum hv_err shadow_enter(struct shadow *s, struct shadow_cpu *cpu, const struct shadow_fault *f,
                         const struct gwalk_result *res, const struct p2m_entry *e,
                         bool fast) __must_check;
/* Replace the leaves of 2 MiB on the region by direct pages of equal small ones. */
enum hv_err shadow_spread(struct shadow *s, gfn_t gfn, const struct p2m_entry *e) __must_check;
