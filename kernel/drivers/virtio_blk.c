/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio block devices on PCI ("Virtual I/O Device (VIRTIO)", "PCI Bus", "Block Device"): one split
 * queue, laid out as the legacy interface wants it, which the modern one accepts too. The transport
 * differs in where registers are; the requests do not. A request is a chain of descriptors, header,
 * frames, status: in a table of its own where the device reads indirect ones, else in a fixed part of
 * the queue's table.
 */
#include "kernel/drivers/virtio_blk.h"

#include "arch/x86_64/io.h"
#include "kernel/drivers/blk_queue.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define VENDOR 0x1af4
#define DEVICE_TRANSITIONAL 0x1001
#define DEVICE_MODERN 0x1042

#define CAP_COMMON 1u
#define CAP_NOTIFY 2u
#define CAP_DEVICE 4u

/* "Common configuration structure layout". */
#define COMMON_FEATURE_SELECT 0x00
#define COMMON_FEATURE 0x04
#define COMMON_DRIVER_SELECT 0x08
#define COMMON_DRIVER_FEATURE 0x0c
#define COMMON_STATUS 0x14
#define COMMON_QUEUE_SELECT 0x16
#define COMMON_QUEUE_SIZE 0x18
#define COMMON_QUEUE_VECTOR 0x1a
#define COMMON_QUEUE_ENABLE 0x1c
#define COMMON_QUEUE_NOTIFY 0x1e
#define COMMON_QUEUE_DESC 0x20
#define COMMON_QUEUE_DRIVER 0x28
#define COMMON_QUEUE_DEVICE 0x30
/* "Legacy Interfaces: A Note on PCI Device Layout". */
#define LEGACY_FEATURES 0x00
#define LEGACY_DRIVER_FEATURES 0x04
#define LEGACY_QUEUE_PFN 0x08
#define LEGACY_QUEUE_SIZE 0x0c
#define LEGACY_QUEUE_SELECT 0x0e
#define LEGACY_NOTIFY 0x10
#define LEGACY_STATUS 0x12
#define LEGACY_QUEUE_VECTOR 0x16 /* with MSI-X only */
#define LEGACY_CONFIG 0x14       /* 4 more with MSI-X */

#define STATUS_ACKNOWLEDGE 1u
#define STATUS_DRIVER 2u
#define STATUS_DRIVER_OK 4u
#define STATUS_FEATURES_OK 8u
#define STATUS_FAILED 128u

#define F_SEG_MAX BIT(2)
#define F_READ_ONLY BIT(5)
#define F_BLK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_INDIRECT BIT(28)
#define F_VERSION_1 BIT(32)
#define WANTED (F_SEG_MAX | F_READ_ONLY | F_BLK_SIZE | F_FLUSH | F_INDIRECT | F_VERSION_1)
#define CONFIG_SEG_MAX 12u
#define CONFIG_BLK_SIZE 20u

#define T_IN 0u
#define T_OUT 1u
#define T_FLUSH 4u
#define T_GET_ID 8u
#define S_OK 0u
#define S_UNSUPPORTED 2u
#define S_NONE 0xffu

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define CHAIN_MAX (BLK_RUN_MAX + 2)
#define CHAIN_BYTES 1024u /* of an indirect table: CHAIN_MAX descriptors, never across a page */

struct desc {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next;
};

struct avail {
    uint16_t flags, index;
    uint16_t ring[];
};

struct used {
    uint16_t flags, index;
    struct {
        uint32_t id, bytes;
    } ring[];
};

struct header { /* of a request, with room for its status behind it */
    uint32_t type, reserved;
    uint64_t sector;
    uint8_t status;
    uint8_t pad[15];
};
_Static_assert(sizeof(struct header) == 32,
               "status right behind the 16 bytes that the device reads");

struct virtio {
    struct blk_disk disk;
    struct pci_dev pci;
    bool modern, msix;
    volatile uint8_t *common, *notify, *config; /* modern */
    uint16_t ports;                             /* legacy */
    uint64_t features;

