/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the boot loader told us, in one form. bootinfo.c is the only reader of loader data; the data
 * is hostile until it has passed here. Everything is copied: after bootinfo_parse only the modules'
 * contents remain where the loader put them. Callers: kernel/main.c, tests/host.
 */
#pragma once

#include "kernel/lib/err.h"

#define BOOT_MAGIC_MULTIBOOT2 0x36d76289u
#define BOOT_MAGIC_PVH 0x336ec578u

#define BOOT_MAX_RANGES 512
#define BOOT_MAX_MODULES 512
#define BOOT_CMDLINE_MAX 2048
#define BOOT_MODULE_NAME_MAX 64
#define BOOT_MODULE_ARGS_MAX 512
#define BOOT_RSDP_MAX 36

/* Multiboot2 tag of our own UEFI loader: one u32, 0 = Secure Boot off, 1 = on. */
#define BOOT_TAG_SECURE_BOOT 0x4c4c4142u

/* In ascending order of caution: where the loader's ranges overlap, the higher one wins. */
enum boot_range_type {
    BOOT_RANGE_USABLE,
    BOOT_RANGE_ACPI, /* reclaimable once the tables are no longer needed */
    BOOT_RANGE_NVS,
    BOOT_RANGE_RESERVED,
    BOOT_RANGE_BAD
};

struct boot_range {
    uint64_t base; /* physical address, bytes */
    uint64_t size; /* bytes, never 0 */
    enum boot_range_type type;
};

/*
 * Modules out of a PVH archive are only 4-byte aligned and share pages with their neighbours; others
 * start on a page.
 */
struct boot_module {
    uint64_t base; /* physical address, bytes */
    uint64_t size; /* bytes, may be 0 */
    char name[BOOT_MODULE_NAME_MAX];
    char args[BOOT_MODULE_ARGS_MAX];
};

enum boot_fb_kind { BOOT_FB_NONE, BOOT_FB_RGB, BOOT_FB_TEXT };

/* For BOOT_FB_TEXT, width and height count characters and `pa` is an EGA text buffer. */
struct boot_framebuffer {
    enum boot_fb_kind kind;
    uint64_t pa;
    uint32_t pitch; /* bytes from one line to the next */
    uint32_t width, height;
    uint8_t bpp;                                                           /* bits per pixel */
    uint8_t red_pos, red_size, green_pos, green_size, blue_pos, blue_size; /* bits */
};

enum boot_firmware { BOOT_FIRMWARE_BIOS, BOOT_FIRMWARE_UEFI };
enum boot_secure { BOOT_SECURE_UNKNOWN, BOOT_SECURE_OFF, BOOT_SECURE_ON };

struct boot_info {
    const char *error; /* static text, why parsing failed; NULL after success */
    char loader[64];
    char cmdline[BOOT_CMDLINE_MAX];
    enum boot_firmware firmware;
    enum boot_secure secure_boot;
    uint64_t rsdp_pa;            /* 0 if unknown */
    uint8_t rsdp[BOOT_RSDP_MAX]; /* the loader's copy ... */
    uint32_t rsdp_size;          /* ... and its length; 0: no copy. Checksum not yet verified */
    struct boot_framebuffer fb;
    uint32_t nr_ranges; /* sorted, disjoint; neighbours of one type are merged */
    struct boot_range ranges[BOOT_MAX_RANGES];
    uint32_t nr_modules;
    struct boot_module modules[BOOT_MAX_MODULES];
};

/* How the parser reads physical memory: `size` bytes at `pa`, or NULL if they are not readable. */
struct bootinfo_env {
    const void *(*map)(uint64_t pa, uint64_t size);
};

/*
 * Fill `out` from the information block at `info_pa` in the format that `magic` names. On failure
 * (HV_EINVAL: malformed or truncated; HV_ENOTSUP: unknown protocol; HV_ERANGE: too many or too long)
 * `out->error` says why, and the rest of `out` is whatever had been read. Boot processor only.
 */
enum hv_err __must_check bootinfo_parse(uint64_t magic, uint64_t info_pa,
                                        const struct bootinfo_env *env, struct boot_info *out);

/* The module called `name`, or NULL. */
const struct boot_module *bootinfo_module(const struct boot_info *info, const char *name);
