/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of slots; see slots.h. A bitmap says which are taken or bad; the search goes on where the
 * last one ended.
 */
#include "mm/reclaim/slots.h"

#include "kernel/lib/spinlock.h"
#include "mm/buddy.h"
#include "mm/env.h"

#define GFN_MASK (BIT(36) - 1)
#define OWNER_SHIFT 36
#define GEN_SHIFT 52
#define GEN_ONE BIT(GEN_SHIFT)
#define BAD GFN_MASK /* gfn of a slot that is retired and so has no owner */
#define WORD_BITS 64u

struct slot {
    uint64_t sum;
    uint64_t tag; /* gfn 36 | owner 16 | generation 12 */
};

static struct spinlock lock = SPINLOCK_INIT(RANK_SWAP, "slots");
/* Constant once set up. */
static struct slot *slots;
static uint64_t *taken; /* bit map; lock */
static uint64_t nr_slots;
static mfn_t table;
static uint64_t table_frames;
static uint64_t nr_used, nr_bad, cursor; /* lock */

static uint64_t nr_words(uint64_t nr)
{
    return ALIGN_UP(nr, WORD_BITS) / WORD_BITS;
}

uint64_t slots_frames(uint64_t nr)
{
    return ALIGN_UP(nr * sizeof(struct slot) + nr_words(nr) * sizeof(uint64_t), PAGE_SIZE) /
           PAGE_SIZE;
}

/* Give frames [first, end) of the table's block back. */
static void free_frames(mfn_t base, uint64_t first, uint64_t end)
{
    while (first < end) {
        unsigned order = 0;

        while (IS_ALIGNED(first, BIT(order + 1)) && first + BIT(order + 1) <= end) {
            order++;
        }
        buddy_free(mfn_add(base, first), order);
        first += BIT(order);
    }
}

enum hv_err slots_init(uint64_t nr)
{
    uint64_t frames = slots_frames(nr);
    unsigned order = 0;
    enum hv_err err;

    while (BIT(order) < frames) {
        order++;
    }
    if (nr == 0 || nr > SLOTS_MAX || order > BUDDY_MAX_ORDER) {
        return HV_ENOMEM;
    }
    err = env_may_allocate("slots.table") ? buddy_alloc(order, FRAME_HOST, OWNER_HOST, 0, &table)
                                          : HV_ENOMEM;
    if (err != HV_OK) {
        return err;
    }
    free_frames(table, frames, BIT(order));
    for (uint64_t i = 0; i < frames; i++) {
        env_clear_page(env_frame_ptr(mfn_add(table, i)));
    }
    table_frames = frames;
    slots = env_frame_ptr(table);
    taken = (uint64_t *)(slots + nr);
    nr_slots = nr;
    nr_used = nr_bad = cursor = 0;
    /* What the last word has beyond the end is taken. */
    if (nr % WORD_BITS != 0) {
        taken[nr / WORD_BITS] = ~(BIT(nr % WORD_BITS) - 1);
    }
    return HV_OK;
}

void slots_fini(void)
{
    free_frames(table, 0, nr_slots != 0 ? table_frames : 0);
    nr_slots = 0;
}

/* ---- One slot ---- */

/* Tied to the slot and its generation; never the bare hash. */
static uint64_t sum_of(uint64_t slot, uint64_t hash)
{
    uint64_t mixed = hash ^ slots_tweak(slot) * 0x9e3779b97f4a7c15ULL;

    return mixed ^ mixed >> 29;
}

uint64_t slots_tweak(uint64_t slot)
{
    return slot | (slots[slot].tag >> GEN_SHIFT) << OWNER_SHIFT;
}

void slots_fill(uint64_t slot, gfn_t gfn, uint64_t hash)
{
    spin_lock(&lock);
    slots[slot].tag = (slots[slot].tag & ~GFN_MASK) | gfn.n;
    slots[slot].sum = sum_of(slot, hash);
    spin_unlock(&lock);
}

