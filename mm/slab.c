/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Small objects. Sizes are rounded up to a power of two from 16 to 2,048 bytes; a slab is one frame
 * of objects of one size and one owner, its bookkeeping lives in the frame's record, and its free
 * objects form a list through their first two bytes. An empty slab goes back at once. Larger sizes
 * are blocks of whole frames.
 *
 * Slabs hang in chains by (kind, owner modulo buckets): a chain per size class with free objects,
 * one of full slabs, one of large blocks. The frames carry the owner, so that the audit of a VM that
 * is gone finds what was forgotten. Callers: everybody, off the guest fast path.
 */
#include "mm/slab.h"

#include "kernel/lib/spinlock.h"
#include "kernel/lib/string.h"
#include "mm/env.h"
#include "mm/frame.h"

#define MIN_SHIFT 4u
#define NR_CLASSES 8u /* 16 .. 2,048 bytes */
#define CHAIN_FULL NR_CLASSES
#define CHAIN_LARGE (NR_CLASSES + 1)
#define NR_CHAINS (NR_CLASSES + 2)
#define NR_BUCKETS 64u
#define NO_OBJECT 0xffffu

/* The record's refs: chain (class or large) in bits 0-3, objects in use in 4-15, first free object
 * in 16-31. */
#define REFS_CLASS 0xfu
#define REFS_USED_ONE 0x10u
#define REFS_USED 0xfff0u
#define REFS_FREE_SHIFT 16

static struct spinlock slab_lock = SPINLOCK_INIT(RANK_SLAB, "slab");
/* Heads of the chains, frame number plus one, zero for none. */
static uint32_t slab_chain[NR_BUCKETS][NR_CHAINS];

static uint32_t *chain_of(uint32_t owner, unsigned kind)
{
    return &slab_chain[owner % NR_BUCKETS][kind];
}

static void chain_add(uint32_t *head, struct frame *f)
{
    f->next = *head;
    f->prev = 0;
    if (*head != 0) {
        frame_table[*head - 1].prev = (uint32_t)frame_mfn(f).n + 1;
    }
    *head = (uint32_t)frame_mfn(f).n + 1;
}

static void chain_del(uint32_t *head, struct frame *f)
{
    if (f->prev == 0) {
        *head = f->next;
    } else {
        frame_table[f->prev - 1].next = f->next;
    }
    if (f->next != 0) {
        frame_table[f->next - 1].prev = f->prev;
    }
}

static enum frame_use owner_use(uint32_t owner)
{
    return owner == OWNER_HOST ? FRAME_HOST : FRAME_VM;
}

static unsigned size_class(size_t size)
{
    unsigned class = 0;

    while ((size_t)1 << (MIN_SHIFT + class) < size) {
        class ++;
    }
    return class;
}

static unsigned objects_per_slab(unsigned class)
{
    return (unsigned)(PAGE_SIZE >> (MIN_SHIFT + class));
}

/* The link word of object `index` in a slab. */
static uint16_t *object_link(const struct frame *f, unsigned index)
{
    char *base = env_frame_ptr(frame_mfn(f));

    return (uint16_t *)(void *)(base + ((size_t)index << (MIN_SHIFT + (f->refs & REFS_CLASS))));
}

/* Thread a fresh frame's objects together. */
static void slab_format(struct frame *f, unsigned class)
{
    unsigned nr = objects_per_slab(class);

    f->refs = class;
    for (unsigned i = 0; i < nr; i++) {
        *object_link(f, i) = (uint16_t)(i + 1 == nr ? NO_OBJECT : i + 1);
    }
}

/* A slab of the owner with a free object, or NULL. Locked. */
static struct frame *slab_find(uint32_t owner, unsigned class)
{
    for (uint32_t at = *chain_of(owner, class); at != 0; at = frame_table[at - 1].next) {
        if (frame_table[at - 1].owner == owner) {
            return &frame_table[at - 1];
        }
    }
    return NULL;
}

static void *object_take(struct frame *f)
{
    unsigned class = f->refs & REFS_CLASS;
    unsigned index = f->refs >> REFS_FREE_SHIFT;
    uint16_t *object = object_link(f, index);

    f->refs = (f->refs & 0xffffu) + REFS_USED_ONE;
    f->refs |= (uint32_t)*object << REFS_FREE_SHIFT;
    if (*object == NO_OBJECT) {
        chain_del(chain_of(f->owner, class), f);
        chain_add(chain_of(f->owner, CHAIN_FULL), f);
    }
    return object;
}

static void *alloc_small(unsigned class, uint32_t owner)
{
    struct frame *f;
    mfn_t fresh = MFN_NONE;
    void *object;

    spin_lock(&slab_lock);
    f = slab_find(owner, class);
    if (f == NULL) {
        /* The allocator's lock ranks below ours. */
        spin_unlock(&slab_lock);
        if (buddy_alloc(0, owner_use(owner), owner, 0, &fresh) != HV_OK) {
            return NULL;
        }
        f = frame_of(fresh);
        slab_format(f, class);
        spin_lock(&slab_lock);
        chain_add(chain_of(owner, class), f);
    }
    object = object_take(f);
    spin_unlock(&slab_lock);
    return memset(object, 0, (size_t)1 << (MIN_SHIFT + class));
}

