/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PCI configuration space by ports 0xcf8/0xcfc, and enumeration through bridges. Callers: drivers;
 * boot processor and threads (a lock guards the address port).
 */
#pragma once

#include "arch/x86_64/irq.h"
#include "kernel/lib/err.h"

struct pci_dev {
    uint8_t bus, dev, fn;
    uint16_t vendor, device;
    uint8_t class_code, subclass, prog_if, header; /* header: type, without the multifunction bit */
};

#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 0x1u
#define PCI_COMMAND_MEMORY 0x2u
#define PCI_COMMAND_MASTER 0x4u
#define PCI_COMMAND_NO_INTX 0x400u
#define PCI_BAR0 0x10
#define PCI_CAP_VENDOR 0x09
#define PCI_CLASS_STORAGE 0x01
#define PCI_SUBCLASS_IDE 0x01
#define PCI_SUBCLASS_SATA 0x06
#define PCI_SUBCLASS_NVM 0x08
#define PCI_CLASS_COMMUNICATION 0x07
#define PCI_SUBCLASS_SERIAL 0x00

/* A register of configuration space; `offset` is a multiple of 4, below 256. */
uint32_t pci_read32(const struct pci_dev *d, unsigned offset);
void pci_write32(const struct pci_dev *d, unsigned offset, uint32_t v);

/* Base of BAR `index`; *is_io says in which space. False: not implemented or not assigned. */
bool pci_bar(const struct pci_dev *d, unsigned index, uint64_t *base, bool *is_io);

/* `size` bytes at `offset` of a memory BAR, mapped uncached for ever. NULL: no such memory, or no room. */
void *pci_map(const struct pci_dev *d, unsigned index, uint64_t offset, uint64_t size);
/* Set and clear bits of the command register. */
void pci_command(const struct pci_dev *d, uint32_t set, uint32_t clear);
/* Offset of the next capability `id` behind the one at `after` (0: the first). 0: none. */
unsigned pci_capability(const struct pci_dev *d, unsigned id, unsigned after);

enum pci_irq { PCI_POLL, PCI_MSI, PCI_MSIX };
/*
 * Have the function interrupt the boot processor by message, its MSI-X entry 0 or plain MSI. Lines are
 * never used: what they are wired to is said by AML alone, which we do not run; INTx is switched off.
 * PCI_POLL: it can do neither, the caller looks by itself from time to time.
 */
enum pci_irq pci_interrupt(const struct pci_dev *d, irq_handler_t fn, void *arg);
const char *pci_irq_name(enum pci_irq irq);

/* Hand every function of every reachable bus to fn; fn returns false to stop. */
void pci_for_each(bool (*fn)(const struct pci_dev *d, void *arg), void *arg);
