/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loading the kernel's ELF image (System V ABI, "Program Loading"). The image as a whole moves: all
 * segments keep their distances. The 64-bit entry stands in the image's own note, as a physical
 * address at the linked place.
 */
#include "boot/efi/loader.h"

#include <elf.h>

#define NAME L"ballast.elf"
#define IMAGE_ALIGN 0x200000u
#define NOTE_ENTRY64 1u
#define MAX_IMAGE_BYTES 0x10000000u

struct entry_note {
    UINT32 name_size, data_size, type;
    char name[8];
    UINT64 entry;
} __attribute__((packed));

static const Elf64_Phdr *program_header(const Elf64_Ehdr *elf, UINTN i)
{
    return (const Elf64_Phdr *)((const UINT8 *)elf + elf->e_phoff + i * sizeof(Elf64_Phdr));
}

static BOOLEAN header_ok(const Elf64_Ehdr *elf, UINT64 size)
{
    return size >= sizeof(*elf) && CompareMem(elf->e_ident, ELFMAG, SELFMAG) == 0 &&
           elf->e_ident[EI_CLASS] == ELFCLASS64 && elf->e_machine == EM_X86_64 &&
           elf->e_phentsize == sizeof(Elf64_Phdr) && elf->e_phoff <= size &&
           elf->e_phnum * sizeof(Elf64_Phdr) <= size - elf->e_phoff;
}

/* Physical extent of the loadable segments; FALSE if a segment is malformed. */
static BOOLEAN extent(const Elf64_Ehdr *elf, UINT64 size, UINT64 *low, UINT64 *high)
{
    *low = ~0ULL;
    *high = 0;
    for (UINTN i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *segment = program_header(elf, i);

        if (segment->p_offset > size || segment->p_filesz > size - segment->p_offset) {
            return FALSE;
        }
        if (segment->p_type != PT_LOAD) {
            continue;
        }
        if (segment->p_filesz > segment->p_memsz || segment->p_memsz > MAX_IMAGE_BYTES ||
            segment->p_paddr > 0xffffffffu) {
            return FALSE;
        }
        *low = segment->p_paddr < *low ? segment->p_paddr : *low;
        *high = segment->p_paddr + segment->p_memsz > *high ? segment->p_paddr + segment->p_memsz
                                                            : *high;
    }
    return *low < *high && *low % IMAGE_ALIGN == 0 && *high - *low <= MAX_IMAGE_BYTES;
}

static UINT64 find_entry(const Elf64_Ehdr *elf)
{
    for (UINTN i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *segment = program_header(elf, i);
        UINT64 at = 0;

        while (segment->p_type == PT_NOTE && at < segment->p_filesz &&
               segment->p_filesz - at >= sizeof(Elf64_Nhdr)) {
            const struct entry_note *note =
                (const void *)((const UINT8 *)elf + segment->p_offset + at);

            if (segment->p_filesz - at >= sizeof(*note) && note->type == NOTE_ENTRY64 &&
                note->name_size == sizeof(note->name) && note->data_size == sizeof(note->entry) &&
                CompareMem(note->name, "Ballast", sizeof(note->name)) == 0) {
                return note->entry;
            }
            at += sizeof(Elf64_Nhdr) + (((UINT64)note->name_size + 3) & ~3ULL) +
                  (((UINT64)note->data_size + 3) & ~3ULL);
        }
    }
    return 0;
}

/* Code type, since some firmware maps data pages as not executable. */
static EFI_STATUS place(UINT64 linked, UINT64 bytes, EFI_PHYSICAL_ADDRESS *base)
{
    *base = linked;
    EFI_STATUS status =
        BS->AllocatePages(AllocateAddress, EfiLoaderCode, EFI_SIZE_TO_PAGES(bytes), base);

    if (EFI_ERROR(status)) {
        status = loader_alloc(EfiLoaderCode, bytes + IMAGE_ALIGN, base);
        *base = (*base + IMAGE_ALIGN - 1) & ~(EFI_PHYSICAL_ADDRESS)(IMAGE_ALIGN - 1);
    }
    return status;
}

EFI_STATUS elf_load(const struct loader_file *file, struct loader_kernel *kernel)
{
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)file->base;
    UINT64 low, high;

    if (!header_ok(elf, file->size) || !extent(elf, file->size, &low, &high)) {
        return loader_error(EFI_LOAD_ERROR, NAME L" is no x86-64 ELF image of ours, or truncated");
    }
    UINT64 entry = find_entry(elf);

    if (entry < low || entry >= high) {
        return loader_error(EFI_LOAD_ERROR, NAME L" has no 64-bit entry note");
    }
    EFI_STATUS status = place(low, high - low, &kernel->base);

    if (EFI_ERROR(status)) {
        return loader_error(status, NAME L": memory below 4 GiB");
    }
    ZeroMem((void *)kernel->base, high - low);
    for (UINTN i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *segment = program_header(elf, i);

        if (segment->p_type == PT_LOAD) {
            CopyMem((void *)(kernel->base + segment->p_paddr - low),
                    (const UINT8 *)elf + segment->p_offset, segment->p_filesz);
        }
    }
    kernel->entry = kernel->base + entry - low;
    return EFI_SUCCESS;
}
