/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration by "Configuration Mechanism #1" (PCI Local Bus Specification 3.0).
 */
#include "kernel/drivers/pci.h"

#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "arch/x86_64/irqflags.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define CONFIG_ENABLE 0x80000000u

#define REG_ID 0x00
#define REG_CLASS 0x08
#define REG_HEADER 0x0c
#define REG_BUSES 0x18 /* bridges: primary, secondary, subordinate */
#define REG_CAPABILITIES 0x34
#define STATUS_CAPABILITIES BIT(20) /* of the command register's dword */
#define CAP_MSI 0x05
#define CAP_MSIX 0x11
#define MSI_ENABLE BIT(16)
#define MSI_MESSAGES 0x00700000u /* how many are enabled, as a power of two */
#define MSI_64 BIT(23)
#define MSIX_ENABLE BIT(31)
#define MSIX_MASK_ALL BIT(30)
#define HEADER_BRIDGE 0x01
#define HEADER_MULTIFUNCTION 0x80
#define BAR_IO 0x1u
#define BAR_TYPE_64 0x4u
#define BRIDGE_DEPTH_MAX 16

static struct spinlock config_lock = SPINLOCK_INIT(RANK_CONSOLE, "pci config");

static uint32_t config_address(const struct pci_dev *d, unsigned offset)
{
    return CONFIG_ENABLE | (uint32_t)d->bus << 16 | (uint32_t)d->dev << 11 | (uint32_t)d->fn << 8 |
           (offset & 0xfc);
}

uint32_t pci_read32(const struct pci_dev *d, unsigned offset)
{
    uint64_t flags = spin_lock_irqsave(&config_lock);

    outl(CONFIG_ADDRESS, config_address(d, offset));
    uint32_t v = inl(CONFIG_DATA);
    spin_unlock_irqrestore(&config_lock, flags);
    return v;
}

void pci_write32(const struct pci_dev *d, unsigned offset, uint32_t v)
{
    uint64_t flags = spin_lock_irqsave(&config_lock);

    outl(CONFIG_ADDRESS, config_address(d, offset));
    outl(CONFIG_DATA, v);
    spin_unlock_irqrestore(&config_lock, flags);
}

bool pci_bar(const struct pci_dev *d, unsigned index, uint64_t *base, bool *is_io)
{
    uint32_t bar = pci_read32(d, PCI_BAR0 + 4 * index);

    *is_io = (bar & BAR_IO) != 0;
    if (*is_io) {
        *base = bar & ~0x3u;
    } else {
        *base = bar & ~0xfu;
        if (bar & BAR_TYPE_64) {
            *base |= (uint64_t)pci_read32(d, PCI_BAR0 + 4 * index + 4) << 32;
        }
    }
    return *base != 0;
}

void *pci_map(const struct pci_dev *d, unsigned index, uint64_t offset, uint64_t size)
{
    uint64_t base;
    bool is_io;

    if (index > 5 || !pci_bar(d, index, &base, &is_io) || is_io) {
        return NULL;
    }
    return hostmap_device(HPA(base + offset), size, false);
}

void pci_command(const struct pci_dev *d, uint32_t set, uint32_t clear)
{
    /* The upper half is the status, whose bits are cleared by writing ones. */
    pci_write32(d, PCI_COMMAND, ((pci_read32(d, PCI_COMMAND) & 0xffff) | set) & ~clear);
}

unsigned pci_capability(const struct pci_dev *d, unsigned id, unsigned after)
{
    unsigned offset = after != 0 ? after + 1 : REG_CAPABILITIES;

    if ((pci_read32(d, PCI_COMMAND) & STATUS_CAPABILITIES) == 0) {
        return 0;
    }
    for (unsigned hops = 0; hops < 48; hops++) {
        unsigned next = (pci_read32(d, offset) >> 8 * (offset & 3)) & 0xfc;

        if (next < 0x40) {
            return 0;
        }
        if ((pci_read32(d, next) & 0xff) == id) {
            return next;
        }
        offset = next + 1;
    }
    return 0;
}

