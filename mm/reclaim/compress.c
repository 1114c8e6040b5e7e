/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The cache of compressed pages; see compress.h. In the record of one of its frames, refs says which
 * pieces are taken (bits 0 to 3), whether they are quarters (bit 4), which chain it is in (bit 5), and
 * which pieces a batch has, on their way to the store (bits 6 to 9).
 */
#include "mm/reclaim/compress.h"

#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/p2m_internal.h"
#include "mm/reclaim/reclaim.h"

#define LZ4_STATIC_LINKING_ONLY
#include <lz4.h>

#define QUARTER (PAGE_SIZE / 4)
#define FILLED BIT(35)
#define GFN_MASK (BIT(48) - 1) /* of a header */
#define REFS_PIECES 0x0fu
#define REFS_QUARTERS 0x10u
#define REFS_FULL 0x20u
#define REFS_LEAVING_SHIFT 6

_Static_assert(LZ4_STREAM_MINSIZE <= ZIP_STATE_BYTES, "LZ4's state");

/* ---- Compressing ---- */

unsigned zip_page(void *state, const void *page, void *to)
{
    int bytes = LZ4_compress_fast_extState(state, page, to, (int)PAGE_SIZE, (int)ZIP_MOST, 1);

    return bytes > 0 ? (unsigned)bytes : 0;
}

bool zip_is_filled(const void *page, uint32_t *pattern)
{
    const uint64_t *w = page;

    *pattern = (uint32_t)w[0];
    if (w[0] != (w[0] << 32 | *pattern)) {
        return false;
    }
    for (unsigned i = 1; i < PAGE_SIZE / sizeof(*w); i++) {
        if (w[i] != w[0]) {
            return false;
        }
    }
    return true;
}

/* ---- Places and pieces ---- */

uint64_t zip_place_filled(uint32_t pattern)
{
    return FILLED | pattern;
}

static mfn_t place_frame(uint64_t place)
{
    return MFN(place >> 2);
}

static char *place_ptr(uint64_t place)
{
    return (char *)env_frame_ptr(place_frame(place)) + (place & 3) * QUARTER;
}

/* gfn in the low 48 bits, then the bytes. */
static uint64_t header_of(uint64_t place)
{
    uint64_t header;

    memcpy(&header, place_ptr(place), sizeof(header));
    return header;
}

static unsigned nr_pieces(uint32_t refs)
{
    return refs & REFS_QUARTERS ? 4 : 2;
}

static bool is_full(uint32_t refs)
{
    return (refs & REFS_PIECES) == BIT(nr_pieces(refs)) - 1;
}

/* The bit of the piece at `place`. */
static uint32_t piece_bit(uint64_t place, uint32_t refs)
{
    return 1u << (refs & REFS_QUARTERS ? place & 3 : (place & 3) / 2);
}

/* The pieces that are taken, and in no batch. */
static uint32_t resting(uint32_t refs)
{
    return refs & ~(refs >> REFS_LEAVING_SHIFT) & REFS_PIECES;
}

/* ---- Chains ---- */

static uint32_t *head_of(struct zip_cache *z, uint32_t refs)
{
    return refs & REFS_FULL ? &z->full : &z->room[(refs & REFS_QUARTERS) != 0];
}

static void chain_remove(struct zip_cache *z, mfn_t mfn)
{
    struct frame *f = frame_of(mfn);

    if (f->prev == FRAME_LINK_NONE) {
        *head_of(z, f->refs) = f->next;
    } else {
        frame_table[f->prev].next = f->next;
    }
    if (f->next != FRAME_LINK_NONE) {
        frame_table[f->next].prev = f->prev;
    } else if (f->refs & REFS_FULL) {
        z->full_end = f->prev;
    }
}

/* A frame with room comes first among its like, a full one last. */
static void chain_insert(struct zip_cache *z, mfn_t mfn)
{
    struct frame *f = frame_of(mfn);
    uint32_t *head = head_of(z, f->refs);

    f->next = f->prev = FRAME_LINK_NONE;
    if (f->refs & REFS_FULL) {
        f->prev = z->full_end;
        z->full_end = (uint32_t)mfn.n;
        head = f->prev == FRAME_LINK_NONE ? head : &frame_table[f->prev].next;
    } else if (*head != FRAME_LINK_NONE) {
        f->next = *head;
        frame_table[*head].prev = (uint32_t)mfn.n;
    }
    *head = (uint32_t)mfn.n;
}

