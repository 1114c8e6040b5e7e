/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Multiboot1 kernels in ELF32 or ELF64 files, entered in 32-bit protected mode. Rules: "Multiboot
 * Specification version 0.6.96" ("OS image format", "Machine state", "Boot information format") and
 * the System V ABI for ELF. Segments go to their physical addresses; the initrd, when there is one,
 * becomes the only module.
 */
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader_internal.h"

#define HEADER_SEARCH 8192u
#define HEADER_MAGIC 0x1badb002u
#define HEADER_VIDEO (1u << 2)
#define HEADER_REQUIRED 0xffffu
#define HEADER_KNOWN 0x3u /* page-aligned modules, memory information */
#define BOOT_MAGIC 0x2badb002u

#define INFO_MEMORY (1u << 0)
#define INFO_CMDLINE (1u << 2)
#define INFO_MODS (1u << 3)
#define INFO_MMAP (1u << 6)
#define INFO_LOADER_NAME (1u << 9)

#define ELF_MAGIC 0x464c457fu
#define ELF_CLASS32 1
#define ELF_CLASS64 2
#define ELF_LITTLE_ENDIAN 1
#define ELF_TYPE_EXEC 2
#define ELF_MACHINE_386 3
#define ELF_MACHINE_X86_64 62
#define PT_LOAD 1u
#define MAX_SEGMENTS 64u

/* Multiboot information as the guest sees it; everything that follows it is in the same area. */
struct mb_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
    uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table, loader_name;
    uint32_t rest[12];
};
_Static_assert(sizeof(struct mb_info) == 116, "Boot information format");
_Static_assert(offsetof(struct mb_info, mmap_addr) == 48, "Boot information format");

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
    struct mb_module module;
    struct mb_range map[LOADER_MAX_RANGES];
    char module_string[64];
    char loader_name[16];
};
_Static_assert(LOADER_INFO + sizeof(struct mb_area) <= LOADER_CMDLINE,
               "fits below the command line");

/* What ELF32 and ELF64 have in common, widened. */
struct elf {
    uint64_t entry, phoff;
    unsigned phnum, phentsize;
    bool is64;
};

struct elf_segment {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz;
};

/* Offset of the header in the file, or 0 (where an ELF file has its magic). */
static uint64_t find_header(const struct loader_image *img)
{
    for (uint64_t at = 4; at + 12 <= MIN(img->size, (uint64_t)HEADER_SEARCH); at += 4) {
        uint32_t magic = loader_u32(img, at);
        if (magic == HEADER_MAGIC &&
            magic + loader_u32(img, at + 4) + loader_u32(img, at + 8) == 0) {
            return at;
        }
    }
    return 0;
}

static bool multiboot1_probe(const struct loader_image *img)
{
    return find_header(img) != 0;
}

static enum hv_err check_header(struct loader_request *req)
{
    uint32_t flags = loader_u32(&req->kernel, find_header(&req->kernel) + 4);
    uint32_t unknown = flags & HEADER_REQUIRED & ~HEADER_KNOWN;
    if (unknown) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: its Multiboot header requires features 0x%x%s; accepted: 0x3 "
                           "(aligned modules, memory information)",
                           req->kernel.name, unknown,
                           unknown & HEADER_VIDEO ? " (a video mode)" : "");
    }
    return HV_OK;
}

static enum hv_err read_elf(struct loader_request *req, struct elf *e)
{
    const struct loader_image *k = &req->kernel;
    if (k->size < 64 || loader_u32(k, 0) != ELF_MAGIC ||
        (k->data[4] != ELF_CLASS32 && k->data[4] != ELF_CLASS64) ||
        k->data[5] != ELF_LITTLE_ENDIAN) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: a Multiboot kernel, but no x86 ELF file; accepted: ELF32, ELF64",
                           k->name);
    }
    uint16_t type = loader_u16(k, 16), machine = loader_u16(k, 18);
    if (type != ELF_TYPE_EXEC || (machine != ELF_MACHINE_386 && machine != ELF_MACHINE_X86_64)) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: ELF type %u for machine %u; accepted: executables (2) for 386 (3) "
                           "and x86-64 (62)",
                           k->name, type, machine);
    }
    e->is64 = k->data[4] == ELF_CLASS64;
    e->entry = e->is64 ? loader_u64(k, 24) : loader_u32(k, 24);
    e->phoff = e->is64 ? loader_u64(k, 32) : loader_u32(k, 28);
    e->phentsize = loader_u16(k, e->is64 ? 54 : 42);
    e->phnum = loader_u16(k, e->is64 ? 56 : 44);
    if (e->phentsize != (e->is64 ? 56u : 32u) || e->phnum == 0 || e->phnum > MAX_SEGMENTS ||
        e->phoff > k->size || (uint64_t)e->phnum * e->phentsize > k->size - e->phoff) {
        return loader_fail(
            req, HV_EINVAL,
            "%s: corrupt: %u program headers of %u bytes at 0x%llx in a file of %llu", k->name,
            e->phnum, e->phentsize, (unsigned long long)e->phoff, (unsigned long long)k->size);
    }
    return HV_OK;
}

static struct elf_segment read_segment(const struct loader_image *k, const struct elf *e,
                                       unsigned i)
{
    uint64_t at = e->phoff + (uint64_t)i * e->phentsize;
    if (e->is64) {
        return (struct elf_segment){loader_u32(k, at),      loader_u64(k, at + 8),
                                    loader_u64(k, at + 16), loader_u64(k, at + 24),
                                    loader_u64(k, at + 32), loader_u64(k, at + 40)};
    }
    return (struct elf_segment){loader_u32(k, at),      loader_u32(k, at + 4),
                                loader_u32(k, at + 8),  loader_u32(k, at + 12),
                                loader_u32(k, at + 16), loader_u32(k, at + 20)};
}

