/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NVM Express ("NVM Express Base Specification"): one admin queue pair, used by polling, and one I/O
 * queue pair. A request's tag is its command identifier; each tag has room for a list of frames
 * ("Physical Region Page List").
 */
#include "kernel/drivers/nvme.h"

#include "arch/x86_64/io.h"
#include "kernel/drivers/blk_queue.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define REG_CAP 0x00
#define REG_CC 0x14
#define REG_CSTS 0x1c
#define REG_AQA 0x24
#define REG_ASQ 0x28
#define REG_ACQ 0x30
#define REG_DOORBELLS 0x1000
#define MAP_BYTES 0x2000

#define CC_ENABLE 0x1u
#define CC_ENTRY_SIZES (6u << 16 | 4u << 20) /* 64 and 16 bytes */
#define CSTS_READY 0x1u
#define CSTS_FATAL 0x2u

#define OP_FLUSH 0x00
#define OP_WRITE 0x01
#define OP_READ 0x02
#define ADMIN_CREATE_SQ 0x01
#define ADMIN_CREATE_CQ 0x05
#define ADMIN_IDENTIFY 0x06
#define IDENTIFY_NAMESPACE 0u
#define IDENTIFY_CONTROLLER 1u
#define IDENTIFY_LIST 2u
#define CONTIGUOUS 1u
#define INTERRUPTS 2u

#define QUEUE_ENTRIES 64u
#define PRP_LIST_ENTRIES BLK_RUN_MAX /* 256 bytes: never across a page */
#define ADMIN_MS 5000u

struct command {
    uint8_t opcode, flags;
    uint16_t id;
    uint32_t nsid;
    uint64_t reserved, metadata;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13, dw14, dw15;
};
_Static_assert(sizeof(struct command) == 64, "Common Command Format");

struct completion {
    uint32_t result, reserved;
    uint16_t sq_head, sq_id;
    uint16_t id;
    uint16_t status; /* bit 0: phase */
};
_Static_assert(sizeof(struct completion) == 16, "Common Completion Queue Entry");

struct queue {
    unsigned id, entries;
    struct command *sq;
    volatile struct completion *cq;
    uint64_t sq_pa, cq_pa;
    unsigned sq_tail, cq_head;
    uint16_t phase;
};

struct nvme {
    struct blk_disk disk;
    struct pci_dev pci;
    volatile uint8_t *regs;
    unsigned doorbell_bytes;
    unsigned ready_ms;
    struct queue admin, io;
    uint32_t nsid;
    uint64_t (*prp)[PRP_LIST_ENTRIES]; /* per tag */
    uint64_t prp_pa;
    void *page; /* what Identify answers */
    uint64_t page_pa;
};

static volatile uint8_t *doorbell(const struct nvme *n, const struct queue *q, bool completion)
{
    return n->regs + REG_DOORBELLS + (2 * q->id + completion) * n->doorbell_bytes;
}

static void put(struct nvme *n, struct queue *q, const struct command *c)
{
    q->sq[q->sq_tail] = *c;
    q->sq_tail = (q->sq_tail + 1) % q->entries;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the entry before the doorbell */
    mmio_write32(doorbell(n, q, false), q->sq_tail);
}

static bool get(struct queue *q, struct completion *out)
{
    volatile struct completion *c = &q->cq[q->cq_head];
    uint16_t status = c->status;

    if ((status & 1) != q->phase) {
        return false;
    }
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    *out = (struct completion){.id = c->id, .status = status};
    q->cq_head = (q->cq_head + 1) % q->entries;
    q->phase ^= q->cq_head == 0;
    return true;
}

/* ---- Administration ---- */

static bool ready(const void *arg)
{
    const struct nvme *n = arg;

    return (mmio_read32(n->regs + REG_CSTS) & CSTS_READY) != 0;
}

static bool not_ready(const void *arg)
{
    return !ready(arg);
}

static bool admin_answered(const void *arg)
{
    const struct queue *q = &((const struct nvme *)arg)->admin;

    return (q->cq[q->cq_head].status & 1) == q->phase;
}

static enum hv_err admin(struct nvme *n, struct command *c)
{
    struct completion done;

    put(n, &n->admin, c);
    if (!blk_wait(admin_answered, n, ADMIN_MS) || !get(&n->admin, &done)) {
        return HV_ETIMEDOUT;
    }
    mmio_write32(doorbell(n, &n->admin, true), n->admin.cq_head);
    return done.status >> 1 == 0 ? HV_OK : HV_EIO;
}

