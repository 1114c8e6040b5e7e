/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks: asynchronous requests of whole frames, and what a driver has to offer. One thread per disk
 * does all the work: it takes requests from the queue, hands them to the driver, looks for finished
 * ones, watches over time, and calls back. So drivers need no locks, and completions come in thread
 * context. Interrupts only wake that thread; a timer does too, more often where there are none.
 * The queue itself is kernel/drivers/blk_queue.c; see docs/block.md.
 *
 * Callers: the swap area and its test, VMs' disks (kernel/devices/vdisk.c), the shell (`disks`), start-up,
 * kernel/bench_swap.c; drivers below.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/lib/list.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/spinlock.h"
#include "mm/types.h"

#define BLK_SECTOR 512ull /* unit of addresses, whatever the disk's own sectors */
#define BLK_PAGE_SECTORS (PAGE_SIZE / BLK_SECTOR)
#define BLK_RUN_MAX 32u   /* frames of a request: 128 KiB; what every driver can do at once */
#define BLK_DEPTH_MAX 32u /* requests in flight */
#define BLK_DISKS_MAX 16u

struct pci_dev;
struct thread;
struct blk_disk;

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH };

/*
 * The caller's from before blk_submit to `done`, like its frames and their list. Submitting never
 * fails; `done` comes exactly once, from the disk's thread, with `result`: HV_OK, HV_EIO (after all
 * retries), HV_ENOENT (the disk is gone), HV_EINVAL (outside of the disk, or not in its sectors).
 * `done` does not sleep; it may submit.
 */
struct blk_request {
    enum blk_op op;
    uint32_t nr_frames; /* 1 .. BLK_RUN_MAX; flush: 0 */
    uint64_t sector;    /* first */
    const mfn_t *frames;
    void (*done)(struct blk_request *r);
    void *arg;
    enum hv_err result;

    /* The queue's while the request is submitted. */
    struct list node;
    uint64_t since_ns; /* when the device got it */
    uint8_t attempts;
    uint8_t tag; /* in flight: index below the disk's depth */
    bool bounced;
};

/* What a driver does. All but `name` are called by the disk's thread alone. */
struct blk_driver {
    const char *name;
    /* Start r, whose tag nobody else has. HV_EBUSY: not now. HV_ENOENT: the device is gone. */
    enum hv_err (*submit)(struct blk_disk *d, struct blk_request *r);
    /* blkq_complete() what has finished. Anything but HV_OK: the device is gone. */
    enum hv_err (*reap)(struct blk_disk *d);
    /* Make the device forget all requests, never to touch their frames again. Anything but HV_OK: it
     * does not come back; it is then cut off from memory. */
    enum hv_err (*reset)(struct blk_disk *d);
    /* Keep the device from memory for good; may be NULL. */
    void (*cut)(struct blk_disk *d);
};

/* Written by the disk's thread; others read it as it is. */
struct blk_stats {
    uint64_t reads, writes, flushes, frames_read, frames_written;
    uint64_t retries, resets, errors, bounced;
    uint64_t interrupts, polls; /* wake-ups with finished requests: by interrupt, by the timer */
    uint64_t ns_busy;           /* sum over requests, from device to completion */
};

/* blk_queue.c */
struct blk_queue {
    struct spinlock lock;      /* the waiting lists; RANK_BLK */
    struct list reads, writes; /* waiting; flushes are among the writes */
    unsigned overtaken;        /* reads that went before the first waiting write; lock */
    bool gone;                 /* the disk will not come back (atomic) */
    /* The disk's thread only. */
    struct blk_request *flight[BLK_DEPTH_MAX]; /* by tag */
    unsigned nr_flight, nr_writes;             /* writes: of these */
    bool alone;                                /* what is in flight is to be on its own */
    struct list finished;
    unsigned nr_resets; /* since something last succeeded */
    struct blk_request *bouncing;
    struct ratelimit limit;    /* of lines about what was not asked for, in ns */
    mfn_t bounce[BLK_RUN_MAX]; /* where some frame is out of the device's reach */
    struct blk_stats stats;
};

struct blk_disk {
    const struct blk_driver *driver;
    void *priv;
    char name[16];   /* "nvme0" */
    char model[41];  /* printable, trimmed; may be empty */
    char serial[21]; /* likewise */
    const char *irq; /* "MSI-X", "MSI", "IRQ 14", "polled" */
    uint64_t nr_sectors;
    uint32_t sector_bytes; /* 512 or 4096 */
    unsigned depth;        /* 1 .. BLK_DEPTH_MAX */
    uint64_t reach;        /* frames below this number can be moved; 0: all */
    bool can_flush;
    bool read_only;
    bool interrupts;     /* they arrive; else polling */
    uint64_t timeout_ns; /* of one request in the device; 0: BLK_TIMEOUT_NS */
    struct blk_queue queue;
    struct thread *thread;
    bool fired; /* by an interrupt since the thread looked (atomic) */
};

/* Find and start all disks. Boot thread, once; disks are never removed from the list. */
void blk_init(void);
/* A driver has found a disk: name it after `kind`, start its thread. HV_ENOMEM. Boot thread. */
enum hv_err blk_add(struct blk_disk *d, const char *kind) __must_check;
/* For the driver's interrupt handler; `disk` is a struct blk_disk. Any context. */
void blk_interrupt(void *disk);

/* See struct blk_request. Any thread; takes the queue's lock. */
void blk_submit(struct blk_disk *d, struct blk_request *r);
/* Submit one and sleep until it is done. */
enum hv_err blk_io(struct blk_disk *d, enum blk_op op, uint64_t sector, const mfn_t *frames,
                   uint32_t nr_frames) __must_check;

unsigned blk_count(void);
struct blk_disk *blk_disk(unsigned index); /* below blk_count */
/* It answers no more. */
static inline bool blk_gone(const struct blk_disk *d)
{
    return __atomic_load_n(&d->queue.gone, __ATOMIC_ACQUIRE);
}

/* For drivers: zeroed memory of that many bytes below 4 GiB, aligned to their number rounded up to a
 * power of two (at least a page); *pa: where the device finds it. NULL: none. */
void *blk_dma_alloc(uint64_t bytes, uint64_t *pa);
/* Give up to a page of it back. */
void blk_dma_free(void *page);
/* For drivers: sleep until ready(arg), at most `ms`; says whether it is. Threads only. */
bool blk_wait(bool (*ready)(const void *arg), const void *arg, unsigned ms);
/* For drivers: machine address of frame i of a request in flight. */
static inline uint64_t blk_page(const struct blk_disk *d, const struct blk_request *r, unsigned i)
{
    return (r->bounced ? d->queue.bounce[i].n : r->frames[i].n) << PAGE_SHIFT;
}
static inline uint64_t blk_nr_sectors(const struct blk_request *r)
{
    return r->nr_frames * BLK_PAGE_SECTORS;
}
