/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UEFI loader: reads Ballast and its modules from the EFI system partition it was started from, and
 * enters the kernel the way GRUB would, with a Multiboot2 information block, but in 64-bit mode.
 */
#include "boot/efi/loader.h"

#define MULTIBOOT2_LOADED 0x36d76289u
#define MESSAGE_MICROSECONDS 5000000u

typedef void (*kernel_entry_t)(UINT64 magic, UINT64 info_pa) __attribute__((sysv_abi, noreturn));

EFI_STATUS loader_error(EFI_STATUS status, const CHAR16 *what)
{
    Print(L"Ballast: %s: %r\r\n", what, status);
    return status;
}

EFI_STATUS loader_alloc(EFI_MEMORY_TYPE type, UINT64 bytes, EFI_PHYSICAL_ADDRESS *base)
{
    UINTN pages = bytes == 0 ? 1 : EFI_SIZE_TO_PAGES(bytes);

    *base = 0xffffffffu;
    return BS->AllocatePages(AllocateMaxAddress, type, pages, base);
}

static EFI_STATUS load_and_enter(EFI_HANDLE image)
{
    static struct loader_files files;
    struct loader_kernel kernel;
    struct loader_info info;
    EFI_STATUS status = files_read(image, &files);

    if (EFI_ERROR(status)) {
        return status;
    }
    status = elf_load(&files.kernel, &kernel);
    if (EFI_ERROR(status)) {
        return status;
    }
    status = info_begin(&files, &info);
    if (EFI_ERROR(status)) {
        return status;
    }
    status = info_exit_boot_services(image, &info);
    if (EFI_ERROR(status)) {
        return status;
    }
    ((kernel_entry_t)kernel.entry)(MULTIBOOT2_LOADED, (UINT64)info.block);
}

EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    InitializeLib(image, system);
    /* The firmware resets a machine whose boot program says nothing for five minutes. */
    BS->SetWatchdogTimer(0, 0, 0, NULL);

    EFI_STATUS status = load_and_enter(image);

    BS->Stall(MESSAGE_MICROSECONDS);
    return status;
}
