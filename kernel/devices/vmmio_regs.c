/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The registers of a virtio device over MMIO, version 2, and its status. Manual: Virtual I/O Device
 * (VIRTIO) 1.2, "MMIO Device Register Layout", "Device Initialization". An access takes the lock, only
 * tried on the guest fast path; a notification takes none. What has to hold the device's thread leaves
 * the fast path and sleeps. The line of the IOAPIC is level-triggered: it is high while an interrupt bit
 * is set.
 */
#include "kernel/devices/devices.h"
#include "kernel/devices/device_lock.h"
#include "kernel/devices/vmmio_internal.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/vm.h"

#define MAGIC 0x74726976u
#define VERSION 2u
#define VENDOR 0x54534c42u

enum reg {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE = 0x008,
    REG_VENDOR = 0x00c,
    REG_FEATURES = 0x010,
    REG_FEATURES_SELECT = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_SELECT = 0x024,
    REG_QUEUE_SELECT = 0x030,
    REG_QUEUE_MAX = 0x034,
    REG_QUEUE_SIZE = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_DESC = 0x080,
    REG_AVAIL = 0x090,
    REG_USED = 0x0a0,
    REG_SHM_LENGTH = 0x0b0,
    REG_SHM_BASE = 0x0b8,
    REG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100
};

/* ---- Interrupts, features ---- */

void vmmio_update_line(struct vmmio *m)
{
    vioapic_set_line(m->vm, VMMIO_GSI + m->index, m->interrupt != 0);
}

void vmmio_interrupt(struct vmmio *m, uint32_t bits)
{
    m->interrupt |= bits;
    vmmio_update_line(m);
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
    unsigned shift = high ? 32 : 0;

    *value = (*value & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)half << shift;
}

static void accept_features(struct vmmio *m, uint32_t value)
{
    if (!(m->status & STATUS_FEATURES_OK) && m->driver_select < 2) {
        set_half(&m->accepted, m->driver_select == 1, value);
    }
}

/* ---- Queues ---- */

static struct vmmio_queue *selected(struct vmmio *m)
{
    return m->queue_select < m->ops->nr_queues ? &m->queue[m->queue_select] : NULL;
}

static bool is_ready(const struct vmmio *m)
{
    return m->queue_select < m->ops->nr_queues &&
           __atomic_load_n(&m->ring[m->queue_select].ring.ready, __ATOMIC_RELAXED);
}

/* Make the selected queue ready as it was described. False: it cannot be one. */
static bool start_queue(struct vmmio *m)
{
    const struct vmmio_queue *q = selected(m);

    if (q == NULL || is_ready(m)) {
        return true;
    }
    struct vring *r = &m->ring[m->queue_select].ring;

    r->indirect = m->accepted & FEATURE_INDIRECT;
    r->size = (uint16_t)MIN(q->size, (uint32_t)UINT16_MAX);
    r->desc.gpa = q->desc;
    r->avail.gpa = q->avail;
    r->used.gpa = q->used;
    if (!vring_valid(r)) {
        return false;
    }
    m->ring[m->queue_select].owed = false; /* of the queue that was here before */
    vring_start(r);
    return true;
}

static void write_queue(struct vmmio *m, uint64_t offset, uint32_t value)
{
    struct vmmio_queue *q = selected(m);
    bool high = offset & 4;

    if (q == NULL) {
        return;
    }
    switch (offset & ~4ull) {
    case REG_QUEUE_SIZE:
        q->size = value;
        break;
    case REG_DESC:
        set_half(&q->desc, high, value);
        break;
    case REG_AVAIL:
        set_half(&q->avail, high, value);
        break;
    default:
        set_half(&q->used, high, value);
        break;
    }
}

/* ---- Status ---- */

/* Bits are only added; 0 is a reset and does not come here. True: the driver became ready. */
static bool write_status(struct vmmio *m, uint32_t value, const char **wrong)
{
    uint32_t added = value & STATUS_OF_DRIVER & ~m->status;

    if ((added & STATUS_FEATURES_OK) &&
        ((m->accepted & ~m->offered) != 0 || !(m->accepted & FEATURE_VERSION_1))) {
        added &= ~STATUS_FEATURES_OK; /* the driver reads the status to see */
    }
    m->status |= added;
    if (added & STATUS_FAILED) {
        __atomic_store_n(&m->live, false, __ATOMIC_RELEASE);
    }
    if (!(added & STATUS_DRIVER_OK) || (m->status & (STATUS_FAILED | STATUS_NEEDS_RESET))) {
        return false;
    }
    if (!(m->status & STATUS_FEATURES_OK)) {
        *wrong = "DRIVER_OK without FEATURES_OK";
        return false;
    }
    __atomic_store_n(&m->live, true, __ATOMIC_RELEASE);
    return true;
}

/* ---- Accesses ---- */

static uint32_t reg_read(const struct vmmio *m, uint64_t offset)
{
    switch (offset) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return VERSION;
    case REG_DEVICE:
        return m->ops->device_id;
    case REG_VENDOR:
        return VENDOR;
    case REG_FEATURES:
        return m->feature_select < 2 ? (uint32_t)(m->offered >> (32 * m->feature_select)) : 0;
    case REG_QUEUE_MAX:
        return m->queue_select < m->ops->nr_queues ? VRING_SIZE_MAX : 0;
    case REG_QUEUE_READY:
        return is_ready(m);
    case REG_INTERRUPT_STATUS:
        return m->interrupt;
    case REG_STATUS:
        return m->status;
    case REG_SHM_LENGTH:
    case REG_SHM_LENGTH + 4:
    case REG_SHM_BASE:
    case REG_SHM_BASE + 4:
        return UINT32_MAX; /* no shared memory */
    case REG_GENERATION:
        return m->generation;
    default:
        return 0;
    }
}

