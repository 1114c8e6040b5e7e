/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page-table engine for every format that the processor walks: the hypervisor's own tables and
 * nested tables of either vendor. A format is data (struct pt_format); what bits mean is known only
 * there.
 *
 *     level 4   level 3   level 2   level 1   level 0        a table: 512 entries of 64 bits
 *     256 TiB   512 GiB   1 GiB     2 MiB     4 KiB          what one entry of that level covers
 *     table ->  table ->  table ->  table ->  leaf           a leaf may stand where the format
 *                         or leaf   or leaf                  allows it
 *
 * Rules. The caller serialises all operations on one struct pt. Entries change by single 64-bit
 * stores, so that the processor may walk at any time. Whatever an operation takes away (a
 * translation, a right, a table) is noted in the caller's flush batch, and tables are freed only
 * when that is committed; a NULL batch says that no processor uses the tables, and frees at once.
 * Changing "not present" to present notes nothing.
 *
 * Callers: arch/x86_64/hostmap.c, mm/nested.c.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/buddy.h"
#include "mm/flush.h"
#include "mm/types.h"

#define PT_MAX_LEVELS 5u
#define PT_ENTRIES 512u

/* Permissions. */
#define PT_R 0x1u
#define PT_W 0x2u
#define PT_X 0x4u
#define PT_NR_PERMS 4u

enum pt_type { PT_WB, PT_WT, PT_UC, PT_WC, PT_NR_TYPES };

struct pt_attr {
    uint32_t perm; /* PT_R | ... */
    enum pt_type type;
    bool global;
};

struct pt_format {
    const char *name;
    unsigned levels;               /* of a full walk */
    bool sign_extended;            /* addresses are canonical, not zero-extended */
    uint32_t leaf_levels;          /* bit l: a leaf may stand at level l */
    uint64_t present;              /* an entry is present if any of these bits is set */
    uint64_t address;              /* address bits of an entry */
    uint64_t table_bits;           /* set in every entry that refers to a table */
    uint64_t large_leaf_bits;      /* told by these from a table, at levels above 0 */
    uint64_t leaf_bits;            /* set in every leaf */
    uint64_t perm[PT_NR_PERMS];    /* the bit of each permission, lowest first; 0: none */
    uint64_t perm_inverted;        /* those of these bits that forbid when set */
    uint64_t type[2][PT_NR_TYPES]; /* memory type bits; [0] at level 0, [1] above */
    uint64_t type_mask[2];
    uint64_t global; /* 0: the format has no such bit, likewise below */
    uint64_t accessed;
    uint64_t dirty;
    bool typed_by_leaf; /* the leaf's memory type alone counts, not the processor's MTRRs */
};

struct pt {
    const struct pt_format *fmt;
    mfn_t root;
    uint64_t *root_table; /* the same, to be read */
    unsigned max_level;   /* of leaves */
    enum frame_use use;   /* of the tables' frames */
    uint32_t owner;
    uint64_t tables;                /* frames, root included */
    uint64_t leaves[PT_MAX_LEVELS]; /* by level */
    uint64_t last_va;               /* pt_slot's last table of level 0 and the first va it */
    uint64_t *last_table;           /* translates; ~0 when there is none */
};

/* A present leaf. */
struct pt_leaf {
    unsigned order;
    uint64_t va;    /* first address that it translates */
    hpa_t pa;       /* and what it translates to */
    uint64_t entry; /* as it stands in the table */
    struct pt_attr attr;
};

/* Tables allocated beforehand, so that a change cannot fail half-way. Zero-initialise. */
struct pt_spare {
    mfn_t head; /* chain through the frame records, `nr` long */
    uint64_t nr;
};

/* Empty tables (a root). Leaves are at most of max_order, even if the format allows larger ones. */
enum hv_err pt_create(struct pt *pt, const struct pt_format *fmt, unsigned max_order,
                      enum frame_use use, uint32_t owner) __must_check;