static bool msix(const struct pci_dev *d, irq_handler_t fn, void *arg)
{
    unsigned cap = pci_capability(d, CAP_MSIX, 0);
    uint32_t address, data;

    if (cap == 0) {
        return false;
    }
    uint32_t where = pci_read32(d, cap + 4); /* BAR and offset of the table */
    volatile uint8_t *entry = pci_map(d, where & 7, where & ~7u, 16);

    if (entry == NULL || irq_alloc_msi(fn, arg, &address, &data) != HV_OK) {
        return false;
    }
    mmio_write32(entry, address);
    mmio_write32(entry + 4, 0);
    mmio_write32(entry + 8, data);
    mmio_write32(entry + 12, 0); /* unmasked */
    pci_write32(d, cap, (pci_read32(d, cap) | MSIX_ENABLE) & ~(uint32_t)MSIX_MASK_ALL);
    return true;
}

static bool msi(const struct pci_dev *d, irq_handler_t fn, void *arg)
{
    unsigned cap = pci_capability(d, CAP_MSI, 0);
    uint32_t address, data;

    if (cap == 0 || irq_alloc_msi(fn, arg, &address, &data) != HV_OK) {
        return false;
    }
    uint32_t control = pci_read32(d, cap) & ~MSI_MESSAGES;
    unsigned at = control & MSI_64 ? cap + 12 : cap + 8;

    pci_write32(d, cap + 4, address);
    if (control & MSI_64) {
        pci_write32(d, cap + 8, 0);
    }
    pci_write32(d, at, (pci_read32(d, at) & 0xffff0000) | data);
    pci_write32(d, cap, control | MSI_ENABLE);
    return true;
}

enum pci_irq pci_interrupt(const struct pci_dev *d, irq_handler_t fn, void *arg)
{
    pci_command(d, PCI_COMMAND_NO_INTX, 0);
    return msix(d, fn, arg) ? PCI_MSIX : msi(d, fn, arg) ? PCI_MSI : PCI_POLL;
}

const char *pci_irq_name(enum pci_irq irq)
{
    return irq == PCI_MSIX ? "MSI-X" : irq == PCI_MSI ? "MSI" : "polled";
}

struct walk {
    bool (*fn)(const struct pci_dev *d, void *arg);
    void *arg;
    bool stopped;
};

static void walk_bus(struct walk *w, uint8_t bus, unsigned depth);

/* One function: hand it over, descend if it is a bridge. */
static void walk_function(struct walk *w, struct pci_dev *d, unsigned depth)
{
    uint32_t class = pci_read32(d, REG_CLASS);

    d->class_code = (uint8_t)(class >> 24);
    d->subclass = (uint8_t)(class >> 16);
    d->prog_if = (uint8_t)(class >> 8);
    if (!w->fn(d, w->arg)) {
        w->stopped = true;
        return;
    }
    uint8_t secondary = (uint8_t)(pci_read32(d, REG_BUSES) >> 8);

    if (d->header == HEADER_BRIDGE && secondary > d->bus && depth < BRIDGE_DEPTH_MAX) {
        walk_bus(w, secondary, depth + 1);
    }
}

static void walk_bus(struct walk *w, uint8_t bus, unsigned depth)
{
    for (uint8_t dev = 0; dev < 32; dev++) {
        unsigned functions = 1;

        for (uint8_t fn = 0; fn < functions && !w->stopped; fn++) {
            struct pci_dev d = {.bus = bus, .dev = dev, .fn = fn};
            uint32_t id = pci_read32(&d, REG_ID);

            if ((id & 0xffff) == 0xffff) {
                continue;
            }
            uint8_t header = (uint8_t)(pci_read32(&d, REG_HEADER) >> 16);

            d.vendor = (uint16_t)id;
            d.device = (uint16_t)(id >> 16);
            d.header = header & (uint8_t)~HEADER_MULTIFUNCTION;
            if (header & HEADER_MULTIFUNCTION) {
                functions = 8;
            }
            walk_function(w, &d, depth);
        }
    }
}

void pci_for_each(bool (*fn)(const struct pci_dev *d, void *arg), void *arg)
{
    struct walk w = {.fn = fn, .arg = arg};

    walk_bus(&w, 0, 0);
}
