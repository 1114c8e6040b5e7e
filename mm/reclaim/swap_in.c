/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages on their way back; see swap.h. A read takes a run of slots: the one that is asked for, and, when
 * memory is plentiful, its neighbours that hold neighbours of the page and are still wanted. How many
 * of them depends on whether it pays: touches that follow each other closely double the number, others
 * halve it. All their words are `incoming` until the read has been reaped: nobody else changes them. If
 * a run fails, the page that was asked for is read once more alone.
 */
#include "kernel/lib/mutant.h"
#include "mm/buddy.h"
#include "mm/reclaim/crypt.h"
#include "mm/reclaim/reclaim.h"
#include "mm/reclaim/swap_internal.h"
#include "mm/share/hash.h"
#include "mm/slab.h"

#define NR_READS 32u

struct coming {
    gfn_t gfn;
    struct p2m_entry e;
};

struct swap_read {
    struct done_node done;
    struct list node; /* while it is free; swap.lock */
    struct store_request req;
    struct p2m *p;
    unsigned wanted; /* which of the pages was asked for */
    struct coming page[RUN_PAGES];
    mfn_t frame[RUN_PAGES];
};

static struct swap_read *all_reads; /* an array */

static void read_done(struct store_request *r)
{
    struct swap_read *in = r->arg;

    struct p2m *p = in->p;

    /* Who reaps it lets go of p: hold it across the wake. */
    swap_hold(p);
    done_push(&swap.done_reads, &in->done);
    swap.cfg.wake(p);
    swap_release(p);
}

enum hv_err swap_in_init(void)
{
    all_reads = env_may_allocate("swap.reads")
                    ? kmalloc(NR_READS * sizeof(struct swap_read), OWNER_HOST)
                    : NULL;
    if (all_reads == NULL) {
        return HV_ENOMEM;
    }
    for (unsigned i = 0; i < NR_READS; i++) {
        struct swap_read *in = &all_reads[i];

        in->req.op = STORE_READ;
        in->req.done = read_done;
        in->req.arg = in;
        list_add_tail(&swap.free_reads, &in->node);
    }
    swap.nr_free_reads = NR_READS;
    return HV_OK;
}

void swap_in_fini(void)
{
    kfree(all_reads);
    all_reads = NULL;
}

/* No VM gets more than half of the reads, or than a quarter from when one was wanted and none was free until
 * a quarter is free again: who sends many vCPUs for pages holds up itself. What it has wakes it in the end.
 * swap.lock held. */
static bool may_read(const struct p2m *p)
{
    if (swap.nr_free_reads == 0) {
        swap.reads_lacked = true;
        return false;
    }
    return p->reads < NR_READS / (swap.reads_lacked ? 4 : 2);
}

static struct swap_read *read_get(struct p2m *p)
{
    struct swap_read *in = NULL;

    spin_lock(&swap.lock);
    if (may_read(p)) {
        in = list_entry(list_first(&swap.free_reads), struct swap_read, node);
        list_del(&in->node);
        in->p = p;
        p->reads++;
        swap.nr_free_reads--;
    }
    spin_unlock(&swap.lock);
    if (in != NULL) {
        swap_hold(p);
    }
    return in;
}

static void read_put(struct swap_read *in)
{
    struct p2m *p = in->p;

    spin_lock(&swap.lock);
    list_add_tail(&swap.free_reads, &in->node);
    p->reads--;
    swap.nr_free_reads++;
    bool lacked = swap.reads_lacked;
    swap.reads_lacked = lacked && swap.nr_free_reads < NR_READS / 4;
    spin_unlock(&swap.lock);
    swap.cfg.wake(p);
    /* Others' vCPUs may wait for this read, and none of their own ends. */
    if (unlikely(lacked)) {
        swap.cfg.wake_all();
    }
    swap_release(p);
}

/* ---- Going to read ---- */

