/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ATA disks have in common, whatever they hang on ("ATA/ATAPI Command Set"). Pure. Callers:
 * kernel/drivers/ahci.c, ide.c.
 */
#pragma once

#include "kernel/drivers/blk.h"

#define ATA_BUSY 0x80u
#define ATA_FAULT 0x20u
#define ATA_DATA 0x08u /* DRQ */
#define ATA_ERROR 0x01u
#define ATA_IDENTIFY 0xecu
#define ATA_LBA 0x40u /* of the device register */
#define ATA_SIGNATURE_DISK 0x00000101u

struct ata_command {
    uint8_t code;
    bool wide;      /* 48-bit addresses: high halves are written as well */
    uint64_t lba;   /* in the disk's sectors */
    uint32_t count; /* likewise; 28-bit: 256 is written as 0 */
};

/* Fill in size, names and flushes from the answer to IDENTIFY DEVICE. False: no disk that does DMA with
 * logical block addresses. *wide: it has the 48-bit commands. */
bool ata_identified(struct blk_disk *d, const uint16_t words[256], bool *wide);
void ata_command(const struct blk_disk *d, const struct blk_request *r, bool wide,
                 struct ata_command *out);
