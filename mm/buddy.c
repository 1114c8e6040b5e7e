/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine-frame allocator.
 *
 * Free blocks of 2^order aligned frames hang in doubly linked lists threaded through their frame
 * records, one set of lists below 4 GiB and one above. A freed block merges with its buddy as long
 * as that is free and whole.
 *
 * Single frames come from a cache per processor, a chain through the frame records. A cache has a
 * lock of its own, which other processors take only to drain or to count: on the guest fast path it
 * is tried once and found free. Cached frames count as free.
 *
 * Locks: a cache's lock protects the cache and the counters in it; buddy_state.lock (RANK_ALLOC)
 * protects the lists and the other counters. A cache's lock is taken before buddy_state.lock,
 * and several caches only by buddy_lock_all(), in order of processors.
 */
#include "mm/buddy.h"

#include "mm/buddy_internal.h"
#include "mm/env.h"
#include "mm/frame.h"

#define CACHE_REFILL_ORDER 4u
#define CACHE_REFILL (1u << CACHE_REFILL_ORDER)
#define CACHE_HIGH 64u
#define ASIDE_PIECES BIT(ORDER_1G - ORDER_2M)

struct buddy_state buddy_state = {.lock = SPINLOCK_INIT(RANK_ALLOC, "buddy")};
struct buddy_cache buddy_caches[BUDDY_MAX_CPUS];

/* ---- Lists (buddy_state.lock held) ---- */

static struct buddy_zone *zone_of(mfn_t mfn)
{
    return &buddy_state.zone[mfn.n < LOW_FRAMES ? ZONE_LOW : ZONE_HIGH];
}

/* Frames came to the lists, or left them. */
static void count_free(int64_t nr)
{
    __atomic_store_n(&buddy_state.nr_free, buddy_state.nr_free + (uint64_t)nr, __ATOMIC_RELAXED);
}

static void chain_push(uint32_t *head, mfn_t mfn)
{
    struct frame *f = frame_of(mfn);

    f->next = *head;
    f->prev = FRAME_LINK_NONE;
    if (*head != FRAME_LINK_NONE) {
        frame_table[*head].prev = (uint32_t)mfn.n;
    }
    *head = (uint32_t)mfn.n;
}

static void chain_remove(uint32_t *head, mfn_t mfn)
{
    const struct frame *f = frame_of(mfn);

    if (f->prev == FRAME_LINK_NONE) {
        *head = f->next;
    } else {
        frame_table[f->prev].next = f->next;
    }
    if (f->next != FRAME_LINK_NONE) {
        frame_table[f->next].prev = f->prev;
    }
}

static void list_insert(mfn_t mfn, unsigned order)
{
    struct buddy_zone *z = zone_of(mfn);

    frame_set(mfn, FRAME_FREE, order, OWNER_HOST);
    chain_push(&z->head[order], mfn);
    z->nr[order]++;
    count_free((int64_t)BIT(order));
    z->avail |= 1u << order;
}

static void list_remove(mfn_t mfn, unsigned order)
{
    struct buddy_zone *z = zone_of(mfn);

    chain_remove(&z->head[order], mfn);
    z->nr[order]--;
    count_free(-(int64_t)BIT(order));
    if (z->nr[order] == 0) {
        z->avail &= ~(1u << order);
    }
}

static bool is_aside(const struct frame *f)
{
    return f->use == FRAME_FREE && f->order == (BUDDY_ASIDE_ORDER | FRAME_ASIDE);
}

/* Take a piece out of the set-aside list; its record no longer says so. */
static void aside_remove(mfn_t mfn)
{
    struct buddy_zone *z = zone_of(mfn);

    chain_remove(&z->aside, mfn);
    z->aside_nr--;
    count_free(-(int64_t)BIT(BUDDY_ASIDE_ORDER));
    frame_set(mfn, FRAME_FREE, BUDDY_ASIDE_ORDER, OWNER_HOST);
}

void buddy_block_free(mfn_t mfn, unsigned order)
{
    while (order < BUDDY_MAX_ORDER) {
        mfn_t other = MFN(mfn.n ^ BIT(order));

        if (other.n >= frame_nr) {
            break;
        }
        /* The buddy of a block is the head of a block that is no larger: its record is good. It may be
         * in another processor's cache and on its way out: use and order are looked at together. */
        struct frame f = frame_look(other);

        if (f.use != FRAME_FREE || f.order != order) {
            break;
        }
        list_remove(other, order);
        mfn = MFN(mfn.n & other.n);
        order++;
    }
    list_insert(mfn, order);
}

