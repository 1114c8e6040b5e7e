/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two command sets, with 28-bit and with 48-bit addresses; see ata.h.
 */
#include "kernel/drivers/ata.h"

#define READ_DMA 0xc8u
#define READ_DMA_EXT 0x25u
#define WRITE_DMA 0xcau
#define WRITE_DMA_EXT 0x35u
#define FLUSH_CACHE 0xe7u
#define FLUSH_CACHE_EXT 0xeau

/* Two characters a word, the first in the high half. */
static void copy_text(char *out, const uint16_t *words, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++) {
        out[2 * i] = (char)(words[i] >> 8);
        out[2 * i + 1] = (char)words[i];
    }
    out[2 * nr] = '\0';
}

bool ata_identified(struct blk_disk *d, const uint16_t words[256], bool *wide)
{
    bool valid83 = (words[83] & 0xc000) == 0x4000;
    uint64_t sectors = words[60] | (uint64_t)words[61] << 16;

    if ((words[0] & 0x8000) != 0 || (words[49] & 0x0300) != 0x0300) {
        return false;
    }
    *wide = valid83 && (words[83] & 0x0400) != 0;
    if (*wide) {
        sectors = words[100] | (uint64_t)words[101] << 16 | (uint64_t)words[102] << 32 |
                  (uint64_t)words[103] << 48;
    }
    d->can_flush = valid83 && (words[83] & 0x3000) != 0;
    d->sector_bytes = BLK_SECTOR;
    if ((words[106] & 0xd000) == 0x5000) { /* logical sectors are longer */
        d->sector_bytes = (uint32_t)(words[117] | (uint32_t)words[118] << 16) * 2;
    }
    d->nr_sectors = sectors * (d->sector_bytes / BLK_SECTOR);
    copy_text(d->serial, words + 10, 10);
    copy_text(d->model, words + 27, 20);
    return sectors != 0 && (d->sector_bytes == 512 || d->sector_bytes == 4096);
}

void ata_command(const struct blk_disk *d, const struct blk_request *r, bool wide,
                 struct ata_command *out)
{
    static const uint8_t codes[3][2] = {[BLK_READ] = {READ_DMA, READ_DMA_EXT},
                                        [BLK_WRITE] = {WRITE_DMA, WRITE_DMA_EXT},
                                        [BLK_FLUSH] = {FLUSH_CACHE, FLUSH_CACHE_EXT}};
    uint64_t unit = d->sector_bytes / BLK_SECTOR;

    *out = (struct ata_command){.code = codes[r->op][wide], .wide = wide};
    if (r->op != BLK_FLUSH) {
        out->lba = r->sector / unit;
        out->count = (uint32_t)(blk_nr_sectors(r) / unit);
    }
}
