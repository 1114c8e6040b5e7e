/* SPDX-License-Identifier: BSD-2-Clause */
/* See virtio.h. Waiting reads a register, so that the hypervisor may give the processor to the device. */
#include "guests/lib/virtio.h"

#include "guests/lib/arch.h"
#include "guests/lib/string.h"

#define MAGIC 0x74726976U
#define FEATURE_VERSION_1_HIGH 1U

uint32_t virtio_find(uint32_t id)
{
    for (uint32_t i = 0; i < VIRTIO_MAX; i++) {
        uint32_t base = VIRTIO_BASE + i * VIRTIO_STRIDE;

        if (virtio_read(base, VIRTIO_REG_MAGIC) == MAGIC &&
            virtio_read(base, VIRTIO_REG_ID) == id) {
            return base;
        }
    }
    return 0;
}

bool virtio_begin(uint32_t base, uint32_t features)
{
    virtio_write(base, VIRTIO_REG_STATUS, 0);
    virtio_write(base, VIRTIO_REG_STATUS, 1);
    virtio_write(base, VIRTIO_REG_STATUS, 3);
    virtio_write(base, VIRTIO_REG_DRIVER_SELECT, 1);
    virtio_write(base, VIRTIO_REG_DRIVER_FEATURES, FEATURE_VERSION_1_HIGH);
    virtio_write(base, VIRTIO_REG_DRIVER_SELECT, 0);
    virtio_write(base, VIRTIO_REG_DRIVER_FEATURES, features);
    virtio_write(base, VIRTIO_REG_STATUS, 11);
    return virtio_read(base, VIRTIO_REG_STATUS) == 11;
}

void virtio_describe(uint32_t base, uint32_t queue, struct virtio_ring *r)
{
    memset(r, 0, sizeof(*r));
    virtio_write(base, VIRTIO_REG_QUEUE_SELECT, queue);
    virtio_write(base, VIRTIO_REG_QUEUE_SIZE, VIRTIO_RING);
    virtio_write(base, VIRTIO_REG_DESC, (uint32_t)(uintptr_t)r->desc);
    virtio_write(base, VIRTIO_REG_DESC + 4, 0);
    virtio_write(base, VIRTIO_REG_AVAIL, (uint32_t)(uintptr_t)&r->avail);
    virtio_write(base, VIRTIO_REG_AVAIL + 4, 0);
    virtio_write(base, VIRTIO_REG_USED, (uint32_t)(uintptr_t)&r->used);
    virtio_write(base, VIRTIO_REG_USED + 4, 0);
}

void virtio_queue(uint32_t base, uint32_t queue, struct virtio_ring *r)
{
    virtio_describe(base, queue, r);
    virtio_write(base, VIRTIO_REG_QUEUE_READY, 1);
}

void virtio_offer(uint32_t base, uint32_t queue, struct virtio_ring *r, uint16_t head)
{
    uint16_t index = r->avail.index;

    r->avail.ring[index % VIRTIO_RING] = head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    r->avail.index = (uint16_t)(index + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    virtio_write(base, VIRTIO_REG_NOTIFY, queue);
}

bool virtio_wait(uint32_t base, const struct virtio_ring *r, uint16_t used, uint64_t ticks)
{
    uint64_t start = rdtsc();

    while (r->used.index != used) {
        if ((virtio_read(base, VIRTIO_REG_STATUS) & VIRTIO_STATUS_NEEDS_RESET) ||
            rdtsc() - start > ticks) {
            return r->used.index == used;
        }
        cpu_pause();
    }
    return true;
}

bool virtio_wait_broken(uint32_t base, uint64_t ticks)
{
    uint64_t start = rdtsc();

    while (!(virtio_read(base, VIRTIO_REG_STATUS) & VIRTIO_STATUS_NEEDS_RESET)) {
        if (rdtsc() - start > ticks) {
            return false;
        }
        cpu_pause();
    }
    return true;
}
