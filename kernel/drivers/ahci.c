/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SATA disks behind an AHCI controller ("Serial ATA AHCI Specification"). A request's tag is its command
 * slot. Commands are not queued in the disk (no NCQ): the controller works its slots off one after the
 * other, and after an error says which slot it stopped at.
 */
#include "kernel/drivers/ahci.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/io.h"
#include "kernel/drivers/ata.h"
#include "kernel/drivers/blk_queue.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/slab.h"

#define MAP_BYTES 0x1100
#define HBA_CAP 0x00
#define HBA_GHC 0x04
#define HBA_IS 0x08
#define HBA_PI 0x0c
#define HBA_CAP2 0x24
#define HBA_BOHC 0x28
#define CAP_64BIT BIT(31)
#define GHC_INTERRUPTS 0x2u
#define GHC_AHCI BIT(31)
#define BOHC_BIOS 0x1u
#define BOHC_OS 0x2u

#define PORT(n) (0x100u + 0x80u * (n))
#define PORT_CLB 0x00
#define PORT_FB 0x08
#define PORT_IS 0x10
#define PORT_IE 0x14
#define PORT_CMD 0x18
#define PORT_TFD 0x20
#define PORT_SIG 0x24
#define PORT_SSTS 0x28
#define PORT_SCTL 0x2c
#define PORT_SERR 0x30
#define PORT_CI 0x38
#define CMD_START 0x1u
#define CMD_SPIN_UP 0x6u /* and power on */
#define CMD_FIS 0x10u
#define CMD_FIS_RUNS BIT(14)
#define CMD_RUNS BIT(15)
#define CMD_SLOT(v) ((v) >> 8 & 0x1f)
#define IS_ERRORS 0x78000010u /* task file, host bus, interface errors, unknown FIS */
#define IS_WANTED (IS_ERRORS | 0x7u)
#define SSTS_PRESENT 0x3u /* of the low four bits: device there, link up */

#define SLOTS 4u
#define MEMORY_BYTES (2 * PAGE_SIZE) /* command list and FISes; then a table of 1 KiB per slot */
#define FIS_OFFSET 1024u
#define TABLE_OFFSET PAGE_SIZE
#define TABLE_BYTES 1024u

struct header {
    uint16_t flags; /* length of the command FIS in dwords; bit 6: write */
    uint16_t nr_prds;
    uint32_t moved;
    uint64_t table;
    uint32_t reserved[4];
};
_Static_assert(sizeof(struct header) == 32, "Command List Structure");
#define HEADER_WRITE 0x40u
#define FIS_DWORDS 5u

struct prd {
    uint64_t address;
    uint32_t reserved, bytes; /* less one */
};

struct table {
    uint8_t fis[64];
    uint8_t atapi[64];
    struct prd prds[BLK_RUN_MAX];
};
_Static_assert(offsetof(struct table, prds) == 0x80, "Command Table");
_Static_assert(sizeof(struct table) <= TABLE_BYTES, "Command Table");

struct port {
    struct blk_disk disk;
    struct hba *hba;
    volatile uint8_t *regs;
    uint8_t *memory;
    uint64_t pa;
    bool wide;
    uint32_t issued; /* slots; the disk's thread */
    uint32_t events; /* PORT_IS bits seen and cleared (atomic) */
};

struct hba {
    struct pci_dev pci;
    volatile uint8_t *regs;
    struct port *ports[32]; /* constant once interrupts are on */
};

static uint32_t get(const struct port *p, unsigned reg)
{
    return mmio_read32(p->regs + reg);
}

static void set(const struct port *p, unsigned reg, uint32_t v)
{
    mmio_write32(p->regs + reg, v);
}

static struct table *table_of(const struct port *p, unsigned slot)
{
    return (struct table *)(p->memory + TABLE_OFFSET + slot * TABLE_BYTES);
}

/* ---- Starting and stopping a port ---- */

static bool stopped(const void *port)
{
    return (get(port, PORT_CMD) & CMD_RUNS) == 0;
}

