/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reader of the PVH start information that QEMU's -kernel passes (Xen, "x86/HVM direct boot ABI").
 * There is one module at most, the -initrd file; if it is a cpio archive (newc, uncompressed), the
 * regular files in it are the boot modules, named as in the archive.
 */
#include "boot/bootinfo_internal.h"

#include "kernel/lib/string.h"

struct pvh_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t nr_modules;
    uint64_t modules_pa;
    uint64_t cmdline_pa;
    uint64_t rsdp_pa;
    uint64_t memmap_pa; /* from version 1 on */
    uint32_t nr_memmap;
    uint32_t reserved;
};

struct pvh_module {
    uint64_t pa;
    uint64_t size;
    uint64_t cmdline_pa;
    uint64_t reserved;
};

struct pvh_range {
    uint64_t base;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

_Static_assert(sizeof(struct pvh_start_info) == 56, "PVH start information");
_Static_assert(sizeof(struct pvh_module) == 32, "PVH module");
_Static_assert(sizeof(struct pvh_range) == 24, "PVH memory range");

/* cpio "new ASCII" header: six characters of magic, then 13 fields of 8 hexadecimal digits. */
#define CPIO_HEADER_SIZE 110
#define CPIO_FIELD(n) (6 + 8 * (n))
#define CPIO_MODE CPIO_FIELD(1)
#define CPIO_FILESIZE CPIO_FIELD(6)
#define CPIO_NAMESIZE CPIO_FIELD(11)
#define CPIO_TYPE_MASK 0170000u
#define CPIO_REGULAR 0100000u

static bool cpio_is_header(const char *text)
{
    return memcmp(text, "070701", 6) == 0 || memcmp(text, "070702", 6) == 0;
}

static bool cpio_number(const char *digits, uint32_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < 8; i++) {
        char c = digits[i];
        uint32_t digit;

        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else {
            return false;
        }
        *value = *value << 4 | digit;
    }
    return true;
}

static enum hv_err add_member(struct boot_info *out, const char *name, uint64_t pa, uint32_t size)
{
    if (strncmp(name, "./", 2) == 0) {
        name += 2;
    }
    /* A space would cut the name: module texts are "name arguments". */
    for (const char *c = name; *c != '\0'; c++) {
        if (*c == ' ' || *c == '\t') {
            return bootinfo_fail(out, HV_EINVAL, "cpio archive: a file's name contains a blank");
        }
    }
    return bootinfo_add_module(out, pa, size, name, strlen(name) + 1);
}

static enum hv_err read_archive(struct boot_info *out, const char *data, uint64_t pa, uint64_t size)
{
    static const char truncated[] = "cpio archive: truncated";
    uint64_t at = 0;

    while (size - at >= CPIO_HEADER_SIZE) {
        const char *header = data + at;
        uint32_t mode, file_size, name_size;

        if (!cpio_is_header(header) || !cpio_number(header + CPIO_MODE, &mode) ||
            !cpio_number(header + CPIO_FILESIZE, &file_size) ||
            !cpio_number(header + CPIO_NAMESIZE, &name_size)) {
            return bootinfo_fail(out, HV_EINVAL, "cpio archive: a malformed header");
        }
        uint64_t name_at = at + CPIO_HEADER_SIZE;
        uint64_t file_at = ALIGN_UP(name_at + name_size, 4);
        const char *name = data + name_at;

        if (name_size == 0 || name_size > size - name_at || file_at > size ||
            file_size > size - file_at) {
            return bootinfo_fail(out, HV_EINVAL, truncated);
        }
        if (name[name_size - 1] != '\0') {
            return bootinfo_fail(out, HV_EINVAL, "cpio archive: a file's name has no end");
        }
        if (strcmp(name, "TRAILER!!!") == 0) {
            return HV_OK;
        }
        if ((mode & CPIO_TYPE_MASK) == CPIO_REGULAR) {
            enum hv_err err = add_member(out, name, pa + file_at, file_size);

            if (err != HV_OK) {
                return err;
            }
        }
        at = MIN(ALIGN_UP(file_at + file_size, 4), size);
    }
    return bootinfo_fail(out, HV_EINVAL, truncated);
}

/* Tables may lie at any address; copies are aligned. */
static bool copy_struct(const struct bootinfo_env *env, uint64_t pa, void *to, size_t size)
{
    const void *from = env->map(pa, size);

    if (from == NULL) {
        return false;
    }
    memcpy(to, from, size);
    return true;
}

static enum hv_err read_modules(const struct pvh_start_info *info, const struct bootinfo_env *env,
                                struct boot_info *out)
{
    static char text[BOOT_MODULE_NAME_MAX + BOOT_MODULE_ARGS_MAX];

    for (uint32_t i = 0; i < info->nr_modules; i++) {
        struct pvh_module module;

        if (!copy_struct(env, info->modules_pa + i * sizeof(module), &module, sizeof(module))) {
            return bootinfo_fail(out, HV_EINVAL, "PVH: the module list is out of reach");
        }
        const char *data = module.size != 0 ? env->map(module.pa, module.size) : NULL;
        enum hv_err err;

        if (data == NULL && module.size != 0) {
            return bootinfo_fail(out, HV_EINVAL, "PVH: a module is out of reach");
        }
        if (data != NULL && module.size >= CPIO_HEADER_SIZE && cpio_is_header(data)) {
            err = read_archive(out, data, module.pa, module.size);
        } else {
            memcpy(text, "initrd", sizeof("initrd"));
            err = HV_OK;
            if (module.cmdline_pa != 0) {
                err = bootinfo_read_string(out, env, module.cmdline_pa, text, sizeof(text));
            }
            if (err == HV_OK) {
                err = bootinfo_add_module(out, module.pa, module.size, text, sizeof(text));
            }
        }
        if (err != HV_OK) {
            return err;
        }
    }
    return HV_OK;
}

static enum hv_err read_memmap(const struct pvh_start_info *info, const struct bootinfo_env *env,
                               struct boot_info *out)
{
    for (uint32_t i = 0; i < info->nr_memmap; i++) {
        struct pvh_range range;

        if (!copy_struct(env, info->memmap_pa + i * sizeof(range), &range, sizeof(range))) {
            return bootinfo_fail(out, HV_EINVAL, "PVH: the memory map is out of reach");
        }
        enum hv_err err = bootinfo_add_range(out, range.base, range.size, range.type);

        if (err != HV_OK) {
            return err;
        }
    }
    return HV_OK;
}

enum hv_err bootinfo_read_pvh(uint64_t info_pa, const struct bootinfo_env *env,
                              struct boot_info *out)
{
    const struct pvh_start_info *info = info_pa % 4 == 0 ? env->map(info_pa, sizeof(*info)) : NULL;
    enum hv_err err = HV_OK;

    if (info == NULL) {
        return bootinfo_fail(out, HV_EINVAL, "PVH: the start information is out of reach");
    }
    if (info->magic != BOOT_MAGIC_PVH) {
        return bootinfo_fail(out, HV_EINVAL, "PVH: the start information has a wrong magic");
    }
    if (info->version < 1) {
        return bootinfo_fail(out, HV_ENOTSUP, "PVH: the start information has no memory map");
    }
    memcpy(out->loader, "PVH", sizeof("PVH"));
    out->rsdp_pa = info->rsdp_pa;
    if (info->cmdline_pa != 0) {
        err = bootinfo_read_string(out, env, info->cmdline_pa, out->cmdline, sizeof(out->cmdline));
    }
    if (err == HV_OK) {
        err = read_memmap(info, env, out);
    }
    if (err == HV_OK) {
        err = read_modules(info, env, out);
    }
    return err;
}
