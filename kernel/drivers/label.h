/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is on a disk: partition tables (GPT with its checksums, MBR) and the marks of common file
 * systems. Reads only. What it reads is hostile. Callers: the swap area, the shell.
 */
#pragma once

#include "kernel/lib/err.h"

#define LABEL_PARTS_MAX 32u
#define LABEL_PAGE 4096u

/* Where to read. Addresses and sizes are in units of 512 bytes, whatever the disk's sectors. */
struct label_source {
    /* Read 4 KiB from `sector`, a multiple of the disk's own sectors; all of it is on the disk. */
    enum hv_err (*read)(void *arg, uint64_t sector, void *page);
    void *arg;
    uint64_t nr_sectors;
    uint32_t sector_bytes;
};

enum label_kind { LABEL_NONE, LABEL_MBR, LABEL_GPT };

struct label_part {
    unsigned number; /* as other systems count: entry of the table, from 1 */
    uint64_t first, nr_sectors;
    uint8_t mbr_type; /* MBR */
    uint8_t type[16]; /* GPT */
    char name[37];    /* GPT; what is not ASCII is a question mark */
};

struct label {
    enum label_kind kind;
    /* What a reader must be told: NULL, or for example that the first table is damaged and the second
     * was used. */
    const char *problem;
    unsigned nr_parts;
    struct label_part parts[LABEL_PARTS_MAX];
};

/* The partition type of swap areas of ours: 797F303F-3AC4-4508-8BAE-A906E97A9277. */
extern const uint8_t label_swap_type[16];

/* Fill in *out from the disk; `page` is LABEL_PAGE bytes of work space. HV_EIO: the disk cannot be
 * read. A disk without or with a damaged table is no error. */
enum hv_err label_read(const struct label_source *s, void *page, struct label *out) __must_check;
/* "Linux filesystem", "type 0x27": what the partition's entry says. */
const char *label_type(const struct label_part *p, enum label_kind kind, char buf[40]);
/* What stands in the part of the disk, by its marks: "ext4", "blank" (its first pages are zero),
 * "unknown data". NULL: it cannot be read. */
const char *label_content(const struct label_source *s, uint64_t first, uint64_t nr_sectors,
                          void *page);
/* *name: whose mark stands there beside a swap area's own, which is not looked for; NULL: nobody's. HV_EIO and
 * other errors of `read`: it cannot be read. */
enum hv_err label_foreign(const struct label_source *s, uint64_t first, uint64_t nr_sectors,
                          void *page, const char **name) __must_check;
