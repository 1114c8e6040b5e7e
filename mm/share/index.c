/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The content index; layout and rules in index.h. Callers: the rest of mm/share, the p2m.
 *
 * A shared frame's record: refs; next: its entry; prev: its salt, or, once nobody holds the frame,
 * the next one that waits to be reaped.
 */
#include "mm/share/index.h"

#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/share/share_internal.h"
#include "mm/slab.h"

#define CHUNK_SHIFT 14u
#define CHUNK_ENTRIES (1u << CHUNK_SHIFT) /* 256 KiB */
#define FRAMES_PER_BUCKET 2u
#define LINK_MASK 0x7fffffffu
#define LINK_HINT 0x80000000u
#define HINT_KEY_SHIFT 20u
#define HINT_GFN_LOW (BIT(HINT_KEY_SHIFT) - 1)
#define EVICT_LOOKS 64u /* entries looked at for one hint that can go */
#define PURGE_SLICE 4096u
#define FIND_LOOKS \
    128u /* entries of a bucket looked at, however many a guest has managed to put there */

struct entry {
    uint64_t a;
    uint32_t b;    /* 0: free */
    uint32_t link; /* next entry plus one, and the kind */
};
_Static_assert(sizeof(struct entry) == 16, "the bound on the table counts with it");

/* share_lock */
static struct {
    struct entry **chunk;
    uint32_t *bucket;      /* first entry plus one */
    unsigned bucket_shift; /* of a key, to the bucket's number */
    uint32_t nr_buckets;
    uint32_t max_chunks, nr_chunks;
    uint32_t free; /* chain of free entries, first plus one */
    uint32_t nr_free;
    uint32_t hand; /* where eviction goes on */
    uint64_t shared, hints, evicted;
    uint64_t member_hints[INDEX_MAX_MEMBERS];
} ix;

static uint32_t dead; /* frames that nobody holds any more: first of the chain (atomic), 0: none */

uint32_t index_refs_max = 0x7fffffff;

/* ---- Entries ---- */

static struct entry *entry_of(uint32_t at)
{
    return &ix.chunk[at >> CHUNK_SHIFT][at & (CHUNK_ENTRIES - 1)];
}

static bool is_hint(const struct entry *e)
{
    return (e->link & LINK_HINT) != 0;
}

static uint32_t *bucket_of(uint64_t key)
{
    return &ix.bucket[key >> ix.bucket_shift];
}

static struct index_page hint_page(const struct entry *e)
{
    return (struct index_page){
        .member = e->b >> 16,
        .gfn = GFN((uint64_t)(e->b & 0xffffu) << HINT_KEY_SHIFT | (e->a & HINT_GFN_LOW))};
}

static bool same_page(const struct index_page *a, const struct index_page *b)
{
    return a->member == b->member && a->gfn.n == b->gfn.n;
}

static void bucket_insert(uint32_t at, uint64_t key, uint32_t kind)
{
    uint32_t *head = bucket_of(key);

    entry_of(at)->link = *head | kind;
    *head = at + 1;
}

/* Unlink an entry from its bucket and free it. */
static void entry_remove(uint32_t at)
{
    struct entry *e = entry_of(at);
    uint32_t *head = bucket_of(e->a);

    if (*head == at + 1) {
        *head = e->link & LINK_MASK;
    } else {
        struct entry *prev = entry_of(*head - 1);

        while ((prev->link & LINK_MASK) != at + 1) {
            prev = entry_of((prev->link & LINK_MASK) - 1);
        }
        prev->link = (prev->link & LINK_HINT) | (e->link & LINK_MASK);
    }
    if (is_hint(e)) {
        ix.hints--;
        ix.member_hints[hint_page(e).member]--;
    } else {
        ix.shared--;
    }
    *e = (struct entry){.link = ix.free};
    ix.free = at + 1;
    ix.nr_free++;
}

/* Make room by the oldest hint that the hand comes to. */
static bool evict(void)
{
    uint32_t nr = ix.nr_chunks << CHUNK_SHIFT;

    for (unsigned i = 0; i < EVICT_LOOKS && nr != 0; i++) {
        uint32_t at = ix.hand < nr ? ix.hand : 0;

        ix.hand = at + 1;
        if (is_hint(entry_of(at))) {
            entry_remove(at);
            ix.evicted++;
            return true;
        }
    }
    return false;
}

