/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ELF files for the formats that come in them: header, program headers, segments to their physical
 * addresses, notes. ELF32 and ELF64 are widened to one. The file is hostile: nothing is read outside it,
 * nothing written outside the VM's RAM. Rules: System V ABI, "Object Files", "Program Loading".
 */
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader_internal.h"

#define ELF_MAGIC 0x464c457fu
#define ELF_CLASS32 1
#define ELF_CLASS64 2
#define ELF_LITTLE_ENDIAN 1
#define ELF_TYPE_EXEC 2
#define ELF_MACHINE_386 3
#define ELF_MACHINE_X86_64 62
#define PT_LOAD 1u
#define PT_NOTE 4u
#define MAX_SEGMENTS 64u

struct elf_segment {
    uint32_t type;
    uint64_t vaddr;
    struct loader_part part;
};

bool loader_is_elf(const struct loader_image *k)
{
    return k->size >= 64 && loader_u32(k, 0) == ELF_MAGIC &&
           (k->data[4] == ELF_CLASS32 || k->data[4] == ELF_CLASS64) &&
           k->data[5] == ELF_LITTLE_ENDIAN;
}

static void read_fields(const struct loader_image *k, struct loader_elf *e)
{
    e->is64 = k->data[4] == ELF_CLASS64;
    e->entry = e->is64 ? loader_u64(k, 24) : loader_u32(k, 24);
    e->phoff = e->is64 ? loader_u64(k, 32) : loader_u32(k, 28);
    e->phentsize = loader_u16(k, e->is64 ? 54 : 42);
    e->phnum = loader_u16(k, e->is64 ? 56 : 44);
}

/* Are the program headers in the file? */
static bool headers_inside(const struct loader_image *k, const struct loader_elf *e)
{
    return e->phentsize == (e->is64 ? 56u : 32u) && e->phnum != 0 && e->phnum <= MAX_SEGMENTS &&
           e->phoff <= k->size && (uint64_t)e->phnum * e->phentsize <= k->size - e->phoff;
}

enum hv_err loader_elf_read(struct loader_request *req, const char *format, struct loader_elf *e)
{
    const struct loader_image *k = &req->kernel;
    if (!loader_is_elf(k)) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: a %s kernel, but no x86 ELF file; accepted: ELF32, ELF64", k->name,
                           format);
    }
    uint16_t type = loader_u16(k, 16), machine = loader_u16(k, 18);
    if (type != ELF_TYPE_EXEC || (machine != ELF_MACHINE_386 && machine != ELF_MACHINE_X86_64)) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: ELF type %u for machine %u; accepted: executables (2) for 386 (3) "
                           "and x86-64 (62)",
                           k->name, type, machine);
    }
    read_fields(k, e);
    if (!headers_inside(k, e)) {
        return loader_fail(
            req, HV_EINVAL,
            "%s: corrupt: %u program headers of %u bytes at 0x%llx in a file of %llu", k->name,
            e->phnum, e->phentsize, (unsigned long long)e->phoff, (unsigned long long)k->size);
    }
    return HV_OK;
}

static struct elf_segment read_segment(const struct loader_image *k, const struct loader_elf *e,
                                       unsigned i)
{
    uint64_t at = e->phoff + (uint64_t)i * e->phentsize;
    if (e->is64) {
        return (struct elf_segment){loader_u32(k, at),
                                    loader_u64(k, at + 16),
                                    {loader_u64(k, at + 8), loader_u64(k, at + 24),
                                     loader_u64(k, at + 32), loader_u64(k, at + 40)}};
    }
    return (struct elf_segment){loader_u32(k, at),
                                loader_u32(k, at + 8),
                                {loader_u32(k, at + 4), loader_u32(k, at + 12),
                                 loader_u32(k, at + 16), loader_u32(k, at + 20)}};
}

enum hv_err loader_load_part(struct loader_request *req, const struct loader_part *s, uint64_t *end)
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
    *end = MAX(*end, s->paddr + s->memsz);
    return s->filesz ? loader_write_module(req, s->paddr, k->data + s->offset, s->filesz, "kernel")
                     : HV_OK;
}

enum hv_err loader_elf_load(struct loader_request *req, const struct loader_elf *e, uint64_t *entry,
                            uint64_t *end)
{
    bool found = false;
    *end = MIB(1);
    for (unsigned i = 0; i < e->phnum; i++) {
        struct elf_segment s = read_segment(&req->kernel, e, i);
        const struct loader_part *part = &s.part;

        if (s.type != PT_LOAD || part->memsz == 0) {
            continue;
        }
        enum hv_err err = loader_load_part(req, part, end);
        if (err) {
            return err;
        }
        /* The entry is a physical address by the specification, a virtual one by ELF. */
        if (!entry) {
            continue;
        }
        if (e->entry - part->paddr < part->memsz) {
            *entry = e->entry;
            found = true;
        } else if (!found && e->entry - s.vaddr < part->memsz) {
            *entry = e->entry - s.vaddr + part->paddr;
            found = true;
        }
    }
    if (!found && entry) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: the entry 0x%llx lies in no segment",
                           req->kernel.name, (unsigned long long)e->entry);
    }
    return HV_OK;
}

/* One note segment: name size, descriptor size, type, then both padded to four bytes. */
static bool find_in(const struct loader_image *k, uint64_t at, uint64_t end, const char *owner,
                    uint32_t type, struct loader_note *out)
{
    const uint64_t head = 12;
    uint64_t owner_len = strlen(owner) + 1;

    while (end - at >= head) {
        uint64_t name = loader_u32(k, at), desc = loader_u32(k, at + 4);
        uint64_t desc_at = at + head + ALIGN_UP(name, 4u);

        if (desc_at > end || desc > end - desc_at) {
            return false;
        }
        if (loader_u32(k, at + 8) == type && name == owner_len &&
            memcmp(k->data + at + head, owner, owner_len) == 0) {
            *out = (struct loader_note){desc_at, desc};
            return true;
        }
        if (ALIGN_UP(desc, 4u) > end - desc_at) {
            return false;
        }
        at = desc_at + ALIGN_UP(desc, 4u);
    }
    return false;
}

bool loader_elf_note(const struct loader_image *k, const char *owner, uint32_t type,
                     struct loader_note *out)
{
    struct loader_elf e;

    if (!loader_is_elf(k)) {
        return false;
    }
    read_fields(k, &e);
    if (!headers_inside(k, &e)) {
        return false;
    }
    for (unsigned i = 0; i < e.phnum; i++) {
        struct elf_segment s = read_segment(k, &e, i);

        if (s.type == PT_NOTE && s.part.offset <= k->size &&
            s.part.filesz <= k->size - s.part.offset &&
            find_in(k, s.part.offset, s.part.offset + s.part.filesz, owner, type, out)) {
            return true;
        }
    }
    return false;
}