static enum hv_err identify(struct nvme *n, uint32_t what, uint32_t nsid)
{
    struct command c = {.opcode = ADMIN_IDENTIFY, .nsid = nsid, .prp1 = n->page_pa, .dw10 = what};

    return admin(n, &c);
}

static enum hv_err create_io_queues(struct nvme *n)
{
    uint32_t size = (n->io.entries - 1) << 16 | n->io.id;
    struct command cq = {.opcode = ADMIN_CREATE_CQ,
                         .prp1 = n->io.cq_pa,
                         .dw10 = size,
                         .dw11 = CONTIGUOUS | (n->disk.interrupts ? INTERRUPTS : 0)};
    struct command sq = {.opcode = ADMIN_CREATE_SQ,
                         .prp1 = n->io.sq_pa,
                         .dw10 = size,
                         .dw11 = CONTIGUOUS | n->io.id << 16};
    enum hv_err err = admin(n, &cq);

    return err == HV_OK ? admin(n, &sq) : err;
}

static void clear_queue(struct queue *q)
{
    memset((void *)(uintptr_t)q->cq, 0, q->entries * sizeof(struct completion));
    q->sq_tail = q->cq_head = 0;
    q->phase = 1;
}

static void write64(const struct nvme *n, unsigned reg, uint64_t v)
{
    mmio_write32(n->regs + reg, (uint32_t)v);
    mmio_write32(n->regs + reg + 4, (uint32_t)(v >> 32));
}

static enum hv_err disable(struct nvme *n)
{
    mmio_write32(n->regs + REG_CC, 0);
    return blk_wait(not_ready, n, n->ready_ms) ? HV_OK : HV_ETIMEDOUT;
}

/* Off and on again ("Controller Initialization"): afterwards it knows nothing of earlier commands. */
static enum hv_err restart(struct nvme *n)
{
    if (disable(n) != HV_OK) {
        return HV_ETIMEDOUT;
    }
    clear_queue(&n->admin);
    clear_queue(&n->io);
    mmio_write32(n->regs + REG_AQA, (n->admin.entries - 1) << 16 | (n->admin.entries - 1));
    write64(n, REG_ASQ, n->admin.sq_pa);
    write64(n, REG_ACQ, n->admin.cq_pa);
    mmio_write32(n->regs + REG_CC, CC_ENABLE | CC_ENTRY_SIZES);
    return blk_wait(ready, n, n->ready_ms) ? HV_OK : HV_ETIMEDOUT;
}

/* ---- The driver ---- */

static enum hv_err nvme_submit(struct blk_disk *d, struct blk_request *r)
{
    static const uint8_t opcodes[] = {
        [BLK_READ] = OP_READ, [BLK_WRITE] = OP_WRITE, [BLK_FLUSH] = OP_FLUSH};
    struct nvme *n = d->priv;
    struct command c = {.opcode = opcodes[r->op], .id = r->tag, .nsid = n->nsid};

    if (r->op != BLK_FLUSH) {
        uint64_t unit = d->sector_bytes / BLK_SECTOR;
        uint64_t lba = r->sector / unit;

        c.dw10 = (uint32_t)lba;
        c.dw11 = (uint32_t)(lba >> 32);
        c.dw12 = (uint32_t)(blk_nr_sectors(r) / unit - 1);
        c.prp1 = blk_page(d, r, 0);
        for (unsigned i = 1; i < r->nr_frames; i++) {
            n->prp[r->tag][i - 1] = blk_page(d, r, i);
        }
        c.prp2 = r->nr_frames == 2 ? n->prp[r->tag][0] : n->prp_pa + r->tag * sizeof(n->prp[0]);
    }
    put(n, &n->io, &c);
    return HV_OK;
}

static enum hv_err nvme_reap(struct blk_disk *d)
{
    struct nvme *n = d->priv;
    struct completion c;
    bool any = false;

    while (get(&n->io, &c)) {
        any = true;
        blkq_complete(d, c.id, c.status >> 1 == 0 ? HV_OK : HV_EIO);
    }
    if (any) {
        mmio_write32(doorbell(n, &n->io, true), n->io.cq_head);
    } else if (mmio_read32(n->regs + REG_CSTS) == UINT32_MAX) {
        return HV_ENOENT;
    }
    return HV_OK;
}

static enum hv_err nvme_reset(struct blk_disk *d)
{
    struct nvme *n = d->priv;
    enum hv_err err = restart(n);

    return err == HV_OK ? create_io_queues(n) : err;
}

static void nvme_cut(struct blk_disk *d)
{
    const struct nvme *n = d->priv;

    pci_command(&n->pci, 0, PCI_COMMAND_MASTER);
}