/* Cut [mfn, +2^order) out of the unlisted free block at head; the rest goes to the lists. */
static void block_cut(mfn_t head, unsigned have, mfn_t mfn, unsigned order)
{
    while (have > order) {
        mfn_t upper = mfn_add(head, BIT(--have));

        if (mfn.n >= upper.n) {
            list_insert(head, have);
            head = upper;
        } else {
            list_insert(upper, have);
        }
    }
}

static bool zone_take(struct buddy_zone *z, unsigned order, mfn_t *out)
{
    uint32_t fit = z->avail & ~((1u << order) - 1);
    unsigned have;
    mfn_t mfn;

    if (fit != 0) {
        have = (unsigned)__builtin_ctz(fit);
        mfn = MFN(z->head[have]);
        list_remove(mfn, have);
    } else if (z->aside_nr != 0 && order <= BUDDY_ASIDE_ORDER) {
        have = BUDDY_ASIDE_ORDER;
        mfn = MFN(z->aside);
        aside_remove(mfn);
    } else {
        return false;
    }
    block_cut(mfn, have, mfn, order);
    *out = mfn;
    return true;
}

static bool block_take(unsigned order, uint32_t flags, mfn_t *out)
{
    return (!(flags & BUDDY_LOW) && zone_take(&buddy_state.zone[ZONE_HIGH], order, out)) ||
           zone_take(&buddy_state.zone[ZONE_LOW], order, out);
}

/* Everything set aside goes back, in the hope of larger blocks. */
static void aside_release_all(void)
{
    for (unsigned i = 0; i < NR_ZONES; i++) {
        while (buddy_state.zone[i].aside_nr != 0) {
            mfn_t mfn = MFN(buddy_state.zone[i].aside);

            aside_remove(mfn);
            buddy_block_free(mfn, BUDDY_ASIDE_ORDER);
        }
    }
}

/* ---- Caches ---- */

static bool cache_tryenter(struct buddy_cache *c)
{
    return !__atomic_exchange_n(&c->busy, true, __ATOMIC_ACQUIRE);
}

static void cache_enter(struct buddy_cache *c)
{
    while (!cache_tryenter(c)) {
        __builtin_ia32_pause();
    }
}

static void cache_leave(struct buddy_cache *c)
{
    __atomic_store_n(&c->busy, false, __ATOMIC_RELEASE);
}

static void cache_push(struct buddy_cache *c, mfn_t mfn)
{
    frame_set(mfn, FRAME_FREE, FRAME_CACHED, OWNER_HOST);
    frame_of(mfn)->next = c->head;
    c->head = (uint32_t)mfn.n;
    c->nr++;
}

static mfn_t cache_pop(struct buddy_cache *c)
{
    mfn_t mfn = MFN(c->head);

    c->head = frame_of(mfn)->next;
    c->nr--;
    return mfn;
}

/* The smallest free block, for single frames; larger ones are cut to a full cache. */
static unsigned refill_order(void)
{
    uint32_t high = buddy_state.zone[ZONE_HIGH].avail;
    uint32_t avail = high != 0 ? high : buddy_state.zone[ZONE_LOW].avail;

    return avail != 0 ? MIN((unsigned)__builtin_ctz(avail), CACHE_REFILL_ORDER) : 0;
}

/* Fill an empty cache from the lists; it may stay empty. False: the lock was contended. */
static bool cache_refill(struct buddy_cache *c, uint32_t flags)
{
    mfn_t mfn;

    if (!(flags & BUDDY_FAST)) {
        spin_lock(&buddy_state.lock);
    } else if (!spin_trylock(&buddy_state.lock)) {
        return false;
    }
    /* Near the end frames are given one by one, to who may have them. */
    while (c->nr < CACHE_REFILL && buddy_state.nr_free > buddy_state.reserve) {
        unsigned order = refill_order();

        if (!block_take(order, 0, &mfn)) {
            break;
        }
        for (uint64_t i = BIT(order); i-- > 0;) {
            cache_push(c, mfn_add(mfn, i));
        }
    }
    spin_unlock(&buddy_state.lock);
    return true;
}

/* Return frames to the lists until `keep` are left. Cache and allocator locked. */
static void cache_spill(struct buddy_cache *c, uint32_t keep)
{
    while (c->nr > keep) {
        buddy_block_free(cache_pop(c), 0);
    }
}

static void drain_caches(void)
{
    for (unsigned i = 0; i < env_nr_cpus(); i++) {
        cache_enter(&buddy_caches[i]);
        spin_lock(&buddy_state.lock);
        cache_spill(&buddy_caches[i], 0);
        spin_unlock(&buddy_state.lock);
        cache_leave(&buddy_caches[i]);
    }
}

