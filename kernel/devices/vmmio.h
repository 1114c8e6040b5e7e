/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio 1.x over MMIO: registers, status, queues, interrupt and thread of one device. A device's own file
 * gives its numbers and a function that serves one request; see docs/virtio.md.
 *
 * Register accesses run on the vCPUs and change little. All work is done by the device's thread, which may
 * sleep: it takes chains from the rings and hands them to `serve`, one after the other. Whoever changes
 * what the thread uses (a reset, a queue taken out of use) holds it first: then it is between two chains
 * and has nothing pinned. A driver that does something wrong gets DEVICE_NEEDS_RESET, and its device
 * rests until it does reset.
 */
#pragma once

#include "kernel/devices/vring.h"
#include "kernel/lib/err.h"
#include "mm/types.h"

struct vm;
struct vmmio;

/* Device n of a VM has the page at VMMIO_BASE + n * VMMIO_STRIDE and the IOAPIC's line VMMIO_GSI + n. */
#define VMMIO_BASE 0xfeb00000ull
#define VMMIO_STRIDE 0x1000u
#define VMMIO_SIZE 0x200u
#define VMMIO_GSI 16u
#define VMMIO_MAX 8u
#define VMMIO_QUEUES_MAX 5u
#define VMMIO_CONFIG_MAX 64u

/* All are called on the device's thread, or while it is held. `dev` is the device. */
struct vmmio_ops {
    const char *name; /* for messages: "block" */
    uint32_t device_id;
    unsigned nr_queues;
    uint64_t tick_ns;                        /* `tick` is wanted so often; 0: never */
    uint32_t config_size;                    /* bytes of the configuration space ... */
    uint32_t config_writable, writable_size; /* ... and which of them the driver may write */
    /* The driver is ready. May be NULL, as all but serve. */
    void (*started)(void *dev);
    /* Has the device anything for the queue? Without, no chain is taken. */
    bool (*ready)(void *dev, unsigned queue);
    /*
     * Carry out one chain. HV_OK: done, *written bytes of it. HV_EEXIST: the device keeps it, and completes it
     * by vmmio_complete. HV_EBUSY: not now; it is offered again after a kick. HV_EINVAL: the driver is wrong
     * (vring_wrong). HV_EAGAIN, HV_ENOMEM: memory lacks, or something else that comes by itself; it is offered
     * again after a while.
     */
    enum hv_err (*serve)(void *dev, unsigned queue, struct vring *r, struct vring_chain *c,
                         uint32_t *written);
    /* After serve has kept a chain, with nothing pinned. Must be there if it does. */
    void (*kept)(void *dev, unsigned queue);
    void (*tick)(void *dev);
    /* Back to the state after power-on; what the driver had is forgotten. */
    void (*reset)(void *dev);
};

/* Build the next device of vm on its bus, with features beyond those of every device. *out also after an
 * error, for vmmio_destroy. HV_ENOMEM, HV_ERANGE: too many. */
enum hv_err vmmio_create(struct vm *vm, const struct vmmio_ops *ops, void *dev, uint64_t features,
                         struct vmmio **out) __must_check;
/* NULL: nothing happens. The VM's vCPUs do not run. */
void vmmio_destroy(struct vmmio *m);
/* Power-on; likewise. Afterwards the thread does nothing, and nothing is pinned. */
void vmmio_reset(struct vmmio *m);

/* For operators. */
struct vmmio_state {
    const char *name;   /* "blk" */
    const char *driver; /* how far it is: "ready" */
    uint64_t base;      /* guest-physical, of the registers */
    unsigned gsi;
    uint64_t served; /* chains that were completed */
};
/* Any thread. */
void vmmio_state(const struct vmmio *m, struct vmmio_state *out);

/* ---- For the device; any thread unless said otherwise ---- */

bool vmmio_has(const struct vmmio *m, uint64_t feature); /* negotiated; bit mask */
/* Is there a queue of that number in use? The device's thread. */
bool vmmio_queue_ready(const struct vmmio *m, unsigned queue);
/* Look at the queue (again). Any context. */
void vmmio_kick(struct vmmio *m, unsigned queue);
/* The queue's chains are ranges of memory, not buffers: they are not pinned. From `started`. */
void vmmio_set_ranges(struct vmmio *m, unsigned queue);
/* Complete a chain that `serve` kept, now or before the queue's next one is served: one of each queue at a
 * time. The device's thread, outside of `serve`. */
void vmmio_complete(struct vmmio *m, unsigned queue, uint16_t head, uint32_t written);
/* Somebody wants the thread to end what it does, half-way if that takes long. */
bool vmmio_is_stopping(const struct vmmio *m);
/* The driver did something wrong: `what` says it. No lock held. */
void vmmio_broken(struct vmmio *m, const char *what);
/* Bytes of the configuration space. Writing tells the driver, if they change and it is ready. */
void vmmio_config_write(struct vmmio *m, uint32_t offset, const void *src, size_t n);
uint32_t vmmio_config_u32(struct vmmio *m, uint32_t offset);