static bool fis_stopped(const void *port)
{
    return (get(port, PORT_CMD) & CMD_FIS_RUNS) == 0;
}

static bool quiet(const void *port)
{
    return (get(port, PORT_TFD) & (ATA_BUSY | ATA_DATA)) == 0;
}

static bool present(const void *port)
{
    return (get(port, PORT_SSTS) & 0xf) == SSTS_PRESENT;
}

static enum hv_err stop(struct port *p)
{
    set(p, PORT_CMD, get(p, PORT_CMD) & ~CMD_START);
    return blk_wait(stopped, p, 500) ? HV_OK : HV_ETIMEDOUT;
}

static enum hv_err run(struct port *p)
{
    set(p, PORT_SERR, UINT32_MAX);
    set(p, PORT_IS, UINT32_MAX);
    __atomic_store_n(&p->events, 0, __ATOMIC_RELAXED);
    p->issued = 0;
    if (!blk_wait(quiet, p, 5000)) {
        return HV_ETIMEDOUT;
    }
    set(p, PORT_CMD, get(p, PORT_CMD) | CMD_START);
    return HV_OK;
}

/* "COMRESET": the link comes up again and the disk forgets. */
static enum hv_err reset_link(struct port *p)
{
    (void)stop(p);
    set(p, PORT_SCTL, (get(p, PORT_SCTL) & ~0xfu) | 1);
    clock_delay_us(1200);
    set(p, PORT_SCTL, get(p, PORT_SCTL) & ~0xfu);
    return blk_wait(present, p, 1000) ? run(p) : HV_ENOENT;
}

static enum hv_err begin(struct port *p)
{
    struct header *headers = (struct header *)p->memory;

    set(p, PORT_IE, 0);
    set(p, PORT_CMD, get(p, PORT_CMD) & ~(CMD_START | CMD_FIS));
    if (!blk_wait(stopped, p, 500) || !blk_wait(fis_stopped, p, 500)) {
        return HV_ETIMEDOUT;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        headers[i].table = p->pa + TABLE_OFFSET + i * TABLE_BYTES;
    }
    set(p, PORT_CLB, (uint32_t)p->pa);
    set(p, PORT_CLB + 4, (uint32_t)(p->pa >> 32));
    set(p, PORT_FB, (uint32_t)p->pa + FIS_OFFSET);
    set(p, PORT_FB + 4, (uint32_t)(p->pa >> 32));
    set(p, PORT_CMD, get(p, PORT_CMD) | CMD_FIS | CMD_SPIN_UP);
    return run(p);
}

/* ---- Requests ---- */

/* "Register - Host to Device" FIS. */
static void issue(struct port *p, unsigned slot, const struct ata_command *c, unsigned nr_prds,
                  bool write)
{
    struct header *h = (struct header *)p->memory + slot;
    uint64_t lba = c->lba;
    const uint8_t fis[20] = {0x27,
                             0x80, /* a command */
                             c->code,
                             0,
                             (uint8_t)lba,
                             (uint8_t)(lba >> 8),
                             (uint8_t)(lba >> 16),
                             (uint8_t)(ATA_LBA | (c->wide ? 0 : lba >> 24 & 0xf)),
                             (uint8_t)(lba >> 24),
                             (uint8_t)(lba >> 32),
                             (uint8_t)(lba >> 40),
                             0,
                             (uint8_t)c->count,
                             (uint8_t)(c->count >> 8)};

    memcpy(table_of(p, slot)->fis, fis, sizeof(fis));
    h->flags = (uint16_t)(FIS_DWORDS | (write ? HEADER_WRITE : 0));
    h->nr_prds = (uint16_t)nr_prds;
    h->moved = 0;
    p->issued |= 1u << slot;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    set(p, PORT_CI, 1u << slot);
}

static enum hv_err ahci_submit(struct blk_disk *d, struct blk_request *r)
{
    struct port *p = d->priv;
    struct ata_command c;

