/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parser of loader data: the common part. Each protocol's reader (bootinfo_mb2.c, bootinfo_pvh.c)
 * hands over strings, ranges and modules one by one; here they are bounded, copied and put in order.
 */
#include "boot/bootinfo.h"

#include "boot/bootinfo_internal.h"
#include "kernel/lib/string.h"

/* Raw ranges of the loader and the edges between them; boot processor only. */
static struct boot_range raw_ranges[BOOT_MAX_RANGES];
static uint32_t nr_raw_ranges;
static uint64_t edges[2 * BOOT_MAX_RANGES];

enum hv_err bootinfo_fail(struct boot_info *out, enum hv_err err, const char *why)
{
    out->error = why;
    return err;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

enum hv_err bootinfo_copy_string(struct boot_info *out, char *to, size_t room, const char *from,
                                 size_t limit)
{
    size_t len = 0;

    while (len < limit && from[len] != '\0') {
        len++;
    }
    if (len == limit) {
        return bootinfo_fail(out, HV_EINVAL, "a string of the boot loader has no end");
    }
    if (len >= room) {
        return bootinfo_fail(out, HV_ERANGE, "a string of the boot loader is too long");
    }
    memcpy(to, from, len + 1);
    return HV_OK;
}

enum hv_err bootinfo_read_string(struct boot_info *out, const struct bootinfo_env *env, uint64_t pa,
                                 char *to, size_t room)
{
    for (size_t i = 0; i < room; i++) {
        const char *c = env->map(pa + i, 1);

        if (c == NULL) {
            return bootinfo_fail(out, HV_EINVAL, "a string of the boot loader is out of reach");
        }
        to[i] = *c;
        if (*c == '\0') {
            return HV_OK;
        }
    }
    to[room - 1] = '\0';
    return bootinfo_fail(out, HV_ERANGE, "a string of the boot loader is too long");
}

enum hv_err bootinfo_add_module(struct boot_info *out, uint64_t base, uint64_t size,
                                const char *text, size_t limit)
{
    if (out->nr_modules == BOOT_MAX_MODULES) {
        return bootinfo_fail(out, HV_ERANGE, "more boot modules than can be held");
    }
    if (base + size < base) {
        return bootinfo_fail(out, HV_EINVAL, "a boot module wraps around the address space");
    }
    struct boot_module *module = &out->modules[out->nr_modules];
    size_t start = 0;
    size_t len = 0;

    while (start < limit && is_space(text[start])) {
        start++;
    }
    while (start + len < limit && text[start + len] != '\0' && !is_space(text[start + len])) {
        len++;
    }
    if (len == 0) {
        return bootinfo_fail(out, HV_EINVAL,
                             "a boot module has no name: give one after the file, "
                             "as in 'module2 /file name'");
    }
    if (len >= sizeof(module->name)) {
        return bootinfo_fail(out, HV_ERANGE, "the name of a boot module is too long");
    }
    memcpy(module->name, text + start, len);
    module->name[len] = '\0';
    start += len;
    while (start < limit && is_space(text[start])) {
        start++;
    }
    enum hv_err err =
        bootinfo_copy_string(out, module->args, sizeof(module->args), text + start, limit - start);
    if (err != HV_OK) {
        return err;
    }
    module->base = base;
    module->size = size;
    out->nr_modules++;
    return HV_OK;
}

enum hv_err bootinfo_add_range(struct boot_info *out, uint64_t base, uint64_t size,
                               uint32_t e820_type)
{
    static const enum boot_range_type types[] = {
        [1] = BOOT_RANGE_USABLE, [2] = BOOT_RANGE_RESERVED, [3] = BOOT_RANGE_ACPI,
        [4] = BOOT_RANGE_NVS,    [5] = BOOT_RANGE_BAD,
    };

    if (size == 0) {
        return HV_OK;
    }
    if (nr_raw_ranges == BOOT_MAX_RANGES) {
        return bootinfo_fail(out, HV_ERANGE, "the memory map has more ranges than can be held");
    }
    if (base + size < base) {
        /* Firmware marks the end of the address space like this; there is no RAM up there. */
        size = UINT64_MAX - base;
    }
    enum boot_range_type type = BOOT_RANGE_RESERVED;
    if (e820_type >= 1 && e820_type < ARRAY_SIZE(types)) {
        type = types[e820_type];
    }
    raw_ranges[nr_raw_ranges++] = (struct boot_range){.base = base, .size = size, .type = type};
    return HV_OK;
}

static uint32_t sort_edges(void)
{
    uint32_t nr = 0;

    for (uint32_t i = 0; i < nr_raw_ranges; i++) {
        uint64_t pair[2] = {raw_ranges[i].base, raw_ranges[i].base + raw_ranges[i].size};

        for (unsigned j = 0; j < 2; j++) {
            uint32_t at = nr++;

            while (at > 0 && edges[at - 1] > pair[j]) {
                edges[at] = edges[at - 1];
                at--;
            }
            edges[at] = pair[j];
        }
    }
    return nr;
}

/* The most cautious type of any raw range over [base, base + 1); false if there is none. */
static bool range_type_at(uint64_t base, enum boot_range_type *type)
{
    bool found = false;

    for (uint32_t i = 0; i < nr_raw_ranges; i++) {
        const struct boot_range *range = &raw_ranges[i];

        if (base >= range->base && base - range->base < range->size &&
            (!found || range->type > *type)) {
            *type = range->type;
            found = true;
        }
    }
    return found;
}

/* Firmware maps overlap and come in any order: cut them at every edge and join what is alike. */
static enum hv_err settle_ranges(struct boot_info *out)
{
    uint32_t nr_edges = sort_edges();

    for (uint32_t i = 0; i + 1 < nr_edges; i++) {
        uint64_t base = edges[i];
        uint64_t size = edges[i + 1] - base;
        enum boot_range_type type = BOOT_RANGE_USABLE;

        if (size == 0 || !range_type_at(base, &type)) {
            continue;
        }
        struct boot_range *last = out->nr_ranges > 0 ? &out->ranges[out->nr_ranges - 1] : NULL;

        if (last != NULL && last->type == type && last->base + last->size == base) {
            last->size += size;
            continue;
        }
        if (out->nr_ranges == BOOT_MAX_RANGES) {
            return bootinfo_fail(out, HV_ERANGE, "the memory map has more ranges than can be held");
        }
        out->ranges[out->nr_ranges++] =
            (struct boot_range){.base = base, .size = size, .type = type};
    }
    return HV_OK;
}

enum hv_err bootinfo_parse(uint64_t magic, uint64_t info_pa, const struct bootinfo_env *env,
                           struct boot_info *out)
{
    enum hv_err err;

    memset(out, 0, sizeof(*out));
    nr_raw_ranges = 0;
    switch (magic) {
    case BOOT_MAGIC_MULTIBOOT2:
        err = bootinfo_read_mb2(info_pa, env, out);
        break;
    case BOOT_MAGIC_PVH:
        err = bootinfo_read_pvh(info_pa, env, out);
        break;
    default:
        err = bootinfo_fail(out, HV_ENOTSUP, "entered by neither Multiboot2 nor PVH");
        break;
    }
    if (err != HV_OK) {
        return err;
    }
    if (nr_raw_ranges == 0) {
        return bootinfo_fail(out, HV_EINVAL, "the boot loader gave no memory map");
    }
    return settle_ranges(out);
}

const struct boot_module *bootinfo_module(const struct boot_info *info, const char *name)
{
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        if (strcmp(info->modules[i].name, name) == 0) {
            return &info->modules[i];
        }
    }
    return NULL;
}