/* The frame's pieces have changed: put it into the chain that it belongs to now. */
static void chain_move(struct zip_cache *z, mfn_t mfn, uint32_t refs)
{
    refs = is_full(refs) ? refs | REFS_FULL : refs & ~REFS_FULL;
    if ((refs & REFS_FULL) == (frame_of(mfn)->refs & REFS_FULL)) {
        frame_of(mfn)->refs = refs;
        return;
    }
    chain_remove(z, mfn);
    frame_of(mfn)->refs = refs;
    chain_insert(z, mfn);
}

void zip_init(struct p2m *p)
{
    p->zip =
        (struct zip_cache){FRAME_LINK_NONE, FRAME_LINK_NONE, {FRAME_LINK_NONE, FRAME_LINK_NONE}, 0};
}

static void free_chain(uint32_t head)
{
    while (head != FRAME_LINK_NONE) {
        mfn_t mfn = MFN(head);

        head = frame_of(mfn)->next;
        frame_of(mfn)->refs = 0;
        buddy_free(mfn, 0);
    }
}

void zip_fini(struct p2m *p)
{
    free_chain(p->zip.full);
    free_chain(p->zip.room[0]);
    free_chain(p->zip.room[1]);
    zip_init(p);
}

/* ---- Keeping pages ---- */

enum hv_err zip_put(struct p2m *p, gfn_t gfn, const void *data, unsigned bytes, mfn_t *spare,
                    uint64_t *place)
{
    bool quarter = bytes + ZIP_HEADER <= QUARTER;
    uint32_t *room = &p->zip.room[quarter];
    uint64_t header = gfn.n | (uint64_t)bytes << 48;
    unsigned piece = 0;
    mfn_t mfn;

    if (*room == FRAME_LINK_NONE) {
        if (!mfn_valid(*spare)) {
            return HV_ENOMEM;
        }
        buddy_retype(*spare, FRAME_ZIP, p->owner);
        frame_of(*spare)->refs = quarter ? REFS_QUARTERS : 0;
        chain_insert(&p->zip, *spare);
        *spare = MFN_NONE;
        p->count.zip_frames++;
    }
    mfn = MFN(*room);
    while (frame_of(mfn)->refs >> piece & 1) {
        piece++;
    }
    chain_move(&p->zip, mfn, frame_of(mfn)->refs | 1u << piece);
    *place = mfn.n << 2 | (quarter ? piece : 2 * piece);
    memcpy(place_ptr(*place), &header, sizeof(header));
    memcpy(place_ptr(*place) + ZIP_HEADER, data, bytes);
    p->zip.pages++;
    return HV_OK;
}

void zip_get(struct p2m *p, uint64_t place, void *page)
{
    uint32_t pattern = (uint32_t)place;

    if (place & FILLED) {
        for (unsigned i = 0; i < PAGE_SIZE; i += sizeof(pattern)) {
            memcpy((char *)page + i, &pattern, sizeof(pattern));
        }
    } else if (LZ4_decompress_safe(place_ptr(place) + ZIP_HEADER, page,
                                   (int)(header_of(place) >> 48),
                                   (int)PAGE_SIZE) != (int)PAGE_SIZE) {
        env_panic("compress: page %#llx of VM %u is damaged",
                  (unsigned long long)(header_of(place) & GFN_MASK), p->owner);
    }
}

bool zip_drop(struct p2m *p, uint64_t place)
{
    mfn_t mfn = place_frame(place);
    uint32_t refs, bit;

    if (place & FILLED) {
        return false;
    }
    refs = frame_of(mfn)->refs;
    bit = piece_bit(place, refs);
    p->zip.pages--;
    refs &= ~(bit | bit << REFS_LEAVING_SHIFT);
    if (refs & REFS_PIECES) {
        chain_move(&p->zip, mfn, refs);
        return false;
    }
    chain_remove(&p->zip, mfn);
    frame_of(mfn)->refs = 0;
    p->count.zip_frames--;
    buddy_free(mfn, 0);
    return true;
}

