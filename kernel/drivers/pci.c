/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration by "Configuration Mechanism #1" (PCI Local Bus Specification 3.0).
 */
#include "kernel/drivers/pci.h"

#include "arch/x86_64/io.h"
#include "arch/x86_64/irqflags.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define CONFIG_ENABLE 0x80000000u

#define REG_ID 0x00
#define REG_CLASS 0x08
#define REG_HEADER 0x0c
#define REG_BUSES 0x18 /* bridges: primary, secondary, subordinate */
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
