/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A batch of pages on its way out; see swap.h. One thread takes it through
 *
 *     batch_add ... nominate all, flush; copy each page; merge, fill or compress what may be, flush;
 *     give the rest slots, encrypt the copies, submit one run of slots after the other
 *
 * and, when the store is done, another one (or the same) through
 *
 *     evict what was written and is unchanged, flush; free other slots, retire bad ones; try what
 *     failed elsewhere, a few times
 *
 * A batch belongs to one thread at a time, or to the store. Its copies are read by the store only, so
 * that a guest which takes its page back in between cannot change what is being written.
 */
#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/reclaim.h"
#include "mm/reclaim/swap_internal.h"
#include "mm/share/cow.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/scan.h"
#include "mm/share/share.h"
#include "mm/slab.h"
#include "mm/view.h"

#define RELAX_PAGES 8u /* encrypted between two looks at what else is to do */
#define TRIES 3u       /* times that a page is written before it stays */

struct leaving {
    gfn_t gfn;
    /* Nominated, shared or compressed; once that changes, the page has left the batch. */
    struct p2m_entry e;
    uint64_t slot;      /* SLOT_NONE: it has none */
    enum hv_err result; /* of the write, once it has a slot */
};

struct swap_batch {
    struct done_node done;
    struct list node; /* while it is free; swap.lock */
    struct store_request req;
    struct p2m *p;
    unsigned nr;
    unsigned at, run; /* pages [at, at + run) are with the store */
    bool single;      /* a run failed: its pages are written one by one, up to `single_end` */
    unsigned single_end;
    unsigned tries;
    struct leaving page[SWAP_BATCH];
    mfn_t shared[SWAP_BATCH]; /* frames let go by pages that left, to be put after the flush */
    unsigned nr_shared;
    unsigned nr_zip_freed; /* frames of the cache that became free with them */
    mfn_t copy[SWAP_BATCH];
    uint64_t zip_state[ZIP_STATE_BYTES / 8];
    uint8_t zipped[ZIP_MOST];
};

static struct swap_batch *batches[NR_BATCHES];

/* ---- Reserves ---- */

/* From the frames that became free, or at start-up. False: there are not enough. */
static bool refill_spares(void)
{
    for (;;) {
        mfn_t mfn;
        bool full;

        spin_lock(&swap.lock);
        full = swap.nr_spare == ARRAY_SIZE(swap.spare);
        spin_unlock(&swap.lock);
        if (full || !env_may_allocate("swap.spare") ||
            buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &mfn) != HV_OK) {
            return full;
        }
        spare_put(mfn);
    }
}

mfn_t spare_take(unsigned leave)
{
    spin_lock(&swap.lock);
    mfn_t mfn = swap.nr_spare > leave ? swap.spare[--swap.nr_spare] : MFN_NONE;
    spin_unlock(&swap.lock);
    return mfn;
}

void spare_put(mfn_t mfn)
{
    bool room;

    if (!mfn_valid(mfn)) {
        return;
    }
    spin_lock(&swap.lock);
    room = swap.nr_spare < ARRAY_SIZE(swap.spare);
    if (room) {
        swap.spare[swap.nr_spare++] = mfn;
    }
    spin_unlock(&swap.lock);
    if (!room) {
        buddy_free(mfn, 0);
    }
}

static void batch_done(struct store_request *r);

enum hv_err batch_init(void)
{
    for (unsigned i = 0; i < NR_BATCHES; i++) {
        struct swap_batch *b =
            env_may_allocate("swap.batch") ? kmalloc(sizeof(*b), OWNER_HOST) : NULL;

        batches[i] = b;
        if (b == NULL) {
            return HV_ENOMEM;
        }
        for (unsigned j = 0; j < SWAP_BATCH; j++) {
            b->copy[j] = MFN_NONE;
        }
        for (unsigned j = 0; j < SWAP_BATCH; j++) {
            if (!env_may_allocate("swap.copy") ||
                buddy_alloc(0, FRAME_HOST, OWNER_HOST, 0, &b->copy[j]) != HV_OK) {
                return HV_ENOMEM;
            }
        }
        b->req.op = STORE_WRITE;
        b->req.done = batch_done;
        b->req.arg = b;
        list_add_tail(&swap.free_batches, &b->node);
    }
    return refill_spares() ? HV_OK : HV_ENOMEM;
}

