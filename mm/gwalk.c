/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One algorithm for all formats: from the root down, read an entry, check presence and reserved bits,
 * gather the permissions (a page is writable or user only if every level says so, executable unless
 * some level says no), stop at a leaf; then hold the permissions against the access. `walk` is inlined
 * once per format with the format as a constant, so the four-level walk costs a handful of
 * instructions a level beside the callback.
 *
 * Accessed and dirty bits are set on the way back, by compare and exchange, after the permissions were
 * found good: a walk that faults changes nothing.
 */
#include "mm/gwalk.h"

#include "kernel/lib/string.h"

#define CR0_WP BIT(16)
#define CR0_PG BIT(31)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_NX BIT(63)

#define PF_P 0x01u
#define PF_W 0x02u
#define PF_U 0x04u
#define PF_RSVD 0x08u
#define PF_I 0x10u

#define ADDR_52 0x000ffffffffff000ull

struct format {
    unsigned levels;
    unsigned entry_bytes;
    unsigned index_bits;
    uint32_t large;     /* bit n: an entry of level n may be a leaf (level 0: 4 KiB) */
    uint64_t root_mask; /* address bits of CR3 */
    bool pdptr;         /* the top level's four entries have no permissions */
    bool pse36;
};

static const struct format formats[NR_GWALK_MODES] = {
    [GWALK_32] = {.levels = 2, .entry_bytes = 4, .index_bits = 10, .root_mask = 0xfffff000ull},
    [GWALK_PSE] = {.levels = 2,
                   .entry_bytes = 4,
                   .index_bits = 10,
                   .large = 1u << 1,
                   .root_mask = 0xfffff000ull,
                   .pse36 = true},
    [GWALK_PAE] = {.levels = 3,
                   .entry_bytes = 8,
                   .index_bits = 9,
                   .large = 1u << 1,
                   .root_mask = 0xffffffe0ull,
                   .pdptr = true},
    [GWALK_LONG4] = {.levels = 4,
                     .entry_bytes = 8,
                     .index_bits = 9,
                     .large = 1u << 1 | 1u << 2,
                     .root_mask = ADDR_52},
};

enum gwalk_mode gwalk_mode(const struct guest_paging *paging)
{
    if (!(paging->cr0 & CR0_PG)) {
        return GWALK_NONE;
    }
    if (paging->efer & EFER_LMA) {
        return GWALK_LONG4;
    }
    if (paging->cr4 & CR4_PAE) {
        return GWALK_PAE;
    }
    return paging->cr4 & CR4_PSE ? GWALK_PSE : GWALK_32;
}

/* May an entry of this level map a page? Formats know 1 GiB, processors need not. */
static inline bool may_be_leaf(const struct format *f, const struct gwalk_request *req,
                               unsigned level)
{
    return (f->large & BIT(level)) != 0 && (level < 2 || req->page1gb);
}

/* Bits that must be zero in every present entry: what does not depend on the level. */
static inline uint64_t reserved_everywhere(const struct format *f, const struct gwalk_request *req)
{
    uint64_t above = ADDR_52 & ~(BIT(req->phys_bits) - 1);

    if (f->entry_bytes == 4) {
        return 0;
    }
    return above | (req->paging->efer & EFER_NXE ? 0 : PTE_NX) |
           (f->pdptr ? 0x7ff0000000000000ull : 0);
}

/* And what does. */
static inline uint64_t reserved_at(const struct format *f, const struct gwalk_request *req,
                                   unsigned level, bool leaf, unsigned shift)
{
    if (f->entry_bytes == 4) {
        /* PSE-36: bits 20:13 are address bits 39:32, bit 21 is reserved. */
        return leaf && level > 0 ? BIT(21) : 0;
    }
    if (f->pdptr && level == 2) {
        return PTE_NX | 0x1e6;
    }
    if (leaf && level > 0) {
        return (BIT(shift) - 1) & ~0x1fffull; /* bit 12 is PAT */
    }
    return level > 0 && !may_be_leaf(f, req, level) ? PTE_PS : 0;
}

/* The access rules, once all levels' bits are gathered. */
static inline bool permitted(const struct gwalk_request *req, uint64_t perm, bool nx)
{
    const struct guest_paging *pg = req->paging;
    bool user_page = (perm & PTE_U) != 0, writable = (perm & PTE_W) != 0;

    if (req->access & GWALK_USER) {
        return user_page && (writable || !(req->access & GWALK_WRITE)) &&
               !(nx && (req->access & GWALK_EXEC));
    }
    if (req->access & GWALK_EXEC) {
        return !nx && !(user_page && (pg->cr4 & CR4_SMEP));
    }
    if (user_page && (pg->cr4 & CR4_SMAP) && !(req->access & GWALK_AC)) {
        return false;
    }
    return writable || !(req->access & GWALK_WRITE) || !(pg->cr0 & CR0_WP);
}

/* Whether #PF's I bit is defined to be set for a fetch: with NX or SMEP in use. */
uint32_t gwalk_error(const struct gwalk_request *req, uint32_t flags)
{
    bool fetch_bit = (req->paging->efer & EFER_NXE) || (req->paging->cr4 & CR4_SMEP);

    return flags | (req->access & GWALK_WRITE ? PF_W : 0) | (req->access & GWALK_USER ? PF_U : 0) |
           ((req->access & GWALK_EXEC) && fetch_bit ? PF_I : 0);
}