    unsigned size; /* of the queue */
    struct desc *descs;
    struct avail *avail;
    volatile struct used *used;
    uint64_t descs_pa, avail_pa, used_pa;
    uint64_t ring_bytes;
    uint16_t last_used;
    struct header *headers; /* per tag */
    uint64_t headers_pa;
    uint8_t *tables; /* per tag, if indirect */
    uint64_t tables_pa;
};

/* ---- Transport ---- */

static uint8_t get_status(const struct virtio *v)
{
    return v->modern ? mmio_read8(v->common + COMMON_STATUS)
                     : inb((uint16_t)(v->ports + LEGACY_STATUS));
}

static void set_status(const struct virtio *v, uint8_t status)
{
    if (v->modern) {
        mmio_write8(v->common + COMMON_STATUS, status);
    } else {
        outb((uint16_t)(v->ports + LEGACY_STATUS), status);
    }
}

static uint32_t config32(const struct virtio *v, unsigned offset)
{
    return v->modern ? mmio_read32(v->config + offset)
                     : inl((uint16_t)(v->ports + LEGACY_CONFIG + (v->msix ? 4u : 0u) + offset));
}

static uint64_t offered_features(const struct virtio *v)
{
    if (!v->modern) {
        return inl((uint16_t)(v->ports + LEGACY_FEATURES));
    }
    mmio_write32(v->common + COMMON_FEATURE_SELECT, 0);
    uint64_t low = mmio_read32(v->common + COMMON_FEATURE);

    mmio_write32(v->common + COMMON_FEATURE_SELECT, 1);
    return low | (uint64_t)mmio_read32(v->common + COMMON_FEATURE) << 32;
}

