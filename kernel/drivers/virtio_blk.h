/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * virtio block devices on PCI, modern and legacy. Caller: kernel/drivers/blk.c.
 */
#pragma once

#include "kernel/drivers/pci.h"

/* Start the disks of this function; what cannot be used is logged and left alone. Boot thread. */
void virtio_blk_probe(const struct pci_dev *pci);
/* Is it one? */
bool virtio_blk_match(const struct pci_dev *pci);
