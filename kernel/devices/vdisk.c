/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See vdisk.h. An image is copied to and from directly (cowimage.h). A disk of the host moves whole frames:
 * its requests go through frames of ours, a slice at a time, and what a write covers only in part is read
 * first. One thread serves a disk, so nothing comes between.
 */
#include "kernel/devices/vdisk.h"

#include "kernel/devices/cowimage.h"
#include "kernel/devices/vring.h"
#include "kernel/drivers/blk.h"
#include "kernel/drivers/blkclaim.h"
#include "kernel/drivers/swaparea.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/vm/image.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"
#include "mm/buddy.h"
#include "mm/env.h"
#include "mm/slab.h"

#define SLICE_FRAMES BLK_RUN_MAX
#define SLICE_BYTES (SLICE_FRAMES * PAGE_SIZE)

struct vdisk {
    bool read_only;
    uint64_t bytes;
    struct cowimage *image; /* NULL: a disk of the host */
    struct swaparea area;
    bool claimed;
    unsigned nr_frames;
    mfn_t frame[SLICE_FRAMES];
};

/* ---- Opening ---- */

static enum hv_err open_image(struct vm *vm, struct vdisk *d)
{
    struct loader_image image;
    enum hv_err err = image_find(vm, "disk", vm->config.disk, &image);

    if (err != HV_OK) {
        return err;
    }
    d->bytes = ALIGN_DOWN(image.size, BLK_SECTOR);
    return cowimage_create(image.data, image.size, vm->id, &d->image);
}

static enum hv_err open_host(struct vm *vm, struct vdisk *d, const char *name)
{
    struct swaparea *a = &d->area;
    enum hv_err err = swaparea_find(name, a);

    if (err != HV_OK) {
        log_error("vm %s: disk: the host has no disk or partition '%s'; `disks` lists them",
                  vm->config.name, name);
        return err;
    }
    d->bytes = a->nr_pages * PAGE_SIZE;
    d->read_only = d->read_only || a->disk->read_only;
    err = blkclaim_take(a->disk, a->first, a->nr_pages * BLK_PAGE_SECTORS, !d->read_only);
    if (err != HV_OK) {
        log_error("vm %s: disk: %s is in use, by another VM or for swapping", vm->config.name,
                  a->name);
        return err;
    }
    d->claimed = true;
    while (d->nr_frames < SLICE_FRAMES) {
        err = buddy_alloc(ORDER_4K, FRAME_VM, vm->id, 0, &d->frame[d->nr_frames]);
        if (err != HV_OK) {
            return err;
        }
        d->nr_frames++;
    }
    return HV_OK;
}

enum hv_err vdisk_open(struct vm *vm, struct vdisk **out)
{
    const char *name = vm->config.disk;
    bool of_host = str_starts(name, CONFIG_DISK_HOST);
    struct vdisk *d = kmalloc(sizeof(*d), vm->id);

    if (d == NULL) {
        return HV_ENOMEM;
    }
    d->read_only = vm->config.disk_readonly == SWITCH_ON;
    enum hv_err err =
        of_host ? open_host(vm, d, name + strlen(CONFIG_DISK_HOST)) : open_image(vm, d);
    if (err != HV_OK) {
        vdisk_close(d);
        return err;
    }
    *out = d;
    return HV_OK;
}

void vdisk_close(struct vdisk *d)
{
    if (d == NULL) {
        return;
    }
    if (d->claimed) {
        blkclaim_drop(d->area.disk, d->area.first, d->area.nr_pages * BLK_PAGE_SECTORS,
                      !d->read_only);
    }
    while (d->nr_frames != 0) {
        buddy_free(d->frame[--d->nr_frames], ORDER_4K);
    }
    cowimage_destroy(d->image);
    kfree(d);
}

uint64_t vdisk_bytes(const struct vdisk *d)
{
    return d->bytes;
}

bool vdisk_read_only(const struct vdisk *d)
{
    return d->read_only;
}

bool vdisk_can_discard(const struct vdisk *d)
{
    return d->image != NULL;
}

uint64_t vdisk_frames(const struct vdisk *d)
{
    return d->nr_frames + (d->image != NULL ? cowimage_frames(d->image) : 0);
}

uint64_t vdisk_frames_to_come(const struct vdisk *d)
{
    return d->image != NULL && !vdisk_read_only(d) ? cowimage_frames_to_come(d->image) : 0;
}

/* ---- Images ---- */

enum action { READ, WRITE, ZERO };

/* Up to the end of the page. */
static enum hv_err image_part(struct vdisk *d, enum action what, uint64_t at, size_t n,
                              struct vring_chain *c)
{
    uint64_t nr = at >> PAGE_SHIFT, in_page = at & ~PAGE_MASK;
    void *page;

