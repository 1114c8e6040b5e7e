/* SPDX-License-Identifier: BSD-2-Clause */
/* A polled driver for virtio over MMIO, and its rings laid open for guests that damage them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_BASE 0xfeb00000U
#define VIRTIO_STRIDE 0x1000U
#define VIRTIO_MAX 8U
#define VIRTIO_RING 16U /* descriptors of the queues made here */

#define VIRTIO_REG_MAGIC 0x000U
#define VIRTIO_REG_ID 0x008U
#define VIRTIO_REG_DRIVER_FEATURES 0x020U
#define VIRTIO_REG_DRIVER_SELECT 0x024U
#define VIRTIO_REG_QUEUE_SELECT 0x030U
#define VIRTIO_REG_QUEUE_SIZE 0x038U
#define VIRTIO_REG_QUEUE_READY 0x044U
#define VIRTIO_REG_NOTIFY 0x050U
#define VIRTIO_REG_ACK 0x064U
#define VIRTIO_REG_STATUS 0x070U
#define VIRTIO_REG_DESC 0x080U
#define VIRTIO_REG_AVAIL 0x090U
#define VIRTIO_REG_USED 0x0a0U
#define VIRTIO_REG_CONFIG 0x100U

#define VIRTIO_STATUS_READY 0x0fU
#define VIRTIO_STATUS_NEEDS_RESET 0x40U

#define VIRTIO_CONSOLE 3U
#define VIRTIO_RNG 4U
#define VIRTIO_BALLOON 5U
#define VIRTIO_BLK 2U

#define VIRTIO_NEXT 1U
#define VIRTIO_WRITE 2U
#define VIRTIO_INDIRECT 4U

struct virtio_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct virtio_ring {
    _Alignas(4096) volatile struct virtio_desc desc[VIRTIO_RING];
    _Alignas(4096) struct {
        volatile uint16_t flags, index, ring[VIRTIO_RING];
    } avail;
    _Alignas(4096) struct {
        volatile uint16_t flags, index;
        volatile struct {
            uint32_t id, len;
        } ring[VIRTIO_RING];
    } used;
};

static inline uint32_t virtio_read(uint32_t base, uint32_t reg)
{
    return *(volatile uint32_t *)(uintptr_t)(base + reg);
}

static inline void virtio_write(uint32_t base, uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(uintptr_t)(base + reg) = value;
}

/* Where the first device of that kind is; 0: there is none. */
uint32_t virtio_find(uint32_t id);
/* Reset, and negotiate features (the low 32 bits) up to FEATURES_OK. False: refused. */
bool virtio_begin(uint32_t base, uint32_t features);
/* An empty ring for a queue, with its registers, not ready yet; then ready. */
void virtio_describe(uint32_t base, uint32_t queue, struct virtio_ring *r);
void virtio_queue(uint32_t base, uint32_t queue, struct virtio_ring *r);
/* Make the chain at `head` available and notify. */
void virtio_offer(uint32_t base, uint32_t queue, struct virtio_ring *r, uint16_t head);
/* Until that many have been used: false after `ticks`, or when the device needs a reset. */
bool virtio_wait(uint32_t base, const struct virtio_ring *r, uint16_t used, uint64_t ticks);
/* Until it needs a reset. */
bool virtio_wait_broken(uint32_t base, uint64_t ticks);
