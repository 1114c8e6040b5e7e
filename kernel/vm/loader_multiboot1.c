/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multiboot1 kernels, ELF32, ELF64 or flat files whose header has addresses, entered in 32-bit protected
 * mode. Rules: "Multiboot Specification version 0.6.96" ("OS image format", "Machine state", "Boot
 * information format"). Who wants a video mode gets text: the mode is a wish, its type is told.
 */
#include "kernel/lib/string.h"
#include "kernel/vm/loader_internal.h"

#define HEADER_SEARCH 8192u
#define HEADER_MAGIC 0x1badb002u
#define HEADER_ADDRESSES (1u << 16)
#define HEADER_REQUIRED 0xffffu
#define HEADER_KNOWN 0x7u /* page-aligned modules, memory information, video mode */
#define HEADER_SIZE 12u
#define HEADER_SIZE_ADDRESSES 32u
#define BOOT_MAGIC 0x2badb002u

#define INFO_MEMORY (1u << 0)
#define INFO_CMDLINE (1u << 2)
#define INFO_MODS (1u << 3)
#define INFO_MMAP (1u << 6)
#define INFO_LOADER_NAME (1u << 9)
#define INFO_FRAMEBUFFER (1u << 12)

/* Multiboot information as the guest sees it; everything that follows it is in the same area. */
struct mb_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, loader_name;
    uint32_t apm_table, vbe[4];
    uint64_t screen;
    uint32_t screen_pitch, screen_width, screen_height;
    uint8_t screen_bpp, screen_type, screen_colors[6];
} __packed;
_Static_assert(sizeof(struct mb_info) == 116, "Boot information format");
_Static_assert(offsetof(struct mb_info, mmap_addr) == 48, "Boot information format");
_Static_assert(offsetof(struct mb_info, screen) == 88, "Boot information format");

struct mb_module {
    uint32_t start, end, string, reserved;
};

struct mb_range {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __packed;
_Static_assert(sizeof(struct mb_range) == 24, "Boot information format");

/* The information area: one struct, written at LOADER_INFO. */
struct mb_area {
    struct mb_info info;
    struct mb_module module[LOADER_MAX_PLACED];
    struct mb_range map[LOADER_MAX_RANGES];
    char module_string[LOADER_MAX_PLACED][LOADER_ARGS_MAX];
    char loader_name[16];
};
_Static_assert(LOADER_INFO + sizeof(struct mb_area) <= LOADER_CMDLINE,
               "fits below the command line");

#define NO_HEADER UINT64_MAX

/* Offset of the header in the file, or NO_HEADER. */
static uint64_t find_header(const struct loader_image *img)
{
    for (uint64_t at = 0; at + HEADER_SIZE <= MIN(img->size, (uint64_t)HEADER_SEARCH); at += 4) {
        uint32_t magic = loader_u32(img, at);
        if (magic == HEADER_MAGIC &&
            magic + loader_u32(img, at + 4) + loader_u32(img, at + 8) == 0) {
            return at;
        }
    }
    return NO_HEADER;
}

static bool multiboot1_probe(const struct loader_image *img)
{
    return find_header(img) != NO_HEADER;
}

static enum hv_err check_header(struct loader_request *req)
{
    uint32_t flags = loader_u32(&req->kernel, find_header(&req->kernel) + 4);
    uint32_t unknown = flags & HEADER_REQUIRED & ~HEADER_KNOWN;
    if (unknown) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: its Multiboot header requires features 0x%x; accepted: 0x7 "
                           "(aligned modules, memory information, a video mode)",
                           req->kernel.name, unknown);
    }
    return HV_OK;
}

/* A file that is no ELF, or does not want to be taken for one: "The address fields of Multiboot header". */
static enum hv_err load_flat(struct loader_request *req, uint64_t header, uint64_t *entry,
                             uint64_t *end)
{
    const struct loader_image *k = &req->kernel;

    if (k->size - header < HEADER_SIZE_ADDRESSES) {
        return loader_fail(req, HV_EINVAL, "%s: truncated: the Multiboot header has no addresses",
                           k->name);
    }
    uint64_t header_addr = loader_u32(k, header + 12), load = loader_u32(k, header + 16);
    uint64_t load_end = loader_u32(k, header + 20), bss_end = loader_u32(k, header + 24);

    if (load > header_addr || header_addr - load > header || (load_end && load_end < load)) {
        return loader_fail(req, HV_EINVAL,
                           "%s: corrupt: Multiboot addresses: header 0x%llx, load 0x%llx to 0x%llx",
                           k->name, (unsigned long long)header_addr, (unsigned long long)load,
                           (unsigned long long)load_end);
    }
    struct loader_part part = {.offset = header - (header_addr - load), .paddr = load};
    part.filesz = load_end ? load_end - load : k->size - part.offset;
    part.memsz = MAX(part.filesz, bss_end > load ? bss_end - load : 0);
    *entry = loader_u32(k, header + 28);
    *end = MIB(1);
    return loader_load_part(req, &part, end);
}