static void *alloc_large(size_t size, uint32_t owner)
{
    unsigned order = 0;
    mfn_t mfn;

    while (PAGE_SIZE << order < size) {
        order++;
    }
    if (buddy_alloc(order, owner_use(owner), owner, BUDDY_ZERO, &mfn) != HV_OK) {
        return NULL;
    }
    spin_lock(&slab_lock);
    frame_of(mfn)->refs = CHAIN_LARGE;
    chain_add(chain_of(owner, CHAIN_LARGE), frame_of(mfn));
    spin_unlock(&slab_lock);
    return env_frame_ptr(mfn);
}

void *kmalloc(size_t size, uint32_t owner)
{
    if (!env_may_allocate("slab.object") || size > PAGE_SIZE << BUDDY_MAX_ORDER) {
        return NULL;
    }
    if (size > PAGE_SIZE / 2) {
        return alloc_large(size, owner);
    }
    return alloc_small(size_class(size), owner);
}

/* Return an object; true if its slab became empty and was taken out of its chain. */
static bool object_give(struct frame *f, const void *ptr)
{
    unsigned class = f->refs & REFS_CLASS;
    unsigned offset = (unsigned)((uintptr_t)ptr & (PAGE_SIZE - 1));
    unsigned index = offset >> (MIN_SHIFT + class);
    unsigned first_free = f->refs >> REFS_FREE_SHIFT;

    if (offset != index << (MIN_SHIFT + class) || (f->refs & REFS_USED) == 0) {
        env_panic("slab: kfree of %p, which is no object", ptr);
    }
    if (first_free == NO_OBJECT) {
        chain_del(chain_of(f->owner, CHAIN_FULL), f);
        chain_add(chain_of(f->owner, class), f);
    }
    *object_link(f, index) = (uint16_t)first_free;
    f->refs = ((f->refs & 0xffffu) - REFS_USED_ONE) | ((uint32_t)index << REFS_FREE_SHIFT);
    if ((f->refs & REFS_USED) != 0) {
        return false;
    }
    chain_del(chain_of(f->owner, class), f);
    return true;
}

void kfree(void *ptr)
{
    struct frame *f;
    unsigned order;
    bool gone = true;

    if (ptr == NULL) {
        return;
    }
    f = frame_of(env_ptr_frame(ptr));
    spin_lock(&slab_lock);
    if ((f->use != FRAME_HOST && f->use != FRAME_VM) || (f->refs & REFS_CLASS) > CHAIN_LARGE) {
        env_panic("slab: kfree of %p, whose frame has use %u", ptr, f->use);
    }
    order = frame_order(f);
    if ((f->refs & REFS_CLASS) == CHAIN_LARGE) {
        chain_del(chain_of(f->owner, CHAIN_LARGE), f);
    } else {
        gone = object_give(f, ptr);
    }
    if (gone) {
        f->refs = 0;
    }
    spin_unlock(&slab_lock);
    if (gone) {
        buddy_free(frame_mfn(f), order);
    }
}

uint64_t kmalloc_bytes(uint32_t owner)
{
    uint64_t bytes = 0;

    spin_lock(&slab_lock);
    for (unsigned kind = 0; kind < NR_CHAINS; kind++) {
        for (uint32_t at = *chain_of(owner, kind); at != 0; at = frame_table[at - 1].next) {
            const struct frame *f = &frame_table[at - 1];

            if (f->owner == owner) {
                bytes += PAGE_SIZE << frame_order(f);
            }
        }
    }
    spin_unlock(&slab_lock);
    return bytes;
}

/* The free list of a slab is as long as its count of objects says. */
static bool slab_is_sound(const struct frame *f, unsigned kind)
{
    unsigned class = f->refs & REFS_CLASS;
    unsigned nr_used = (f->refs & REFS_USED) / REFS_USED_ONE;
    unsigned index = f->refs >> REFS_FREE_SHIFT;
    unsigned nr_free = 0;

    if (f->use != owner_use(f->owner)) {
        return false;
    }
    if (kind == CHAIN_LARGE) {
        return f->refs == CHAIN_LARGE;
    }
    if (class >= NR_CLASSES || (kind != CHAIN_FULL && kind != class)) {
        return false;
    }
    for (; index < objects_per_slab(class) && nr_free <= objects_per_slab(class); nr_free++) {
        index = *object_link(f, index);
    }
    return index == NO_OBJECT && nr_used != 0 && nr_used + nr_free == objects_per_slab(class) &&
           (nr_free == 0) == (kind == CHAIN_FULL);
}

bool slab_audit(void)
{
    bool ok = true;

    spin_lock(&slab_lock);
    for (unsigned bucket = 0; bucket < NR_BUCKETS; bucket++) {
        for (unsigned kind = 0; kind < NR_CHAINS; kind++) {
            for (uint32_t at = slab_chain[bucket][kind]; at != 0; at = frame_table[at - 1].next) {
                const struct frame *f = &frame_table[at - 1];

                if (f->owner % NR_BUCKETS != bucket || !slab_is_sound(f, kind)) {
                    env_log("audit: slab %#x of owner %u has refs %#x", at - 1, f->owner, f->refs);
                    ok = false;
                }
            }
        }
    }
    spin_unlock(&slab_lock);
    return ok;
}