void buddy_drain_locked(unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        cache_spill(&buddy_caches[i], 0);
    }
}

unsigned buddy_lock_all(void)
{
    unsigned nr = env_nr_cpus();

    for (unsigned i = 0; i < nr; i++) {
        cache_enter(&buddy_caches[i]);
    }
    spin_lock(&buddy_state.lock);
    return nr;
}

void buddy_unlock_all(unsigned nr)
{
    spin_unlock(&buddy_state.lock);
    for (unsigned i = 0; i < nr; i++) {
        cache_leave(&buddy_caches[i]);
    }
}

/* ---- Allocation ---- */

/* Take a block, if it is for one who may use the reserve or leaves that alone. */
static bool block_grant(unsigned order, enum frame_use use, uint32_t flags, mfn_t *out)
{
    bool optional = use == FRAME_GUEST || use == FRAME_SHARED || use == FRAME_VM;
    bool reserved = optional && !(flags & BUDDY_RESERVE);

    return (!reserved || buddy_state.nr_free >= BIT(order) + buddy_state.reserve) &&
           block_take(order, flags, out);
}

static enum hv_err alloc_block(unsigned order, enum frame_use use, uint32_t owner, uint32_t flags,
                               mfn_t *out)
{
    bool ok;

    spin_lock(&buddy_state.lock);
    ok = block_grant(order, use, flags, out);
    if (!ok) {
        spin_unlock(&buddy_state.lock);
        drain_caches();
        spin_lock(&buddy_state.lock);
        ok = block_grant(order, use, flags, out);
        if (!ok && order > BUDDY_ASIDE_ORDER) {
            aside_release_all();
            ok = block_grant(order, use, flags, out);
        }
    }
    if (ok) {
        frame_set(*out, use, order, owner);
        frame_of(*out)->gfn = FRAME_GFN_NONE;
        buddy_state.used[use] += (int64_t)BIT(order);
    }
    spin_unlock(&buddy_state.lock);
    return ok ? HV_OK : HV_ENOMEM;
}

static enum hv_err alloc_single(enum frame_use use, uint32_t owner, uint32_t flags, mfn_t *out)
{
    struct buddy_cache *c = &buddy_caches[env_cpu()];
    mfn_t mfn;

    if (unlikely(!cache_tryenter(c))) {
        if (flags & BUDDY_FAST) {
            return HV_EAGAIN;
        }
        cache_enter(c);
    }
    if (unlikely(c->nr == 0) && (!cache_refill(c, flags) || c->nr == 0)) {
        cache_leave(c);
        return (flags & BUDDY_FAST) ? HV_EAGAIN : alloc_block(0, use, owner, flags, out);
    }
    mfn = cache_pop(c);
    frame_set(mfn, use, 0, owner);
    frame_of(mfn)->gfn = FRAME_GFN_NONE;
    c->used[use]++;
    cache_leave(c);
    *out = mfn;
    return HV_OK;
}

enum hv_err buddy_alloc(unsigned order, enum frame_use use, uint32_t owner, uint32_t flags,
                        mfn_t *out)
{
    enum hv_err err;

    if (likely(order == 0 && !(flags & BUDDY_LOW))) {
        err = alloc_single(use, owner, flags, out);
    } else if (order > BUDDY_MAX_ORDER) {
        return HV_ERANGE;
    } else if (flags & BUDDY_FAST) {
        return HV_EAGAIN;
    } else {
        err = alloc_block(order, use, owner, flags, out);
    }
    if (err == HV_OK && (flags & BUDDY_ZERO)) {
        for (uint64_t i = 0; i < BIT(order); i++) {
            env_clear_page(env_frame_ptr(mfn_add(*out, i)));
        }
    }
    return err;
}

enum hv_err buddy_take_at(mfn_t mfn, unsigned order, enum frame_use use, uint32_t owner)
{
    mfn_t head = frame_head(mfn);
    const struct frame f = frame_look(head);
    unsigned have = frame_order(&f);

    if (f.use != FRAME_FREE || (f.order & FRAME_CACHED) != 0 || have < order) {
        return HV_EBUSY;
    }
    if (is_aside(&f)) {
        aside_remove(head);
    } else {
        list_remove(head, have);
    }
    block_cut(head, have, mfn, order);
    frame_set(mfn, use, order, owner);
    frame_of(mfn)->gfn = FRAME_GFN_NONE;
    buddy_state.used[use] += (int64_t)BIT(order);
    return HV_OK;
}

