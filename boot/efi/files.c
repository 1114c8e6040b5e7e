/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading the files of \ballast into memory. */
#include "boot/efi/loader.h"

#define FOLDER L"\\ballast"
#define MAX_FILE_BYTES 0xc0000000u

/* Room for a directory entry with the longest FAT name. */
static union {
    EFI_FILE_INFO info;
    UINT8 bytes[sizeof(EFI_FILE_INFO) + 2 * 256];
} entry;

static EFI_STATUS open_folder(EFI_HANDLE image, EFI_FILE_HANDLE *folder)
{
    EFI_LOADED_IMAGE *loaded;
    EFI_FILE_IO_INTERFACE *volume;
    EFI_FILE_HANDLE root;
    EFI_STATUS status = BS->HandleProtocol(image, &gEfiLoadedImageProtocolGuid, (void **)&loaded);

    if (EFI_ERROR(status)) {
        return loader_error(status, L"the loader's own image");
    }
    status = BS->HandleProtocol(loaded->DeviceHandle, &gEfiSimpleFileSystemProtocolGuid,
                                (void **)&volume);
    if (!EFI_ERROR(status)) {
        status = volume->OpenVolume(volume, &root);
    }
    if (EFI_ERROR(status)) {
        return loader_error(status, L"the file system the loader came from");
    }
    status = root->Open(root, folder, FOLDER, EFI_FILE_MODE_READ, 0);
    root->Close(root);
    if (EFI_ERROR(status)) {
        return loader_error(status, FOLDER);
    }
    return EFI_SUCCESS;
}

static EFI_STATUS read_file(EFI_FILE_HANDLE folder, CHAR16 *name, UINT64 size,
                            struct loader_file *file)
{
    EFI_FILE_HANDLE handle;

    if (size > MAX_FILE_BYTES) {
        return loader_error(EFI_BAD_BUFFER_SIZE, name);
    }
    EFI_STATUS status = loader_alloc(EfiLoaderData, size, &file->base);

    if (EFI_ERROR(status)) {
        return loader_error(status, name);
    }
    status = folder->Open(folder, &handle, name, EFI_FILE_MODE_READ, 0);
    if (EFI_ERROR(status)) {
        return loader_error(status, name);
    }
    file->size = 0;
    while (file->size < size) {
        UINTN chunk = size - file->size;

        status = handle->Read(handle, &chunk, (void *)(file->base + file->size));
        if (!EFI_ERROR(status) && chunk == 0) {
            status = EFI_END_OF_FILE;
        }
        if (EFI_ERROR(status)) {
            handle->Close(handle);
            return loader_error(status, name);
        }
        file->size += chunk;
    }
    handle->Close(handle);
    return EFI_SUCCESS;
}

static EFI_STATUS name_to_ascii(CHAR16 *from, char *to, UINTN room)
{
    UINTN i = 0;

    for (; from[i] != 0; i++) {
        if (i + 1 >= room || from[i] <= ' ' || from[i] > '~') {
            return loader_error(EFI_INVALID_PARAMETER, from);
        }
        to[i] = (char)from[i];
    }
    to[i] = '\0';
    return EFI_SUCCESS;
}

/* The first line of the file, which must fit. */
static EFI_STATUS take_cmdline(const struct loader_file *file, char *cmdline)
{
    const char *text = (const char *)file->base;
    UINTN len = 0;

    while (len < file->size && text[len] != '\r' && text[len] != '\n' && text[len] != '\0') {
        if (len + 1 >= LOADER_CMDLINE_MAX) {
            return loader_error(EFI_BAD_BUFFER_SIZE, L"cmdline.txt");
        }
        cmdline[len] = text[len];
        len++;
    }
    cmdline[len] = '\0';
    return EFI_SUCCESS;
}

static EFI_STATUS take_entry(EFI_FILE_HANDLE folder, struct loader_files *files)
{
    CHAR16 *name = entry.info.FileName;
    struct loader_file file;
    EFI_STATUS status = name_to_ascii(name, file.name, sizeof(file.name));

    if (!EFI_ERROR(status)) {
        status = read_file(folder, name, entry.info.FileSize, &file);
    }
    if (EFI_ERROR(status)) {
        return status;
    }
    if (StriCmp(name, L"ballast.elf") == 0) {
        files->kernel = file;
        return EFI_SUCCESS;
    }
    if (StriCmp(name, L"cmdline.txt") == 0) {
        return take_cmdline(&file, files->cmdline);
    }
    if (files->nr_modules == LOADER_MAX_MODULES) {
        return loader_error(EFI_OUT_OF_RESOURCES, L"too many files in " FOLDER);
    }
    files->modules[files->nr_modules++] = file;
    return EFI_SUCCESS;
}

EFI_STATUS files_read(EFI_HANDLE image, struct loader_files *files)
{
    EFI_FILE_HANDLE folder;
    EFI_STATUS status = open_folder(image, &folder);

    if (EFI_ERROR(status)) {
        return status;
    }
    for (;;) {
        UINTN size = sizeof(entry);

        status = folder->Read(folder, &size, &entry);
        if (EFI_ERROR(status)) {
            return loader_error(status, FOLDER);
        }
        if (size == 0) {
            break;
        }
        if ((entry.info.Attribute & EFI_FILE_DIRECTORY) == 0) {
            status = take_entry(folder, files);
            if (EFI_ERROR(status)) {
                return status;
            }
        }
    }
    folder->Close(folder);
    if (files->kernel.base == 0) {
        return loader_error(EFI_NOT_FOUND, FOLDER L"\\ballast.elf");
    }
    return EFI_SUCCESS;
}
