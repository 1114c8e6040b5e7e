/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The p2m's audit: walks the tree, checks every word against the frame table, and compares the sums
 * with the counters. Holds the p2m lock for the whole walk.
 */
#include "mm/p2m.h"

#include "mm/p2m_internal.h"
#include "mm/reclaim/slots.h"
#include "mm/reclaim/swap.h"
#include "mm/share/index.h"
#include "mm/share/share.h"

struct recount {
    const struct p2m *p;
    struct p2m_counters sum;
    bool ok;
};

/* References are counted by share_audit. */
static void audit_shared(struct recount *r, uint64_t word, uint64_t gfn)
{
    mfn_t mfn = word_mfn(word);
    const struct frame *f = frame_of(mfn);
    bool is_zero = word_kind(word) == P2M_ZERO;

    r->sum.shared += !is_zero;
    r->sum.zero += is_zero;
    if (is_zero ? mfn.n != share_zero_frame.n
                : f->use != FRAME_SHARED || f->refs == 0 || index_salt(mfn) != r->p->salt) {
        env_log("audit: gfn %#llx of VM %u stands on frame %#llx with use %u refs %u salt %#x",
                (unsigned long long)gfn, r->p->owner, (unsigned long long)mfn.n, f->use, f->refs,
                index_salt(mfn));
        r->ok = false;
    }
}

/* A page that is not in memory: its place knows it. */
static void audit_paged(struct recount *r, uint64_t word, uint64_t gfn)
{
    bool zipped = word_kind(word) == P2M_COMPRESSED;

    r->sum.compressed += zipped;
    r->sum.swapped += !zipped;
    r->sum.incoming += word_kind(word) == P2M_INCOMING;
    if (zipped ? !zip_audit_place(r->p, word_place(word), gfn)
               : !slots_holds(word_place(word) & SWAP_SLOT_MASK, r->p->owner, GFN(gfn))) {
        env_log("audit: gfn %#llx of VM %u is not at %#llx, where its word says",
                (unsigned long long)gfn, r->p->owner, (unsigned long long)word_place(word));
        r->ok = false;
    }
}

/* Untouched, ballooned and private pages are RAM; a private block is a frame of ours that knows its gfn. */
static void audit_word(struct recount *r, uint64_t word, unsigned level, uint64_t gfn)
{
    unsigned kind = word_kind(word);
    const struct frame *f;

    if (kind == P2M_HOLE) {
        return;
    }
    if (PAGED_KINDS >> kind & 1) {
        r->ok &= level == 0;
        r->sum.ram++;
        audit_paged(r, word, gfn);
        return;
    }
    if (kind != P2M_UNTOUCHED && kind != P2M_BALLOONED && !(FRAME_KINDS >> kind & 1)) {
        env_log("audit: gfn %#llx of VM %u has kind %u", (unsigned long long)gfn, r->p->owner,
                kind);
        r->ok = false;
        return;
    }
    r->ok &= level <= (kind <= P2M_PRIVATE ? RAM_LEVEL : kind == P2M_BALLOONED ? 1 : 0);
    r->sum.ram += level_frames(level);
    r->sum.ballooned += kind == P2M_BALLOONED ? level_frames(level) : 0;
    if (kind == P2M_UNTOUCHED || kind == P2M_BALLOONED) {
        return;
    }
    r->sum.granted += level_frames(level);
    if (kind == P2M_SHARED || kind == P2M_ZERO) {
        audit_shared(r, word, gfn);
        return;
    }
    f = frame_of(word_mfn(word));
    r->sum.consumed += level_frames(level);
    r->sum.large_2m += level == 1;
    r->sum.large_1g += level == 2;
    r->sum.pinned += f->refs;
    if (f->use != FRAME_GUEST || f->owner != r->p->owner || f->order != NODE_SHIFT * level ||
        f->gfn != gfn) {
        env_log(
            "audit: gfn %#llx of VM %u has frame %#llx with use %u owner %u order %#x gfn %#llx",
            (unsigned long long)gfn, r->p->owner, (unsigned long long)word_mfn(word).n, f->use,
            f->owner, f->order, (unsigned long long)f->gfn);
        r->ok = false;
    }
}

