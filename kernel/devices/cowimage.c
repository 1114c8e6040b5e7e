/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two levels: an array with a table for every 2 MiB that were written to, a table with a word for every
 * page: 0 as in the image, 1 zero, else the number of a frame, plus 2.
 */
#include "kernel/devices/cowimage.h"

#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

#define TABLE_WORDS (PAGE_SIZE / sizeof(uint64_t))
#define WORD_IMAGE 0ull
#define WORD_ZERO 1ull
#define WORD_FRAME 2ull

struct cowimage {
    const char *base;
    uint64_t size;
    uint32_t owner;
    uint64_t frames;    /* atomic */
    uint64_t nr_tables; /* room for */
    uint64_t *table[];  /* each a frame, or NULL */
};

static uint64_t zeros[TABLE_WORDS]; /* never written; not const, to take no room in the image */

enum hv_err cowimage_create(const void *base, uint64_t size, uint32_t owner, struct cowimage **out)
{
    uint64_t nr = (size + PAGE_SIZE * TABLE_WORDS - 1) / (PAGE_SIZE * TABLE_WORDS);
    struct cowimage *c = kmalloc(sizeof(*c) + nr * sizeof(c->table[0]), owner);

    if (c == NULL) {
        return HV_ENOMEM;
    }
    c->base = base;
    c->size = size;
    c->owner = owner;
    c->nr_tables = nr;
    *out = c;
    return HV_OK;
}

static void *new_frame(struct cowimage *c, mfn_t *mfn)
{
    if (!env_may_allocate("cowimage") ||
        buddy_alloc(ORDER_4K, FRAME_VM, c->owner, 0, mfn) != HV_OK) {
        return NULL;
    }
    __atomic_fetch_add(&c->frames, 1, __ATOMIC_RELAXED);
    return env_frame_ptr(*mfn);
}

static void free_frame(struct cowimage *c, mfn_t mfn)
{
    buddy_free(mfn, ORDER_4K);
    __atomic_fetch_sub(&c->frames, 1, __ATOMIC_RELAXED);
}

void cowimage_destroy(struct cowimage *c)
{
    if (c == NULL) {
        return;
    }
    for (uint64_t i = 0; i < c->nr_tables; i++) {
        for (unsigned j = 0; c->table[i] != NULL && j < TABLE_WORDS; j++) {
            if (c->table[i][j] >= WORD_FRAME) {
                free_frame(c, MFN(c->table[i][j] - WORD_FRAME));
            }
        }
        if (c->table[i] != NULL) {
            free_frame(c, env_ptr_frame(c->table[i]));
        }
    }
    kfree(c);
}

/* The word of page `nr`; NULL: no memory for its table. */
static uint64_t *word_of(struct cowimage *c, uint64_t nr)
{
    uint64_t **table = &c->table[nr / TABLE_WORDS];
    mfn_t mfn;

    if (*table == NULL) {
        *table = new_frame(c, &mfn);
        if (*table == NULL) {
            return NULL;
        }
        env_clear_page(*table);
    }
    return &(*table)[nr % TABLE_WORDS];
}

const void *cowimage_read(const struct cowimage *c, uint64_t nr)
{
    const uint64_t *table = c->table[nr / TABLE_WORDS];
    uint64_t word = table != NULL ? table[nr % TABLE_WORDS] : WORD_IMAGE;

    if (word == WORD_IMAGE) {
        return c->base + nr * PAGE_SIZE;
    }
    return word == WORD_ZERO ? (const void *)zeros : env_frame_ptr(MFN(word - WORD_FRAME));
}

enum hv_err cowimage_write(struct cowimage *c, uint64_t nr, void **page)
{
    uint64_t *word = word_of(c, nr);
    mfn_t mfn;

    if (word == NULL) {
        return HV_ENOMEM;
    }
    if (*word >= WORD_FRAME) {
        *page = env_frame_ptr(MFN(*word - WORD_FRAME));
        return HV_OK;
    }
    *page = new_frame(c, &mfn);
    if (*page == NULL) {
        return HV_ENOMEM;
    }
    if (*word == WORD_ZERO) {
        env_clear_page(*page);
    } else {
        uint64_t there = MIN(c->size - nr * PAGE_SIZE, PAGE_SIZE);

        memcpy(*page, c->base + nr * PAGE_SIZE, there);
        memset((char *)*page + there, 0, PAGE_SIZE - there);
    }
    *word = mfn.n + WORD_FRAME;
    return HV_OK;
}

enum hv_err cowimage_zero(struct cowimage *c, uint64_t nr)
{
    uint64_t *word = word_of(c, nr);

    if (word == NULL) {
        return HV_ENOMEM;
    }
    if (*word >= WORD_FRAME) {
        free_frame(c, MFN(*word - WORD_FRAME));
    }
    *word = WORD_ZERO;
    return HV_OK;
}

uint64_t cowimage_frames(const struct cowimage *c)
{
    return __atomic_load_n(&c->frames, __ATOMIC_RELAXED);
}

uint64_t cowimage_frames_to_come(const struct cowimage *c)
{
    return c->nr_tables + (c->size + PAGE_SIZE - 1) / PAGE_SIZE - cowimage_frames(c);
}