    ata_command(d, r, p->wide, &c);
    for (unsigned i = 0; i < r->nr_frames; i++) {
        table_of(p, r->tag)->prds[i] =
            (struct prd){.address = blk_page(d, r, i), .bytes = PAGE_SIZE - 1};
    }
    issue(p, r->tag, &c, r->nr_frames, r->op == BLK_WRITE);
    return HV_OK;
}

/* The port stopped at a command that failed; the others in their slots start again. */
static enum hv_err recover(struct port *p)
{
    uint32_t left = p->issued & get(p, PORT_CI);
    unsigned failed = CMD_SLOT(get(p, PORT_CMD));
    uint32_t done = p->issued & ~left;

    if ((left & 1u << failed) == 0 && left != 0) {
        failed = (unsigned)__builtin_ctz(left);
    }
    if (stop(p) != HV_OK || (!quiet(p) && reset_link(p) != HV_OK) || run(p) != HV_OK) {
        return HV_ENOENT;
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if ((done & 1u << slot) != 0) {
            blkq_complete(&p->disk, slot, HV_OK);
        }
    }
    if (left == 0) {
        return HV_OK; /* seen twice: by the interrupt and by the thread */
    }
    left &= ~(1u << failed);
    p->issued = left;
    set(p, PORT_CI, left);
    blkq_complete(&p->disk, failed, HV_EIO);
    return HV_OK;
}

static uint32_t take_events(struct port *p)
{
    uint32_t is = get(p, PORT_IS);

    if (is != 0) {
        set(p, PORT_IS, is);
    }
    return is | __atomic_exchange_n(&p->events, 0, __ATOMIC_ACQUIRE);
}

static enum hv_err ahci_reap(struct blk_disk *d)
{
    struct port *p = d->priv;
    uint32_t is = p->issued != 0 ? take_events(p) : 0;

    if (p->issued == 0) {
        return HV_OK;
    }
    if (!present(p)) {
        return HV_ENOENT;
    }
    if ((is & IS_ERRORS) != 0) {
        return recover(p);
    }
    uint32_t done = p->issued & ~get(p, PORT_CI);

    p->issued &= ~done;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if ((done & 1u << slot) != 0) {
            blkq_complete(d, slot, HV_OK);
        }
    }
    return HV_OK;
}

static enum hv_err ahci_reset(struct blk_disk *d)
{
    return reset_link(d->priv);
}

static void ahci_cut(struct blk_disk *d)
{
    struct port *p = d->priv;

    /* The other ports may go on if this one stops; else nothing of the controller may. */
    if (stop(p) != HV_OK) {
        pci_command(&p->hba->pci, 0, PCI_COMMAND_MASTER);
    }
}

static const struct blk_driver driver = {
    .name = "AHCI", .submit = ahci_submit, .reap = ahci_reap, .reset = ahci_reset, .cut = ahci_cut};

static void interrupt(void *arg)
{
    struct hba *h = arg;
    uint32_t is = mmio_read32(h->regs + HBA_IS);

    for (unsigned i = 0; i < 32; i++) {
        struct port *p = h->ports[i];

        if ((is & 1u << i) == 0 || p == NULL) {
            continue;
        }
        uint32_t events = get(p, PORT_IS);

        set(p, PORT_IS, events);
        __atomic_fetch_or(&p->events, events, __ATOMIC_RELEASE);
        blk_interrupt(&p->disk);
    }
    mmio_write32(h->regs + HBA_IS, is);
}

/* ---- Finding them ---- */

static bool identified(const void *port)
{
    const struct port *p = port;

    return (get(p, PORT_CI) & 1) == 0 || (get(p, PORT_IS) & IS_ERRORS) != 0;
}

