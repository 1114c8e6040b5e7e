/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Partition tables ("Unified Extensible Firmware Interface Specification", "GUID Partition Table (GPT)
 * Disk Layout") and file system marks. Every number from the disk is checked before it is used.
 */
#include "kernel/drivers/label.h"

#include "kernel/lib/crc32.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"

#define PAGE_SECTORS (LABEL_PAGE / 512)
#define MBR_ENTRIES 446u
#define MBR_PROTECTIVE 0xee
#define LOGICAL_FIRST 5u
#define GPT_ENTRIES_MAX 1024u
#define GPT_ENTRY_MAX 1024u

const uint8_t label_swap_type[16] = {0x3f, 0x30, 0x7f, 0x79, 0xc4, 0x3a, 0x08, 0x45,
                                     0x8b, 0xae, 0xa9, 0x06, 0xe9, 0x7a, 0x92, 0x77};

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* The sector, inside of `page`; NULL: not on the disk, or unreadable (*err). */
static const uint8_t *read_sector(const struct label_source *s, uint64_t sector, uint8_t *page,
                                  enum hv_err *err)
{
    *err = HV_OK;
    if (s->nr_sectors < PAGE_SECTORS || sector >= s->nr_sectors) {
        return NULL;
    }
    uint64_t start = MIN(sector, s->nr_sectors - PAGE_SECTORS);

    *err = s->read(s->arg, start, page);
    return *err == HV_OK ? page + (sector - start) * 512 : NULL;
}

static bool on_disk(const struct label_source *s, uint64_t first, uint64_t nr)
{
    return nr != 0 && first < s->nr_sectors && nr <= s->nr_sectors - first;
}

/* ---- GPT ---- */

struct gpt {
    uint64_t entries; /* first sector of the table */
    uint32_t nr, bytes, crc;
};

static bool check_header(const struct label_source *s, const uint8_t *h, uint64_t lba,
                         struct gpt *out)
{
    uint64_t unit = s->sector_bytes / 512;
    uint8_t copy[512];
    uint32_t size = get32(h + 12);

    if (memcmp(h, "EFI PART", 8) != 0 || size < 92 || size > sizeof(copy) || get64(h + 24) != lba) {
        return false;
    }
    memcpy(copy, h, size);
    memset(copy + 16, 0, 4);
    *out = (struct gpt){get64(h + 72), get32(h + 80), get32(h + 84), get32(h + 88)};
    if (crc32(0, copy, size) != get32(h + 16) || out->nr > GPT_ENTRIES_MAX || out->bytes < 128 ||
        out->bytes > GPT_ENTRY_MAX || (out->bytes & (out->bytes - 1)) != 0 ||
        out->entries >= s->nr_sectors / unit) {
        return false;
    }
    out->entries *= unit;
    return on_disk(s, out->entries, ((uint64_t)out->nr * out->bytes + 511) / 512);
}

static void add_entry(const struct label_source *s, const uint8_t *e, unsigned number,
                      struct label *out)
{
    static const uint8_t unused[16];
    uint64_t unit = s->sector_bytes / 512;
    uint64_t first = get64(e + 32);
    uint64_t last = get64(e + 40);

    if (memcmp(e, unused, sizeof(unused)) == 0 || first > last || last >= s->nr_sectors / unit) {
        return;
    }
    if (out->nr_parts == LABEL_PARTS_MAX) {
        out->problem = "there are more partitions than are shown";
        return;
    }
    struct label_part *p = &out->parts[out->nr_parts++];

    *p = (struct label_part){
        .number = number, .first = first * unit, .nr_sectors = (last - first + 1) * unit};
    memcpy(p->type, e, sizeof(p->type));
    for (unsigned i = 0; i < 36; i++) {
        uint8_t low = e[56 + 2 * i];

        p->name[i] = low == 0 || (char_is_print((char)low) && e[57 + 2 * i] == 0) ? (char)low : '?';
    }
}

/* False: damaged, or unreadable (*err). */
static bool read_gpt(const struct label_source *s, uint64_t lba, uint8_t *page, struct label *out,
                     enum hv_err *err)
{
    const uint8_t *h = read_sector(s, lba * (s->sector_bytes / 512), page, err);
    struct gpt gpt;
    uint32_t crc = 0;

    if (h == NULL || !check_header(s, h, lba, &gpt)) {
        return false;
    }
    uint64_t left = (uint64_t)gpt.nr * gpt.bytes;

    out->nr_parts = 0;
    for (uint64_t at = gpt.entries; left != 0; at += PAGE_SECTORS) {
        const uint8_t *e = read_sector(s, at, page, err);

        if (e == NULL) {
            return false;
        }
        uint64_t bytes = MIN(left, (uint64_t)(page + LABEL_PAGE - e));

        /* Only at the disk's end does a read start early; the table then ends within it. */
        if (bytes < left && bytes != LABEL_PAGE) {
            return false;
        }
        crc = crc32(crc, e, bytes);
        for (uint64_t i = 0; i < bytes; i += gpt.bytes) {
            unsigned number = (unsigned)((at - gpt.entries) * 512 + i) / gpt.bytes + 1;

            add_entry(s, e + i, number, out);
        }
        left -= bytes;
    }
    return crc == gpt.crc;
}

static enum hv_err read_either_gpt(const struct label_source *s, uint8_t *page, struct label *out)
{
    uint64_t last = s->nr_sectors / (s->sector_bytes / 512) - 1;
    enum hv_err err, err2;

    out->kind = LABEL_GPT;
    if (read_gpt(s, 1, page, out, &err)) {
        return HV_OK;
    }
    out->problem = "the first GPT is damaged, the second is used";
    if (read_gpt(s, last, page, out, &err2)) {
        return HV_OK;
    }
    out->problem = "both GPTs are damaged";
    out->nr_parts = 0;
    return err != HV_OK ? err : err2;
}

/* ---- MBR ---- */

/* An address or size of an entry: there in the disk's own sectors. */
static uint64_t mbr_sectors(const struct label_source *s, const uint8_t *p)
{
    return (uint64_t)get32(p) * (s->sector_bytes / 512);
}

static bool is_extended(uint8_t type)
{
    return type == 0x05 || type == 0x0f || type == 0x85;
}

/* A boot sector of a file system ends like an MBR; its bytes make no sense as a table. */
static bool is_mbr(const struct label_source *s, const uint8_t *sector)
{
    bool any = false;

    if (sector[510] != 0x55 || sector[511] != 0xaa) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = sector + MBR_ENTRIES + 16 * i;

        if ((e[0] & 0x7f) != 0) {
            return false;
        }
        if (e[4] != 0) {
            any = true;
            if (e[4] != MBR_PROTECTIVE &&
                !on_disk(s, mbr_sectors(s, e + 8), mbr_sectors(s, e + 12))) {
                return false;
            }
        }
    }
    return any;
}