static enum hv_err check_segment(struct loader_request *req, const struct elf_segment *s)
{
    const struct loader_image *k = &req->kernel;
    if (s->offset > k->size || s->filesz > k->size - s->offset || s->filesz > s->memsz) {
        return loader_fail(req, HV_EINVAL,
                           "%s: truncated: a segment of %llu bytes at 0x%llx in a file of %llu",
                           k->name, (unsigned long long)s->filesz, (unsigned long long)s->offset,
                           (unsigned long long)k->size);
    }
    if (s->paddr > GUEST_PCI_HOLE || s->memsz > GUEST_PCI_HOLE - s->paddr ||
        !guestmem_is_ram(req->vm, GPA(s->paddr), s->memsz)) {
        return loader_fail(req, HV_ERANGE,
                           "%s: a segment wants 0x%llx bytes at 0x%llx; the VM has no such RAM "
                           "(%llu MiB)",
                           k->name, (unsigned long long)s->memsz, (unsigned long long)s->paddr,
                           (unsigned long long)(loader_memory_bytes(req) / MIB(1)));
    }
    if (s->paddr < LOADER_AREA_END && s->paddr + s->memsz > LOADER_AREA_BASE) {
        return loader_fail(
            req, HV_ENOTSUP, "%s: a segment at 0x%llx covers the loader's area 0x%llx to 0x%llx",
            k->name, (unsigned long long)s->paddr, (unsigned long long)LOADER_AREA_BASE,
            (unsigned long long)LOADER_AREA_END);
    }
    return HV_OK;
}

/* Copies the segments; gives the physical entry point and the end of the image in memory. */
static enum hv_err load_segments(struct loader_request *req, const struct elf *e, uint64_t *entry,
                                 uint64_t *end)
{
    bool found = false;
    *end = MIB(1);
    for (unsigned i = 0; i < e->phnum; i++) {
        struct elf_segment s = read_segment(&req->kernel, e, i);
        if (s.type != PT_LOAD || s.memsz == 0) {
            continue;
        }
        enum hv_err err = check_segment(req, &s);
        if (!err && s.filesz) {
            err = loader_write(req, s.paddr, req->kernel.data + s.offset, s.filesz, "kernel");
        }
        if (err) {
            return err;
        }
        *end = MAX(*end, s.paddr + s.memsz);
        /* The entry is a physical address by the specification, a virtual one by ELF. */
        if (e->entry - s.paddr < s.memsz) {
            *entry = e->entry;
            found = true;
        } else if (!found && e->entry - s.vaddr < s.memsz) {
            *entry = e->entry - s.vaddr + s.paddr;
            found = true;
        }
    }
    if (!found) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: the entry 0x%llx lies in no segment",
                           req->kernel.name, (unsigned long long)e->entry);
    }
    return HV_OK;
}

static enum hv_err write_info(struct loader_request *req, uint64_t initrd)
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
        .flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER_NAME,
        .mem_lower = (uint32_t)(MIN(loader_memory_bytes(req), GUEST_LOW_RAM_END) / KIB(1)),
        .mem_upper = (uint32_t)((loader_ram_top(req) - MIN(loader_ram_top(req), MIB(1))) / KIB(1)),
        .cmdline = LOADER_CMDLINE,
        .mods_addr = LOADER_INFO + offsetof(struct mb_area, module),
        .mmap_length = n * (uint32_t)sizeof(a.map[0]),
        .mmap_addr = LOADER_INFO + offsetof(struct mb_area, map),
        .loader_name = LOADER_INFO + offsetof(struct mb_area, loader_name),
    };
    str_copy(a.loader_name, sizeof(a.loader_name), "Ballast");
    if (initrd) {
        a.info.flags |= INFO_MODS;
        a.info.mods_count = 1;
        a.module = (struct mb_module){
            .start = (uint32_t)initrd,
            .end = (uint32_t)(initrd + req->initrd.size),
            .string = LOADER_INFO + offsetof(struct mb_area, module_string),
        };
        str_copy(a.module_string, sizeof(a.module_string), req->initrd.name);
    }
    return loader_write(req, LOADER_INFO, &a, sizeof(a), "Multiboot information");
}

static enum hv_err multiboot1_load(struct loader_request *req, struct loader_entry *out)
{
    struct elf e = {0};
    uint64_t entry = 0, end = 0, initrd = 0;
    char argv0[80];
    enum hv_err err;
    /* The first word of the command line is the kernel's name, as other loaders have it. */
    snprintf(argv0, sizeof(argv0), "%.70s ", req->kernel.name);
    if ((err = check_header(req)) || (err = read_elf(req, &e)) ||
        (err = load_segments(req, &e, &entry, &end)) ||
        (err = loader_place_initrd(req, ALIGN_UP(end, PAGE_SIZE), GUEST_PCI_HOLE, &initrd)) ||
        (err = loader_write_cmdline(req, argv0, LOADER_CMDLINE_MAX)) ||
        (err = write_info(req, initrd))) {
        return err;
    }
    *out = (struct loader_entry){
        .mode = ENTRY_PROTECTED32, .rip = entry, .rax = BOOT_MAGIC, .rbx = LOADER_INFO};
    return loader_write_gdt(req, out);
}

const struct loader loader_multiboot1 = {
    .format = "Multiboot1 ELF",
    .probe = multiboot1_probe,
    .load = multiboot1_load,
};