void batch_fini(void)
{
    mfn_t mfn;

    for (unsigned i = 0; i < NR_BATCHES; i++) {
        for (unsigned j = 0; batches[i] != NULL && j < SWAP_BATCH; j++) {
            if (mfn_valid(batches[i]->copy[j])) {
                buddy_free(batches[i]->copy[j], 0);
            }
        }
        kfree(batches[i]);
        batches[i] = NULL;
    }
    while (mfn_valid(mfn = spare_take(0))) {
        buddy_free(mfn, 0);
    }
}

/* Readers first: while anybody waits for a page, one batch at a time is written. */
struct swap_batch *batch_get(struct p2m *p, bool urgent)
{
    struct swap_batch *b = NULL;
    struct list *first;

    if (!urgent && swap_load(&swap.stats.reads) != 0 && swap_load(&swap.stats.writes) != 0) {
        return NULL;
    }
    spin_lock(&swap.lock);
    first = list_first(&swap.free_batches);
    if (first != NULL) {
        list_del(first);
        b = list_entry(first, struct swap_batch, node);
    }
    spin_unlock(&swap.lock);
    if (b != NULL) {
        swap_hold(p);
        b->p = p;
        b->nr = 0;
        b->nr_shared = 0;
        b->nr_zip_freed = 0;
        b->tries = 0;
    }
    return b;
}

static void batch_put(struct swap_batch *b)
{
    struct p2m *p = b->p;

    (void)refill_spares();
    spin_lock(&swap.lock);
    list_add_tail(&swap.free_batches, &b->node);
    spin_unlock(&swap.lock);
    swap_release(p);
    swap.cfg.wake(NULL);
}

bool batch_add(struct swap_batch *b, gfn_t gfn, const struct p2m_entry *e)
{
    struct leaving *l = &b->page[b->nr];

    if (b->nr == SWAP_BATCH) {
        return false;
    }
    /* A private page could be nominated only once; one on a shared frame does not show that it is here. */
    for (unsigned i = 0; e->state == P2M_SHARED && i < b->nr; i++) {
        if (b->page[i].gfn.n == gfn.n) {
            return false;
        }
    }
    l->gfn = gfn;
    l->e = *e;
    l->slot = SLOT_NONE;
    b->nr++;
    return true;
}

/* ---- Leaving for the cache ---- */

static bool is_leaving(const struct leaving *l)
{
    return l->e.word != NULL;
}

/* It is as it was no more: if it was nominated, it was written meanwhile. */
static void note_stay(struct swap_batch *b, const struct leaving *l)
{
    if (l->e.state == P2M_PRIVATE) {
        spin_lock(&b->p->lock);
        b->p->swap_stayed++;
        spin_unlock(&b->p->lock);
    }
}

/* Out of line: what is frequent, private pages, is counted in instructions (make bench). */
static __attribute__((noinline)) void note_cached(struct swap_batch *b, const struct leaving *l)
{
    spin_lock(&b->p->lock);
    /* Else its guest has taken it back, and another page may be in its place. */
    if (p2m_same(&l->e)) {
        zip_stays(word_place(l->e.seq));
    }
    spin_unlock(&b->p->lock);
}

/* Its page stays, or is where it was to go. */
static inline void leave_batch(struct swap_batch *b, struct leaving *l)
{
    if (unlikely(l->e.state == P2M_COMPRESSED)) {
        note_cached(b, l);
    }
    l->e.word = NULL;
}

static void withdraw(struct swap_batch *b, struct leaving *l)
{
    if (l->e.state == P2M_PRIVATE) {
        /* Whoever changed it meanwhile has made it private himself. */
        (void)!cow_withdraw(b->p, 0, &l->e);
    }
    leave_batch(b, l);
}

/* Does sharing have the page now? */
static bool is_merged(const struct swap_batch *b, const struct leaving *l)
{
    struct p2m_entry e;

    p2m_query(b->p, l->gfn, &e);
    return e.state == P2M_SHARED || e.state == P2M_ZERO;
}