static bool entry_take(uint32_t *at)
{
    if (ix.free == 0 && !evict()) {
        return false;
    }
    *at = ix.free - 1;
    ix.free = entry_of(*at)->link;
    ix.nr_free--;
    return true;
}

void index_make_room(unsigned nr)
{
    struct entry *chunk = NULL;

    spin_lock(&share_lock);
    bool grow = ix.nr_free < nr && ix.nr_chunks < ix.max_chunks;
    spin_unlock(&share_lock);
    if (grow) {
        chunk = kmalloc(CHUNK_ENTRIES * sizeof(*chunk), OWNER_HOST);
    }
    if (chunk == NULL) {
        return;
    }
    spin_lock(&share_lock);
    if (ix.nr_chunks < ix.max_chunks) {
        uint32_t first = ix.nr_chunks << CHUNK_SHIFT;

        ix.chunk[ix.nr_chunks++] = chunk;
        for (uint32_t i = CHUNK_ENTRIES; i-- > 0;) {
            chunk[i].link = ix.free;
            ix.free = first + i + 1;
        }
        ix.nr_free += CHUNK_ENTRIES;
        chunk = NULL;
    }
    spin_unlock(&share_lock);
    kfree(chunk);
}

/* ---- References ---- */

bool index_hold(mfn_t mfn)
{
    uint32_t *refs = &frame_of(mfn)->refs;
    uint32_t was = __atomic_load_n(refs, __ATOMIC_RELAXED);

    do {
        if (was == 0 || was >= __atomic_load_n(&index_refs_max, __ATOMIC_RELAXED)) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(refs, &was, was + 1, true, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    return true;
}

uint32_t index_refs(mfn_t mfn)
{
    return __atomic_load_n(&frame_of(mfn)->refs, __ATOMIC_ACQUIRE);
}

uint32_t index_salt(mfn_t mfn)
{
    return frame_of(mfn)->prev;
}

uint32_t index_entry(mfn_t mfn)
{
    return frame_of(mfn)->next;
}

static bool drop_ref(mfn_t mfn)
{
    uint32_t was = __atomic_fetch_sub(&frame_of(mfn)->refs, 1, __ATOMIC_ACQ_REL);

    if (was == 0) {
        env_panic("share: frame %#llx had no reference left", (unsigned long long)mfn.n);
    }
    return was == 1;
}

static void frame_gone(mfn_t mfn)
{
    spin_lock(&share_lock);
    entry_remove(frame_of(mfn)->next);
    spin_unlock(&share_lock);
    buddy_free(mfn, 0);
}

bool index_put(mfn_t mfn)
{
    bool last = drop_ref(mfn);

    if (last) {
        frame_gone(mfn);
    }
    return last;
}

void index_put_fast(mfn_t mfn)
{
    if (!drop_ref(mfn)) {
        return;
    }
    uint32_t head = __atomic_load_n(&dead, __ATOMIC_RELAXED);

    do {
        __atomic_store_n(&frame_of(mfn)->prev, head, __ATOMIC_RELAXED);
    } while (!__atomic_compare_exchange_n(&dead, &head, (uint32_t)mfn.n, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

void index_reap(void)
{
    if (likely(__atomic_load_n(&dead, __ATOMIC_RELAXED) == 0)) {
        return;
    }
    uint32_t at = __atomic_exchange_n(&dead, 0, __ATOMIC_ACQUIRE);

    while (at != 0) {
        mfn_t mfn = MFN(at);

        at = frame_of(mfn)->prev;
        frame_gone(mfn);
    }
}

bool index_claim(mfn_t mfn)
{
    bool alone;

    spin_lock(&share_lock);
    /* References are only added under the lock, or by who has one. */
    alone = index_refs(mfn) == 1;
    if (alone) {
        entry_remove(frame_of(mfn)->next);
    }
    spin_unlock(&share_lock);
    return alone;
}

/* ---- Finding and entering ---- */

uint64_t index_key(uint64_t hash, uint32_t salt)
{
    return hash ^ (uint64_t)salt * 0x9e3779b97f4a7c15ULL;
}

void index_prefetch_bucket(uint64_t key)
{
    __builtin_prefetch(bucket_of(key));
}

void index_prefetch_entry(uint64_t key)
{
    spin_lock(&share_lock);
    uint32_t at = *bucket_of(key);
    if (at != 0) {
        __builtin_prefetch(entry_of(at - 1));
    }
    spin_unlock(&share_lock);
}

void index_find(uint64_t key, uint32_t salt, const struct index_page *self, struct index_hit *hit)
{
    hit->found = INDEX_NOTHING;
    hit->self = false;
    spin_lock(&share_lock);
    for (uint32_t at = *bucket_of(key), looks = FIND_LOOKS; at != 0 && looks > 0; looks--) {
        const struct entry *e = entry_of(at - 1);

        at = e->link & LINK_MASK;
        if (!is_hint(e)) {
            if (e->a == key && index_salt(MFN(e->b)) == salt && index_hold(MFN(e->b))) {
                hit->found = INDEX_SHARED;
                hit->mfn = MFN(e->b);
                break;
            }
        } else if (((e->a ^ key) >> HINT_KEY_SHIFT) == 0) {
            struct index_page page = hint_page(e);

            if (same_page(&page, self)) {
                hit->self = true;
            } else if (hit->found == INDEX_NOTHING && share_member_salt(page.member) == salt) {
                hit->found = INDEX_HINT;
                hit->page = page;
            }
        }
    }
    spin_unlock(&share_lock);
}

void index_hint(uint64_t key, const struct index_page *page)
{
    uint32_t at;

    spin_lock(&share_lock);
    if (entry_take(&at)) {
        *entry_of(at) = (struct entry){.a = (key & ~HINT_GFN_LOW) | (page->gfn.n & HINT_GFN_LOW),
                                       .b = page->member << 16 |
                                            (uint32_t)(page->gfn.n >> HINT_KEY_SHIFT & 0xffffu)};
        bucket_insert(at, key, LINK_HINT);
        ix.hints++;
        ix.member_hints[page->member]++;
    }
    spin_unlock(&share_lock);
}

void index_unhint(uint64_t key, const struct index_page *page)
{
    spin_lock(&share_lock);
    for (uint32_t at = *bucket_of(key); at != 0; at = entry_of(at - 1)->link & LINK_MASK) {
        const struct entry *e = entry_of(at - 1);

        if (is_hint(e)) {
            struct index_page found = hint_page(e);

            if (((e->a ^ key) >> HINT_KEY_SHIFT) == 0 && same_page(&found, page)) {
                entry_remove(at - 1);
                break;
            }
        }
    }
    spin_unlock(&share_lock);
}

void index_purge(unsigned member)
{
    for (uint32_t at = 0; index_hints(member) != 0;) {
        spin_lock(&share_lock);
        uint32_t nr = ix.nr_chunks << CHUNK_SHIFT;
        uint32_t end = MIN(at + PURGE_SLICE, nr);

        for (; at < end; at++) {
            const struct entry *e = entry_of(at);

            if (is_hint(e) && hint_page(e).member == member) {
                entry_remove(at);
            }
        }
        spin_unlock(&share_lock);
        if (at == nr) {
            break;
        }
        env_relax();
    }
}

uint64_t index_hints(unsigned member)
{
    spin_lock(&share_lock);
    uint64_t nr = ix.member_hints[member];
    spin_unlock(&share_lock);
    return nr;
}

enum hv_err index_add(uint64_t key, uint32_t salt, mfn_t mfn, uint32_t refs)
{
    struct frame *f = frame_of(mfn);
    uint32_t at;
    bool ok;

    spin_lock(&share_lock);
    ok = entry_take(&at);
    if (ok) {
        f->next = at;
        f->prev = salt;
        __atomic_store_n(&f->refs, refs, __ATOMIC_RELEASE);
        *entry_of(at) = (struct entry){.a = key, .b = (uint32_t)mfn.n};
        bucket_insert(at, key, 0);
        ix.shared++;
    }
    spin_unlock(&share_lock);
    return ok ? HV_OK : HV_ENOMEM;
}

/* ---- Start, numbers, audit ---- */

enum hv_err index_init(uint64_t nr_frames)
{
    unsigned bits = 1;

    while (BIT(bits + 1) <= nr_frames / FRAMES_PER_BUCKET && bits < 27) {
        bits++;
    }
    ix.nr_buckets = 1u << bits;
    ix.bucket_shift = 64 - bits;
    ix.max_chunks = (uint32_t)MAX(nr_frames * 3 / 4 >> CHUNK_SHIFT, (uint64_t)1);
    ix.max_chunks = MIN(ix.max_chunks, LINK_MASK >> CHUNK_SHIFT);
    ix.bucket = kmalloc(ix.nr_buckets * sizeof(*ix.bucket), OWNER_HOST);
    ix.chunk = kmalloc(ix.max_chunks * sizeof(*ix.chunk), OWNER_HOST);
    if (ix.bucket == NULL || ix.chunk == NULL) {
        index_fini();
        return HV_ENOMEM;
    }
    index_make_room(1);
    return HV_OK;
}

void index_fini(void)
{
    for (uint32_t i = 0; i < ix.nr_chunks; i++) {
        kfree(ix.chunk[i]);
    }
    kfree(ix.chunk);
    kfree(ix.bucket);
    ix = (__typeof__(ix)){0};
}

void index_stats(struct index_stats *out)
{
    uint64_t fixed = ix.nr_buckets * sizeof(*ix.bucket) + ix.max_chunks * sizeof(*ix.chunk);
    uint64_t chunk = CHUNK_ENTRIES * sizeof(struct entry);

    spin_lock(&share_lock);
    *out = (struct index_stats){.shared = ix.shared,
                                .hints = ix.hints,
                                .max_entries = (uint64_t)ix.max_chunks << CHUNK_SHIFT,
                                .bytes = fixed + ix.nr_chunks * chunk,
                                .max_bytes = fixed + ix.max_chunks * chunk,
                                .evicted = ix.evicted};
    spin_unlock(&share_lock);
}

uint32_t index_nr_entries(void)
{
    return ix.nr_chunks << CHUNK_SHIFT;
}

void index_for_each_shared(void (*fn)(mfn_t mfn, uint32_t entry, void *arg), void *arg)
{
    for (uint32_t at = 0; at < index_nr_entries(); at++) {
        const struct entry *e = entry_of(at);

        if (e->b != 0 && !is_hint(e)) {
            fn(MFN(e->b), at, arg);
        }
    }
}

static bool audit_entry(uint32_t at, const struct entry *e, uint32_t bucket)
{
    const struct frame *f;

    if (e->a >> ix.bucket_shift != bucket || e->b == 0) {
        env_log("audit: entry %u of the content index is in bucket %u", at, bucket);
        return false;
    }
    if (is_hint(e)) {
        return true;
    }
    f = frame_of(MFN(e->b));
    if (f->use != FRAME_SHARED || f->order != 0 || f->next != at) {
        env_log("audit: content index names frame %#x with use %u entry %u", e->b, f->use, f->next);
        return false;
    }
    return true;
}

bool index_audit(void)
{
    uint64_t shared = 0, hints = 0, nr_free = 0;
    bool ok = true;

    index_reap();
    spin_lock(&share_lock);
    for (uint32_t bucket = 0; bucket < ix.nr_buckets; bucket++) {
        for (uint32_t at = ix.bucket[bucket]; at != 0; at = entry_of(at - 1)->link & LINK_MASK) {
            const struct entry *e = entry_of(at - 1);

            ok &= audit_entry(at - 1, e, bucket);
            hints += is_hint(e);
            shared += !is_hint(e);
        }
    }
    for (uint32_t at = ix.free; at != 0; at = entry_of(at - 1)->link) {
        nr_free++;
    }
    if (shared != ix.shared || hints != ix.hints || nr_free != ix.nr_free ||
        shared + hints + nr_free != (uint64_t)ix.nr_chunks << CHUNK_SHIFT) {
        env_log("audit: content index has %llu shared, %llu hints, %llu free; counted %llu, %llu, "
                "%llu",
                (unsigned long long)ix.shared, (unsigned long long)ix.hints,
                (unsigned long long)ix.nr_free, (unsigned long long)shared,
                (unsigned long long)hints, (unsigned long long)nr_free);
        ok = false;
    }
    spin_unlock(&share_lock);
    return ok;
}
