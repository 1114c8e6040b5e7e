/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one walker of guest page tables. Formats are declared as data; tables are read through a
 * callback, so that the walker knows neither p2m nor locks and runs on the host unmodified. Pure.
 * Callers: kernel/vm/guestmem.c, kernel/vm/insn.c; the shadow view, and kernel/vm/softmmu.c, which asks it in
 * GWALK_*. Manual: Intel SDM volume 3, "Paging"; AMD APM volume 2, "Page Translation and Protection".
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"
#include "mm/view.h"

enum gwalk_mode {
    GWALK_NONE,  /* CR0.PG clear: linear is physical */
    GWALK_32,    /* two levels, 4 KiB pages only */
    GWALK_PSE,   /* two levels, with 4 MiB pages (PSE-36 addresses) */
    GWALK_PAE,   /* three levels of 64-bit entries */
    GWALK_LONG4, /* four levels */
    NR_GWALK_MODES
};

/* Which of the formats the registers select. */
enum gwalk_mode gwalk_mode(const struct guest_paging *paging);

/* What is asked for. A read is what is asked when neither WRITE nor EXEC is. */
#define GWALK_WRITE 0x1u
#define GWALK_EXEC 0x2u
#define GWALK_USER 0x4u    /* a user-mode access (CPL 3, not implicit supervisor) */
#define GWALK_AC 0x8u      /* EFLAGS.AC set on an explicit supervisor access: SMAP does not apply */
#define GWALK_SET_AD 0x10u /* set accessed and dirty bits, as the processor would */

/* The 4 KiB table at gfn, or NULL if it cannot be reached now. */
typedef void *(*gwalk_peek_t)(void *ctx, gfn_t gfn);
/* For GWALK_SET_AD: where the entry at `slot`, in a table that peek gave, can be written; NULL: not now.
 * Asked only for entries that lack a bit. */
typedef void *(*gwalk_own_t)(void *ctx, void *slot);

struct gwalk_request {
    const struct guest_paging *paging;
    gva_t gva;
    uint32_t access;    /* GWALK_* */
    unsigned phys_bits; /* the guest's physical address width: higher bits are reserved */
    bool page1gb;       /* the guest was offered pages of 1 GiB: else PS is reserved there */
    bool loaded_pdptr;  /* PAE: the top-level entries are those in `paging`, not in memory */
    gwalk_peek_t peek;
    gwalk_own_t own; /* NULL: what peek gives is writable */
    void *ctx;
};

struct gwalk_result {
    gpa_t gpa;           /* HV_OK */
    unsigned page_shift; /* HV_OK: 12, 21, 22, 30 */
    uint32_t error;      /* HV_EFAULT: #PF error code */
    gfn_t table;         /* HV_EAGAIN: the table that peek did not have */
    /* HV_OK: the entries that led there, by level from the leaf's up, as peek showed them and as they
     * were read. While they are unchanged, so is the translation. Not for GWALK_NONE. The slot of a
     * loaded top-level entry is NULL. */
    unsigned leaf_level; /* 0: 4 KiB */
    void *slot[4];
    uint64_t entry[4];
};

/* HV_OK; HV_EFAULT: page fault; HV_EAGAIN: peek or own returned NULL, or (SET_AD) an entry changed under
 * us. */
enum hv_err gwalk(const struct gwalk_request *req, struct gwalk_result *out) __must_check;

/* The error code of a page fault of this request; `flags` are its bits P and RSVD. */
uint32_t gwalk_error(const struct gwalk_request *req, uint32_t flags);