/* Every private page goes to sharing first; what that does not take is nominated. Returns the pages
 * that it took. */
static uint64_t nominate_all(struct swap_batch *b, bool share)
{
    gfn_t offered[SWAP_BATCH];
    struct flush_batch flush;
    unsigned nr = 0;
    uint64_t merged = 0;

    for (unsigned i = 0; share && i < b->nr; i++) {
        if (b->page[i].e.state == P2M_PRIVATE) {
            offered[nr++] = b->page[i].gfn;
        }
    }
    if (nr != 0) {
        scan_offer(b->p, offered, nr);
    }
    flush_batch_init(&flush, &b->p->domain);
    for (unsigned i = 0; i < b->nr; i++) {
        struct leaving *l = &b->page[i];

        if (l->e.state == P2M_PRIVATE && !cow_nominate(b->p, l->gfn, &l->e, &flush)) {
            merged += share && is_merged(b, l);
            leave_batch(b, l);
        }
    }
    if (!MUTANT(take_without_flush)) {
        flush_batch_commit(&flush);
    }
    return merged;
}

/* Is it still what it was when its copy was made? p locked. */
static bool may_leave(struct leaving *l)
{
    return l->e.state == P2M_PRIVATE ? cow_still_nominated(&l->e) : p2m_same(&l->e);
}

/* It leaves its frame; p locked. */
static void evict(struct swap_batch *b, struct leaving *l, enum p2m_state state, uint64_t place,
                  struct flush_batch *flush)
{
    if (l->e.state == P2M_SHARED) {
        b->shared[b->nr_shared++] = l->e.mfn;
    } else {
        b->p->swap_went++;
    }
    cow_evict(b->p, l->gfn, &l->e, state, place, flush);
}

/* How many frames became free. */
static uint64_t flush_evicted(struct swap_batch *b, struct flush_batch *flush)
{
    uint64_t freed = flush->nr + b->nr_zip_freed;

    b->nr_zip_freed = 0;
    flush_batch_commit(flush);
    while (b->nr_shared != 0) {
        freed += p2m_drop(b->p, b->shared[--b->nr_shared]);
    }
    return freed;
}

/* Into the cache: what is compressed, or else the place of one word. */
static bool keep(struct swap_batch *b, struct leaving *l, unsigned bytes, uint64_t place,
                 struct flush_batch *flush)
{
    mfn_t spare = bytes != 0 ? spare_take(NODE_SPARES) : MFN_NONE;
    struct p2m *p = b->p;
    bool ok;

    spin_lock(&p->lock);
    ok = may_leave(l) &&
         (bytes == 0 || zip_put(p, l->gfn, b->zipped, bytes, &spare, &place) == HV_OK);
    if (ok) {
        evict(b, l, P2M_COMPRESSED, place, flush);
        p->count.compressed++;
        p->count.zipped++;
        reclaim_note_page(p->owner, l->gfn, PAGE_COMPRESSED, bytes);
    }
    spin_unlock(&p->lock);
    spare_put(spare);
    return ok;
}

/* What costs nothing, or little: true if the page has left. */
static bool try_keeping(struct swap_batch *b, struct leaving *l, const void *copy,
                        struct flush_batch *flush)
{
    uint32_t pattern;
    unsigned bytes = 0;

    if (zip_is_filled(copy, &pattern)) {
        if (pattern == 0 && mfn_valid(share_zero_frame) && l->e.state == P2M_PRIVATE) {
            return cow_merge(b->p, l->gfn, &l->e, share_zero_frame, flush);
        }
    } else {
        bytes = zip_page(b->zip_state, copy, b->zipped);
        if (bytes == 0) {
            return false;
        }
    }
    return keep(b, l, bytes, zip_place_filled(pattern), flush);
}

/* In the cache one of several pages on a frame would only cost. */
static bool may_be_kept(const struct leaving *l)
{
    return l->e.state == P2M_PRIVATE || (l->e.state == P2M_SHARED && index_refs(l->e.mfn) == 1);
}

