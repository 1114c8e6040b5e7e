/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The swap area: a disk, partition or piece of machine memory that carries our signature, offered to
 * mm/reclaim as a store (mm/reclaim/store.h). There is at most one. Nothing is ever written outside of
 * an area that carries the signature and nothing of anybody else's, except by swaparea_format, which the
 * operator must confirm.
 *
 * On the disk, in pages of 4 KiB: a header with signature, UUID, size and checksum, the rest of its page zero;
 * SWAPAREA_TEST_PAGES for `swap test`; then the slots. What slots hold is of no value after a restart.
 *
 * Callers: kernel/startup.c, the shell, and whoever swaps. The shell's thread or the boot thread.
 */
#pragma once

#include "kernel/drivers/blk.h"
#include "kernel/drivers/label.h"

#define SWAPAREA_TEST_PAGES 256u
#define SWAPAREA_FIRST_SLOT (1 + SWAPAREA_TEST_PAGES)
#define SWAPAREA_MIN_PAGES (SWAPAREA_FIRST_SLOT + 256)
#define SWAPAREA_WHY_MAX 192    /* bytes of a reason, with its end */
#define SWAPAREA_RAM_MIN MIB(4) /* of `swap = ram:SIZE` */

struct store;

/* A disk or one of its partitions. */
struct swaparea {
    struct blk_disk *disk;
    uint64_t first; /* sector, of 512 bytes */
    uint64_t nr_pages;
    bool other_type; /* a GPT partition whose type is not label_swap_type */
    char name[24];   /* "nvme0", "nvme0p2" */
};

struct swaparea_header {
    char magic[16];
    uint32_t version;
    uint32_t page_bytes;
    uint64_t nr_pages; /* of the whole area */
    uint8_t uuid[16];
    uint8_t reserved[12];
    uint32_t crc; /* CRC-32 of all that stands before */
};
_Static_assert(sizeof(struct swaparea_header) == 64, "as tools/mkswap.py writes it");

/* A VM's disk: its guest can write a signature there. */
struct swaparea_loan {
    struct swaparea area;
    const char *vm; /* its name */
};

/*
 * Act on the option `swap`, which is one of these: "off"; "disk:NAME" with the name of a disk or
 * partition, a disk's serial number or an area's UUID; "ram:SIZE"; "auto" or empty: the first area found
 * that carries the signature and, if it is a partition of a GPT, has label_swap_type. What touches one of
 * `loans`, which are needed during the call only, is passed over or refused. What cannot be done is logged,
 * and the machine goes without. After blk_init.
 */
void swaparea_start(const char *option, const struct swaparea_loan *loans, unsigned nr_loans);
/* The store, or NULL. */
struct store *swaparea_store(void);
/* fn is called once when there is a store: now, or after a later swaparea_format. One listener. */
void swaparea_listen(void (*fn)(struct store *s));
/* The area in use; false: none. */
bool swaparea_in_use(struct swaparea *out);
/* For tests: nothing is in flight; there is no area and no listener any more. */
void swaparea_stop(void);

/* By name, as behind "disk:", whatever is there. HV_ENOENT, HV_ENOMEM. */
enum hv_err swaparea_find(const char *name, struct swaparea *out) __must_check;
/*
 * May it be written, by what is on the disk now? HV_ENOENT: it carries no signature of ours, or cannot be read.
 * HV_EPERM, and `why`, a clause for a message: it does, but the disk is read-only, a VM uses it, or somebody
 * else has put a partition table, a file system or other data there since. HV_ENOMEM.
 */
enum hv_err swaparea_check(const struct swaparea *a, char why[SWAPAREA_WHY_MAX]) __must_check;
/* Reads for label.h, from a disk that is `arg`. */
enum hv_err swaparea_read_page(void *arg, uint64_t sector, void *page) __must_check;
struct label_source swaparea_source(struct blk_disk *d);

/* What the operator has to repeat to have `a` formatted; it changes with the disk and what is on it.
 * HV_ENOMEM; HV_EIO, HV_ENOENT: the disk. */
enum hv_err swaparea_code(const struct swaparea *a, uint32_t *code) __must_check;
/* HV_EBUSY: it is in use, or touches what is. HV_ERANGE: too small. HV_EPERM: the disk is read-only. */
enum hv_err swaparea_may_format(const struct swaparea *a) __must_check;
/* Write our signature: what was there is lost. Takes the area into use if there is none yet. Errors of
 * swaparea_may_format; HV_ENOMEM; HV_EIO, HV_ENOENT: the disk. */
enum hv_err swaparea_format(const struct swaparea *a) __must_check;
