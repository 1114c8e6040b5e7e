/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: what a boot loader hands over. The first byte says how the rest is read: as a Multiboot2
 * information block, as PVH start information with what it points at, or as the -initrd file of a PVH
 * boot (a cpio archive). What the parser accepts must keep its promises: ranges sorted and disjoint,
 * strings ended, modules of an archive within it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boot/bootinfo.h"

#define DATA_PA 0x10000u
#define PVH_PA 0x8000u

/* As in boot/bootinfo_pvh.c. */
struct pvh {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules_pa, cmdline_pa, rsdp_pa, memmap_pa;
    uint32_t nr_memmap, reserved;
    uint64_t module[4];
    uint64_t range[3];
};

static uint8_t
    *copy; /* exactly as large as the input, so that the sanitizer sees every byte too far */
static size_t copy_size;
static struct pvh pvh;

static const void *map(uint64_t pa, uint64_t size)
{
    if (pa >= DATA_PA && pa - DATA_PA <= copy_size && size <= copy_size - (pa - DATA_PA)) {
        return copy + (pa - DATA_PA);
    }
    if (pa >= PVH_PA && pa - PVH_PA <= sizeof pvh && size <= sizeof pvh - (pa - PVH_PA)) {
        return (const uint8_t *)&pvh + (pa - PVH_PA);
    }
    return NULL;
}

static const struct bootinfo_env boot_env = {.map = map};
static struct boot_info info;

static void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "accepted: %s\n", what);
        abort();
    }
}

/* `within`: modules are what the parser has read itself. Multiboot2 says where they are and no more. */
static void check_promises(bool within)
{
    for (uint32_t i = 0; i < info.nr_ranges; i++) {
        const struct boot_range *r = &info.ranges[i];
        check(r->size != 0 && r->base + r->size - 1 >= r->base, "a range of no size, or wrapping");
        check(i == 0 || r[-1].base + r[-1].size <= r->base, "ranges that overlap");
    }
    for (uint32_t i = 0; i < info.nr_modules; i++) {
        const struct boot_module *m = &info.modules[i];
        check(memchr(m->name, 0, sizeof m->name) && memchr(m->args, 0, sizeof m->args),
              "an endless string");
        check(m->base + m->size >= m->base, "a module that wraps");
        check(!within || m->size == 0 || map(m->base, m->size), "a module out of reach");
        check(bootinfo_module(&info, m->name) != NULL, "a module that is not found");
    }
    check(memchr(info.cmdline, 0, sizeof info.cmdline) != NULL, "an endless command line");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    copy_size = size - 1;
    copy = malloc(copy_size ? copy_size : 1);
    memcpy(copy, data + 1, copy_size);
    pvh = (struct pvh){.magic = BOOT_MAGIC_PVH,
                       .version = 1,
                       .nr_modules = 1,
                       .nr_memmap = 1,
                       .modules_pa = PVH_PA + offsetof(struct pvh, module),
                       .memmap_pa = PVH_PA + offsetof(struct pvh, range),
                       .module = {DATA_PA, copy_size},
                       .range = {0, 1u << 30, 1}};
    uint64_t magic = data[0] % 3 ? BOOT_MAGIC_PVH : BOOT_MAGIC_MULTIBOOT2;
    uint64_t at = data[0] % 3 == 2 ? PVH_PA : DATA_PA;
    if (bootinfo_parse(magic, at, &boot_env, &info) == HV_OK) {
        check_promises(magic == BOOT_MAGIC_PVH);
    } else {
        check(info.error != NULL, "an error without a text");
    }
    free(copy);
    return 0;
}
