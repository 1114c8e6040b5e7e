/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Multiboot2 information block that the kernel's parser (boot/bootinfo_mb2.c) reads: made from
 * what the firmware says, so that the kernel has one format to understand.
 */
#include "boot/efi/loader.h"

#define TAG_CMDLINE 1u
#define TAG_LOADER 2u
#define TAG_MODULE 3u
#define TAG_MMAP 6u
#define TAG_FRAMEBUFFER 8u
#define TAG_EFI64 12u
#define TAG_RSDP_OLD 14u
#define TAG_RSDP_NEW 15u
#define TAG_SECURE_BOOT 0x4c4c4142u /* ours: boot/bootinfo.h, BOOT_TAG_SECURE_BOOT */

#define INFO_BYTES 0x80000u
#define MAP_BYTES 0x40000u
#define EXIT_ATTEMPTS 8u

struct tag {
    UINT32 type, size;
};

struct map_entry {
    UINT64 base, size;
    UINT32 type, reserved;
};

struct framebuffer {
    UINT64 pa;
    UINT32 pitch, width, height;
    UINT8 bpp, type;
    UINT16 reserved;
    UINT8 red_pos, red_size, green_pos, green_size, blue_pos, blue_size;
} __attribute__((packed));

static EFI_MEMORY_DESCRIPTOR *map; /* MAP_BYTES */

/* Append to the tag that is open. The block is sized for the worst case: no room is a bug. */
static void put(struct loader_info *info, const void *data, UINT32 size)
{
    if (size <= info->room - info->used) {
        CopyMem(info->block + info->used, data, size);
        info->used += size;
    }
}

static UINT32 tag_open(struct loader_info *info, UINT32 type)
{
    struct tag tag = {.type = type};
    UINT32 at = info->used;

    put(info, &tag, sizeof(tag));
    return at;
}

static void tag_close(struct loader_info *info, UINT32 at)
{
    ((struct tag *)(info->block + at))->size = info->used - at;
    info->used = (info->used + 7) & ~7u;
}

static void put_tag(struct loader_info *info, UINT32 type, const void *data, UINTN size)
{
    UINT32 at = tag_open(info, type);

    put(info, data, (UINT32)size);
    tag_close(info, at);
}

static void put_module(struct loader_info *info, const struct loader_file *file)
{
    UINT32 bounds[2] = {(UINT32)file->base, (UINT32)(file->base + file->size)};
    UINT32 at = tag_open(info, TAG_MODULE);

    put(info, bounds, sizeof(bounds));
    put(info, file->name, (UINT32)strlena((const CHAR8 *)file->name) + 1);
    tag_close(info, at);
}

static void mask_channel(UINT32 mask, UINT8 *pos, UINT8 *size)
{
    *pos = mask == 0 ? 0 : (UINT8)__builtin_ctz(mask);
    *size = (UINT8)__builtin_popcount(mask);
}

static void put_framebuffer(struct loader_info *info)
{
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop;
    struct framebuffer fb = {.bpp = 32, .type = 1, .red_size = 8, .green_size = 8, .blue_size = 8};

    if (EFI_ERROR(LibLocateProtocol(&gEfiGraphicsOutputProtocolGuid, (void **)&gop)) ||
        gop->Mode == NULL || gop->Mode->Info == NULL) {
        return;
    }
    const EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode = gop->Mode->Info;

    switch (mode->PixelFormat) {
    case PixelRedGreenBlueReserved8BitPerColor:
        fb.green_pos = 8;
        fb.blue_pos = 16;
        break;
    case PixelBlueGreenRedReserved8BitPerColor:
        fb.green_pos = 8;
        fb.red_pos = 16;
        break;
    case PixelBitMask:
        mask_channel(mode->PixelInformation.RedMask, &fb.red_pos, &fb.red_size);
        mask_channel(mode->PixelInformation.GreenMask, &fb.green_pos, &fb.green_size);
        mask_channel(mode->PixelInformation.BlueMask, &fb.blue_pos, &fb.blue_size);
        break;
    default: /* reachable only through boot services */
        return;
    }
    fb.pa = gop->Mode->FrameBufferBase;
    fb.pitch = mode->PixelsPerScanLine * 4;
    fb.width = mode->HorizontalResolution;
    fb.height = mode->VerticalResolution;
    put_tag(info, TAG_FRAMEBUFFER, &fb, sizeof(fb));
}