static enum hv_err alloc_frame(struct p2m *p, mfn_t *out)
{
    return env_may_allocate("swap.frame") ? buddy_alloc(0, FRAME_GUEST, p->owner, 0, out)
                                          : HV_ENOMEM;
}

/* p locked. */
static void set_incoming(struct p2m *p, struct p2m_entry *e)
{
    p2m_change(e, word_next(e->seq, P2M_INCOMING, MFN(swap_slot(e->seq))));
    p->count.incoming++;
}

/* The neighbour `by` pages from gfn, if it is in the slot that far from gfn's. p locked. */
static bool look_beside(struct p2m *p, gfn_t gfn, uint64_t slot, int by, struct coming *c)
{
    gfn_t beside = GFN(gfn.n + (uint64_t)(int64_t)by);

    if (ALIGN_DOWN(beside.n, RUN_PAGES) != ALIGN_DOWN(gfn.n, RUN_PAGES)) {
        return false; /* and there is no room for it in the array */
    }
    c->gfn = beside;
    p2m_query(p, beside, &c->e);
    return c->e.state == P2M_SWAPPED && word_place(c->e.seq) == slot + (uint64_t)(int64_t)by;
}

/* How many neighbours to read along with gfn; p locked. */
static unsigned nr_along(struct p2m *p, gfn_t gfn)
{
    uint64_t way = gfn.n > p->last_in.n ? gfn.n - p->last_in.n : p->last_in.n - gfn.n;

    /* Behind a run that came along as well, the next touch is up to that far away. */
    p->along = way < 2 * RUN_PAGES ? MIN(2 * p->along + 1, RUN_PAGES - 1) : p->along / 2;
    p->last_in = gfn;
    return p->along;
}

/* Add neighbours to the page in the middle of the arrays, upwards and downwards; p locked. */
static void add_neighbours(struct swap_read *in, struct coming *page, mfn_t *frame, unsigned *low,
                           unsigned *high)
{
    const struct coming *c = &page[RUN_PAGES];
    uint64_t slot = swap_slot(c->e.seq);
    unsigned most = nr_along(in->p, c->gfn) + 1;

    while (*high - *low < most &&
           look_beside(in->p, c->gfn, slot, (int)(*high - RUN_PAGES), &page[*high]) &&
           alloc_frame(in->p, &frame[*high]) == HV_OK) {
        set_incoming(in->p, &page[(*high)++].e);
    }
    while (*high - *low < most &&
           look_beside(in->p, c->gfn, slot, (int)*low - 1 - (int)RUN_PAGES, &page[*low - 1]) &&
           alloc_frame(in->p, &frame[*low - 1]) == HV_OK) {
        set_incoming(in->p, &page[--*low].e);
    }
}

static void submit(struct swap_read *in)
{
    in->req.slot = swap_slot(in->page[0].e.seq);
    in->req.frames = in->frame;
    store_submit(swap.cfg.store, &in->req);
}

/* Start to read the page into `frame`. HV_EBUSY: it has changed. */
static enum hv_err start_read(struct swap_read *in, gfn_t gfn, const struct p2m_entry *e, mfn_t mfn)
{
    struct coming page[2 * RUN_PAGES];
    mfn_t frame[2 * RUN_PAGES];
    unsigned low = RUN_PAGES, high = RUN_PAGES + 1;
    struct p2m *p = in->p;

    page[RUN_PAGES] = (struct coming){gfn, *e};
    frame[RUN_PAGES] = mfn;
    spin_lock(&p->lock);
    if (!p2m_same(e)) {
        spin_unlock(&p->lock);
        return HV_EBUSY;
    }
    set_incoming(p, &page[RUN_PAGES].e);
    if (buddy_free_frames() > swap.cfg.read_along) {
        add_neighbours(in, page, frame, &low, &high);
    }
    spin_unlock(&p->lock);
    in->wanted = RUN_PAGES - low;
    in->req.nr = high - low;
    for (unsigned i = 0; i < in->req.nr; i++) {
        in->page[i] = page[low + i];
        in->frame[i] = frame[low + i];
    }
    swap_add(&swap.stats.reads, 1);
    submit(in);
    return HV_OK;
}