/* Frames that became free. */
static uint64_t keep_some(struct swap_batch *b)
{
    struct flush_batch flush;
    uint64_t freed;

    flush_batch_init(&flush, &b->p->domain);
    for (unsigned i = 0; i < b->nr; i++) {
        struct leaving *l = &b->page[i];
        void *copy = env_frame_ptr(b->copy[i]);

        if (is_leaving(l) && may_be_kept(l)) {
            env_copy_page(copy, env_frame_ptr(l->e.mfn));
            if (try_keeping(b, l, copy, &flush)) {
                leave_batch(b, l);
            }
            env_relax();
        }
    }
    freed = flush_evicted(b, &flush);
    (void)refill_spares();
    return freed;
}

/* ---- Leaving for the store ---- */

/* The page's contents into its copy. False: it has changed. */
static bool copy_page(struct swap_batch *b, struct leaving *l, void *copy)
{
    bool same = true;

    if (l->e.state != P2M_COMPRESSED) {
        env_copy_page(copy, env_frame_ptr(l->e.mfn));
        return p2m_same(&l->e) &&
               (l->e.state == P2M_SHARED || word_kind(l->e.seq) == KIND_NOMINATED);
    }
    spin_lock(&b->p->lock);
    same = p2m_same(&l->e);
    if (same) {
        zip_get(b->p, word_place(l->e.seq), copy);
    }
    spin_unlock(&b->p->lock);
    return same;
}

/* Pack what is still to go to the front. */
static void pack(struct swap_batch *b)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < b->nr; i++) {
        if (is_leaving(&b->page[i])) {
            if (nr != i) {
                b->page[nr] = b->page[i];
            }
            nr++;
        }
    }
    b->nr = nr;
}

static void prepare_page(struct swap_batch *b, struct leaving *l, void *copy)
{
    env_saw_contents();
    if (!copy_page(b, l, copy)) {
        note_stay(b, l);
        slots_free(l->slot);
        l->slot = SLOT_NONE;
        leave_batch(b, l);
        return;
    }
    l->result = HV_EAGAIN;
    slots_fill(l->slot, l->gfn, hash_page(copy));
    if (swap.cfg.encrypt) {
        crypt_encrypt(copy, copy, slots_tweak(l->slot));
    }
}

/* Give what is left slots, and their contents to the copies. */
static void prepare(struct swap_batch *b)
{
    unsigned done = 0;

    pack(b);
    while (done < b->nr) {
        unsigned nr = 0;
        uint64_t slot = SLOT_NONE;

        if (swap_has_store()) {
            slot = slots_take(b->p->owner, b->nr - done, &nr);
        }
        if (slot == SLOT_NONE) {
            break;
        }
        for (unsigned i = 0; i < nr; i++) {
            b->page[done + i].slot = slot + i;
            prepare_page(b, &b->page[done + i], env_frame_ptr(b->copy[done + i]));
            if (i % RELAX_PAGES == RELAX_PAGES - 1) {
                env_relax();
            }
        }
        done += nr;
    }
    for (unsigned i = done; i < b->nr; i++) {
        withdraw(b, &b->page[i]);
    }
    b->nr = done;
}

/* The next run of slots in a row to the store. False: there is none. */
static bool submit_next(struct swap_batch *b)
{
    unsigned end;

    while (b->at < b->nr && !is_leaving(&b->page[b->at])) {
        b->at++;
    }
    if (b->at >= b->nr) {
        return false;
    }
    b->single = b->single && b->at < b->single_end;
    end = b->single ? b->at + 1 : b->nr;
    for (b->run = 1; b->at + b->run < end && is_leaving(&b->page[b->at + b->run]) &&
                     b->page[b->at + b->run].slot == b->page[b->at].slot + b->run;
         b->run++) {}
    b->req.slot = b->page[b->at].slot;
    b->req.nr = b->run;
    b->req.frames = &b->copy[b->at];
    store_submit(swap.cfg.store, &b->req);
    return true;
}

static void batch_done(struct store_request *r)
{
    struct swap_batch *b = r->arg;

    if (r->result == HV_EIO && b->run > 1) {
        b->single = true;
        b->single_end = b->at + b->run;
    } else {
        for (unsigned i = 0; i < b->run; i++) {
            b->page[b->at + i].result = r->result;
        }
        b->at += b->run;
    }
    if (!submit_next(b)) {
        done_push(&swap.done_batches, &b->done);
        swap.cfg.wake(NULL);
    }
}