/* Free all tables, the root included. */
void pt_destroy(struct pt *pt, struct flush_batch *batch);

/* The leaf that translates va. False: nothing does. */
bool pt_lookup(const struct pt *pt, uint64_t va, struct pt_leaf *out);

/*
 * Map [va, va + size) to pa onwards by the largest leaves that alignment and the format allow; all
 * multiples of 4 KiB. What was mapped there is replaced, larger leaves around it are split.
 *
 * pt_prepare allocates the tables that are missing; HV_ENOMEM leaves the spare empty. pt_commit with
 * the same range cannot fail; nothing may change the tables in between. Left-over tables are
 * released by pt_spare_free. pt_map does all three.
 */
enum hv_err pt_prepare(const struct pt *pt, uint64_t va, hpa_t pa, uint64_t size,
                       struct pt_spare *spare) __must_check;
void pt_commit(struct pt *pt, uint64_t va, hpa_t pa, uint64_t size, struct pt_attr attr,
               struct pt_spare *spare, struct flush_batch *batch);
void pt_spare_free(struct pt_spare *spare);
enum hv_err pt_map(struct pt *pt, uint64_t va, hpa_t pa, uint64_t size, struct pt_attr attr,
                   struct flush_batch *batch) __must_check;

/* Replace the leaf at va by equal smaller ones until it has at most `order`. HV_ENOMEM: it was
 * split as far as memory went. HV_ENOENT: nothing is mapped. */
enum hv_err pt_split(struct pt *pt, uint64_t va, unsigned order,
                     struct flush_batch *batch) __must_check;
/* If the block of `order` at va is a full table of leaves of equal attributes that continue each
 * other and start aligned, replace it by one leaf. */
bool pt_merge(struct pt *pt, uint64_t va, unsigned order, struct flush_batch *batch);

/* Remove every leaf that meets [va, va + size), or take all rights but `perm` from it. A larger leaf that
 * reaches beyond the range goes as a whole: split first where that matters. */
void pt_unmap(struct pt *pt, uint64_t va, uint64_t size, struct flush_batch *batch);
void pt_protect(struct pt *pt, uint64_t va, uint64_t size, uint32_t perm,
                struct flush_batch *batch);

/* Was the leaf at va, or any smaller one in its block of `order`, used since it was last asked (or
 * entered)? Formats without accessed bits drop what is there instead: the next use faults it in again. */
bool pt_age(struct pt *pt, uint64_t va, unsigned order, struct flush_batch *batch);

/* Call fn for every leaf in ascending order until it returns false; false if it did. */
bool pt_visit(const struct pt *pt, bool (*fn)(const struct pt_leaf *leaf, void *ctx), void *ctx);
/* Recount tables and leaves; every table is a frame of our use and owner. Logs disagreements. */
bool pt_audit(const struct pt *pt);

/* ---- The fast path: fill one entry whose tables exist ---- */

/* The entry for va at `level`, or NULL if a table is missing or a larger leaf is there. */
uint64_t *pt_slot(struct pt *pt, uint64_t va, unsigned level);
/* The bits of a leaf of `order`, to which its machine address is added. */
uint64_t pt_leaf_bits(const struct pt_format *fmt, unsigned order, struct pt_attr attr);
/* Enter a leaf at `level` where nothing, or the same leaf with fewer rights, stood. */
void pt_fill(struct pt *pt, uint64_t *slot, unsigned level, uint64_t entry);
/* Remove the leaf of level 0, if there is one; the caller flushes. */
void pt_clear(struct pt *pt, uint64_t *slot);
/* pt_unmap and pt_protect of one slot of level 0. */
void pt_unmap_slot(struct pt *pt, uint64_t *slot, struct flush_batch *batch);
void pt_protect_slot(struct pt *pt, uint64_t *slot, uint32_t perm, struct flush_batch *batch);