static void add_mbr(const struct label_source *s, struct label *out, unsigned number, uint8_t type,
                    uint64_t first, uint64_t nr)
{
    if (on_disk(s, first, nr) && out->nr_parts < LABEL_PARTS_MAX) {
        out->parts[out->nr_parts++] = (struct label_part){
            .number = number, .first = first, .nr_sectors = nr, .mbr_type = type};
    }
}

/* The chain of logical partitions; a loop ends with the table's room. */
static enum hv_err read_logical(const struct label_source *s, uint64_t extended, uint8_t *page,
                                struct label *out)
{
    uint64_t at = extended;
    enum hv_err err = HV_OK;

    for (unsigned number = LOGICAL_FIRST; number < LOGICAL_FIRST + LABEL_PARTS_MAX; number++) {
        const uint8_t *sector = read_sector(s, at, page, &err);

        if (sector == NULL || !is_mbr(s, sector)) {
            break;
        }
        const uint8_t *e = sector + MBR_ENTRIES;

        add_mbr(s, out, number, e[4], at + mbr_sectors(s, e + 8), mbr_sectors(s, e + 12));
        if (!is_extended(e[16 + 4])) {
            break;
        }
        at = extended + mbr_sectors(s, e + 16 + 8);
    }
    return err;
}

static enum hv_err read_mbr(const struct label_source *s, const uint8_t *sector, uint8_t *page,
                            struct label *out)
{
    uint8_t table[64];
    enum hv_err err = HV_OK;

    memcpy(table, sector + MBR_ENTRIES, sizeof(table));
    out->kind = LABEL_MBR;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *e = table + 16 * i;

        if (e[4] != 0) {
            add_mbr(s, out, i + 1, e[4], mbr_sectors(s, e + 8), mbr_sectors(s, e + 12));
        }
    }
    for (unsigned i = 0; i < 4 && err == HV_OK; i++) {
        if (is_extended(table[16 * i + 4])) {
            err = read_logical(s, mbr_sectors(s, table + 16 * i + 8), page, out);
        }
    }
    return err;
}

enum hv_err label_read(const struct label_source *s, void *page, struct label *out)
{
    enum hv_err err;

    memset(out, 0, sizeof(*out));
    const uint8_t *sector = read_sector(s, 0, page, &err);

    if (sector == NULL || !is_mbr(s, sector)) {
        return err;
    }
    for (unsigned i = 0; i < 4; i++) {
        if (sector[MBR_ENTRIES + 16 * i + 4] == MBR_PROTECTIVE) {
            return read_either_gpt(s, page, out);
        }
    }
    return read_mbr(s, sector, page, out);
}

/* ---- Names ---- */

/* The first half of the GUID as it stands on the disk. */
static const struct {
    uint64_t guid;
    const char *name;
} gpt_types[] = {
    {0x11d2f81fc12a7328, "EFI system"}, {0x477284830fc63daf, "Linux filesystem"},
    {0x43c4a4e50657fd6d, "Linux swap"}, {0x44c2f507e6d6d379, "Linux LVM"},
    {0x4d3b05fca19d880f, "Linux RAID"}, {0x4433b9e5ebd0a0a2, "Windows data"},
    {0x6e6f644921686148, "BIOS boot"},  {0x4db80b5ce3c9e316, "Windows reserved"},
    {0x4db1e8cd4f68bce3, "Linux root"}, {0x45083ac4797f303f, "Ballast swap"},
};