static void audit_node(struct recount *r, mfn_t mfn, unsigned level, uint64_t gfn)
{
    const struct frame *f = frame_of(mfn);
    const uint64_t *words = env_frame_ptr(mfn);
    unsigned nr_private = 0;

    r->sum.overhead++;
    for (unsigned i = 0; i < NODE_WORDS; i++, gfn += level_frames(level)) {
        if (word_kind(words[i]) == KIND_NODE) {
            audit_node(r, word_mfn(words[i]), level - 1, gfn);
        } else {
            audit_word(r, words[i], level, gfn);
            nr_private += word_kind(words[i]) == P2M_PRIVATE;
        }
    }
    if (f->use != FRAME_P2M || f->owner != r->p->owner || f->order != 0 ||
        f->refs != (level == 1 ? nr_private : 0)) {
        env_log("audit: p2m node %#llx of VM %u has use %u owner %u refs %u",
                (unsigned long long)mfn.n, r->p->owner, f->use, f->owner, f->refs);
        r->ok = false;
    }
}

static bool agrees(const struct p2m *p, const char *what, uint64_t counted, uint64_t kept)
{
    if (counted != kept) {
        env_log("audit: VM %u, %s: counted %llu, counter says %llu", p->owner, what,
                (unsigned long long)counted, (unsigned long long)kept);
    }
    return counted == kept;
}

/* Frames of the owner beyond those in the tree are on their way in (another vCPU clears them). */
static bool covers(const struct p2m *p, const char *what, uint64_t owned, uint64_t counted)
{
    if (owned < counted) {
        env_log("audit: VM %u, %s: the tree has %llu, the frame table %llu", p->owner, what,
                (unsigned long long)counted, (unsigned long long)owned);
    }
    return owned >= counted;
}

bool p2m_audit(struct p2m *p)
{
    struct recount r = {.p = p, .ok = true};
    uint64_t owned[NR_FRAME_USES];
    uint64_t zip_frames, zip_pages;
    bool ok;

    spin_lock(&p->lock);
    audit_node(&r, env_ptr_frame(p->root), ROOT_LEVEL, 0);
    for (uint32_t at = p->retired; at != FRAME_LINK_NONE; at = frame_table[at].next) {
        r.sum.overhead++;
    }
    r.sum.pinned += p->shared_pins;
    buddy_count_owner(p->owner, owned);
    ok = zip_audit(p, &zip_frames, &zip_pages) && r.ok;
    ok &= agrees(p, "pages of RAM", r.sum.ram, p->count.ram);
    ok &= agrees(p, "pages granted", r.sum.granted, p->count.granted);
    ok &= agrees(p, "frames consumed", r.sum.consumed, p->count.consumed);
    ok &= agrees(p, "pages shared", r.sum.shared, p->count.shared);
    ok &= agrees(p, "zero pages", r.sum.zero, p->count.zero);
    ok &= agrees(p, "ballooned pages", r.sum.ballooned, p->count.ballooned);
    ok &= agrees(p, "compressed pages", r.sum.compressed, p->count.compressed);
    ok &= agrees(p, "frames of compressed pages", zip_frames, p->count.zip_frames);
    ok &= agrees(p, "swapped pages", r.sum.swapped, p->count.swapped);
    ok &= agrees(p, "incoming pages", r.sum.incoming, p->count.incoming);
    ok &= agrees(p, "2 MiB words", r.sum.large_2m, p->count.large_2m);
    ok &= agrees(p, "1 GiB words", r.sum.large_1g, p->count.large_1g);
    ok &= agrees(p, "nodes", r.sum.overhead, p->count.overhead);
    ok &= agrees(p, "pins", r.sum.pinned, p->count.pinned);
    ok &= covers(p, "guest frames", owned[FRAME_GUEST], r.sum.consumed);
    ok &= agrees(p, "frames of use compressed", owned[FRAME_ZIP], p->count.zip_frames);
    ok &= covers(p, "p2m frames", owned[FRAME_P2M], r.sum.overhead);
    spin_unlock(&p->lock);
    return ok;
}
