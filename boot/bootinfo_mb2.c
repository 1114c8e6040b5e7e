/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reader of Multiboot2 boot information (Multiboot2 Specification, "Boot information format"): a
 * total size, then tags of type, size and payload, each padded to 8 bytes, closed by an end tag.
 * Every payload is checked against its tag's size, every tag against the block's.
 */
#include "boot/bootinfo_internal.h"

#include "kernel/lib/string.h"

#define MB2_MAX_BYTES MIB(16)

enum mb2_tag_type {
    MB2_END = 0,
    MB2_CMDLINE = 1,
    MB2_LOADER = 2,
    MB2_MODULE = 3,
    MB2_MMAP = 6,
    MB2_FRAMEBUFFER = 8,
    MB2_EFI32 = 11,
    MB2_EFI64 = 12,
    MB2_RSDP_OLD = 14,
    MB2_RSDP_NEW = 15,
    MB2_EFI_MMAP = 17
};

struct mb2_header {
    uint32_t total_size;
    uint32_t reserved;
};

struct mb2_tag {
    uint32_t type;
    uint32_t size; /* with this header, without padding */
};

struct mb2_module {
    struct mb2_tag tag;
    uint32_t start;
    uint32_t end; /* exclusive */
    char text[];
};

struct mb2_mmap {
    struct mb2_tag tag;
    uint32_t entry_size;
    uint32_t entry_version;
};

struct mb2_mmap_entry {
    uint64_t base;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

struct mb2_framebuffer {
    struct mb2_tag tag;
    uint64_t pa;
    uint32_t pitch;
    uint32_t width;
    uint32_t height;
    uint8_t bpp;
    uint8_t type; /* 0 indexed, 1 RGB, 2 EGA text */
    uint16_t reserved;
};

struct mb2_rgb {
    uint8_t red_pos, red_size, green_pos, green_size, blue_pos, blue_size;
};

_Static_assert(sizeof(struct mb2_header) == 8, "Multiboot2 header");
_Static_assert(sizeof(struct mb2_module) == 16, "Multiboot2 module tag");
_Static_assert(sizeof(struct mb2_mmap) == 16, "Multiboot2 memory map tag");
_Static_assert(sizeof(struct mb2_mmap_entry) == 24, "Multiboot2 memory map entry");
_Static_assert(sizeof(struct mb2_framebuffer) == 32, "Multiboot2 framebuffer tag");

static enum hv_err read_module(const struct mb2_tag *tag, struct boot_info *out)
{
    const struct mb2_module *module = (const struct mb2_module *)tag;

    if (tag->size <= sizeof(*module)) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: a module tag is too short");
    }
    if (module->end < module->start) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: a module ends before it starts");
    }
    return bootinfo_add_module(out, module->start, module->end - module->start, module->text,
                               tag->size - sizeof(*module));
}

static enum hv_err read_mmap(const struct mb2_tag *tag, struct boot_info *out)
{
    const struct mb2_mmap *map = (const struct mb2_mmap *)tag;

    if (tag->size < sizeof(*map) || map->entry_size < sizeof(struct mb2_mmap_entry) ||
        map->entry_size % 8 != 0) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: the memory map tag is malformed");
    }
    uint32_t left = tag->size - (uint32_t)sizeof(*map);
    const uint8_t *at = (const uint8_t *)(map + 1);

    for (; left >= map->entry_size; left -= map->entry_size, at += map->entry_size) {
        const struct mb2_mmap_entry *entry = (const struct mb2_mmap_entry *)at;
        enum hv_err err = bootinfo_add_range(out, entry->base, entry->size, entry->type);

        if (err != HV_OK) {
            return err;
        }
    }
    return HV_OK;
}