static const struct {
    uint8_t type;
    const char *name;
} mbr_types[] = {
    {0x05, "extended"},   {0x06, "FAT16"},      {0x07, "NTFS or exFAT"}, {0x0b, "FAT32"},
    {0x0c, "FAT32"},      {0x0e, "FAT16"},      {0x0f, "extended"},      {0x82, "Linux swap"},
    {0x83, "Linux"},      {0x85, "extended"},   {0x8e, "Linux LVM"},     {0xa5, "FreeBSD"},
    {0xef, "EFI system"}, {0xfd, "Linux RAID"},
};

const char *label_type(const struct label_part *p, enum label_kind kind, char buf[40])
{
    for (unsigned i = 0; kind == LABEL_GPT && i < ARRAY_SIZE(gpt_types); i++) {
        if (get64(p->type) == gpt_types[i].guid) {
            return gpt_types[i].name;
        }
    }
    for (unsigned i = 0; kind == LABEL_MBR && i < ARRAY_SIZE(mbr_types); i++) {
        if (p->mbr_type == mbr_types[i].type) {
            return mbr_types[i].name;
        }
    }
    if (kind == LABEL_MBR) {
        scnprintf(buf, 40, "type 0x%02x", p->mbr_type);
    } else {
        scnprintf(buf, 40, "type %08X-%04X-%04X-...", get32(p->type),
                  (unsigned)(p->type[4] | p->type[5] << 8),
                  (unsigned)(p->type[6] | p->type[7] << 8));
    }
    return buf;
}

/* Marks by the page they stand in, in order of pages, the swap area's first. */
#define OWN_MARK 0u
static const struct {
    uint8_t page;
    uint8_t len;
    uint16_t offset;
    const char *mark, *name;
} marks[] = {
    {0, 15, 0, "BALLAST-SWAP-01", "Ballast swap area"},
    {0, 2, 1080, "\x53\xef", "ext2, ext3 or ext4"},
    {0, 4, 0, "XFSB", "XFS"},
    {0, 8, 3, "NTFS    ", "NTFS"},
    {0, 8, 3, "EXFAT   ", "exFAT"},
    {0, 8, 82, "FAT32   ", "FAT32"},
    {0, 5, 54, "FAT16", "FAT16"},
    {0, 5, 54, "FAT12", "FAT12"},
    {0, 6, 0, "LUKS\xba\xbe", "LUKS (encrypted)"},
    {0, 8, 512, "LABELONE", "LVM physical volume"},
    {0, 10, 4086, "SWAPSPACE2", "Linux swap"},
    {0, 4, 1024, "\x10\x20\xf5\xf2", "F2FS"},
    {0, 4, 0, "hsqs", "squashfs"},
    {1, 4, 0, "\xfc\x4e\x2b\xa9", "Linux RAID member"},
    {8, 5, 1, "CD001", "ISO 9660"},
    {16, 8, 64, "_BHRfS_M", "btrfs"},
};

/* The first mark from index `from` on; NULL: none, or unreadable (*err). *blank: the pages that were looked at
 * are zero. */
static const char *find_mark(const struct label_source *s, uint64_t first, uint64_t nr_sectors,
                             unsigned from, uint8_t *page, bool *blank, enum hv_err *err)
{
    unsigned loaded = UINT8_MAX;

    *blank = true;
    *err = HV_OK;
    for (unsigned i = from; i < ARRAY_SIZE(marks); i++) {
        if ((marks[i].page + 1u) * PAGE_SECTORS > nr_sectors) {
            break;
        }
        if (marks[i].page != loaded) {
            loaded = marks[i].page;
            *err = s->read(s->arg, first + loaded * PAGE_SECTORS, page);
            if (*err != HV_OK) {
                return NULL;
            }
            *blank = *blank && mem_is_zero(page, LABEL_PAGE);
        }
        if (memcmp(page + marks[i].offset, marks[i].mark, marks[i].len) == 0) {
            return marks[i].name;
        }
    }
    return NULL;
}

const char *label_content(const struct label_source *s, uint64_t first, uint64_t nr_sectors,
                          void *page)
{
    enum hv_err err;
    bool blank;
    const char *name = find_mark(s, first, nr_sectors, 0, page, &blank, &err);

    if (name != NULL || err != HV_OK) {
        return name;
    }
    return blank ? "blank" : "unknown data";
}

enum hv_err label_foreign(const struct label_source *s, uint64_t first, uint64_t nr_sectors,
                          void *page, const char **name)
{
    enum hv_err err;
    bool blank;

    *name = find_mark(s, first, nr_sectors, OWN_MARK + 1, page, &blank, &err);
    return err;
}