    if (what == READ) {
        (void)vring_write(c, (const char *)cowimage_read(d->image, nr) + in_page, n);
        return HV_OK;
    }
    if (what == ZERO && (n == PAGE_SIZE || at + n == d->bytes) && in_page == 0) {
        return cowimage_zero(d->image, nr);
    }
    enum hv_err err = cowimage_write(d->image, nr, &page);
    if (err != HV_OK) {
        return err;
    }
    if (what == WRITE) {
        (void)vring_read(c, (char *)page + in_page, n);
    } else {
        memset((char *)page + in_page, 0, n);
    }
    return HV_OK;
}

static enum hv_err image_do(struct vdisk *d, enum action what, uint64_t offset, uint64_t len,
                            struct vring_chain *c)
{
    enum hv_err err = HV_OK;

    for (uint64_t done = 0; done < len && err == HV_OK;) {
        uint64_t at = offset + done;
        size_t n = MIN(len - done, PAGE_SIZE - (at & ~PAGE_MASK));

        err = image_part(d, what, at, n, c);
        done += n;
    }
    return err;
}

/* ---- Disks of the host ---- */

static enum hv_err host_io(struct vdisk *d, enum blk_op op, uint64_t page, unsigned first,
                           unsigned nr)
{
    enum hv_err err = blk_io(d->area.disk, op, d->area.first + (page + first) * BLK_PAGE_SECTORS,
                             &d->frame[first], nr);

    return err == HV_OK ? HV_OK : HV_EIO;
}

/* Copy between the frames, from `in_first` of the first one on, and the chain. */
static void copy_frames(struct vdisk *d, enum action what, uint64_t in_first, uint64_t len,
                        struct vring_chain *c)
{
    for (uint64_t done = 0; done < len;) {
        uint64_t at = in_first + done;
        size_t n = MIN(len - done, PAGE_SIZE - (at & ~PAGE_MASK));
        char *p = (char *)env_frame_ptr(d->frame[at >> PAGE_SHIFT]) + (at & ~PAGE_MASK);

        if (what == READ) {
            (void)vring_write(c, p, n);
        } else if (what == WRITE) {
            (void)vring_read(c, p, n);
        } else {
            memset(p, 0, n);
        }
        done += n;
    }
}

/* The slice [offset, offset + len) touches at most SLICE_FRAMES pages. */
static enum hv_err host_slice(struct vdisk *d, enum action what, uint64_t offset, uint64_t len,
                              struct vring_chain *c)
{
    uint64_t page = offset >> PAGE_SHIFT, in_first = offset & ~PAGE_MASK;
    unsigned nr = (unsigned)((in_first + len + PAGE_SIZE - 1) >> PAGE_SHIFT);
    bool head = in_first != 0, tail = ((in_first + len) & ~PAGE_MASK) != 0;
    enum hv_err err = HV_OK;

    if (what == READ) {
        err = host_io(d, BLK_READ, page, 0, nr);
        if (err == HV_OK) {
            copy_frames(d, what, in_first, len, c);
        }
        return err;
    }
    if (head || (tail && nr == 1)) {
        err = host_io(d, BLK_READ, page, 0, 1);
    }
    if (err == HV_OK && tail && nr > 1) {
        err = host_io(d, BLK_READ, page, nr - 1, 1);
    }
    if (err == HV_OK) {
        copy_frames(d, what, in_first, len, c);
        err = host_io(d, BLK_WRITE, page, 0, nr);
    }
    return err;
}

static enum hv_err host_do(struct vdisk *d, enum action what, uint64_t offset, uint64_t len,
                           struct vring_chain *c)
{
    enum hv_err err = HV_OK;

    while (len != 0 && err == HV_OK) {
        uint64_t n = MIN(len, SLICE_BYTES - (offset & ~PAGE_MASK));

        err = host_slice(d, what, offset, n, c);
        offset += n;
        len -= n;
    }
    return err;
}

/* ---- Either ---- */

static enum hv_err do_it(struct vdisk *d, enum action what, uint64_t offset, uint64_t len,
                         struct vring_chain *c)
{
    return d->image != NULL ? image_do(d, what, offset, len, c) : host_do(d, what, offset, len, c);
}

enum hv_err vdisk_read(struct vdisk *d, uint64_t offset, uint64_t len, struct vring_chain *c)
{
    return do_it(d, READ, offset, len, c);
}

enum hv_err vdisk_write(struct vdisk *d, uint64_t offset, uint64_t len, struct vring_chain *c)
{
    return do_it(d, WRITE, offset, len, c);
}

enum hv_err vdisk_zero(struct vdisk *d, uint64_t offset, uint64_t len)
{
    return do_it(d, ZERO, offset, len, NULL);
}

enum hv_err vdisk_flush(struct vdisk *d)
{
    if (d->image != NULL) {
        return HV_OK;
    }
    return blk_io(d->area.disk, BLK_FLUSH, 0, NULL, 0) == HV_OK ? HV_OK : HV_EIO;
}
