/* SPDX-License-Identifier: BSD-2-Clause */
/* See partitions.h; "UEFI Specification", "GPT Disk Layout". */
#include "tests/host/partitions.h"

#include <string.h>

#include "kernel/lib/crc32.h"

const uint8_t partitions_linux[16] = {0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
                                      0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4};

void partitions_put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof(v));
}

void partitions_put64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof(v));
}

void partitions_mbr(uint8_t *disk, size_t sector, unsigned i, uint8_t type, uint32_t first,
                    uint32_t nr)
{
    uint8_t *table = disk + sector * 512;
    uint8_t *entry = table + 446 + 16 * i;

    entry[4] = type;
    partitions_put32(entry + 8, first);
    partitions_put32(entry + 12, nr);
    table[510] = 0x55;
    table[511] = 0xaa;
}

void partitions_gpt_entry(uint8_t *disk, size_t unit, uint64_t table, unsigned i,
                          const uint8_t type[16], uint64_t first, uint64_t last, const char *name)
{
    uint8_t *entry = disk + table * unit + 128 * i;

    memcpy(entry, type, 16);
    partitions_put64(entry + 32, first);
    partitions_put64(entry + 40, last);
    for (unsigned c = 0; name[c] != '\0'; c++) {
        entry[56 + 2 * c] = (uint8_t)name[c];
    }
}

void partitions_gpt_header(uint8_t *disk, size_t unit, uint64_t lba, uint64_t table)
{
    uint8_t *h = disk + lba * unit;

    memcpy(h, "EFI PART", 8);
    partitions_put32(h + 8, 0x10000);
    partitions_put32(h + 12, 92);
    partitions_put32(h + 16, 0);
    partitions_put64(h + 24, lba);
    partitions_put64(h + 72, table);
    partitions_put32(h + 80, 128);
    partitions_put32(h + 84, 128);
    partitions_put32(h + 88, crc32(0, disk + table * unit, 128 * 128));
    partitions_put32(h + 16, crc32(0, h, 92));
}