static bool accept_features(const struct virtio *v)
{
    if (!v->modern) {
        outl((uint16_t)(v->ports + LEGACY_DRIVER_FEATURES), (uint32_t)v->features);
        return true;
    }
    for (unsigned i = 0; i < 2; i++) {
        mmio_write32(v->common + COMMON_DRIVER_SELECT, i);
        mmio_write32(v->common + COMMON_DRIVER_FEATURE, (uint32_t)(v->features >> 32 * i));
    }
    set_status(v, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    return (get_status(v) & STATUS_FEATURES_OK) != 0;
}

static unsigned queue_size(const struct virtio *v)
{
    if (v->modern) {
        mmio_write16(v->common + COMMON_QUEUE_SELECT, 0);
        return mmio_read16(v->common + COMMON_QUEUE_SIZE);
    }
    outw((uint16_t)(v->ports + LEGACY_QUEUE_SELECT), 0);
    return inw((uint16_t)(v->ports + LEGACY_QUEUE_SIZE));
}

static void write_common64(const struct virtio *v, unsigned reg, uint64_t value)
{
    mmio_write32(v->common + reg, (uint32_t)value);
    mmio_write32(v->common + reg + 4, (uint32_t)(value >> 32));
}

static void set_queue(struct virtio *v)
{
    if (!v->modern) {
        outw((uint16_t)(v->ports + LEGACY_QUEUE_SELECT), 0);
        if (v->msix) {
            outw((uint16_t)(v->ports + LEGACY_QUEUE_VECTOR), 0);
        }
        outl((uint16_t)(v->ports + LEGACY_QUEUE_PFN), (uint32_t)(v->descs_pa >> PAGE_SHIFT));
        return;
    }
    mmio_write16(v->common + COMMON_QUEUE_SELECT, 0);
    mmio_write16(v->common + COMMON_QUEUE_SIZE, (uint16_t)v->size);
    if (v->msix) {
        mmio_write16(v->common + COMMON_QUEUE_VECTOR, 0);
    }
    write_common64(v, COMMON_QUEUE_DESC, v->descs_pa);
    write_common64(v, COMMON_QUEUE_DRIVER, v->avail_pa);
    write_common64(v, COMMON_QUEUE_DEVICE, v->used_pa);
    mmio_write16(v->common + COMMON_QUEUE_ENABLE, 1);
}

static void notify(const struct virtio *v)
{
    if (v->modern) {
        mmio_write16(v->notify, 0);
    } else {
        outw((uint16_t)(v->ports + LEGACY_NOTIFY), 0);
    }
}

/* ---- Requests ---- */

static bool indirect(const struct virtio *v)
{
    return (v->features & F_INDIRECT) != 0;
}

static void add(struct desc *d, unsigned *nr, unsigned first, uint64_t pa, uint64_t bytes,
                unsigned flags)
{
    d[*nr] = (struct desc){pa, (uint32_t)bytes, (uint16_t)(flags | DESC_NEXT),
                           (uint16_t)(first + *nr + 1)};
    (*nr)++;
}

/* Queue the chain of `nr` descriptors that stands where tag's belong. */
static void publish(struct virtio *v, unsigned tag, struct desc *chain, unsigned nr)
{
    unsigned head = tag * CHAIN_MAX;

    chain[nr - 1].flags &= (uint16_t)~DESC_NEXT;
    if (indirect(v)) {
        head = tag;
        v->descs[tag] = (struct desc){v->tables_pa + tag * CHAIN_BYTES,
                                      (uint32_t)(nr * sizeof(struct desc)), DESC_INDIRECT, 0};
    }
    v->avail->ring[v->avail->index % v->size] = (uint16_t)head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&v->avail->index, (uint16_t)(v->avail->index + 1), __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    notify(v);
}

/* A request of `type` on `nr_pages` pieces of memory of `bytes` each. */
static void issue(struct virtio *v, unsigned tag, uint32_t type, uint64_t sector,
                  const uint64_t *pages, unsigned nr_pages, uint64_t bytes)
{
    struct desc *chain =
        indirect(v) ? (struct desc *)(v->tables + tag * CHAIN_BYTES) : &v->descs[tag * CHAIN_MAX];
    unsigned first = indirect(v) ? 0 : tag * CHAIN_MAX;
    uint64_t header = v->headers_pa + tag * sizeof(struct header);
    unsigned nr = 0;

    v->headers[tag] = (struct header){.type = type, .sector = sector, .status = S_NONE};
    add(chain, &nr, first, header, offsetof(struct header, status), 0);
    for (unsigned i = 0; i < nr_pages; i++) {
        add(chain, &nr, first, pages[i], bytes, type == T_OUT ? 0 : DESC_WRITE);
    }
    add(chain, &nr, first, header + offsetof(struct header, status), 1, DESC_WRITE);
    publish(v, tag, chain, nr);
}

static enum hv_err virtio_submit(struct blk_disk *d, struct blk_request *r)
{
    static const uint32_t types[] = {[BLK_READ] = T_IN, [BLK_WRITE] = T_OUT, [BLK_FLUSH] = T_FLUSH};
    uint64_t pages[BLK_RUN_MAX];

    for (unsigned i = 0; i < r->nr_frames; i++) {
        pages[i] = blk_page(d, r, i);
    }
    issue(d->priv, r->tag, types[r->op], r->sector, pages, r->nr_frames, PAGE_SIZE);
    return HV_OK;
}

/* The next tag that is done, and how. */
static bool next_done(struct virtio *v, unsigned *tag, enum hv_err *result)
{
    uint16_t index = __atomic_load_n(&v->used->index, __ATOMIC_ACQUIRE);

    if (index == v->last_used) {
        return false;
    }
    uint32_t id = v->used->ring[v->last_used % v->size].id;

    v->last_used++;
    *tag = indirect(v) ? id : id / CHAIN_MAX;
    *result = HV_EIO;
    if (*tag < v->disk.depth) {
        uint8_t status = __atomic_load_n(&v->headers[*tag].status, __ATOMIC_RELAXED);

        *result = status == S_OK ? HV_OK : status == S_UNSUPPORTED ? HV_ENOTSUP : HV_EIO;
    }
    return true;
}

static enum hv_err virtio_reap(struct blk_disk *d)
{
    struct virtio *v = d->priv;
    enum hv_err result;
    unsigned tag;
    bool any = false;

    while (next_done(v, &tag, &result)) {
        blkq_complete(d, tag, result);
        any = true;
    }
    return !any && d->queue.nr_flight != 0 && get_status(v) == 0xff ? HV_ENOENT : HV_OK;
}

static bool reset_done(const void *v)
{
    return get_status(v) == 0;
}

/* "Device Initialization", also after a failure: all requests are forgotten. */
static enum hv_err start(struct virtio *v)
{
    set_status(v, 0);
    if (!blk_wait(reset_done, v, 1000)) {
        return HV_ETIMEDOUT;
    }
    set_status(v, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    v->features = offered_features(v) & WANTED;
    if ((v->modern && (v->features & F_VERSION_1) == 0) || !accept_features(v)) {
        set_status(v, STATUS_FAILED);
        return HV_ENOTSUP;
    }
    if (v->descs != NULL) {
        memset(v->descs, 0, v->ring_bytes);
        v->last_used = 0;
        set_queue(v);
    }
    set_status(v, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK |
                      (v->modern ? STATUS_FEATURES_OK : 0));
    return HV_OK;
}

static enum hv_err virtio_reset(struct blk_disk *d)
{
    return start(d->priv);
}

static void virtio_cut(struct blk_disk *d)
{
    const struct virtio *v = d->priv;

    set_status(v, 0);
    pci_command(&v->pci, 0, PCI_COMMAND_MASTER);
}

static const struct blk_driver driver = {.name = "virtio",
                                         .submit = virtio_submit,
                                         .reap = virtio_reap,
                                         .reset = virtio_reset,
                                         .cut = virtio_cut};

/* ---- Finding it ---- */

bool virtio_blk_match(const struct pci_dev *d)
{
    return d->vendor == VENDOR && (d->device == DEVICE_TRANSITIONAL || d->device == DEVICE_MODERN);
}

/* "Virtio Structure PCI Capabilities"; 0: none of that type. */
static unsigned find_part(const struct virtio *v, unsigned type)
{
    unsigned at = pci_capability(&v->pci, PCI_CAP_VENDOR, 0);

    while (at != 0 && pci_read32(&v->pci, at) >> 24 != type) {
        at = pci_capability(&v->pci, PCI_CAP_VENDOR, at);
    }
    return at;
}

static volatile uint8_t *map_part(const struct virtio *v, unsigned type, uint64_t offset,
                                  uint64_t size)
{
    unsigned cap = find_part(v, type);

    return cap == 0 ? NULL
                    : pci_map(&v->pci, pci_read32(&v->pci, cap + 4) & 0xff,
                              pci_read32(&v->pci, cap + 8) + offset, size);
}

/* Where the queue's notifications go depends on its number and on the device. */
static volatile uint8_t *map_notify(const struct virtio *v)
{
    unsigned cap = find_part(v, CAP_NOTIFY);

    mmio_write16(v->common + COMMON_QUEUE_SELECT, 0);
    uint64_t index = mmio_read16(v->common + COMMON_QUEUE_NOTIFY);

    return cap == 0 ? NULL : map_part(v, CAP_NOTIFY, index * pci_read32(&v->pci, cap + 16), 4);
}

static bool find_registers(struct virtio *v)
{
    uint64_t ports;
    bool is_io;

    v->common = map_part(v, CAP_COMMON, 0, 64);
    v->config = map_part(v, CAP_DEVICE, 0, 64);
    if (v->common != NULL && v->config != NULL) {
        v->modern = true;
        v->notify = map_notify(v);
        return v->notify != NULL;
    }
    if (!pci_bar(&v->pci, 0, &ports, &is_io) || !is_io) {
        return false;
    }
    v->ports = (uint16_t)ports;
    return true;
}

/* "Virtqueues", legacy layout: descriptors and available ring, then on a page of its own the used
 * ring. */
static bool make_rings(struct virtio *v)
{
    uint64_t used_offset = ALIGN_UP(v->size * sizeof(struct desc) + 2 * (3 + v->size), PAGE_SIZE);

    v->ring_bytes = used_offset + 2 * 3 + v->size * 8;
    uint8_t *ring = blk_dma_alloc(v->ring_bytes, &v->descs_pa);

    v->headers = blk_dma_alloc(BLK_DEPTH_MAX * sizeof(struct header), &v->headers_pa);
    if (indirect(v)) {
        v->tables = blk_dma_alloc(BLK_DEPTH_MAX * CHAIN_BYTES, &v->tables_pa);
    }
    v->descs = (struct desc *)ring;
    v->avail = (struct avail *)(ring + v->size * sizeof(struct desc));
    v->used = (struct used *)(ring + used_offset);
    v->avail_pa = v->descs_pa + v->size * sizeof(struct desc);
    v->used_pa = v->descs_pa + used_offset;
    return ring != NULL && v->headers != NULL && (v->tables != NULL || !indirect(v));
}

static bool id_done(const void *arg)
{
    const struct virtio *v = arg;

    return __atomic_load_n(&v->used->index, __ATOMIC_ACQUIRE) != v->last_used;
}

/* The serial number is asked for by a request of its own, before there are others. */
static void get_id(struct virtio *v)
{
    uint64_t pa;
    char *page = blk_dma_alloc(PAGE_SIZE, &pa);
    enum hv_err result;
    unsigned tag;

    if (page == NULL) {
        return;
    }
    issue(v, 0, T_GET_ID, 0, &pa, 1, 20);
    if (!blk_wait(id_done, v, 2000)) {
        return; /* the page stays the device's */
    }
    if (next_done(v, &tag, &result) && result == HV_OK) {
        str_copy_n(v->disk.serial, sizeof(v->disk.serial), page, strnlen(page, 20));
    }
    blk_dma_free(page);
}

static const char *set_up(struct virtio *v)
{
    struct blk_disk *d = &v->disk;

    if (!find_registers(v) || start(v) != HV_OK) {
        return "does not start";
    }
    enum pci_irq irq = pci_interrupt(&v->pci, blk_interrupt, d);

    v->msix = irq == PCI_MSIX;
    d->interrupts = v->msix;
    d->irq = pci_irq_name(v->msix ? irq : PCI_POLL);
    v->size = queue_size(v);
    d->depth = MIN(indirect(v) ? v->size : v->size / CHAIN_MAX, BLK_DEPTH_MAX);
    if (d->depth == 0 || v->size > 1024 || (v->size & (v->size - 1)) != 0 ||
        ((v->features & F_SEG_MAX) != 0 && config32(v, CONFIG_SEG_MAX) < BLK_RUN_MAX)) {
        return "has too small a queue";
    }
    if (!make_rings(v)) {
        return "finds no memory";
    }
    d->nr_sectors = config32(v, 0) | (uint64_t)config32(v, 4) << 32;
    d->sector_bytes = (v->features & F_BLK_SIZE) != 0 ? config32(v, CONFIG_BLK_SIZE) : 512;
    d->can_flush = (v->features & F_FLUSH) != 0;
    d->read_only = (v->features & F_READ_ONLY) != 0;
    str_copy(d->model, sizeof(d->model), v->modern ? "virtio block" : "virtio block, legacy");
    if (d->sector_bytes != 512 && d->sector_bytes != 4096) {
        return "has sectors of an odd size";
    }
    return start(v) == HV_OK ? NULL : "does not start with its queue";
}

void virtio_blk_probe(const struct pci_dev *pci)
{
    struct virtio *v = kmalloc(sizeof(*v), OWNER_HOST);
    const char *why = "finds no memory";

    if (v != NULL) {
        v->pci = *pci;
        v->disk.driver = &driver;
        v->disk.priv = v;
        pci_command(pci, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
        why = set_up(v);
    }
    if (why != NULL) {
        log_warn("virtio disk %02x:%02x.%u %s", pci->bus, pci->dev, pci->fn, why);
        return;
    }
    get_id(v);
    if (blk_add(&v->disk, "virtio") != HV_OK) {
        virtio_cut(&v->disk);
    }
}
