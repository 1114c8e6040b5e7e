/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests of a virtio disk: a header of 16 bytes, data, and a status byte, which is the last that the
 * device writes; how they are cut into descriptors is the driver's affair. What is behind the disk:
 * vdisk.h. A request out of range or of an unknown kind fails, one without room for its status is a
 * driver's fault. Manual: Virtual I/O Device (VIRTIO) 1.2, "Block Device".
 */
#include "kernel/devices/vblk.h"

#include "kernel/devices/vdisk.h"
#include "kernel/devices/vmmio.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define DEVICE_ID 2u
#define SECTOR 512u

#define F_SIZE_MAX BIT(1)
#define F_SEG_MAX BIT(2)
#define F_READ_ONLY BIT(5)
#define F_FLUSH BIT(9)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

#define T_IN 0u
#define T_OUT 1u
#define T_FLUSH 4u
#define T_GET_ID 8u
#define T_DISCARD 11u
#define T_WRITE_ZEROES 13u

#define S_OK 0u
#define S_IOERR 1u
#define S_UNSUPPORTED 2u

#define ID_BYTES 20u
#define ZERO_UNMAP 1u
#define ZERO_SECTORS_MAX 32768u /* of one request: 16 MiB */

struct blk_config {
    uint64_t capacity; /* sectors */
    uint32_t size_max, seg_max;
    uint32_t geometry, block_size;
    uint64_t topology;
    uint32_t cache_queues;
    uint32_t discard_sectors, discard_segs, discard_align;
    uint32_t zero_sectors, zero_segs;
    uint32_t zero_unmap;
} __packed;
_Static_assert(sizeof(struct blk_config) == 60 &&
                   offsetof(struct blk_config, discard_sectors) == 36,
               "virtio_blk_config");
_Static_assert(sizeof(struct blk_config) <= VMMIO_CONFIG_MAX, "fits");

struct header {
    uint32_t type, reserved;
    uint64_t sector;
};

struct range { /* of a discard or of writing zeroes */
    uint64_t sector;
    uint32_t sectors, flags;
};

struct vblk {
    struct vm *vm;
    struct vdisk *disk;
    struct vmmio *transport;
};

static uint8_t status_of(enum hv_err err)
{
    return (uint8_t)(err == HV_OK ? S_OK : S_IOERR);
}

static bool on_disk(const struct vblk *d, uint64_t sector, uint64_t bytes)
{
    uint64_t size = vdisk_bytes(d->disk);

    return bytes % SECTOR == 0 && sector <= size / SECTOR && bytes <= size - sector * SECTOR;
}

/* *err: memory lacks, and the request is to be begun anew. */
static uint8_t write_data(struct vblk *d, struct vring_chain *c, uint64_t sector, enum hv_err *err)
{
    uint64_t bytes = c->readable - sizeof(struct header);

    if (vdisk_read_only(d->disk) || !on_disk(d, sector, bytes)) {
        return S_IOERR;
    }
    *err = vdisk_write(d->disk, sector * SECTOR, bytes, c);
    /* A driver that cannot ask for it expects that what is written lasts. */
    if (*err == HV_OK && !vmmio_has(d->transport, F_FLUSH)) {
        *err = vdisk_flush(d->disk);
    }
    return status_of(*err);
}

static uint8_t zero_range(struct vblk *d, struct vring_chain *c, uint32_t type, enum hv_err *err)
{
    struct range r;

    if (vring_read(c, &r, sizeof(r)) != sizeof(r) ||
        c->readable != sizeof(struct header) + sizeof(r)) {
        return S_IOERR;
    }
    if ((r.flags & ~(type == T_DISCARD ? 0 : ZERO_UNMAP)) != 0) {
        return S_UNSUPPORTED;
    }
    if (vdisk_read_only(d->disk) || r.sectors > ZERO_SECTORS_MAX ||
        !on_disk(d, r.sector, (uint64_t)r.sectors * SECTOR)) {
        return S_IOERR;
    }
    *err = vdisk_zero(d->disk, r.sector * SECTOR, (uint64_t)r.sectors * SECTOR);
    return status_of(*err);
}

static uint8_t get_id(struct vblk *d, struct vring_chain *c, uint32_t *written)
{
    char id[ID_BYTES + 1] = "";

    scnprintf(id, sizeof(id), "%s", d->vm->config.disk);
    if (c->writable < ID_BYTES + 1) {
        return S_IOERR;
    }
    *written = (uint32_t)vring_write(c, id, ID_BYTES);
    return S_OK;
}

