/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests are carried out as they are submitted and reported at the next look, so they take the same
 * way through the queue as a real disk's.
 */
#include "kernel/drivers/ramdisk.h"

#include "kernel/drivers/blk_queue.h"
#include "kernel/lib/string.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

#define CHUNK_PAGES BIT(ORDER_2M)

struct ramdisk {
    struct blk_disk disk;
    uint32_t done;  /* tags; the disk's thread */
    mfn_t chunks[]; /* of 2 MiB */
};

static enum hv_err ramdisk_submit(struct blk_disk *d, struct blk_request *r)
{
    struct ramdisk *ram = d->priv;
    uint64_t first = r->sector / BLK_PAGE_SECTORS;

    for (unsigned i = 0; i < r->nr_frames; i++) {
        uint64_t page = first + i;
        void *place = env_frame_ptr(mfn_add(ram->chunks[page / CHUNK_PAGES], page % CHUNK_PAGES));
        void *frame = env_frame_ptr(r->frames[i]);

        env_copy_page(r->op == BLK_READ ? frame : place, r->op == BLK_READ ? place : frame);
    }
    ram->done |= 1u << r->tag;
    blk_interrupt(d);
    return HV_OK;
}

static enum hv_err ramdisk_reap(struct blk_disk *d)
{
    struct ramdisk *ram = d->priv;

    for (unsigned tag = 0; ram->done != 0; tag++) {
        if ((ram->done & 1u << tag) != 0) {
            ram->done &= ~(1u << tag);
            blkq_complete(d, tag, HV_OK);
        }
    }
    return HV_OK;
}

static enum hv_err ramdisk_reset(struct blk_disk *d)
{
    (void)d;
    return HV_OK;
}

static const struct blk_driver driver = {
    .name = "RAM", .submit = ramdisk_submit, .reap = ramdisk_reap, .reset = ramdisk_reset};

enum hv_err ramdisk_create(uint64_t bytes, struct blk_disk **out)
{
    uint64_t nr = ALIGN_UP(bytes, MIB(2)) / MIB(2);
    struct ramdisk *ram = kmalloc(sizeof(*ram) + nr * sizeof(ram->chunks[0]), OWNER_HOST);

    if (ram == NULL) {
        return HV_ENOMEM;
    }
    uint64_t i = 0;

    while (i < nr && buddy_alloc(ORDER_2M, FRAME_HOST, OWNER_HOST, 0, &ram->chunks[i]) == HV_OK) {
        memset(env_frame_ptr(ram->chunks[i]), 0, MIB(2));
        i++;
    }
    ram->disk = (struct blk_disk){.driver = &driver,
                                  .priv = ram,
                                  .model = "machine memory",
                                  .irq = "at once",
                                  .interrupts = true,
                                  .nr_sectors = nr * CHUNK_PAGES * BLK_PAGE_SECTORS,
                                  .sector_bytes = PAGE_SIZE,
                                  .depth = BLK_DEPTH_MAX};
    if (i == nr && blk_add(&ram->disk, "ram") == HV_OK) {
        *out = &ram->disk;
        return HV_OK;
    }
    while (i-- > 0) {
        buddy_free(ram->chunks[i], ORDER_2M);
    }
    kfree(ram);
    return HV_ENOMEM;
}