static enum hv_err load_image(struct loader_request *req, uint64_t *entry, uint64_t *end)
{
    uint64_t header = find_header(&req->kernel);
    struct loader_elf e = {0};

    if (loader_u32(&req->kernel, header + 4) & HEADER_ADDRESSES) {
        return load_flat(req, header, entry, end);
    }
    enum hv_err err = loader_elf_read(req, "Multiboot", &e);
    return err ? err : loader_elf_load(req, &e, entry, end);
}

static enum hv_err write_info(struct loader_request *req, const struct loader_placed *mods,
                              unsigned nr_mods)
{
    struct mb_area a;
    struct loader_range map[LOADER_MAX_RANGES];
    unsigned n = loader_memory_map(loader_memory_bytes(req), map, LOADER_MAX_RANGES);
    memset(&a, 0, sizeof(a));
    for (unsigned i = 0; i < n; i++) {
        a.map[i] = (struct mb_range){sizeof(a.map[i]) - sizeof(a.map[i].size), map[i].base,
                                     map[i].size, map[i].type};
    }
    a.info = (struct mb_info){
        .flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_LOADER_NAME |
                 INFO_FRAMEBUFFER,
        .mem_lower = (uint32_t)(MIN(loader_memory_bytes(req), GUEST_LOW_RAM_END) / KIB(1)),
        .mem_upper = (uint32_t)((loader_ram_top(req) - MIN(loader_ram_top(req), MIB(1))) / KIB(1)),
        .cmdline = LOADER_CMDLINE,
        .mods_count = nr_mods,
        .mods_addr = LOADER_INFO + offsetof(struct mb_area, module),
        .mmap_length = n * (uint32_t)sizeof(a.map[0]),
        .mmap_addr = LOADER_INFO + offsetof(struct mb_area, map),
        .loader_name = LOADER_INFO + offsetof(struct mb_area, loader_name),
        .screen = LOADER_TEXT_SCREEN,
        .screen_pitch = LOADER_TEXT_PITCH,
        .screen_width = LOADER_TEXT_COLUMNS,
        .screen_height = LOADER_TEXT_LINES,
        .screen_bpp = 16,
        .screen_type = LOADER_TEXT_TYPE,
    };
    str_copy(a.loader_name, sizeof(a.loader_name), "Ballast");
    for (unsigned i = 0; i < nr_mods; i++) {
        a.module[i] = (struct mb_module){
            .start = (uint32_t)mods[i].gpa,
            .end = (uint32_t)(mods[i].gpa + mods[i].size),
            .string = (uint32_t)(LOADER_INFO + offsetof(struct mb_area, module_string) +
                                 i * sizeof(a.module_string[0])),
        };
        str_copy(a.module_string[i], sizeof(a.module_string[i]), mods[i].text);
    }
    return loader_write(req, LOADER_INFO, &a, sizeof(a), "Multiboot information");
}

static enum hv_err multiboot1_load(struct loader_request *req, struct loader_entry *out)
{
    struct loader_placed mods[LOADER_MAX_PLACED];
    uint64_t entry = 0, end = 0;
    unsigned nr_mods = 0;
    enum hv_err err;
    if ((err = check_header(req)) || (err = load_image(req, &entry, &end)) ||
        (err = loader_place_modules(req, end, mods, &nr_mods)) ||
        (err = loader_write_named_cmdline(req)) || (err = write_info(req, mods, nr_mods))) {
        return err;
    }
    *out = (struct loader_entry){
        .mode = ENTRY_PROTECTED32, .rip = entry, .rax = BOOT_MAGIC, .rbx = LOADER_INFO};
    return loader_write_gdt(req, out);
}

const struct loader loader_multiboot1 = {
    .format = "Multiboot1",
    .probe = multiboot1_probe,
    .load = multiboot1_load,
};