static uint8_t carry_out(struct vblk *d, struct vring_chain *c, const struct header *h,
                         uint32_t *written, enum hv_err *err)
{
    uint32_t room = c->writable - 1;

    switch (h->type) {
    case T_IN:
        if (!on_disk(d, h->sector, room)) {
            return S_IOERR;
        }
        *written = room;
        return status_of(vdisk_read(d->disk, h->sector * SECTOR, room, c));
    case T_OUT:
        return write_data(d, c, h->sector, err);
    case T_FLUSH:
        return status_of(vdisk_flush(d->disk));
    case T_GET_ID:
        return get_id(d, c, written);
    case T_DISCARD:
        if (!vmmio_has(d->transport, F_DISCARD)) {
            return S_UNSUPPORTED;
        }
        return zero_range(d, c, h->type, err);
    case T_WRITE_ZEROES:
        return zero_range(d, c, h->type, err);
    default:
        return S_UNSUPPORTED;
    }
}

static enum hv_err serve(void *dev, unsigned queue, struct vring *r, struct vring_chain *c,
                         uint32_t *written)
{
    struct vblk *d = dev;
    struct header h;
    enum hv_err err = HV_OK;

    (void)queue;
    if (vring_read(c, &h, sizeof(h)) != sizeof(h)) {
        return vring_wrong(r, "a request without a header");
    }
    if (c->writable == 0) {
        return vring_wrong(r, "a request without room for its status");
    }
    uint8_t status = carry_out(d, c, &h, written, &err);

    if (err == HV_ENOMEM) {
        return err;
    }
    vring_write_last(c, status);
    *written += 1;
    return HV_OK;
}

static const struct vmmio_ops ops = {.name = "blk",
                                     .device_id = DEVICE_ID,
                                     .nr_queues = 1,
                                     .config_size = sizeof(struct blk_config),
                                     .serve = serve};

static uint64_t features(const struct vdisk *disk)
{
    return F_SIZE_MAX | F_SEG_MAX | F_FLUSH | (vdisk_read_only(disk) ? F_READ_ONLY : 0) |
           (vdisk_read_only(disk) ? 0 : F_WRITE_ZEROES) |
           (vdisk_can_discard(disk) && !vdisk_read_only(disk) ? F_DISCARD : 0);
}

enum hv_err vblk_create(struct vm *vm, struct vblk **out)
{
    struct vblk *d;

    *out = NULL;
    if (vm->config.disk[0] == '\0') {
        return HV_OK;
    }
    d = kmalloc(sizeof(*d), vm->id);
    *out = d;
    if (d == NULL) {
        return HV_ENOMEM;
    }
    d->vm = vm;
    enum hv_err err = vdisk_open(vm, &d->disk);
    if (err != HV_OK) {
        return err;
    }
    /* Parts of a page, and as many as a chain has room for. */
    struct blk_config cfg = {.capacity = vdisk_bytes(d->disk) / SECTOR,
                             .size_max = PAGE_SIZE,
                             .seg_max = VRING_SIZE_MAX - 2,
                             .discard_sectors = ZERO_SECTORS_MAX,
                             .discard_segs = 1,
                             .discard_align = PAGE_SIZE / SECTOR,
                             .zero_sectors = ZERO_SECTORS_MAX,
                             .zero_segs = 1,
                             .zero_unmap = 1};
    err = vmmio_create(vm, &ops, d, features(d->disk), &d->transport);
    if (err == HV_OK) {
        vmmio_config_write(d->transport, 0, &cfg, sizeof(cfg));
    }
    return err;
}

void vblk_destroy(struct vblk *d)
{
    if (d != NULL) {
        vmmio_destroy(d->transport);
        vdisk_close(d->disk);
        kfree(d);
    }
}

struct vmmio *vblk_transport(struct vblk *d)
{
    return d != NULL ? d->transport : NULL;
}

uint64_t vblk_frames(const struct vblk *d)
{
    return d != NULL ? vdisk_frames(d->disk) : 0;
}

uint64_t vblk_frames_to_come(const struct vblk *d)
{
    return d != NULL ? vdisk_frames_to_come(d->disk) : 0;
}

void vblk_describe(const struct vblk *d, char *text, size_t len)
{
    if (d == NULL) {
        text[0] = '\0';
        return;
    }
    uint64_t bytes = vdisk_bytes(d->disk), kib = vdisk_frames(d->disk) * (PAGE_SIZE / KIB(1));

    scnprintf(text, len, "; %s, %llu %s%s, %llu KiB of its own", d->vm->config.disk,
              (unsigned long long)(bytes / (bytes < MIB(1) ? KIB(1) : MIB(1))),
              bytes < MIB(1) ? "KiB" : "MiB", vdisk_read_only(d->disk) ? ", read-only" : "",
              (unsigned long long)kib);
}
