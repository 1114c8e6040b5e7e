/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each buffer is filled from the stream that the host's seed and the VM's name begin, mixed with the
 * processor's entropy where nobody gave a seed for a run to repeat. A reset does not begin it anew. Manual:
 * Virtual I/O Device (VIRTIO) 1.2, "Entropy Device".
 */
#include "kernel/devices/vrandom.h"

#include "kernel/devices/vmmio.h"
#include "kernel/lib/random.h"
#include "kernel/sched/sched.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define DEVICE_ID 4u
#define YIELD_BYTES 4096u /* a request may ask for a megabyte */

struct vrandom {
    struct vmmio *transport;
    struct rng rng; /* the device thread's */
};

static enum hv_err serve(void *dev, unsigned queue, struct vring *r, struct vring_chain *c,
                         uint32_t *written)
{
    struct vrandom *d = dev;

    (void)queue;
    if (c->writable == 0) {
        return vring_wrong(r, "a request for no entropy");
    }
    while (*written < c->writable) {
        uint64_t word = random_secret(&d->rng);

        *written += (uint32_t)vring_write(c, &word, sizeof(word));
        if (*written % YIELD_BYTES == 0) {
            sched_yield();
        }
    }
    return HV_OK;
}

static const struct vmmio_ops ops = {
    .name = "rng", .device_id = DEVICE_ID, .nr_queues = 1, .serve = serve};

enum hv_err vrandom_create(struct vm *vm, struct vrandom **out)
{
    struct vrandom *d;

    *out = NULL;
    if (vm->config.rng == SWITCH_OFF) {
        return HV_OK;
    }
    d = kmalloc(sizeof(*d), vm->id);
    if (d == NULL) {
        return HV_ENOMEM;
    }
    random_stream(&d->rng, "virtio-rng", vm->config.name);
    *out = d;
    return vmmio_create(vm, &ops, d, 0, &d->transport);
}

void vrandom_destroy(struct vrandom *d)
{
    if (d != NULL) {
        vmmio_destroy(d->transport);
        kfree(d);
    }
}

struct vmmio *vrandom_transport(struct vrandom *d)
{
    return d != NULL ? d->transport : NULL;
}