/* A framebuffer that we cannot use (indexed colours, absurd geometry) is simply not there. */
static void read_framebuffer(const struct mb2_tag *tag, struct boot_info *out)
{
    const struct mb2_framebuffer *fb = (const struct mb2_framebuffer *)tag;
    const struct mb2_rgb *rgb = (const struct mb2_rgb *)(fb + 1);
    struct boot_framebuffer result = {.kind = BOOT_FB_NONE};

    if (tag->size < sizeof(*fb) || fb->width == 0 || fb->height == 0 || fb->width > 16384 ||
        fb->height > 16384 || fb->pa + (uint64_t)fb->pitch * fb->height < fb->pa) {
        return;
    }
    if (fb->type == 2 && fb->pitch >= fb->width * 2) {
        result.kind = BOOT_FB_TEXT;
    } else if (fb->type == 1 && tag->size >= sizeof(*fb) + sizeof(*rgb) && fb->bpp >= 15 &&
               fb->bpp <= 32 && fb->pitch >= fb->width * ((fb->bpp + 7u) / 8)) {
        if (rgb->red_pos + rgb->red_size > 32 || rgb->green_pos + rgb->green_size > 32 ||
            rgb->blue_pos + rgb->blue_size > 32) {
            return;
        }
        result.kind = BOOT_FB_RGB;
        result.red_pos = rgb->red_pos;
        result.red_size = rgb->red_size;
        result.green_pos = rgb->green_pos;
        result.green_size = rgb->green_size;
        result.blue_pos = rgb->blue_pos;
        result.blue_size = rgb->blue_size;
    } else {
        return;
    }
    result.pa = fb->pa;
    result.pitch = fb->pitch;
    result.width = fb->width;
    result.height = fb->height;
    result.bpp = fb->bpp;
    out->fb = result;
}

static void read_rsdp(const struct mb2_tag *tag, struct boot_info *out)
{
    uint32_t size = MIN(tag->size - (uint32_t)sizeof(*tag), (uint32_t)BOOT_RSDP_MAX);

    if (size > out->rsdp_size) {
        memcpy(out->rsdp, tag + 1, size);
        out->rsdp_size = size;
    }
}

static enum hv_err read_tag(const struct mb2_tag *tag, struct boot_info *out)
{
    const char *text = (const char *)(tag + 1);
    size_t limit = tag->size - sizeof(*tag);

    switch (tag->type) {
    case MB2_CMDLINE:
        return bootinfo_copy_string(out, out->cmdline, sizeof(out->cmdline), text, limit);
    case MB2_LOADER:
        return bootinfo_copy_string(out, out->loader, sizeof(out->loader), text, limit);
    case MB2_MODULE:
        return read_module(tag, out);
    case MB2_MMAP:
        return read_mmap(tag, out);
    case MB2_FRAMEBUFFER:
        read_framebuffer(tag, out);
        return HV_OK;
    case MB2_EFI32:
    case MB2_EFI64:
    case MB2_EFI_MMAP:
        out->firmware = BOOT_FIRMWARE_UEFI;
        return HV_OK;
    case MB2_RSDP_OLD:
    case MB2_RSDP_NEW:
        read_rsdp(tag, out);
        return HV_OK;
    case BOOT_TAG_SECURE_BOOT:
        if (limit >= sizeof(uint32_t)) {
            out->secure_boot = *(const uint32_t *)text != 0 ? BOOT_SECURE_ON : BOOT_SECURE_OFF;
        }
        return HV_OK;
    default:
        return HV_OK;
    }
}

enum hv_err bootinfo_read_mb2(uint64_t info_pa, const struct bootinfo_env *env,
                              struct boot_info *out)
{
    const struct mb2_header *header = info_pa % 8 == 0 ? env->map(info_pa, sizeof(*header)) : NULL;

    if (header == NULL) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: the information block is out of reach");
    }
    uint32_t total = header->total_size;

    if (total < sizeof(*header) + sizeof(struct mb2_tag) || total > MB2_MAX_BYTES) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: the information block's size is absurd");
    }
    const uint8_t *block = env->map(info_pa, total);

    if (block == NULL) {
        return bootinfo_fail(out, HV_EINVAL, "Multiboot2: the information block is out of reach");
    }
    uint32_t at = sizeof(*header);

    while (total - at >= sizeof(struct mb2_tag)) {
        const struct mb2_tag *tag = (const struct mb2_tag *)(block + at);

        if (tag->type == MB2_END) {
            return HV_OK;
        }
        if (tag->size < sizeof(*tag) || tag->size > total - at) {
            return bootinfo_fail(out, HV_EINVAL, "Multiboot2: a tag's size is malformed");
        }
        enum hv_err err = read_tag(tag, out);

        if (err != HV_OK) {
            return err;
        }
        if (ALIGN_UP(tag->size, 8) > total - at) {
            break;
        }
        at += ALIGN_UP(tag->size, 8);
    }
    return bootinfo_fail(out, HV_EINVAL, "Multiboot2: the information block has no end tag");
}
