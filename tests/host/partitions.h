/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Partition tables on disks in memory, for tests of who reads them. `disk` is its first byte; addresses are in
 * sectors of `unit` bytes.
 */
#pragma once

#include "kernel/lib/types.h"

/* Numbers as tables have them. */
void partitions_put32(uint8_t *at, uint32_t v);
void partitions_put64(uint8_t *at, uint64_t v);
/* Entry i of the table at a sector of 512 bytes, and the table's end mark. */
void partitions_mbr(uint8_t *disk, size_t sector, unsigned i, uint8_t type, uint32_t first,
                    uint32_t nr);
/* Entry i of the GPT table of 128 entries that begins at sector `table`. */
void partitions_gpt_entry(uint8_t *disk, size_t unit, uint64_t table, unsigned i,
                          const uint8_t type[16], uint64_t first, uint64_t last, const char *name);
/* The header at sector lba, for that table as it is now. */
void partitions_gpt_header(uint8_t *disk, size_t unit, uint64_t lba, uint64_t table);

extern const uint8_t partitions_linux[16]; /* the type "Linux filesystem" */
