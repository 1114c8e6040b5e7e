/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Members of page sharing, host-wide numbers, and the audit of references; see share.h. Callers:
 * kernel/vm, the shell, the p2m.
 */
#include "mm/share/share.h"

#include "kernel/lib/rng.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/frame.h"
#include "mm/p2m_internal.h"
#include "mm/share/hash.h"
#include "mm/share/index.h"
#include "mm/share/share_internal.h"
#include "mm/slab.h"

#define AUDIT_TRIES 8u
#define SEVERAL 0xffffu

struct spinlock share_lock = SPINLOCK_INIT(RANK_SHARE, "share");
mfn_t share_zero_frame = {UINT64_MAX};

/* share_lock; number 0 is nobody's. */
static struct {
    struct p2m *p2m;
    unsigned users;
} members[INDEX_MAX_MEMBERS];
static unsigned nr_members;
static struct rng rng; /* share_lock */

/* p2ms that left and still have pages on shared frames; how many ever left. share_lock. */
static uint64_t orphans, leaves;

/* The right to scan: the next one's place in the queue, and whose turn it is (atomic). */
static uint32_t scan_next, scan_turn;

enum hv_err share_init(uint64_t nr_frames)
{
    enum hv_err err = index_init(nr_frames);

    if (err == HV_OK) {
        err = buddy_alloc(0, FRAME_HOST, OWNER_HOST, BUDDY_ZERO, &share_zero_frame);
        if (err != HV_OK) {
            index_fini();
            share_zero_frame = MFN_NONE;
        }
    }
    return err;
}

void share_fini(void)
{
    index_reap();
    index_fini();
    if (mfn_valid(share_zero_frame)) {
        buddy_free(share_zero_frame, 0);
    }
    share_zero_frame = MFN_NONE;
}

void share_seed(uint64_t seed)
{
    spin_lock(&share_lock);
    rng_seed(&rng, seed);
    hash_set_seed(rng_next(&rng));
    spin_unlock(&share_lock);
}

uint64_t share_next_seed(void)
{
    spin_lock(&share_lock);
    uint64_t seed = rng_next(&rng);
    spin_unlock(&share_lock);
    return seed;
}

/* ---- Members ---- */

void share_join(struct p2m *p)
{
    struct share_scan *scan;

    if (!mfn_valid(share_zero_frame) || p->member != 0) {
        return;
    }
    scan = scan_create(p);
    if (scan == NULL) {
        return;
    }
    spin_lock(&share_lock);
    for (unsigned i = 1; i < INDEX_MAX_MEMBERS; i++) {
        if (members[i].p2m == NULL && members[i].users == 0) {
            members[i].p2m = p;
            p->scan = scan;
            p->member = i;
            nr_members++;
            break;
        }
    }
    spin_unlock(&share_lock);
    if (p->member == 0) {
        scan_destroy(scan);
    }
}

static unsigned users_of(unsigned member)
{
    spin_lock(&share_lock);
    unsigned users = members[member].users;
    spin_unlock(&share_lock);
    return users;
}

void share_leave(struct p2m *p)
{
    unsigned member = p->member;

    if (member == 0) {
        return;
    }
    /* The number stays taken until the hints are gone: they name it. */
    spin_lock(&share_lock);
    __atomic_store_n(&members[member].p2m, NULL, __ATOMIC_RELAXED);
    members[member].users++;
    nr_members--;
    orphans++;
    leaves++;
    spin_unlock(&share_lock);
    p->orphan = true;
    while (users_of(member) > 1) {
        env_relax();
    }
    index_purge(member);
    spin_lock(&share_lock);
    members[member].users--;
    p->member = 0;
    spin_unlock(&share_lock);
    scan_destroy(p->scan);
    p->scan = NULL;
}

void share_gone(struct p2m *p)
{
    if (p->orphan) {
        spin_lock(&share_lock);
        orphans--;
        spin_unlock(&share_lock);
        p->orphan = false;
    }
}

bool share_is_leaving(unsigned member)
{
    return __atomic_load_n(&members[member].p2m, __ATOMIC_RELAXED) == NULL;
}