static const struct blk_driver driver = {
    .name = "NVMe", .submit = nvme_submit, .reap = nvme_reap, .reset = nvme_reset, .cut = nvme_cut};

/* ---- Finding it ---- */

/* "Identify Controller", "Identify Namespace". NULL: fit for use; else why not. */
static const char *examine(struct nvme *n)
{
    const uint8_t *page = n->page;
    uint64_t sectors;

    if (identify(n, IDENTIFY_CONTROLLER, 0) != HV_OK) {
        return "does not identify itself";
    }
    str_copy_n(n->disk.serial, sizeof(n->disk.serial), (const char *)page + 4, 20);
    str_copy_n(n->disk.model, sizeof(n->disk.model), (const char *)page + 24, 40);
    n->disk.can_flush = (page[525] & 1) != 0;
    if (page[77] != 0 && page[77] < 5) {
        return "cannot move 128 KiB at once";
    }
    n->nsid = 1;
    if (identify(n, IDENTIFY_LIST, 0) == HV_OK) {
        memcpy(&n->nsid, page, sizeof(n->nsid));
    }
    if (n->nsid == 0 || identify(n, IDENTIFY_NAMESPACE, n->nsid) != HV_OK) {
        return "has no namespace";
    }
    const uint8_t *format = page + 128 + 4 * (page[26] & 0xf);

    if ((format[2] != 9 && format[2] != 12) || format[0] != 0 || format[1] != 0) {
        return "has sectors of an odd size";
    }
    n->disk.sector_bytes = 1u << format[2];
    memcpy(&sectors, page, sizeof(sectors));
    n->disk.nr_sectors = sectors << (format[2] - 9);
    return sectors != 0 ? NULL : "has an empty namespace";
}

static bool make_queue(struct queue *q, unsigned id, unsigned entries)
{
    q->id = id;
    q->entries = entries;
    q->sq = blk_dma_alloc(entries * sizeof(struct command), &q->sq_pa);
    q->cq = blk_dma_alloc(entries * sizeof(struct completion), &q->cq_pa);
    return q->sq != NULL && q->cq != NULL;
}

static const char *start(struct nvme *n)
{
    n->regs = pci_map(&n->pci, 0, 0, MAP_BYTES);
    if (n->regs == NULL) {
        return "has no registers";
    }
    uint32_t cap = mmio_read32(n->regs + REG_CAP);
    uint32_t cap_high = mmio_read32(n->regs + REG_CAP + 4);
    unsigned entries = MIN((cap & 0xffff) + 1, QUEUE_ENTRIES);

    n->doorbell_bytes = 4u << (cap_high & 0xf);
    n->ready_ms = ((cap >> 24) + 1) * 500;
    if (n->doorbell_bytes * 4 > MAP_BYTES - REG_DOORBELLS || (cap_high >> 16 & 0xf) != 0) {
        return "wants another page size or doorbells far apart";
    }
    n->disk.depth = MIN(entries - 1, BLK_DEPTH_MAX);
    n->prp = blk_dma_alloc(n->disk.depth * sizeof(n->prp[0]), &n->prp_pa);
    n->page = blk_dma_alloc(PAGE_SIZE, &n->page_pa);
    if (n->prp == NULL || n->page == NULL || !make_queue(&n->admin, 0, entries) ||
        !make_queue(&n->io, 1, entries)) {
        return "finds no memory";
    }
    pci_command(&n->pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
    return restart(n) == HV_OK ? examine(n) : "does not start";
}

void nvme_probe(const struct pci_dev *pci)
{
    struct nvme *n = kmalloc(sizeof(*n), OWNER_HOST);
    const char *why = "finds no memory";

    if (n != NULL) {
        n->pci = *pci;
        n->disk.driver = &driver;
        n->disk.priv = n;
        pci_command(pci, PCI_COMMAND_MEMORY, 0);
        why = start(n);
    }
    if (why == NULL) {
        enum pci_irq irq = pci_interrupt(pci, blk_interrupt, &n->disk);

        n->disk.interrupts = irq != PCI_POLL;
        n->disk.irq = pci_irq_name(irq);
        why = create_io_queues(n) == HV_OK ? NULL : "refuses its queues";
    }
    if (why != NULL) {
        log_warn("NVMe controller %02x:%02x.%u %s", pci->bus, pci->dev, pci->fn, why);
    } else if (blk_add(&n->disk, "nvme") != HV_OK) {
        nvme_cut(&n->disk);
    }
}
