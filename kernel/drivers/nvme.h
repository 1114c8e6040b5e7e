/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * NVMe controllers: their first namespace. Caller: kernel/drivers/blk.c.
 */
#pragma once

#include "kernel/drivers/pci.h"

/* Start the disks of this function; what cannot be used is logged and left alone. Boot thread. */
void nvme_probe(const struct pci_dev *pci);