static inline uint64_t load_entry(const struct format *f, const void *slot)
{
    return f->entry_bytes == 8 ? __atomic_load_n((const uint64_t *)slot, __ATOMIC_RELAXED)
                               : __atomic_load_n((const uint32_t *)slot, __ATOMIC_RELAXED);
}

static bool set_bits(const struct format *f, const struct gwalk_request *req, void *slot,
                     uint64_t entry, uint64_t bits)
{
    if ((entry & bits) == bits) {
        return true;
    }
    if (req->own != NULL) {
        slot = req->own(req->ctx, slot);
    }
    if (slot == NULL) {
        return false;
    }
    if (f->entry_bytes == 8) {
        uint64_t old = entry;

        return __atomic_compare_exchange_n((uint64_t *)slot, &old, entry | bits, false,
                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
    uint32_t old = (uint32_t)entry;
    return __atomic_compare_exchange_n((uint32_t *)slot, &old, (uint32_t)(entry | bits), false,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* HV_EAGAIN: an entry changed since it was read, or cannot be written now. */
static enum hv_err set_accessed(const struct format *f, const struct gwalk_request *req,
                                struct gwalk_result *out)
{
    for (unsigned l = out->leaf_level; l < f->levels; l++) {
        bool leaf = l == out->leaf_level;
        uint64_t dirty = leaf && (req->access & GWALK_WRITE) ? PTE_D : 0;

        if (!(f->pdptr && l == 2) &&
            !set_bits(f, req, out->slot[l], out->entry[l], PTE_A | dirty)) {
            out->table = GFN(0);
            return HV_EAGAIN;
        }
    }
    return HV_OK;
}

static inline enum hv_err fault(const struct gwalk_request *req, struct gwalk_result *out,
                                uint32_t flags)
{
    out->error = gwalk_error(req, flags);
    return HV_EFAULT;
}

static inline uint64_t leaf_address(const struct format *f, uint64_t entry, unsigned shift,
                                    uint64_t gva)
{
    uint64_t offset = gva & (BIT(shift) - 1);

    if (f->pse36 && shift > 12) {
        return (entry & 0xffc00000ull) | ((entry >> 13) & 0xff) << 32 | offset;
    }
    uint64_t mask = f->entry_bytes == 8 ? ADDR_52 : 0xfffff000ull;
    return (entry & mask & ~(BIT(shift) - 1)) | offset;
}

static inline __attribute__((always_inline)) enum hv_err walk(const struct format *f,
                                                              const struct gwalk_request *req,
                                                              struct gwalk_result *out)
{
    uint64_t gva = f->entry_bytes == 8 && !f->pdptr ? req->gva.a : (uint32_t)req->gva.a;
    uint64_t base = req->paging->cr3 & f->root_mask;
    uint64_t reserved = reserved_everywhere(f, req);
    uint64_t all = PTE_W | PTE_U, any = 0;

#pragma GCC unroll 4
    for (unsigned level = f->levels; level-- > 0;) {
        unsigned shift = 12 + level * f->index_bits;
        uint64_t index = (gva >> shift) & (BIT(f->index_bits) - 1);
        char *slot = NULL;
        uint64_t e;

        if (f->pdptr && level == 2 && req->loaded_pdptr) {
            e = req->paging->pdptr[index & 3];
        } else {
            char *table = req->peek(req->ctx, GFN(base >> PAGE_SHIFT));

            if (unlikely(!table)) {
                out->table = GFN(base >> PAGE_SHIFT);
                return HV_EAGAIN;
            }
            slot = table + (base & 0xfff) + index * f->entry_bytes;
            e = load_entry(f, slot);
        }
        bool leaf = level == 0 || ((e & PTE_PS) && may_be_leaf(f, req, level));

        if (unlikely(!(e & PTE_P))) {
            return fault(req, out, 0);
        }
        if (unlikely(e & (reserved | reserved_at(f, req, level, leaf, shift)))) {
            return fault(req, out, PF_P | PF_RSVD);
        }
        out->slot[level] = slot;
        out->entry[level] = e;
        if (!(f->pdptr && level == 2)) {
            all &= e;
            any |= e;
        }
        if (leaf) {
            out->page_shift = shift;
            out->leaf_level = level;
            out->gpa = GPA(leaf_address(f, e, shift, gva));
            break;
        }
        base = e & (f->entry_bytes == 8 ? ADDR_52 : 0xfffff000ull);
    }
    bool nx = f->entry_bytes == 8 && (any & PTE_NX);
    if (unlikely(!permitted(req, all, nx))) {
        return fault(req, out, PF_P);
    }
    return unlikely(req->access & GWALK_SET_AD) ? set_accessed(f, req, out) : HV_OK;
}

enum hv_err gwalk(const struct gwalk_request *req, struct gwalk_result *out)
{
    switch (gwalk_mode(req->paging)) {
    case GWALK_LONG4:
        return walk(&formats[GWALK_LONG4], req, out);
    case GWALK_PAE:
        return walk(&formats[GWALK_PAE], req, out);
    case GWALK_PSE:
        return walk(&formats[GWALK_PSE], req, out);
    case GWALK_32:
        return walk(&formats[GWALK_32], req, out);
    default:
        out->gpa = GPA((uint32_t)req->gva.a);
        out->page_shift = 12;
        return HV_OK;
    }
}