/* The last attempt failed: say so once. */
static enum hv_err report_failure(struct p2m *p, struct p2m_entry *e)
{
    enum hv_err err = HV_EBUSY;

    spin_lock(&p->lock);
    if (p2m_same(e)) {
        p2m_change(e, word_next(e->seq, P2M_SWAPPED, MFN(swap_slot(e->seq))));
        err = HV_EIO;
    }
    spin_unlock(&p->lock);
    return err;
}

enum hv_err swap_in(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    struct swap_read *in;
    enum hv_err err;
    mfn_t mfn;

    if (access & P2M_FAST) {
        return HV_EAGAIN;
    }
    swap_in_reap();
    if (!p2m_same(e)) {
        return HV_EBUSY;
    }
    if (e->state == P2M_INCOMING) {
        return HV_EAGAIN;
    }
    if (word_place(e->seq) & SWAP_FAILED) {
        return report_failure(p, e);
    }
    in = read_get(p);
    if (in == NULL) {
        return HV_EAGAIN;
    }
    err = alloc_frame(p, &mfn);
    if (err == HV_OK) {
        err = start_read(in, gfn, e, mfn);
        if (err == HV_OK) {
            /* It may be there already. */
            return HV_EBUSY;
        }
        buddy_free(mfn, 0);
    }
    read_put(in);
    return err;
}

bool swap_may_retry(struct p2m *p, gfn_t gfn)
{
    struct p2m_entry e;
    bool room;

    p2m_query(p, gfn, &e);
    if (e.state != P2M_SWAPPED) {
        return e.state != P2M_INCOMING || __atomic_load_n(&swap.done_reads, __ATOMIC_RELAXED);
    }
    spin_lock(&swap.lock);
    room = may_read(p); /* who got the read that woke this one has said nothing */
    spin_unlock(&swap.lock);
    return room;
}

/* ---- When it has been read ---- */

/* The page is in memory; p locked. */
static void arrive(struct p2m *p, const struct coming *c, mfn_t frame)
{
    struct p2m_entry e = c->e;

    p2m_enter_private(p, c->gfn, frame, &e);
    p->count.incoming--;
    p->count.swapped--;
    p->count.swapped_in++;
    reclaim_note_page(p->owner, c->gfn, PAGE_READ_BACK, swap_slot(c->e.seq));
}

/* It is not, and stays in its slot; p locked. */
static void stay(struct p2m *p, const struct coming *c, uint64_t failed)
{
    struct p2m_entry e = c->e;

    p2m_change(&e, word_next(e.seq, P2M_SWAPPED, MFN(swap_slot(e.seq) | failed)));
    p->count.incoming--;
}

static bool is_intact(const struct coming *c, mfn_t frame)
{
    uint64_t slot = swap_slot(c->e.seq);
    void *page = env_frame_ptr(frame);

    if (swap.cfg.encrypt) {
        crypt_decrypt(page, page, slots_tweak(slot));
    }
    env_saw_contents(); /* who reaps is anybody */
    return slots_check(slot, hash_page(page));
}

static void finish_page(struct swap_read *in, unsigned i, enum hv_err result)
{
    const struct coming *c = &in->page[i];
    uint64_t slot = swap_slot(c->e.seq);
    struct p2m *p = in->p;
    bool ok = result == HV_OK;

    if (ok && !is_intact(c, in->frame[i])) {
        swap_add(&swap.stats.mismatches, 1);
        result = HV_EINVAL;
        ok = false;
    }
    spin_lock(&p->lock);
    if (ok) {
        arrive(p, c, in->frame[i]);
    } else {
        stay(p, c, i == in->wanted ? SWAP_FAILED : 0);
        p->swap_result = result;
    }
    spin_unlock(&p->lock);
    if (ok) {
        slots_free(slot);
        swap_add(&swap.stats.read, 1);
        swap_add(&swap.stats.along, i != in->wanted);
    } else {
        buddy_free(in->frame[i], 0);
    }
}