/* share_lock held. */
static struct p2m *hold_locked(unsigned member)
{
    struct p2m *p = members[member].p2m;

    members[member].users += p != NULL;
    return p;
}

struct p2m *share_hold(unsigned member)
{
    spin_lock(&share_lock);
    struct p2m *p = member < INDEX_MAX_MEMBERS ? hold_locked(member) : NULL;
    spin_unlock(&share_lock);
    return p;
}

struct p2m *share_next(unsigned member)
{
    struct p2m *p = NULL;

    spin_lock(&share_lock);
    while (p == NULL && ++member < INDEX_MAX_MEMBERS) {
        p = hold_locked(member);
    }
    spin_unlock(&share_lock);
    return p;
}

void share_release(unsigned member)
{
    spin_lock(&share_lock);
    members[member].users--;
    spin_unlock(&share_lock);
}

unsigned share_member(const struct p2m *p)
{
    return p->member;
}

uint64_t share_member_salt(unsigned member)
{
    return members[member].p2m != NULL ? members[member].p2m->salt : SHARE_NO_SALT;
}

/* Call fn for each member. */
static void for_each_member(void (*fn)(struct p2m *p, void *arg), void *arg)
{
    unsigned member;

    for (struct p2m *p = share_next(0); p != NULL; p = share_next(member)) {
        member = p->member;
        fn(p, arg);
        share_release(member);
    }
}

/* ---- The right to scan ---- */

void share_scan_enter(void)
{
    uint32_t place = __atomic_fetch_add(&scan_next, 1, __ATOMIC_RELAXED);

    while (__atomic_load_n(&scan_turn, __ATOMIC_ACQUIRE) != place) {
        env_relax();
    }
}