/* Prepared pages to the store; without any the batch ends. */
static unsigned submit(struct swap_batch *b)
{
    unsigned nr = 0;

    for (unsigned i = 0; i < b->nr; i++) {
        nr += is_leaving(&b->page[i]);
    }
    if (nr == 0) {
        batch_put(b);
        return 0;
    }
    b->at = 0;
    b->single = false;
    swap_add(&swap.stats.writes, 1);
    (void)submit_next(b);
    return nr;
}

void batch_run(struct swap_batch *b, const struct swap_how *how, struct swap_step *out)
{
    out->freed += nominate_all(b, how->share);
    if (how->compress) {
        out->freed += keep_some(b);
    }
    prepare(b);
    out->started += submit(b);
}

/* ---- When it is written ---- */

/* The page is in its slot: if it is still what was written, it leaves. */
static bool leave_for_slot(struct swap_batch *b, struct leaving *l, struct flush_batch *flush)
{
    struct p2m *p = b->p;
    bool ok;

    spin_lock(&p->lock);
    ok = may_leave(l);
    if (ok && l->e.state == P2M_COMPRESSED) {
        b->nr_zip_freed += zip_drop(p, word_place(l->e.seq));
        p2m_change(&l->e, word_next(l->e.seq, P2M_SWAPPED, MFN(l->slot)));
        p->count.compressed--;
    } else if (ok) {
        evict(b, l, P2M_SWAPPED, l->slot, flush);
    }
    p->count.swapped += ok;
    p->count.swapped_out += ok;
    if (ok) {
        reclaim_note_page(p->owner, l->gfn, PAGE_SWAPPED, l->slot);
    }
    spin_unlock(&p->lock);
    return ok;
}

/* A disk may fail at every slot, and say so of one after the other for hours. */
static void report_unwritable(const struct swap_batch *b, const struct leaving *l)
{
    uint32_t suppressed = 0;

    swap_add(&swap.stats.write_errors, 1);
    if (ratelimit_take(&swap.limit, env_now_ns(), &suppressed)) {
        env_log("swap: slot %llu of %s cannot be written: %s; guest page %#llx of VM %u stays (%u "
                "lines like it not shown)",
                (unsigned long long)l->slot, swap.cfg.store->name, hv_strerror(l->result),
                (unsigned long long)l->gfn.n, b->p->owner, suppressed);
    }
}

static void finish_page(struct swap_batch *b, struct leaving *l, struct flush_batch *flush)
{
    if (l->result == HV_OK) {
        swap_add(&swap.stats.written, 1);
        if (!leave_for_slot(b, l, flush)) {
            note_stay(b, l);
            slots_free(l->slot);
        }
        leave_batch(b, l);
        return;
    }
    report_unwritable(b, l);
    if (l->result == HV_EIO) {
        slots_retire(l->slot);
    } else {
        slots_free(l->slot);
    }
    l->slot = SLOT_NONE;
    if (!p2m_same(&l->e)) {
        leave_batch(b, l);
    } else if (b->tries + 1 >= TRIES || !swap_has_store()) {
        withdraw(b, l);
    }
}

static uint64_t finish(struct swap_batch *b)
{
    struct flush_batch flush;
    uint64_t freed;

    swap_add(&swap.stats.writes, (uint64_t)-1);
    flush_batch_init(&flush, &b->p->domain);
    for (unsigned i = 0; i < b->nr; i++) {
        if (is_leaving(&b->page[i])) {
            finish_page(b, &b->page[i], &flush);
        }
    }
    freed = flush_evicted(b, &flush);
    b->tries++;
    prepare(b);
    (void)submit(b);
    return freed;
}

uint64_t batch_reap(void)
{
    struct done_node *node = done_take(&swap.done_batches);
    uint64_t freed = 0;

    while (node != NULL) {
        struct swap_batch *b = container_of(node, struct swap_batch, done);

        node = node->next;
        freed += finish(b);
    }
    return freed;
}