static void put_rsdp(struct loader_info *info)
{
    static EFI_GUID acpi2 = ACPI_20_TABLE_GUID;
    static EFI_GUID acpi1 = ACPI_TABLE_GUID;
    void *rsdp;

    if (!EFI_ERROR(LibGetSystemConfigurationTable(&acpi2, &rsdp))) {
        put_tag(info, TAG_RSDP_NEW, rsdp, 36);
    } else if (!EFI_ERROR(LibGetSystemConfigurationTable(&acpi1, &rsdp))) {
        put_tag(info, TAG_RSDP_OLD, rsdp, 20);
    }
}

static void put_secure_boot(struct loader_info *info)
{
    static CHAR16 name[] = L"SecureBoot";
    UINT8 value = 0;
    UINTN size = sizeof(value);

    RT->GetVariable(name, &gEfiGlobalVariableGuid, NULL, &size, &value);
    UINT32 on = value == 1;
    put_tag(info, TAG_SECURE_BOOT, &on, sizeof(on));
}

EFI_STATUS info_begin(const struct loader_files *files, struct loader_info *info)
{
    static const char loader[] = "Ballast UEFI loader";
    EFI_PHYSICAL_ADDRESS base;
    EFI_STATUS status = loader_alloc(EfiLoaderData, INFO_BYTES, &base);

    if (!EFI_ERROR(status)) {
        info->block = (UINT8 *)base;
        status = loader_alloc(EfiLoaderData, MAP_BYTES, &base);
        map = (EFI_MEMORY_DESCRIPTOR *)base;
    }
    if (EFI_ERROR(status)) {
        return loader_error(status, L"memory for the boot information");
    }
    ZeroMem(info->block, INFO_BYTES);
    info->room = INFO_BYTES;
    info->used = 8; /* total size and a reserved word */
    put_tag(info, TAG_LOADER, loader, sizeof(loader));
    put_tag(info, TAG_CMDLINE, files->cmdline, strlena((const CHAR8 *)files->cmdline) + 1);
    for (UINTN i = 0; i < files->nr_modules; i++) {
        put_module(info, &files->modules[i]);
    }
    put_framebuffer(info);
    put_rsdp(info);
    put_secure_boot(info);
    put_tag(info, TAG_EFI64, &ST, sizeof(UINT64));
    return EFI_SUCCESS;
}

/* Numbering of BIOS E820. Memory of the loader and of boot services is free once we have left. */
static UINT32 map_type(UINT32 efi_type)
{
    switch (efi_type) {
    case EfiLoaderCode:
    case EfiLoaderData:
    case EfiBootServicesCode:
    case EfiBootServicesData:
    case EfiConventionalMemory:
        return 1;
    case EfiACPIReclaimMemory:
        return 3;
    case EfiACPIMemoryNVS:
        return 4;
    case EfiUnusableMemory:
        return 5;
    default:
        return 2;
    }
}

static void put_map(struct loader_info *info, UINTN map_size, UINTN step)
{
    UINT32 header[2] = {sizeof(struct map_entry), 0};
    UINT32 at = tag_open(info, TAG_MMAP);
    struct map_entry *last = NULL;

    put(info, header, sizeof(header));
    for (UINTN offset = 0; offset + step <= map_size; offset += step) {
        const EFI_MEMORY_DESCRIPTOR *range = (const void *)((const UINT8 *)map + offset);
        struct map_entry entry = {.base = range->PhysicalStart,
                                  .size = range->NumberOfPages * EFI_PAGE_SIZE,
                                  .type = map_type(range->Type)};

        if (last != NULL && last->type == entry.type && last->base + last->size == entry.base) {
            last->size += entry.size;
            continue;
        }
        last = (struct map_entry *)(info->block + info->used);
        put(info, &entry, sizeof(entry));
    }
    tag_close(info, at);
}

EFI_STATUS info_exit_boot_services(EFI_HANDLE image, struct loader_info *info)
{
    UINTN map_size = 0, key, step = 0;
    UINT32 version;
    EFI_STATUS status = EFI_NOT_READY;

    /* A timer event between the two calls may change the map: the key is then stale. */
    for (unsigned attempt = 0; attempt < EXIT_ATTEMPTS; attempt++) {
        map_size = MAP_BYTES;
        status = BS->GetMemoryMap(&map_size, map, &key, &step, &version);
        if (EFI_ERROR(status)) {
            return loader_error(status, L"the memory map");
        }
        status = BS->ExitBootServices(image, key);
        if (!EFI_ERROR(status)) {
            break;
        }
    }
    if (EFI_ERROR(status)) {
        return loader_error(status, L"leaving boot services");
    }
    put_map(info, map_size, step);
    put_tag(info, 0, NULL, 0);
    ((UINT32 *)info->block)[0] = info->used;
    return EFI_SUCCESS;
}
