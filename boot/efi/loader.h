/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parts of the UEFI loader. All of it runs once, on one processor, under boot services unless a
 * function says otherwise. Memory that the kernel is to see lies below 4 GiB, where its early tables
 * reach, and is never freed: on failure the machine goes back to the firmware's menu.
 */
#pragma once

#include <efi.h>
#include <efilib.h>

#define LOADER_MAX_MODULES 256
#define LOADER_CMDLINE_MAX 2048

struct loader_file {
    char name[64]; /* ASCII */
    EFI_PHYSICAL_ADDRESS base;
    UINT64 size; /* bytes */
};

struct loader_files {
    struct loader_file kernel; /* base 0: not found */
    char cmdline[LOADER_CMDLINE_MAX];
    UINTN nr_modules;
    struct loader_file modules[LOADER_MAX_MODULES];
};

struct loader_kernel {
    EFI_PHYSICAL_ADDRESS base;  /* where the image was put */
    EFI_PHYSICAL_ADDRESS entry; /* its 64-bit entry */
};

/* A Multiboot2 information block under construction. */
struct loader_info {
    UINT8 *block;
    UINT32 used; /* bytes */
    UINT32 room; /* bytes */
};

/* Print "Ballast: WHAT: reason" and return `status`. */
EFI_STATUS loader_error(EFI_STATUS status, const CHAR16 *what);

/* Whole pages below 4 GiB of the given type; `*base` receives their address. */
EFI_STATUS loader_alloc(EFI_MEMORY_TYPE type, UINT64 bytes, EFI_PHYSICAL_ADDRESS *base);

/*
 * Read every file in \ballast of the volume that `image` came from. ballast.elf is the kernel,
 * cmdline.txt its command line, everything else a module under its file name.
 */
EFI_STATUS files_read(EFI_HANDLE image, struct loader_files *files);

/* Put the kernel's segments in place: where linked if that is free, else at another 2 MiB. */
EFI_STATUS elf_load(const struct loader_file *file, struct loader_kernel *kernel);

/* Begin the block with everything but the memory map. */
EFI_STATUS info_begin(const struct loader_files *files, struct loader_info *info);

/*
 * Take the memory map, leave boot services, and close the block with the map. After success there
 * are no boot services any more, and nothing may be printed.
 */
EFI_STATUS info_exit_boot_services(EFI_HANDLE image, struct loader_info *info);
