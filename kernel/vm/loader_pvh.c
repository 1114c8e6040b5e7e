/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PVH: ELF kernels with a note that names their 32-bit entry, as Linux's vmlinux, Xen and FreeBSD have.
 * Rules: Xen's docs/misc/pvh.pandoc and public headers elfnote.h, arch-x86/hvm/start_info.h.
 */
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/loader_internal.h"

#define NOTE_OWNER "Xen"
#define NOTE_GUEST_OS 6u
#define NOTE_PHYS32_ENTRY 18u

#define START_MAGIC 0x336ec578u
#define START_VERSION 1u /* with a memory map */

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules, cmdline, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};
_Static_assert(sizeof(struct start_info) == 56, "hvm_start_info");

struct start_module {
    uint64_t base, size, cmdline, reserved;
};

struct start_range {
    uint64_t base, size;
    uint32_t type, reserved;
};
_Static_assert(sizeof(struct start_range) == 24, "hvm_memmap_table_entry");

/* The information area: one struct, written at LOADER_INFO. */
struct pvh_area {
    struct start_info info;
    struct start_module module[LOADER_MAX_PLACED];
    struct start_range map[LOADER_MAX_RANGES];
    char args[LOADER_MAX_PLACED][LOADER_ARGS_MAX];
};
_Static_assert(LOADER_INFO + sizeof(struct pvh_area) <= LOADER_CMDLINE,
               "fits below the command line");

static bool pvh_probe(const struct loader_image *img)
{
    struct loader_note note;

    return loader_elf_note(img, NOTE_OWNER, NOTE_PHYS32_ENTRY, &note);
}

static enum hv_err read_entry(struct loader_request *req, uint64_t *entry)
{
    const struct loader_image *k = &req->kernel;
    struct loader_note note = {0};

    if (!loader_elf_note(k, NOTE_OWNER, NOTE_PHYS32_ENTRY, &note) ||
        (note.size != 4 && note.size != 8)) {
        return loader_fail(req, HV_EINVAL,
                           "%s: corrupt: its PVH entry note has %llu bytes; accepted: 4, 8",
                           k->name, (unsigned long long)note.size);
    }
    *entry = note.size == 4 ? loader_u32(k, note.offset) : loader_u64(k, note.offset);
    if (*entry > UINT32_MAX) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: its PVH entry 0x%llx is above 4 GiB",
                           k->name, (unsigned long long)*entry);
    }
    return HV_OK;
}

static bool is_linux(const struct loader_image *k)
{
    struct loader_note note;

    return loader_elf_note(k, NOTE_OWNER, NOTE_GUEST_OS, &note) && note.size >= 5 &&
           memcmp(k->data + note.offset, "linux", 5) == 0;
}

static enum hv_err write_info(struct loader_request *req, const struct loader_placed *mods,
                              unsigned nr_mods)
{
    struct pvh_area a;
    struct loader_range map[LOADER_MAX_RANGES];
    unsigned n = loader_memory_map(loader_memory_bytes(req), map, LOADER_MAX_RANGES);

    memset(&a, 0, sizeof(a));
    a.info = (struct start_info){
        .magic = START_MAGIC,
        .version = START_VERSION,
        .nr_modules = nr_mods,
        .modules = nr_mods ? LOADER_INFO + offsetof(struct pvh_area, module) : 0,
        .cmdline = LOADER_CMDLINE,
        .rsdp = req->rsdp,
        .memory_map = LOADER_INFO + offsetof(struct pvh_area, map),
        .memory_map_entries = n,
    };
    for (unsigned i = 0; i < n; i++) {
        a.map[i] = (struct start_range){map[i].base, map[i].size, map[i].type, 0};
    }
    for (unsigned i = 0; i < nr_mods; i++) {
        str_copy(a.args[i], sizeof(a.args[i]), mods[i].args);
        a.module[i] = (struct start_module){
            .base = mods[i].gpa,
            .size = mods[i].size,
            .cmdline = LOADER_INFO + offsetof(struct pvh_area, args) + i * sizeof(a.args[0]),
        };
    }
    return loader_write(req, LOADER_INFO, &a, sizeof(a), "PVH start information");
}

static enum hv_err pvh_load(struct loader_request *req, struct loader_entry *out)
{
    struct loader_elf e = {0};
    struct loader_placed mods[LOADER_MAX_PLACED];
    uint64_t entry = 0, end = 0;
    unsigned nr_mods = 0;
    char clock[40] = "";
    enum hv_err err;

    if (req->tsc_khz != 0 && is_linux(&req->kernel)) {
        snprintf(clock, sizeof(clock), LOADER_LINUX_CLOCK, (unsigned long long)req->tsc_khz);
    }
    if ((err = loader_elf_read(req, "PVH", &e)) || (err = read_entry(req, &entry)) ||
        (err = loader_elf_load(req, &e, NULL, &end)) ||
        (err = loader_place_modules(req, end, mods, &nr_mods)) ||
        (err = loader_write_cmdline(req, clock, LOADER_CMDLINE_MAX)) ||
        (err = write_info(req, mods, nr_mods))) {
        return err;
    }
    *out = (struct loader_entry){.mode = ENTRY_PROTECTED32, .rip = entry, .rbx = LOADER_INFO};
    return loader_write_gdt(req, out);
}

const struct loader loader_pvh = {
    .format = "PVH ELF",
    .probe = pvh_probe,
    .load = pvh_load,
};