enum hv_err buddy_alloc_at(mfn_t mfn, unsigned order, enum frame_use use, uint32_t owner)
{
    if (!IS_ALIGNED(mfn.n, BIT(order)) || mfn.n >= frame_nr) {
        return HV_EBUSY;
    }
    spin_lock(&buddy_state.lock);
    enum hv_err err = buddy_take_at(mfn, order, use, owner);
    spin_unlock(&buddy_state.lock);
    return err;
}

/* One frame of `use` goes back to this processor's cache, unless it is to be retired. */
static void free_single(mfn_t mfn, enum frame_use use)
{
    struct buddy_cache *c = &buddy_caches[env_cpu()];

    cache_enter(c);
    c->used[use]--;
    if (unlikely(buddy_any_bad()) && buddy_retire_freed(mfn)) {
        cache_leave(c);
        return;
    }
    cache_push(c, mfn);
    if (unlikely(c->nr > CACHE_HIGH)) {
        spin_lock(&buddy_state.lock);
        cache_spill(c, CACHE_HIGH / 2);
        spin_unlock(&buddy_state.lock);
    }
    cache_leave(c);
}

void buddy_free(mfn_t mfn, unsigned order)
{
    frame_carve(mfn, order);
    buddy_free_block(mfn, order);
}

void buddy_free_block(mfn_t mfn, unsigned order)
{
    enum frame_use use = (enum frame_use)frame_of(mfn)->use;

    if (use == FRAME_FREE || use == FRAME_RESERVED || frame_of(mfn)->order != order) {
        env_panic("buddy: frame %#llx is no block in use of order %u", (unsigned long long)mfn.n,
                  order);
    }
    if (order == 0) {
        free_single(mfn, use);
        return;
    }
    spin_lock(&buddy_state.lock);
    buddy_state.used[use] -= (int64_t)BIT(order);
    if (unlikely(buddy_any_bad())) {
        buddy_free_around_bad(mfn, order);
    } else {
        buddy_block_free(mfn, order);
    }
    spin_unlock(&buddy_state.lock);
}

void buddy_retype(mfn_t mfn, enum frame_use use, uint32_t owner)
{
    struct buddy_cache *c = &buddy_caches[env_cpu()];

    cache_enter(c);
    c->used[frame_of(mfn)->use]--;
    c->used[use]++;
    frame_set(mfn, use, 0, owner);
    cache_leave(c);
}

enum hv_err buddy_set_aside(mfn_t *base)
{
    enum hv_err err = HV_ENOMEM;

    spin_lock(&buddy_state.lock);
    for (unsigned i = NR_ZONES; i-- > 0 && err != HV_OK;) {
        struct buddy_zone *z = &buddy_state.zone[i];

        if (z->nr[ORDER_1G] == 0) {
            continue;
        }
        *base = MFN(z->head[ORDER_1G]);
        list_remove(*base, ORDER_1G);
        /* Downwards: the pieces' records are complete before the head's shrinks. */
        for (uint64_t piece = ASIDE_PIECES; piece-- > 0;) {
            mfn_t mfn = mfn_add(*base, piece << BUDDY_ASIDE_ORDER);

            frame_set(mfn, FRAME_FREE, BUDDY_ASIDE_ORDER | FRAME_ASIDE, OWNER_HOST);
            chain_push(&z->aside, mfn);
            z->aside_nr++;
        }
        count_free((int64_t)BIT(ORDER_1G));
        err = HV_OK;
    }
    spin_unlock(&buddy_state.lock);
    return err;
}

void buddy_end_aside(mfn_t base)
{
    spin_lock(&buddy_state.lock);
    for (uint64_t piece = 0; piece < ASIDE_PIECES; piece++) {
        mfn_t mfn = mfn_add(base, piece << BUDDY_ASIDE_ORDER);

        if (is_aside(frame_of(mfn))) {
            aside_remove(mfn);
            buddy_block_free(mfn, BUDDY_ASIDE_ORDER);
        }
    }
    spin_unlock(&buddy_state.lock);
}

void buddy_set_reserve(uint64_t nr)
{
    spin_lock(&buddy_state.lock);
    buddy_state.reserve = nr;
    spin_unlock(&buddy_state.lock);
}

uint64_t buddy_free_frames(void)
{
    return __atomic_load_n(&buddy_state.nr_free, __ATOMIC_RELAXED);
}

uint64_t buddy_available_frames(void)
{
    uint64_t nr = buddy_free_frames();
    uint64_t reserve = __atomic_load_n(&buddy_state.reserve, __ATOMIC_RELAXED);

    return nr > reserve ? nr - reserve : 0;
}

uint64_t buddy_total_frames(void)
{
    return buddy_state.total;
}
