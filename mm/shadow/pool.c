/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the shadow view is made of: frames within its limit, small objects cut from them, chains of
 * slots, and the regions that hold the chains' heads. See shadow_internal.h.
 */
#include "mm/shadow/shadow_internal.h"

#include "mm/buddy.h"

enum hv_err shadow_frame(struct shadow *s, uint32_t flags, bool fast, void **out)
{
    enum hv_err err = HV_ENOMEM;
    mfn_t mfn;

    if (s->frames < s->cfg.overhead_frames && env_may_allocate("shadow.frame")) {
        err = buddy_alloc(0, FRAME_VIEW, s->cfg.owner, flags | (fast ? BUDDY_FAST : 0), &mfn);
    }
    if (err != HV_OK) {
        return fast ? HV_EAGAIN : err;
    }
    s->frames++;
    *out = env_frame_ptr(mfn);
    return HV_OK;
}

/* ---- Objects ---- */

/* A free object's first word leads to the next one. */
static bool pool_grow(struct shadow *s, struct shadow_pool *pool, bool fast)
{
    char *frame;

    if (shadow_frame(s, 0, fast, (void **)&frame) != HV_OK) {
        return false;
    }
    frame_of(env_ptr_frame(frame))->gfn = pool->frames.n;
    pool->frames = env_ptr_frame(frame);
    for (size_t at = 0; at + pool->size <= PAGE_SIZE; at += pool->size) {
        shadow_object_free(pool, frame + at);
    }
    return true;
}

void *shadow_object(struct shadow *s, struct shadow_pool *pool, bool fast)
{
    void *object;

    if (unlikely(pool->free == NULL) && !pool_grow(s, pool, fast)) {
        return NULL;
    }
    object = pool->free;
    pool->free = *(void **)object;
    return object;
}

void shadow_object_free(struct shadow_pool *pool, void *object)
{
    *(void **)object = pool->free;
    pool->free = object;
}

void shadow_pool_destroy(struct shadow *s, struct shadow_pool *pool)
{
    while (mfn_valid(pool->frames)) {
        mfn_t mfn = pool->frames;

        pool->frames = MFN(frame_of(mfn)->gfn);
        buddy_free(mfn, 0);
        s->frames--;
    }
    pool->free = NULL;
}

/* ---- Chains ---- */

static struct chain_node *chain_node(uint64_t head)
{
    return (struct chain_node *)(uintptr_t)(head & ~SHADOW_FLAGS);
}

static unsigned nodes_behind(const struct chain_node *node)
{
    return (unsigned)(node->next >> 48);
}

/* What a node says that comes before `next`. */
static uint64_t next_link(const struct chain_node *next)
{
    return ((uint64_t)(uintptr_t)next & (BIT(48) - 1)) | (uint64_t)(nodes_behind(next) + 1) << 48;
}

enum hv_err chain_make_room(struct shadow *s, const uint64_t *head, bool fast)
{
    /* An addition takes one node at most. */
    if (unlikely(s->nodes.free == NULL) && !pool_grow(s, &s->nodes, fast)) {
        return fast ? HV_EAGAIN : HV_ENOMEM;
    }
    if (unlikely((*head & SHADOW_CHAIN) && nodes_behind(chain_node(*head)) >= CHAIN_NODES_MAX)) {
        if (fast) {
            return HV_EAGAIN;
        }
        entry_clear_chain(s, head);
    }
    return HV_OK;
}

static unsigned node_fill(const struct chain_node *node)
{
    unsigned n = 0;

    while (n < NODE_SLOTS && node->slot[n] != 0) {
        n++;
    }
    return n;
}

/* The first node alone may be filled in part. */
void chain_add(struct shadow *s, uint64_t *head, uint64_t slot)
{
    uint64_t keep = *head & SHADOW_TRACED;
    struct chain_node *node;

    if ((*head & ~SHADOW_FLAGS) == 0) {
        *head = slot | keep;
        return;
    }
    if (*head & SHADOW_CHAIN) {
        node = chain_node(*head);
        unsigned n = node_fill(node);

        if (n < NODE_SLOTS) {
            node->slot[n] = slot;
            return;
        }
    }
    /* There is room: chain_make_room. */
    node = shadow_object(s, &s->nodes, true);
    if (*head & SHADOW_CHAIN) {
        *node = (struct chain_node){.slot = {slot}, .next = next_link(chain_node(*head))};
    } else {
        *node = (struct chain_node){.slot = {*head & ~SHADOW_FLAGS, slot}};
    }
    *head = (uint64_t)(uintptr_t)node | SHADOW_CHAIN | keep;
}

void chain_del(struct shadow *s, uint64_t *head, uint64_t slot)
{
    uint64_t keep = *head & SHADOW_TRACED;
    struct chain_node *first, *node;

    if (!(*head & SHADOW_CHAIN)) {
        if ((*head & ~SHADOW_FLAGS) != slot) {
            env_panic("shadow: entry %#llx is in no chain", (unsigned long long)slot);
        }
        *head = keep;
        return;
    }
    first = chain_node(*head);
    unsigned last = node_fill(first) - 1;
    for (node = first; node != NULL; node = node_next(node)) {
        s->steps++;
        for (unsigned i = 0; i < NODE_SLOTS; i++) {
            if (node->slot[i] == slot) {
                node->slot[i] = first->slot[last];
                first->slot[last] = 0;
                if (last == 0) {
                    *head = first->next == 0
                                ? keep
                                : ((uint64_t)(uintptr_t)node_next(first) | SHADOW_CHAIN | keep);
                    shadow_object_free(&s->nodes, first);
                } else if (last == 1 && first->next == 0) {
                    *head = first->slot[0] | keep;
                    shadow_object_free(&s->nodes, first);
                }
                return;
            }
        }
    }
    env_panic("shadow: entry %#llx is in no chain", (unsigned long long)slot);
}

/* ---- Regions ---- */

struct shadow_region *region_look(const struct shadow *s, gfn_t gfn)
{
    uint64_t n = gfn.n / REGION_PAGES;

    if (unlikely(n >= s->nr_regions) || s->regions[n / REGIONS_PER_FRAME] == NULL) {
        return NULL;
    }
    return &s->regions[n / REGIONS_PER_FRAME][n % REGIONS_PER_FRAME];
}

enum hv_err region_get(struct shadow *s, gfn_t gfn, bool heads, bool fast,
                       struct shadow_region **out)
{
    uint64_t n = gfn.n / REGION_PAGES;
    enum hv_err err = HV_OK;
    void *frame;

    if (unlikely(n >= s->nr_regions)) {
        return HV_ERANGE;
    }
    if (unlikely(s->regions[n / REGIONS_PER_FRAME] == NULL)) {
        err = shadow_frame(s, BUDDY_ZERO, fast, &frame);
        if (err != HV_OK) {
            return err;
        }
        s->regions[n / REGIONS_PER_FRAME] = frame;
    }
    *out = &s->regions[n / REGIONS_PER_FRAME][n % REGIONS_PER_FRAME];
    if (heads && unlikely((*out)->heads == NULL)) {
        err = shadow_frame(s, BUDDY_ZERO, fast, &frame);
        if (err == HV_OK) {
            (*out)->heads = frame;
        }
    }
    return err;
}
