/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multiboot2 kernels, ELF or flat files whose header has addresses, entered in 32-bit protected mode.
 * Rules: "The Multiboot2 Specification version 2.0" ("OS image format", "I386 machine state", "Boot
 * information format"). Who wants a framebuffer is told of a text screen; what concerns EFI is not used.
 */
#include "kernel/lib/string.h"
#include "kernel/vm/loader_internal.h"
#include "kernel/vm/vm.h"
#include "mm/slab.h"

#define HEADER_SEARCH 32768u
#define HEADER_MAGIC 0xe85250d6u
#define HEADER_SIZE 16u
#define ARCH_I386 0u
#define BOOT_MAGIC 0x36d76289u

/* Tags of the header; those of other numbers cannot be granted. */
enum header_tag {
    HEADER_END = 0,
    HEADER_INFORMATION = 1,
    HEADER_ADDRESSES = 2,
    HEADER_ENTRY = 3,
    HEADER_CONSOLE = 4,
    HEADER_FRAMEBUFFER = 5,
    HEADER_MODULE_ALIGN = 6,
    HEADER_EFI_SERVICES = 7,
    HEADER_EFI_ENTRY32 = 8,
    HEADER_EFI_ENTRY64 = 9,
    HEADER_RELOCATABLE = 10 /* where it is linked is good enough */
};
#define ADDRESSES_SIZE 24u
#define TAG_OPTIONAL 1u

/* Tags of the boot information. */
enum info_tag {
    INFO_END = 0,
    INFO_CMDLINE = 1,
    INFO_LOADER_NAME = 2,
    INFO_MODULE = 3,
    INFO_MEMORY = 4,
    INFO_MEMORY_MAP = 6,
    INFO_FRAMEBUFFER = 8,
    INFO_ELF_SECTIONS = 9,
    INFO_RSDP_OLD = 14,
    INFO_RSDP_NEW = 15
};
#define RSDP_SIZE 36u
#define RSDP_SIZE_OLD 20u

/* What the header asks for. */
struct wishes {
    uint64_t header;    /* its offset in the file */
    uint64_t addresses; /* of that tag, 0: none */
    uint64_t entry;     /* 0: the ELF file's */
};

/* The information area, filled from the front. */
struct info {
    uint32_t used;
    uint8_t bytes[LOADER_CMDLINE - LOADER_INFO];
};

struct tag {
    uint32_t type, size;
};

#define NO_HEADER UINT64_MAX

/* Offset of the header in the file, or NO_HEADER. */
static uint64_t find_header(const struct loader_image *img)
{
    for (uint64_t at = 0; at + HEADER_SIZE <= MIN(img->size, (uint64_t)HEADER_SEARCH); at += 8) {
        uint32_t magic = loader_u32(img, at), arch = loader_u32(img, at + 4);

        if (magic == HEADER_MAGIC && arch == ARCH_I386 &&
            magic + arch + loader_u32(img, at + 8) + loader_u32(img, at + 12) == 0) {
            return at;
        }
    }
    return NO_HEADER;
}

static bool multiboot2_probe(const struct loader_image *img)
{
    return find_header(img) != NO_HEADER;
}

static bool information_is_given(uint32_t type)
{
    return type == INFO_CMDLINE || type == INFO_LOADER_NAME || type == INFO_MODULE ||
           type == INFO_MEMORY || type == INFO_MEMORY_MAP || type == INFO_FRAMEBUFFER ||
           type == INFO_ELF_SECTIONS || type == INFO_RSDP_OLD || type == INFO_RSDP_NEW;
}

/* HV_OK if the tag, `size` bytes at `at`, asks for nothing that is not there. */
static enum hv_err check_tag(struct loader_request *req, uint64_t at, uint32_t size,
                             struct wishes *w)
{
    const struct loader_image *k = &req->kernel;
    unsigned type = loader_u16(k, at);
    bool optional = loader_u16(k, at + 2) & TAG_OPTIONAL;

    switch (type) {
    case HEADER_CONSOLE:
    case HEADER_FRAMEBUFFER:
    case HEADER_MODULE_ALIGN:
    case HEADER_EFI_SERVICES:
    case HEADER_EFI_ENTRY32:
    case HEADER_EFI_ENTRY64:
    case HEADER_RELOCATABLE:
        return HV_OK;
    case HEADER_ADDRESSES:
        w->addresses = size >= ADDRESSES_SIZE ? at : 0;
        return HV_OK;
    case HEADER_ENTRY:
        if (size >= 12) {
            w->entry = loader_u32(k, at + 8);
        }
        return HV_OK;
    case HEADER_INFORMATION:
        for (uint64_t i = 8; i + 4 <= size && !optional; i += 4) {
            if (!information_is_given(loader_u32(k, at + i))) {
                return loader_fail(req, HV_ENOTSUP,
                                   "%s: its Multiboot2 header requires information %u; accepted: "
                                   "1 to 4, 6, 8, 9, 14, 15",
                                   k->name, loader_u32(k, at + i));
            }
        }
        return HV_OK;
    default:
        if (optional) {
            return HV_OK;
        }
        return loader_fail(req, HV_ENOTSUP,
                           "%s: its Multiboot2 header requires feature %u; accepted: 1 to 10",
                           k->name, type);
    }
}

static enum hv_err check_header(struct loader_request *req, struct wishes *w)
{
    const struct loader_image *k = &req->kernel;
    uint64_t header = find_header(k), at = header + HEADER_SIZE;
    uint64_t end = header + loader_u32(k, header + 8);

    w->header = header;

    while (end <= k->size && at + 8 <= end) {
        uint32_t size = loader_u32(k, at + 4);

        if (loader_u16(k, at) == HEADER_END) {
            return HV_OK;
        }
        if (size < 8 || size > end - at) {
            break;
        }
        enum hv_err err = check_tag(req, at, size, w);
        if (err) {
            return err;
        }
        at += ALIGN_UP(size, 8u);
    }
    return loader_fail(req, HV_EINVAL, "%s: corrupt: its Multiboot2 header has no end", k->name);
}

/* By "The address tag of Multiboot2 header". */
static enum hv_err load_flat(struct loader_request *req, const struct wishes *w, uint64_t *end)
{
    const struct loader_image *k = &req->kernel;
    uint64_t at = w->addresses;
    uint64_t header_addr = loader_u32(k, at + 8), load = loader_u32(k, at + 12);
    uint64_t load_end = loader_u32(k, at + 16), bss_end = loader_u32(k, at + 20);
    bool whole = load == UINT32_MAX; /* from the file's beginning */

    if (whole) {
        load = header_addr - w->header;
    }
    if (load > header_addr || header_addr - load > w->header || (load_end && load_end < load)) {
        return loader_fail(
            req, HV_EINVAL,
            "%s: corrupt: Multiboot2 addresses: header 0x%llx, load 0x%llx to 0x%llx", k->name,
            (unsigned long long)header_addr, (unsigned long long)load,
            (unsigned long long)load_end);
    }
    struct loader_part part = {.offset = w->header - (header_addr - load), .paddr = load};
    part.filesz = load_end ? load_end - load : k->size - part.offset;
    part.memsz = MAX(part.filesz, bss_end > load ? bss_end - load : 0);
    *end = MIB(1);
    return loader_load_part(req, &part, end);
}

static enum hv_err load_image(struct loader_request *req, const struct wishes *w, uint64_t *entry,
                              uint64_t *end)
{
    struct loader_elf e = {0};
    uint64_t elf_entry = 0;
    enum hv_err err;

    if (w->addresses != 0 && w->entry != 0) {
        *entry = w->entry;
        return load_flat(req, w, end);
    }
    err = loader_elf_read(req, "Multiboot2", &e);
    if (err == HV_OK) {
        err = loader_elf_load(req, &e, &elf_entry, end);
    }
    *entry = w->entry ? w->entry : elf_entry;
    return err;
}

/* ---- Boot information ---- */

/* A tag with `head` bytes and a text (or other bytes) behind them. */
static void add_tag(struct info *i, enum info_tag type, const void *head, size_t head_len,
                    const void *tail, size_t tail_len)
{
    struct tag t = {type, (uint32_t)(sizeof(t) + head_len + tail_len)};
    uint8_t *at = i->bytes + i->used;

    if (t.size > sizeof(i->bytes) - i->used) {
        return; /* kernels that get less must cope; the end tag is smaller than any */
    }
    memcpy(at, &t, sizeof(t));
    memcpy(at + sizeof(t), head, head_len);
    memcpy(at + sizeof(t) + head_len, tail, tail_len);
    i->used += ALIGN_UP(t.size, 8u);
}

static void add_memory(struct info *i, const struct loader_request *req)
{
    struct loader_range map[LOADER_MAX_RANGES];
    unsigned n = loader_memory_map(loader_memory_bytes(req), map, LOADER_MAX_RANGES);
    uint64_t top = loader_ram_top(req);
    uint32_t sizes[2] = {(uint32_t)(MIN(top, GUEST_LOW_RAM_END) / KIB(1)),
                         (uint32_t)((top - MIN(top, MIB(1))) / KIB(1))};
    struct entry {
        uint64_t base, size;
        uint32_t type, reserved;
    } entry[LOADER_MAX_RANGES];
    const uint32_t head[2] = {sizeof(struct entry), 0};

    for (unsigned j = 0; j < n; j++) {
        entry[j] = (struct entry){map[j].base, map[j].size, map[j].type, 0};
    }
    add_tag(i, INFO_MEMORY, sizes, sizeof(sizes), "", 0);
    add_tag(i, INFO_MEMORY_MAP, head, sizeof(head), entry, n * sizeof(entry[0]));
}

static enum hv_err add_rsdp(struct info *i, struct loader_request *req)
{
    uint8_t rsdp[RSDP_SIZE];

    if (req->rsdp == 0) {
        return HV_OK;
    }
    enum hv_err err = loader_read(req, req->rsdp, rsdp, sizeof(rsdp), "RSDP");
    add_tag(i, INFO_RSDP_OLD, rsdp, RSDP_SIZE_OLD, "", 0);
    add_tag(i, INFO_RSDP_NEW, rsdp, sizeof(rsdp), "", 0);
    return err;
}

/* Of an ELF file's section header: the fields that matter here, and where the address is. */
struct section {
    uint32_t type;
    uint64_t addr, offset, size;
    unsigned addr_at, addr_bytes;
};
#define SECTION_NOBITS 8u
#define MAX_SECTIONS 128u

static struct section read_section(const struct loader_image *k, uint64_t at, bool is64)
{
    if (is64) {
        return (struct section){loader_u32(k, at + 4),
                                loader_u64(k, at + 16),
                                loader_u64(k, at + 24),
                                loader_u64(k, at + 32),
                                16,
                                8};
    }
    return (struct section){loader_u32(k, at + 4),
                            loader_u32(k, at + 12),
                            loader_u32(k, at + 16),
                            loader_u32(k, at + 20),
                            12,
                            4};
}

/*
 * Section headers as the file has them. What they describe and no segment loads (symbols, names) is copied
 * below `limit`, and the headers say where; what does not fit keeps the address 0.
 */
static void add_sections(struct info *i, struct loader_request *req, uint64_t floor, uint64_t limit)
{
    const struct loader_image *k = &req->kernel;
    bool is64 = k->size >= 64 && k->data[4] == 2;

    if (!loader_is_elf(k)) {
        return;
    }
    uint64_t at = is64 ? loader_u64(k, 40) : loader_u32(k, 32);
    uint32_t size = loader_u16(k, is64 ? 58 : 46), nr = loader_u16(k, is64 ? 60 : 48);
    const uint32_t head[] = {nr, size, loader_u16(k, is64 ? 62 : 50)};
    uint8_t *copy = i->bytes + i->used + sizeof(struct tag) + sizeof(head);

    if (nr == 0 || nr > MAX_SECTIONS || size != (is64 ? 64u : 40u) || at > k->size ||
        (uint64_t)nr * size > k->size - at ||
        i->used + sizeof(struct tag) + sizeof(head) + nr * size > sizeof(i->bytes)) {
        return;
    }
    add_tag(i, INFO_ELF_SECTIONS, head, sizeof(head), k->data + at, nr * size);
    for (uint32_t s = 0; s < nr; s++, copy += size) {
        struct section sec = read_section(k, at + (uint64_t)s * size, is64);
        struct loader_image part = {.name = k->name, .size = sec.size};
        uint64_t gpa;

        if (sec.type == 0 || sec.type == SECTION_NOBITS || sec.addr != 0 || sec.size == 0 ||
            sec.offset > k->size || sec.size > k->size - sec.offset) {
            continue;
        }
        part.data = k->data + sec.offset;
        if (loader_place(req, &part, "section", floor, limit, &gpa) == HV_OK) {
            memcpy(copy + sec.addr_at, &gpa, sec.addr_bytes);
            limit = gpa;
        }
    }
}

static void add_screen(struct info *i)
{
    const struct {
        uint64_t address;
        uint32_t pitch, width, height;
        uint8_t bpp, type;
        uint16_t reserved;
    } screen = {LOADER_TEXT_SCREEN,
                LOADER_TEXT_PITCH,
                LOADER_TEXT_COLUMNS,
                LOADER_TEXT_LINES,
                16,
                LOADER_TEXT_TYPE,
                0};

    add_tag(i, INFO_FRAMEBUFFER, &screen, sizeof(screen), "", 0);
}

static enum hv_err write_info(struct loader_request *req, const struct loader_placed *mods,
                              unsigned nr_mods, uint64_t end)
{
    static const char name[] = "Ballast";
    struct info *i = kmalloc(sizeof(*i), req->vm->id);
    enum hv_err err;

    if (i == NULL) {
        return loader_fail(req, HV_ENOMEM, "%s: no memory for its boot information",
                           req->kernel.name);
    }
    i->used = 2 * sizeof(uint32_t);
    add_tag(i, INFO_CMDLINE, "", 0, req->cmdline, strlen(req->cmdline) + 1);
    add_tag(i, INFO_LOADER_NAME, "", 0, name, sizeof(name));
    add_memory(i, req);
    add_screen(i);
    err = add_rsdp(i, req);
    for (unsigned m = 0; m < nr_mods; m++) {
        uint32_t range[2] = {(uint32_t)mods[m].gpa, (uint32_t)(mods[m].gpa + mods[m].size)};

        add_tag(i, INFO_MODULE, range, sizeof(range), mods[m].text, strlen(mods[m].text) + 1);
    }
    add_sections(i, req, end, nr_mods ? mods[nr_mods - 1].gpa : GUEST_PCI_HOLE);
    add_tag(i, INFO_END, "", 0, "", 0);
    memcpy(i->bytes, &i->used, sizeof(i->used));
    if (err == HV_OK) {
        err = loader_write(req, LOADER_INFO, i->bytes, i->used, "Multiboot2 information");
    }
    kfree(i);
    return err;
}

static enum hv_err multiboot2_load(struct loader_request *req, struct loader_entry *out)
{
    struct loader_placed mods[LOADER_MAX_PLACED];
    struct wishes wishes = {0};
    uint64_t entry = 0, end = 0;
    unsigned nr_mods = 0;
    enum hv_err err;

    if ((err = check_header(req, &wishes)) || (err = load_image(req, &wishes, &entry, &end)) ||
        (err = loader_place_modules(req, end, mods, &nr_mods)) ||
        (err = write_info(req, mods, nr_mods, end))) {
        return err;
    }
    *out = (struct loader_entry){
        .mode = ENTRY_PROTECTED32, .rip = entry, .rax = BOOT_MAGIC, .rbx = LOADER_INFO};
    return loader_write_gdt(req, out);
}

const struct loader loader_multiboot2 = {
    .format = "Multiboot2",
    .probe = multiboot2_probe,
    .load = multiboot2_load,
};
