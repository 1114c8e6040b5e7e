/* SPDX-License-Identifier: BSD-2-Clause */
/* What vmmio.c (life, thread) and vmmio_regs.c (registers) share. Nobody else includes this. */
#pragma once

#include "kernel/devices/vmmio.h"
#include "kernel/lib/ratelimit.h"
#include "kernel/lib/spinlock.h"
#include "kernel/sched/timer.h"
#include "kernel/sched/wait.h"
#include "kernel/vm/memwait.h"

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_NEEDS_RESET 64u
#define STATUS_FAILED 128u
#define STATUS_OF_DRIVER \
    (STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK | STATUS_FAILED)

#define INTERRUPT_RING 1u
#define INTERRUPT_CONFIG 2u

#define FEATURE_INDIRECT BIT(28)
#define FEATURE_VERSION_1 BIT(32)

/* Events: queues by their bits, and these. */
#define EVENT_START BIT(30)
#define EVENT_TICK BIT(31)

/* What the driver wrote about a queue; it counts once the queue is made ready. */
struct vmmio_queue {
    uint32_t size;
    uint64_t desc, avail, used;
};

struct vmmio {
    struct vm *vm;
    const struct vmmio_ops *ops;
    void *dev;
    unsigned index;
    uint64_t offered; /* features */

    struct spinlock lock; /* RANK_DEVICE; all up to `working` */
    uint32_t status, interrupt, generation;
    uint32_t feature_select, driver_select, queue_select;
    uint64_t accepted; /* features; constant once FEATURES_OK */
    struct vmmio_queue queue[VMMIO_QUEUES_MAX];
    uint8_t config[VMMIO_CONFIG_MAX];
    bool live;         /* the driver is ready and nothing is wrong (atomic) */
    bool held;         /* somebody holds the thread, or wants to (atomic) */
    bool working;      /* the thread is at work (atomic) */
    struct waitq wait; /* for changes of the last two */

    uint64_t served; /* atomic: chains completed */
    uint32_t events; /* atomic */
    bool ending;     /* atomic */
    struct thread *thread;
    struct timer timer;
    struct ratelimit limit; /* of lines about drivers, in ns */
    struct ring_state {
        struct vring ring;
        bool ranges;
        /* A chain that the device kept and is done with, whose completion had to wait. */
        bool owed;
        uint16_t owed_head;
        uint32_t owed_written;
    } ring[VMMIO_QUEUES_MAX]; /* the transport's while not ready, else the thread's */
    struct memwait_hope hope; /* the thread's */
    struct vring_chain chain; /* the thread's */
};

/* vmmio.c: keep the thread from its rings and wait until it has left them; let it go on. Off the guest
 * fast path, no lock held. */
void vmmio_hold(struct vmmio *m);
void vmmio_let_go(struct vmmio *m);
/* What a reset does; held. */
void vmmio_reset_held(struct vmmio *m);
/* One turn of the thread. False: there was nothing to do. */
bool vmmio_step(struct vmmio *m);
/* Something happened for the thread. Any context. */
void vmmio_event(struct vmmio *m, uint32_t events);

/* vmmio_regs.c */
enum hv_err vmmio_access(void *dev, struct vcpu *v, uint64_t offset, unsigned size, bool write,
                         uint64_t *value);
/* Raise interrupt bits; locked. */
void vmmio_interrupt(struct vmmio *m, uint32_t bits);
/* Set the line to what the bits say; locked. */
void vmmio_update_line(struct vmmio *m);
