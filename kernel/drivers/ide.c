/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ATA disks behind a PCI IDE controller with bus mastering ("Programming Interface for Bus Master IDE
 * Controller", "AT Attachment with Packet Interface"). A channel has two disks and one set of
 * registers: one command at a time, whichever disk it is for. They take turns when both want it.
 *
 * Channels at the legacy ports interrupt through IRQ 14 and 15; those elsewhere are polled.
 */
#include "kernel/drivers/ide.h"

#include "arch/x86_64/clock.h"
#include "arch/x86_64/io.h"
#include "kernel/drivers/ata.h"
#include "kernel/drivers/blk_queue.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "mm/buddy.h"
#include "mm/slab.h"

/* From the channel's first port; the device and status registers. */
#define ATA_DATA_PORT 0
#define ATA_COUNT 2
#define ATA_LBA_LOW 3
#define ATA_DEVICE 6
#define ATA_COMMAND 7 /* reads: status */
#define DEVICE_BASE 0xa0u
#define DEVICE_SECOND 0x10u
#define CONTROL_RESET 0x04u
#define CONTROL_NO_INTERRUPT 0x02u

/* From the bus master's first port. */
#define BM_COMMAND 0
#define BM_STATUS 2
#define BM_TABLE 4
#define BM_START 0x01u
#define BM_TO_MEMORY 0x08u
#define BM_ACTIVE 0x01u
#define BM_ERROR 0x02u
#define BM_INTERRUPT 0x04u

#define PROG_NATIVE(channel) (1u << 2 * (channel))
#define PROG_BUS_MASTER 0x80u
#define PRD_END 0x80000000u

struct channel {
    struct pci_dev pci;
    uint16_t base, control, master;
    uint64_t (*prds)[BLK_RUN_MAX]; /* address, byte count, mark of the last */
    uint64_t prds_pa;
    struct spinlock lock;     /* RANK_BLK */
    struct blk_disk *owner;   /* whose command it carries out; written under the lock (atomic) */
    struct blk_disk *waiting; /* who found it busy; lock */
    unsigned tag;             /* of the owner's request */
    bool dma;                 /* it moves data */
    struct drive {
        struct blk_disk disk;
        struct channel *channel;
        bool second, wide, found;
    } drives[2];
};

static uint8_t status(const struct channel *c)
{
    return inb(c->control); /* the alternate one: reading it acknowledges nothing */
}

static void settle(const struct channel *c)
{
    for (unsigned i = 0; i < 4; i++) {
        (void)status(c); /* 100 ns each */
    }
}

static bool idle(const void *channel)
{
    return (status(channel) & ATA_BUSY) == 0;
}

static void select(const struct channel *c, bool second, uint8_t bits)
{
    outb((uint16_t)(c->base + ATA_DEVICE),
         (uint8_t)(DEVICE_BASE | bits | (second ? DEVICE_SECOND : 0)));
    settle(c);
}

static void write_lba(const struct channel *c, uint64_t lba, uint32_t count)
{
    outb((uint16_t)(c->base + ATA_COUNT), (uint8_t)count);
    for (unsigned i = 0; i < 3; i++) {
        outb((uint16_t)(c->base + ATA_LBA_LOW + i), (uint8_t)(lba >> 8 * i));
    }
}

/* ---- Whose turn it is ---- */

static bool take_channel(struct channel *c, struct blk_disk *d)
{
    spin_lock(&c->lock);
    struct blk_disk *first = c->waiting != NULL ? c->waiting : d;
    bool mine = c->owner == NULL && first == d;

    if (mine) {
        __atomic_store_n(&c->owner, d, __ATOMIC_RELEASE);
        c->waiting = NULL;
    } else if (c->waiting == NULL) {
        c->waiting = d;
    }
    spin_unlock(&c->lock);
    if (!mine && first != d) {
        blk_interrupt(first);
    }
    return mine;
}

static void leave_channel(struct channel *c)
{
    spin_lock(&c->lock);
    struct blk_disk *next = c->waiting;

    __atomic_store_n(&c->owner, NULL, __ATOMIC_RELEASE);
    spin_unlock(&c->lock);
    if (next != NULL) {
        blk_interrupt(next);
    }
}

/* ---- Requests ---- */

static void start_dma(struct channel *c, const struct blk_disk *d, const struct blk_request *r)
{
    for (unsigned i = 0; i < r->nr_frames; i++) {
        (*c->prds)[i] = blk_page(d, r, i) | PAGE_SIZE << 32;
    }
    (*c->prds)[r->nr_frames - 1] |= (uint64_t)PRD_END << 32;
    outb(c->master + BM_COMMAND, r->op == BLK_READ ? BM_TO_MEMORY : 0);
    outl(c->master + BM_TABLE, (uint32_t)c->prds_pa);
}

static enum hv_err ide_submit(struct blk_disk *d, struct blk_request *r)
{
    const struct drive *drive = d->priv;
    struct channel *c = drive->channel;
    struct ata_command cmd;

    if (!take_channel(c, d)) {
        return HV_EBUSY;
    }
    ata_command(d, r, drive->wide, &cmd);
    c->tag = r->tag;
    c->dma = r->op != BLK_FLUSH;
    select(c, drive->second, (uint8_t)(ATA_LBA | (cmd.wide ? 0 : cmd.lba >> 24 & 0xf)));
    if (status(c) == 0xff || !blk_wait(idle, c, 1000)) {
        leave_channel(c);
        return HV_ENOENT;
    }
    outb(c->master + BM_STATUS, inb(c->master + BM_STATUS) | BM_ERROR | BM_INTERRUPT);
    if (c->dma) {
        start_dma(c, d, r);
    }
    if (cmd.wide) { /* the registers are two deep */
        write_lba(c, cmd.lba >> 24, cmd.count >> 8);
    }
    write_lba(c, cmd.lba, cmd.count);
    outb((uint16_t)(c->base + ATA_COMMAND), cmd.code);
    if (c->dma) {
        outb(c->master + BM_COMMAND, inb(c->master + BM_COMMAND) | BM_START);
    }
    return HV_OK;
}

static enum hv_err ide_reap(struct blk_disk *d)
{
    const struct drive *drive = d->priv;
    struct channel *c = drive->channel;

    if (__atomic_load_n(&c->owner, __ATOMIC_ACQUIRE) != d) {
        return HV_OK;
    }
    uint8_t bm = inb(c->master + BM_STATUS);

    if (bm == 0xff && status(c) == 0xff) {
        return HV_ENOENT;
    }
    if ((bm & BM_INTERRUPT) == 0 && (c->dma || !idle(c))) {
        return HV_OK;
    }
    outb(c->master + BM_COMMAND, 0);
    uint8_t result = inb((uint16_t)(c->base + ATA_COMMAND)); /* acknowledges the interrupt */

    outb(c->master + BM_STATUS, BM_ERROR | BM_INTERRUPT | (bm & 0x60));
    bool failed = (bm & BM_ERROR) != 0 || (result & (ATA_BUSY | ATA_FAULT | ATA_ERROR)) != 0;

    blkq_complete(d, c->tag, failed ? HV_EIO : HV_OK);
    leave_channel(c);
    return HV_OK;
}

/* "Software Reset" of both disks; only while this one has the channel, or nobody. */
static enum hv_err ide_reset(struct blk_disk *d)
{
    const struct drive *drive = d->priv;
    struct channel *c = drive->channel;
    struct blk_disk *owner = __atomic_load_n(&c->owner, __ATOMIC_ACQUIRE);

    if (owner != d) {
        return owner == NULL ? HV_OK : HV_EBUSY;
    }
    outb(c->master + BM_COMMAND, 0);
    outb(c->control, CONTROL_RESET);
    clock_delay_us(10);
    outb(c->control, 0);
    clock_delay_us(2000);
    bool ok = status(c) != 0xff && blk_wait(idle, c, 5000);

    leave_channel(c);
    return ok ? HV_OK : HV_ETIMEDOUT;
}

static void ide_cut(struct blk_disk *d)
{
    const struct drive *drive = d->priv;
    struct channel *c = drive->channel;

    spin_lock(&c->lock);
    bool owner = c->owner == d;

    if (c->waiting == d) {
        c->waiting = NULL;
    }
    spin_unlock(&c->lock);
    if (owner) {
        outb(c->master + BM_COMMAND, 0);
        leave_channel(c);
    }
}

static const struct blk_driver driver = {
    .name = "IDE", .submit = ide_submit, .reap = ide_reap, .reset = ide_reset, .cut = ide_cut};

static void interrupt(void *arg)
{
    struct channel *c = arg;
    struct blk_disk *d = __atomic_load_n(&c->owner, __ATOMIC_ACQUIRE);

    if (d != NULL) {
        blk_interrupt(d);
    }
}

/* ---- Finding them ---- */

static bool identify(struct channel *c, struct drive *drive, uint16_t words[256])
{
    select(c, drive->second, 0);
    if (status(c) == 0 || status(c) == 0xff || !blk_wait(idle, c, 1000)) {
        return false;
    }
    write_lba(c, 0, 0);
    outb((uint16_t)(c->base + ATA_COMMAND), ATA_IDENTIFY);
    settle(c);
    if (status(c) == 0 || !blk_wait(idle, c, 2000) ||
        (status(c) & (ATA_DATA | ATA_ERROR | ATA_FAULT)) != ATA_DATA) {
        return false; /* nothing there, or a CD drive */
    }
    for (unsigned i = 0; i < 256; i++) {
        words[i] = inw((uint16_t)(c->base + ATA_DATA_PORT));
    }
    (void)inb((uint16_t)(c->base + ATA_COMMAND));
    return ata_identified(&drive->disk, words, &drive->wide);
}

/* Is anything connected? An empty bus floats, or reads back nothing that was written. */
static bool answers(const struct channel *c)
{
    if (status(c) == 0xff) {
        return false;
    }
    for (unsigned second = 0; second < 2; second++) {
        select(c, second != 0, 0);
        outb((uint16_t)(c->base + ATA_COUNT), 0x55);
        outb((uint16_t)(c->base + ATA_LBA_LOW), 0xaa);
        if (inb((uint16_t)(c->base + ATA_COUNT)) == 0x55 &&
            inb((uint16_t)(c->base + ATA_LBA_LOW)) == 0xaa) {
            return true;
        }
    }
    return false;
}

static void add_drives(struct channel *c, const char *irq)
{
    for (unsigned i = 0; i < 2; i++) {
        struct drive *drive = &c->drives[i];

        if (!drive->found) {
            continue;
        }
        drive->disk.driver = &driver;
        drive->disk.priv = drive;
        drive->disk.depth = 1;
        drive->disk.reach = GIB(4) >> PAGE_SHIFT;
        drive->disk.interrupts = irq != NULL;
        drive->disk.irq = irq != NULL ? irq : "polled";
        if (blk_add(&drive->disk, "ide") != HV_OK) {
            return;
        }
    }
}

static void probe_channel(const struct pci_dev *pci, unsigned number, uint16_t base,
                          uint16_t control, uint16_t master, bool legacy)
{
    uint16_t words[256];
    struct channel *c = kmalloc(sizeof(*c), OWNER_HOST);

    if (c == NULL) {
        log_warn("IDE channel %u: no memory", number);
        return;
    }
    c->pci = *pci;
    c->base = base;
    c->control = control;
    c->master = master;
    spin_init(&c->lock, RANK_BLK, "ide channel");
    if (answers(c)) {
        outb(control, CONTROL_NO_INTERRUPT);
        for (unsigned i = 0; i < 2; i++) {
            c->drives[i].channel = c;
            c->drives[i].second = i != 0;
            c->drives[i].found = identify(c, &c->drives[i], words);
        }
        outb(control, 0);
    }
    if (!c->drives[0].found && !c->drives[1].found) {
        kfree(c);
        return;
    }
    c->prds = blk_dma_alloc(sizeof(*c->prds), &c->prds_pa);
    if (c->prds == NULL) {
        log_warn("IDE channel %u: no memory", number);
        return;
    }
    bool routed = legacy && irq_route_isa(14 + number, interrupt, c) == HV_OK;

    add_drives(c, !routed ? NULL : number == 0 ? "IRQ 14" : "IRQ 15");
}

void ide_probe(const struct pci_dev *pci)
{
    static const uint16_t legacy_ports[2][2] = {{0x1f0, 0x3f6}, {0x170, 0x376}};
    uint64_t master;
    bool is_io;

    if ((pci->prog_if & PROG_BUS_MASTER) == 0 || !pci_bar(pci, 4, &master, &is_io) || !is_io) {
        log_info("IDE controller %02x:%02x.%u has no bus master", pci->bus, pci->dev, pci->fn);
        return;
    }
    pci_command(pci, PCI_COMMAND_IO | PCI_COMMAND_MASTER, 0);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t base = legacy_ports[i][0];
        uint64_t control = legacy_ports[i][1];
        bool legacy = (pci->prog_if & PROG_NATIVE(i)) == 0;
        bool io = true;

        if (!legacy) {
            bool both = pci_bar(pci, 2 * i, &base, &io) && io &&
                        pci_bar(pci, 2 * i + 1, &control, &io) && io;

            control += 2; /* the third byte of its four */
            if (!both) {
                continue;
            }
        }
        probe_channel(pci, i, (uint16_t)base, (uint16_t)control, (uint16_t)(master + 8 * i),
                      legacy);
    }
}