bool slots_check(uint64_t slot, uint64_t hash)
{
    return slots[slot].sum == sum_of(slot, hash);
}

bool slots_holds(uint64_t slot, uint32_t owner, gfn_t gfn)
{
    bool holds = false;

    if (slot < nr_slots) {
        spin_lock(&lock);
        holds = (slots[slot].tag & (GEN_ONE - 1)) == ((uint64_t)owner << OWNER_SHIFT | gfn.n);
        spin_unlock(&lock);
    }
    return holds;
}

/* ---- Taking and freeing ---- */

static bool is_taken(uint64_t slot)
{
    return (taken[slot / WORD_BITS] >> (slot % WORD_BITS) & 1) != 0;
}

/* The first free slot in [from, to); locked. */
static uint64_t find_free(uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t bits = ~taken[from / WORD_BITS] >> (from % WORD_BITS);

        if (bits != 0) {
            from += (uint64_t)__builtin_ctzll(bits);
            return from < to ? from : SLOT_NONE;
        }
        from = ALIGN_DOWN(from, WORD_BITS) + WORD_BITS;
    }
    return SLOT_NONE;
}

uint64_t slots_take(uint32_t owner, unsigned most, unsigned *nr)
{
    uint64_t first;

    *nr = 0;
    spin_lock(&lock);
    first = find_free(cursor, nr_slots);
    if (first == SLOT_NONE) {
        first = find_free(0, cursor);
    }
    for (uint64_t at = first; *nr < most && at < nr_slots && !is_taken(at); at++) {
        taken[at / WORD_BITS] |= BIT(at % WORD_BITS);
        slots[at].tag = ((slots[at].tag & ~(GEN_ONE - 1)) + GEN_ONE) | (uint64_t)owner
                                                                           << OWNER_SHIFT;
        nr_used++;
        ++*nr;
        cursor = at + 1;
    }
    spin_unlock(&lock);
    return first;
}

void slots_free(uint64_t slot)
{
    spin_lock(&lock);
    taken[slot / WORD_BITS] &= ~BIT(slot % WORD_BITS);
    slots[slot].tag &= ~(GEN_ONE - 1);
    nr_used--;
    spin_unlock(&lock);
}

void slots_retire(uint64_t slot)
{
    spin_lock(&lock);
    slots[slot].tag = BAD;
    nr_used--;
    nr_bad++;
    spin_unlock(&lock);
}

/* ---- Numbers ---- */

void slots_stats(struct slots_stats *out)
{
    spin_lock(&lock);
    *out = (struct slots_stats){nr_slots, nr_used, nr_bad};
    spin_unlock(&lock);
}

uint64_t slots_owned(uint32_t owner)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < nr_slots; i++) {
        uint64_t tag = __atomic_load_n(&slots[i].tag, __ATOMIC_RELAXED);

        sum += (tag >> OWNER_SHIFT & OWNER_MAX) == owner;
    }
    return sum;
}

bool slots_audit(void)
{
    uint64_t used = 0, bad = 0;
    bool ok;

    spin_lock(&lock);
    for (uint64_t i = 0; i < nr_slots; i++) {
        bool owned = (slots[i].tag >> OWNER_SHIFT & OWNER_MAX) != OWNER_HOST;
        bool retired = (slots[i].tag & (GEN_ONE - 1)) == BAD;

        used += owned;
        bad += retired;
        if (is_taken(i) != (owned || retired)) {
            used = UINT64_MAX / 2;
        }
    }
    ok = used == nr_used && bad == nr_bad;
    spin_unlock(&lock);
    if (!ok) {
        env_log("audit: slots: %llu used, %llu bad; counters say %llu, %llu",
                (unsigned long long)used, (unsigned long long)bad, (unsigned long long)nr_used,
                (unsigned long long)nr_bad);
    }
    return ok;
}
