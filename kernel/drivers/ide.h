/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ATA disks behind a PCI IDE controller with bus mastering. Caller: kernel/drivers/blk.c.
 */
#pragma once

#include "kernel/drivers/pci.h"

/* Start the disks of this function; what cannot be used is logged and left alone. Boot thread. */
void ide_probe(const struct pci_dev *pci);
