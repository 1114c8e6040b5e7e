/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A split virtqueue from the device's side: three areas in guest memory,
 *
 *     descriptors  {address, bytes, flags, next} * size   the driver's
 *     available    flags, index, head * size              the driver's
 *     used         flags, index, {head, bytes} * size     ours
 *
 * of which nothing is believed. Every index, length, address and chain is checked, each word that matters
 * is read once, and what is wrong is named in `why`: the caller then gives the driver up. All pages of a
 * chain are pinned before any of it is used, at most VRING_PAGES_MAX; the areas are pinned from
 * vring_map to vring_unmap. A page that is not there is waited for by the caller, with nothing pinned.
 * Manual: Virtual I/O Device (VIRTIO) 1.2, "Split Virtqueues". Caller: the thread of kernel/devices/vmmio.c.
 */
#pragma once

#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;

#define VRING_SIZE_MAX 128u  /* descriptors; so no chain may be longer */
#define VRING_PAGES_MAX 260u /* of a chain */
#define VRING_WHY_MAX 96u

struct vring_pin {
    gfn_t gfn;
    void *page;
};

struct vring_area {
    uint64_t gpa;
    unsigned nr_pins;
    struct vring_pin pin[2];
};

struct vring {
    struct vm *vm;
    /* The transport's, constant while `ready`. */
    bool ready; /* atomic */
    bool indirect;
    uint16_t size;
    struct vring_area desc, avail, used;
    /* The device thread's. */
    uint16_t next_avail; /* index of the next head to take */
    uint16_t next_used;
    uint32_t how;            /* it asks for pages (P2M_LINE, p2m_get); set by its transport */
    gfn_t lacking;           /* after HV_EAGAIN, HV_ENOMEM, HV_EIO: the page */
    char why[VRING_WHY_MAX]; /* after HV_EINVAL */
};

struct vring_seg {
    uint64_t gpa;
    uint32_t len;
    uint16_t page; /* of the chain's pins: the one with its first byte */
    bool write;    /* by the device */
};

struct vring_pos {
    unsigned seg;
    uint32_t offset;
};

/* A request: what the device reads, then what it writes. */
struct vring_chain {
    struct vm *vm;
    uint16_t head;
    uint16_t nr_segs, nr_pins;
    uint32_t readable, writable; /* bytes */
    struct vring_pos read_at, write_at;
    struct vring_seg seg[VRING_SIZE_MAX];
    struct vring_pin pin[VRING_PAGES_MAX];
};

/* False, with `why`: size or addresses cannot be those of a ring. */
bool vring_valid(struct vring *r) __must_check;
/* Begin: nothing taken, nothing used. Sets `ready`. */
void vring_start(struct vring *r);

/* Pin the areas. HV_EINVAL: one is not in RAM. HV_EAGAIN, HV_ENOMEM, HV_EIO as p2m_get, nothing pinned. */
enum hv_err vring_map(struct vring *r) __must_check;
void vring_unmap(struct vring *r);

/* The rest but for chains between them. */

/* Tell the driver whether it has to notify us of new heads. After `on`, vring_pending decides. */
void vring_notify(struct vring *r, bool on);
bool vring_pending(const struct vring *r);
/*
 * Take the next chain. With `pin`, all of it is pinned until vring_release. HV_ENOENT: there is none.
 * HV_EINVAL: the driver is wrong. HV_EAGAIN, HV_ENOMEM, HV_EIO: a page lacks; nothing was taken.
 */
enum hv_err vring_pop(struct vring *r, struct vring_chain *c, bool pin) __must_check;
/* Put the chain that was just taken back, to be taken again; it is released. */
void vring_undo(struct vring *r, struct vring_chain *c);
/* Unpin. */
void vring_release(struct vring_chain *c);
/* The chain that began at `head`, already released, is done; `written` bytes of it. */
void vring_push(struct vring *r, uint16_t head, uint32_t written);
/* Does the driver want to hear of that? */
bool vring_wants_interrupt(const struct vring *r);

/* Copy the next bytes out of what the device reads, into what it writes; returns how many there were. */
size_t vring_read(struct vring_chain *c, void *dst, size_t n);
size_t vring_write(struct vring_chain *c, const void *src, size_t n);
/* The very last byte that the device writes; there is one. */
void vring_write_last(struct vring_chain *c, uint8_t byte);
/* Say what is wrong; for devices too. Returns HV_EINVAL. */
enum hv_err vring_wrong(struct vring *r, const char *fmt, ...) __printf_like(2, 3);