/* The run failed: give the neighbours back, and read the wanted page once more alone. */
static void read_alone(struct swap_read *in)
{
    for (unsigned i = 0; i < in->req.nr; i++) {
        if (i != in->wanted) {
            spin_lock(&in->p->lock);
            stay(in->p, &in->page[i], 0);
            spin_unlock(&in->p->lock);
            buddy_free(in->frame[i], 0);
        }
    }
    in->page[0] = in->page[in->wanted];
    in->frame[0] = in->frame[in->wanted];
    in->wanted = 0;
    in->req.nr = 1;
    submit(in);
}

static void finish(struct swap_read *in)
{
    if (in->req.result != HV_OK) {
        swap_add(&swap.stats.read_errors, 1);
        if (in->req.nr > 1) {
            read_alone(in);
            return;
        }
    }
    for (unsigned i = 0; i < in->req.nr; i++) {
        finish_page(in, i, in->req.result);
    }
    swap_add(&swap.stats.reads, (uint64_t)-1);
    read_put(in);
}

void swap_in_reap(void)
{
    struct done_node *node = done_take(&swap.done_reads);

    while (node != NULL) {
        struct swap_read *in = container_of(node, struct swap_read, done);

        node = node->next;
        finish(in);
    }
}

/* ---- Errors, and pages that nobody wants back ---- */

bool swap_error(struct p2m *p, gfn_t gfn, struct swap_failure *out)
{
    struct p2m_entry e;

    p2m_query(p, gfn, &e);
    if (e.state != P2M_SWAPPED && e.state != P2M_INCOMING) {
        return false; /* its word names no slot */
    }
    *out = (struct swap_failure){.store = swap.cfg.store->name, .slot = swap_slot(e.seq)};
    switch (p->swap_result) {
    case HV_EINVAL:
        out->why = "it is not what was written there (checksum)";
        break;
    case HV_ENOENT:
        out->why = "the disk is gone";
        break;
    default:
        out->why = "the disk reports an error";
        break;
    }
    return true;
}

void swap_forget(struct p2m *p, struct p2m_entry *e)
{
    uint64_t was = e->seq;

    p2m_change(e, word_next(was, P2M_UNTOUCHED, MFN(0)));
    if (word_kind(was) == P2M_SWAPPED) {
        p->count.swapped--;
        slots_free(swap_slot(was));
    } else {
        p->count.compressed--;
        zip_drop(p, word_place(was));
    }
}

/* ---- Pages that are overwritten ---- */

bool swap_is_away(struct p2m *p, gfn_t gfn)
{
    struct p2m_entry e;

    p2m_query(p, gfn, &e);
    return e.state == P2M_SWAPPED || e.state == P2M_COMPRESSED;
}

enum hv_err swap_overwrite(struct p2m *p, gfn_t gfn, enum hv_err (*fill)(void *arg, void *page),
                           void *arg)
{
    struct p2m_entry e;
    enum hv_err err;
    mfn_t mfn;

    p2m_query(p, gfn, &e);
    if (e.state != P2M_SWAPPED && e.state != P2M_COMPRESSED) {
        return HV_EBUSY;
    }
    err = alloc_frame(p, &mfn);
    if (err != HV_OK) {
        return err;
    }
    err = fill(arg, env_frame_ptr(mfn));
    if (err == HV_OK) {
        if (!MUTANT(overwrite_before_flush)) {
            p2m_settle(p);
        }
        spin_lock(&p->lock);
        err = p2m_same(&e) ? HV_OK : HV_EBUSY;
        if (err == HV_OK) {
            swap_forget(p, &e);
            p2m_enter_private(p, gfn, mfn, &e);
        }
        spin_unlock(&p->lock);
    }
    if (err == HV_OK) {
        swap_add(&swap.stats.spared, 1);
    } else {
        buddy_free(mfn, 0);
    }
    return err;
}