static unsigned pages_of(uint32_t frame, uint32_t pieces, gfn_t *gfn)
{
    uint32_t refs = frame_table[frame].refs;
    unsigned nr = 0, step = 4 / nr_pieces(refs);

    for (unsigned i = 0; i < nr_pieces(refs); i++) {
        if (pieces >> i & 1) {
            gfn[nr++] = GFN(header_of((uint64_t)frame << 2 | i * step) & GFN_MASK);
        }
    }
    return nr;
}

unsigned zip_oldest(struct p2m *p, gfn_t *gfn, unsigned most)
{
    const uint32_t heads[] = {p->zip.full, p->zip.room[0], p->zip.room[1]};
    unsigned nr = 0;

    for (unsigned k = 0; k < ARRAY_SIZE(heads); k++) {
        for (uint32_t at = heads[k]; at != FRAME_LINK_NONE; at = frame_table[at].next) {
            uint32_t pieces = resting(frame_table[at].refs);

            if (nr + nr_pieces(frame_table[at].refs) > most) {
                return nr;
            }
            frame_table[at].refs |= pieces << REFS_LEAVING_SHIFT;
            nr += pages_of(at, pieces, &gfn[nr]);
        }
    }
    return nr;
}

void zip_stays(uint64_t place)
{
    if (!(place & FILLED)) {
        struct frame *f = frame_of(place_frame(place));

        f->refs &= ~(piece_bit(place, f->refs) << REFS_LEAVING_SHIFT);
    }
}

/* ---- Bringing back ---- */

enum hv_err zip_in(struct p2m *p, gfn_t gfn, uint32_t access, struct p2m_entry *e)
{
    enum hv_err err = HV_ENOMEM;
    mfn_t mfn;

    if (access & P2M_FAST) {
        return HV_EAGAIN;
    }
    if (env_may_allocate("zip.frame")) {
        err = buddy_alloc(0, FRAME_GUEST, p->owner, 0, &mfn);
    }
    if (err != HV_OK) {
        return err;
    }
    err = HV_EBUSY;
    spin_lock(&p->lock);
    if (p2m_same(e)) {
        uint64_t place = word_place(e->seq);

        zip_get(p, place, env_frame_ptr(mfn));
        p2m_enter_private(p, gfn, mfn, e);
        zip_drop(p, place);
        p->count.compressed--;
        p->count.unzipped++;
        reclaim_note_page(p->owner, gfn, PAGE_DECOMPRESSED, 0);
        err = HV_OK;
    }
    spin_unlock(&p->lock);
    if (err != HV_OK) {
        buddy_free(mfn, 0);
    }
    return err;
}

/* ---- Audit ---- */

bool zip_audit_place(const struct p2m *p, uint64_t place, uint64_t gfn)
{
    const struct frame *f;

    if (place & FILLED) {
        return true;
    }
    f = frame_of(place_frame(place));
    return place_frame(place).n < frame_nr && f->use == FRAME_ZIP && f->owner == p->owner &&
           (f->refs & piece_bit(place, f->refs)) != 0 && (header_of(place) & GFN_MASK) == gfn;
}

static bool audit_chain(const struct p2m *p, uint32_t head, uint32_t want, uint64_t *frames,
                        uint64_t *pages)
{
    uint32_t prev = FRAME_LINK_NONE;

    for (; head != FRAME_LINK_NONE; prev = head, head = frame_table[head].next) {
        const struct frame *f = &frame_table[head];

        if (f->use != FRAME_ZIP || f->owner != p->owner || f->prev != prev ||
            (f->refs & (want & REFS_FULL ? REFS_FULL : REFS_FULL | REFS_QUARTERS)) != want ||
            is_full(f->refs) != ((want & REFS_FULL) != 0) || (f->refs & REFS_PIECES) == 0 ||
            (f->refs >> REFS_LEAVING_SHIFT & (p->io == 0 ? REFS_PIECES : ~f->refs)) != 0) {
            return false;
        }
        ++*frames;
        for (unsigned i = 0; i < 4; i++) {
            *pages += f->refs >> i & 1;
        }
    }
    return !(want & REFS_FULL) || p->zip.full_end == prev;
}

bool zip_audit(const struct p2m *p, uint64_t *frames, uint64_t *pages)
{
    *frames = *pages = 0;
    return audit_chain(p, p->zip.full, REFS_FULL, frames, pages) &&
           audit_chain(p, p->zip.room[0], 0, frames, pages) &&
           audit_chain(p, p->zip.room[1], REFS_QUARTERS, frames, pages) && *pages == p->zip.pages;
}