bool share_scan_try_enter(void)
{
    uint32_t place = __atomic_load_n(&scan_turn, __ATOMIC_ACQUIRE);

    return __atomic_compare_exchange_n(&scan_next, &place, place + 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

void share_scan_leave(void)
{
    __atomic_store_n(&scan_turn, scan_turn + 1, __ATOMIC_RELEASE);
}

/* ---- Numbers ---- */

static void add_counters(struct p2m *p, void *arg)
{
    struct share_stats *sum = arg;
    struct p2m_counters count;

    p2m_counters(p, &count);
    sum->pages += count.shared + count.zero;
    sum->zero += count.zero;
    sum->members++;
}

void share_stats(struct share_stats *out)
{
    struct index_stats ix;

    *out = (struct share_stats){0};
    if (!mfn_valid(share_zero_frame)) {
        return;
    }
    for_each_member(add_counters, out);
    index_stats(&ix);
    out->common = ix.shared + (out->zero != 0);
    out->hints = ix.hints;
    out->table_bytes = ix.bytes;
    out->table_max_bytes = ix.max_bytes;
}

/* ---- Audit ---- */

struct recount {
    uint32_t *refs; /* by entry */
    uint16_t *by;   /* by entry: the member that stands on it, or SEVERAL */
    uint64_t frames, several;
    uint32_t nr;
    uint64_t changes; /* of all members */
    uint64_t loose;   /* references that no page accounts for, of p2ms that left too */
    uint64_t pins;    /* on shared frames and the zero frame */
    uint64_t extra;   /* references that no page accounts for */
    mfn_t wrong;      /* a frame whose count is wrong, if nothing changed meanwhile */
    uint32_t wrong_refs, wrong_pages;
    bool ok;
};

static void count_changes(struct p2m *p, void *arg)
{
    struct recount *r = arg;

    spin_lock(&p->lock);
    r->changes += p->changes;
    r->pins += p->shared_pins;
    r->loose += __atomic_load_n(&p->loose, __ATOMIC_ACQUIRE);
    spin_unlock(&p->lock);
}

static void count_all_changes(struct recount *r)
{
    for_each_member(count_changes, r);
    spin_lock(&share_lock);
    r->changes += leaves;
    r->loose += orphans;
    spin_unlock(&share_lock);
}

static void count_node(struct recount *r, const struct p2m *p, uint64_t word, unsigned level)
{
    const uint64_t *words = word_node(word);

    for (unsigned i = 0; i < NODE_WORDS; i++) {
        if (word_kind(words[i]) == KIND_NODE) {
            count_node(r, p, words[i], level - 1);
        } else if (word_kind(words[i]) == P2M_SHARED) {
            mfn_t mfn = word_mfn(words[i]);
            uint32_t entry = index_entry(mfn);

            if (frame_of(mfn)->use != FRAME_SHARED || entry >= r->nr) {
                env_log("audit: VM %u stands on frame %#llx, which is not shared", p->owner,
                        (unsigned long long)mfn.n);
                r->ok = false;
                continue;
            }
            if (index_salt(mfn) != p->salt) {
                env_log("audit: VM %u stands on frame %#llx of another salt", p->owner,
                        (unsigned long long)mfn.n);
                r->ok = false;
            }
            r->refs[entry]++;
            r->by[entry] =
                (uint16_t)(r->by[entry] == 0 || r->by[entry] == p->member ? p->member : SEVERAL);
        }
    }
}

static void count_refs(struct p2m *p, void *arg)
{
    spin_lock(&p->lock);
    count_node(arg, p, word_next(0, KIND_NODE, env_ptr_frame(p->root)), ROOT_LEVEL);
    spin_unlock(&p->lock);
}

static void compare_refs(mfn_t mfn, uint32_t entry, void *arg)
{
    struct recount *r = arg;
    uint32_t refs = index_refs(mfn);
    uint32_t counted = entry < r->nr ? r->refs[entry] : 0;

    /* Readers' pins are not told apart by frame. */
    if (refs < counted || refs == 0 || refs - counted > r->pins) {
        r->wrong = mfn;
        r->wrong_refs = refs;
        r->wrong_pages = counted;
    }
    r->extra += refs - counted;
    r->frames++;
    r->several += entry < r->nr && r->by[entry] == SEVERAL;
}

static bool recount_refs(struct recount *r)
{
    struct recount before = {0}, after = {0};

    for (uint32_t i = 0; i < r->nr; i++) {
        r->refs[i] = 0;
        r->by[i] = 0;
    }
    r->extra = 0;
    r->wrong = MFN_NONE;
    r->frames = 0;
    r->several = 0;
    r->ok = true;
    count_all_changes(&before);
    /* Who dropped a last reference before the count was done with it (`loose`), who does it later has changed
     * the count. */
    index_reap();
    for_each_member(count_refs, r);
    r->pins = before.pins;
    spin_lock(&share_lock);
    index_for_each_shared(compare_refs, r);
    spin_unlock(&share_lock);
    count_all_changes(&after);
    return before.changes == after.changes && before.pins == after.pins && before.loose == 0;
}

bool share_audit(struct share_recount *out)
{
    struct recount r = {.ok = true};
    bool ok;

    *out = (struct share_recount){.certain = true};
    if (!mfn_valid(share_zero_frame)) {
        return true;
    }
    share_scan_enter();
    ok = index_audit();
    r.nr = index_nr_entries();
    r.refs = kmalloc(r.nr * sizeof(*r.refs), OWNER_HOST);
    r.by = kmalloc(r.nr * sizeof(*r.by), OWNER_HOST);
    out->certain = false;
    for (unsigned i = 0; i < AUDIT_TRIES && r.refs && r.by && !out->certain; i++) {
        out->certain = recount_refs(&r);
        env_relax();
    }
    kfree(r.refs);
    kfree(r.by);
    share_scan_leave();
    out->frames = r.frames;
    out->several = r.several;
    if (out->certain && mfn_valid(r.wrong)) {
        env_log("audit: shared frame %#llx has %u references, %u pages stand on it",
                (unsigned long long)r.wrong.n, r.wrong_refs, r.wrong_pages);
        ok = false;
    }
    if (out->certain && (!r.ok || r.extra > r.pins)) {
        env_log("audit: references to shared frames disagree (%llu without a page, %llu pins)",
                (unsigned long long)r.extra, (unsigned long long)r.pins);
        ok = false;
    }
    return ok;
}