static bool identify(struct port *p)
{
    const struct ata_command c = {.code = ATA_IDENTIFY};
    uint64_t pa;
    uint16_t *words = blk_dma_alloc(PAGE_SIZE, &pa);

    if (words == NULL) {
        return false;
    }
    table_of(p, 0)->prds[0] = (struct prd){.address = pa, .bytes = 511};
    issue(p, 0, &c, 1, false);
    bool ok = blk_wait(identified, p, 5000) && (get(p, PORT_IS) & IS_ERRORS) == 0 &&
              ata_identified(&p->disk, words, &p->wide);

    p->issued = 0;
    set(p, PORT_IS, UINT32_MAX);
    if (!ok) {
        (void)stop(p);
        return false; /* the page stays the device's */
    }
    blk_dma_free(words);
    return true;
}

static void probe_port(struct hba *h, unsigned index, unsigned nr_slots)
{
    volatile uint8_t *regs = h->regs + PORT(index);

    if ((mmio_read32(regs + PORT_SSTS) & 0xf) != SSTS_PRESENT) {
        return;
    }
    struct port *p = kmalloc(sizeof(*p), OWNER_HOST);
    uint8_t *memory = p != NULL ? blk_dma_alloc(MEMORY_BYTES, &p->pa) : NULL;

    if (memory == NULL) {
        log_warn("AHCI port %u: no memory", index);
        kfree(p);
        return;
    }
    p->hba = h;
    p->regs = regs;
    p->memory = memory;
    p->disk.driver = &driver;
    p->disk.priv = p;
    p->disk.depth = MIN(nr_slots, SLOTS);
    p->disk.reach = (mmio_read32(h->regs + HBA_CAP) & CAP_64BIT) != 0 ? 0 : GIB(4) >> PAGE_SHIFT;
    if (begin(p) != HV_OK || get(p, PORT_SIG) != ATA_SIGNATURE_DISK || !identify(p)) {
        return; /* a CD drive, for example; its frames stay the device's */
    }
    h->ports[index] = p;
}

static bool bios_let_go(const void *hba)
{
    return (mmio_read32(((const struct hba *)hba)->regs + HBA_BOHC) & BOHC_BIOS) == 0;
}

static void take_over(struct hba *h)
{
    if ((mmio_read32(h->regs + HBA_CAP2) & 1) != 0) {
        mmio_write32(h->regs + HBA_BOHC, mmio_read32(h->regs + HBA_BOHC) | BOHC_OS);
        if (!blk_wait(bios_let_go, h, 1000)) {
            log_warn("AHCI: the firmware does not let go");
        }
    }
    mmio_write32(h->regs + HBA_GHC, mmio_read32(h->regs + HBA_GHC) | GHC_AHCI);
}

void ahci_probe(const struct pci_dev *pci)
{
    struct hba *h = kmalloc(sizeof(*h), OWNER_HOST);

    pci_command(pci, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
    if (h == NULL || (h->regs = pci_map(pci, 5, 0, MAP_BYTES)) == NULL) {
        log_warn("AHCI controller %02x:%02x.%u: no registers", pci->bus, pci->dev, pci->fn);
        kfree(h);
        return;
    }
    h->pci = *pci;
    take_over(h);
    uint32_t implemented = mmio_read32(h->regs + HBA_PI);
    unsigned nr_slots = (mmio_read32(h->regs + HBA_CAP) >> 8 & 0x1f) + 1;
    unsigned nr_found = 0;

    for (unsigned i = 0; i < 32; i++) {
        if ((implemented & 1u << i) != 0) {
            probe_port(h, i, nr_slots);
            nr_found += h->ports[i] != NULL;
        }
    }
    if (nr_found == 0) {
        return;
    }
    enum pci_irq irq = pci_interrupt(pci, interrupt, h);

    mmio_write32(h->regs + HBA_IS, UINT32_MAX);
    mmio_write32(h->regs + HBA_GHC, mmio_read32(h->regs + HBA_GHC) | GHC_INTERRUPTS);
    for (unsigned i = 0; i < 32; i++) {
        struct port *p = h->ports[i];

        if (p != NULL) {
            p->disk.interrupts = irq != PCI_POLL;
            p->disk.irq = pci_irq_name(irq);
            if (blk_add(&p->disk, "sata") == HV_OK) {
                set(p, PORT_IE, IS_WANTED);
            }
        }
    }
}
