/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One port. Output goes through the serial port's lock (vuart_print), so that the console keeps its one
 * producer; input is taken from the console's queue when the driver has a buffer for it. A chain may hold
 * a megabyte: its printing lets others in, and while the host's log is behind the chain is given back, to go
 * on where it stopped.
 * Manual: Virtual I/O Device (VIRTIO) 1.2, "Console Device".
 */
#include "kernel/devices/vconsole.h"

#include "kernel/devices/vmmio.h"
#include "kernel/devices/vuart.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/guestconsole.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define DEVICE_ID 3u
#define QUEUE_RECEIVE 0u
#define QUEUE_TRANSMIT 1u
#define CONFIG_SIZE 12u /* all zero: no size of the screen, no ports */
#define STEP 128u
#define STEPS_AT_ONCE 32u /* until others may have the processor */
#define FULL_POLL_NS 1000000ull

struct vconsole {
    struct vm *vm;
    struct vuart *uart;
    struct vmmio *transport;
    uint32_t printed; /* bytes of the chain that was given back; the device thread's */
};

/* The operator typed. Thread context. */
static void input_ready(void *arg)
{
    struct vconsole *d = arg;

    vmmio_kick(d->transport, QUEUE_RECEIVE);
}

static bool ready(void *dev, unsigned queue)
{
    struct vconsole *d = dev;

    return queue == QUEUE_TRANSMIT || guestconsole_input_pending(d->vm->console);
}

static enum hv_err receive(struct vconsole *d, struct vring *r, struct vring_chain *c,
                           uint32_t *written)
{
    char data[STEP];

    if (c->writable == 0) {
        return vring_wrong(r, "no room for input");
    }
    size_t n = guestconsole_read(d->vm->console, data, MIN(sizeof(data), (size_t)c->writable));

    *written = (uint32_t)vring_write(c, data, n);
    return HV_OK;
}

/* HV_EAGAIN: the rest of the chain waits for the log. */
static enum hv_err transmit(struct vconsole *d, struct vring_chain *c)
{
    uint32_t done = d->printed, skip = done;
    char data[STEP];
    size_t n;

    while (skip != 0 && (n = vring_read(c, data, MIN(sizeof(data), (size_t)skip))) != 0) {
        skip -= (uint32_t)n;
    }
    for (unsigned steps = 0;; steps++) {
        if (guestconsole_is_full(d->vm->console)) {
            d->printed = done;
            thread_sleep_ns(FULL_POLL_NS);
            return HV_EAGAIN;
        }
        n = vring_read(c, data, sizeof(data));
        if (n == 0) {
            break;
        }
        vuart_print(d->uart, data, n);
        done += (uint32_t)n;
        if (steps % STEPS_AT_ONCE == STEPS_AT_ONCE - 1) {
            sched_yield();
        }
    }
    d->printed = 0;
    return HV_OK;
}

static enum hv_err serve(void *dev, unsigned queue, struct vring *r, struct vring_chain *c,
                         uint32_t *written)
{
    struct vconsole *d = dev;

    return queue == QUEUE_RECEIVE ? receive(d, r, c, written) : transmit(d, c);
}

static void reset(void *dev)
{
    struct vconsole *d = dev;

    d->printed = 0;
}

static const struct vmmio_ops ops = {.name = "console",
                                     .device_id = DEVICE_ID,
                                     .nr_queues = 2,
                                     .config_size = CONFIG_SIZE,
                                     .ready = ready,
                                     .serve = serve,
                                     .reset = reset};

enum hv_err vconsole_create(struct vm *vm, struct vuart *uart, struct vconsole **out)
{
    struct vconsole *d;

    *out = NULL;
    if (vm->config.console != CONSOLE_VIRTIO) {
        return HV_OK;
    }
    d = kmalloc(sizeof(*d), vm->id);
    *out = d;
    if (d == NULL) {
        return HV_ENOMEM;
    }
    d->vm = vm;
    d->uart = uart;
    enum hv_err err = vmmio_create(vm, &ops, d, 0, &d->transport);
    if (err == HV_OK) {
        guestconsole_set_input_ready(vm->console, input_ready, d);
    }
    return err;
}

void vconsole_destroy(struct vconsole *d)
{
    if (d != NULL) {
        guestconsole_set_input_ready(d->vm->console, NULL, NULL);
        vmmio_destroy(d->transport);
        kfree(d);
    }
}

struct vmmio *vconsole_transport(struct vconsole *d)
{
    return d != NULL ? d->transport : NULL;
}
