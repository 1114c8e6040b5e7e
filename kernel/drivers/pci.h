/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration space by ports 0xcf8/0xcfc, and enumeration through bridges. Callers: drivers;
 * boot processor and threads (a lock guards the address port).
 */
#pragma once

#include "kernel/lib/err.h"

struct pci_dev {
    uint8_t bus, dev, fn;
    uint16_t vendor, device;
    uint8_t class_code, subclass, prog_if, header; /* header: type, without the multifunction bit */
};

#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 0x1u
#define PCI_COMMAND_MEMORY 0x2u
#define PCI_BAR0 0x10
#define PCI_CLASS_COMMUNICATION 0x07
#define PCI_SUBCLASS_SERIAL 0x00

uint32_t pci_read32(const struct pci_dev *d, unsigned offset);
void pci_write32(const struct pci_dev *d, unsigned offset, uint32_t v);

/* Base of BAR `index`; *is_io says in which space. False: not implemented or not assigned. */
bool pci_bar(const struct pci_dev *d, unsigned index, uint64_t *base, bool *is_io);

/* Hand every function of every reachable bus to fn; fn returns false to stop. */
void pci_for_each(bool (*fn)(const struct pci_dev *d, void *arg), void *arg);