/* *wrong: what the driver did that it may not. Returns events for the thread. */
static uint32_t reg_write(struct vmmio *m, uint64_t offset, uint32_t value, const char **wrong)
{
    switch (offset) {
    case REG_FEATURES_SELECT:
        m->feature_select = value;
        break;
    case REG_DRIVER_FEATURES:
        accept_features(m, value);
        break;
    case REG_DRIVER_SELECT:
        m->driver_select = value;
        break;
    case REG_QUEUE_SELECT:
        m->queue_select = value;
        break;
    case REG_QUEUE_SIZE:
    case REG_DESC:
    case REG_DESC + 4:
    case REG_AVAIL:
    case REG_AVAIL + 4:
    case REG_USED:
    case REG_USED + 4:
        write_queue(m, offset, value);
        break;
    case REG_QUEUE_READY: /* 0: see take_out */
        if ((value & 1) && !start_queue(m)) {
            *wrong = m->ring[m->queue_select].ring.why;
        }
        return (uint32_t)BIT(m->queue_select % VMMIO_QUEUES_MAX);
    case REG_INTERRUPT_ACK:
        m->interrupt &= ~value;
        vmmio_update_line(m);
        break;
    case REG_STATUS: /* 0: see reset */
        return value != 0 && write_status(m, value, wrong) ? EVENT_START : 0;
    default:
        break;
    }
    return 0;
}

static void config_access(struct vmmio *m, uint64_t offset, unsigned size, bool write,
                          uint64_t *value)
{
    const struct vmmio_ops *ops = m->ops;

    if (!write) {
        *value = 0;
        if (offset < ops->config_size) {
            memcpy(value, m->config + offset, MIN((uint64_t)size, ops->config_size - offset));
        }
    } else if (offset >= ops->config_writable &&
               offset + size <= ops->config_writable + ops->writable_size) {
        memcpy(m->config + offset, value, size);
    }
}

static void reset(struct vmmio *m)
{
    vmmio_hold(m);
    vmmio_reset_held(m);
    vmmio_let_go(m);
}

/* The selected queue is no longer the device's to use. */
static void take_out(struct vmmio *m)
{
    vmmio_hold(m);
    spin_lock(&m->lock);
    if (m->queue_select < m->ops->nr_queues) {
        __atomic_store_n(&m->ring[m->queue_select].ring.ready, false, __ATOMIC_RELEASE);
    }
    spin_unlock(&m->lock);
    vmmio_let_go(m);
}

/* Writes that have to hold the thread. HV_ENOENT: this is none. */
static enum hv_err rare_write(struct vmmio *m, struct vcpu *v, uint64_t offset, uint32_t value)
{
    if (offset == REG_STATUS && value == 0) {
        if (vcpu_in_section(v)) {
            return HV_EAGAIN;
        }
        reset(m);
        return HV_OK;
    }
    if (offset == REG_QUEUE_READY && !(value & 1)) {
        if (vcpu_in_section(v)) {
            return HV_EAGAIN;
        }
        take_out(m);
        return HV_OK;
    }
    return HV_ENOENT;
}

static enum hv_err write_register(struct vmmio *m, struct vcpu *v, uint64_t offset, uint32_t value)
{
    const char *wrong = NULL;
    char text[VRING_WHY_MAX];
    uint32_t events;

    if (offset == REG_QUEUE_NOTIFY) {
        if (value < m->ops->nr_queues) {
            vmmio_kick(m, value);
        }
        return HV_OK;
    }
    enum hv_err err = rare_write(m, v, offset, value);
    if (err != HV_ENOENT) {
        return err;
    }
    /* What may turn out to be wrong is written to the log: not on the fast path. */
    if (vcpu_in_section(v) && (offset == REG_STATUS || offset == REG_QUEUE_READY)) {
        return HV_EAGAIN;
    }
    if (!device_lock(&m->lock, v)) {
        return HV_EAGAIN;
    }
    events = reg_write(m, offset, value, &wrong);
    if (wrong != NULL) {
        str_copy(text, sizeof(text), wrong);
    }
    spin_unlock(&m->lock);
    if (wrong != NULL) {
        vmmio_broken(m, text);
    } else if (events != 0) {
        vmmio_event(m, events);
    }
    return HV_OK;
}

enum hv_err vmmio_access(void *dev, struct vcpu *v, uint64_t offset, unsigned size, bool write,
                         uint64_t *value)
{
    struct vmmio *m = dev;
    bool config = offset >= REG_CONFIG;

    /* Registers are 32 bits wide and know nothing else. */
    if (!config && (size != 4 || offset % 4 != 0)) {
        *value = write ? *value : 0;
        return HV_OK;
    }
    if (write && !config) {
        return write_register(m, v, offset, (uint32_t)*value);
    }
    if (!device_lock(&m->lock, v)) {
        return HV_EAGAIN;
    }
    if (config) {
        config_access(m, offset - REG_CONFIG, size, write, value);
    } else {
        *value = reg_read(m, offset);
    }
    spin_unlock(&m->lock);
    return HV_OK;
}
