/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux bzImage by its 64-bit entry, or by its 32-bit one where it has no other. Rules: Linux's
 * Documentation/arch/x86/boot.rst ("The Linux/x86 Boot Protocol": "The Real-Mode Kernel Header", "32-bit
 * Boot Protocol", "64-bit Boot Protocol") and zero-page.rst. Fields that an old header does not have
 * get the values that the protocol gives them (read_fields).
 *
 * The protected-mode part goes to its preferred address (or lower, when the VM is too small for
 * that and the kernel can be relocated), the initrd as high as possible, the rest into the loader's
 * area in low RAM.
 */
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader_internal.h"

/* Offsets in the file, which are those in the zero page too. */
#define H_SETUP_SECTS 0x1f1
#define H_SYSSIZE 0x1f4
#define H_VID_MODE 0x1fa
#define H_BOOT_FLAG 0x1fe
#define H_JUMP 0x200
#define H_MAGIC 0x202
#define H_VERSION 0x206
#define H_TYPE_OF_LOADER 0x210
#define H_LOADFLAGS 0x211
#define H_CODE32_START 0x214
#define H_RAMDISK_IMAGE 0x218
#define H_RAMDISK_SIZE 0x21c
#define H_CMD_LINE_PTR 0x228
#define H_INITRD_ADDR_MAX 0x22c
#define H_KERNEL_ALIGNMENT 0x230
#define H_RELOCATABLE 0x234
#define H_XLOADFLAGS 0x236
#define H_CMDLINE_SIZE 0x238
#define H_PAYLOAD_OFFSET 0x248
#define H_PAYLOAD_LENGTH 0x24c
#define H_PREF_ADDRESS 0x258
#define H_INIT_SIZE 0x260
#define H_END 0x264 /* of the fields that protocol 2.12 promises */

/* Zero page only. */
#define Z_RSDP 0x70
#define Z_E820_COUNT 0x1e8
#define Z_HEADER_MAX 0x290
#define Z_E820_TABLE 0x2d0
#define E820_ENTRY 20u

#define BOOT_FLAG 0xaa55
#define MAGIC_HDRS 0x53726448u
#define MIN_VERSION 0x0202 /* the first with a command line pointer */
#define VERSION_INITRD_MAX 0x0203
#define VERSION_RELOCATABLE 0x0205
#define VERSION_CMDLINE_SIZE 0x0206
#define VERSION_PAYLOAD 0x0208
#define VERSION_INIT_SIZE 0x020a
#define VERSION_XLOADFLAGS 0x020c
#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x0001
#define ENTRY_64_OFFSET 0x200
#define LOADER_UNDEFINED 0xff
#define VID_MODE_NORMAL 0xffff
#define MIN_IMAGE (H_END + 1)
#define OLD_INITRD_MAX 0x37ffffffu
#define OLD_CMDLINE_MAX 255u
#define OLD_EXPANSION 6u /* how much larger than its file an old kernel gets, at most */

struct layout {
    bool is64;            /* has the 64-bit entry */
    uint64_t setup_bytes; /* real-mode part in the file */
    uint64_t sys_bytes;   /* protected-mode part behind it */
    uint64_t load, span;  /* where it goes, and what it needs there while it starts */
    uint64_t pref, align; /* where it would like to go; 0: cannot go elsewhere */
    uint64_t initrd_max, cmdline_max;
};

static bool linux_probe(const struct loader_image *img)
{
    return img->size >= H_VERSION + 2 && loader_u32(img, H_MAGIC) == MAGIC_HDRS;
}

static enum hv_err check_header(struct loader_request *req)
{
    const struct loader_image *k = &req->kernel;
    if (k->size < MIN_IMAGE) {
        return loader_fail(req, HV_EINVAL,
                           "%s: truncated: %llu bytes are less than a bzImage header", k->name,
                           (unsigned long long)k->size);
    }
    if (loader_u16(k, H_BOOT_FLAG) != BOOT_FLAG) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: boot flag 0x%x; accepted: 0xaa55", k->name,
                           loader_u16(k, H_BOOT_FLAG));
    }
    uint16_t version = loader_u16(k, H_VERSION);
    if (version < MIN_VERSION) {
        return loader_fail(req, HV_ENOTSUP, "%s: boot protocol %u.%u; accepted: 2.2 and later",
                           k->name, version >> 8, version & 0xffu);
    }
    if (!(k->data[H_LOADFLAGS] & LOADED_HIGH)) {
        return loader_fail(req, HV_ENOTSUP, "%s: a zImage; accepted: bzImage", k->name);
    }
    return HV_OK;
}

static void read_fields(const struct loader_image *k, struct layout *l)
{
    uint16_t version = loader_u16(k, H_VERSION);

    l->is64 = version >= VERSION_XLOADFLAGS && (loader_u16(k, H_XLOADFLAGS) & XLF_KERNEL_64);
    l->initrd_max =
        version >= VERSION_INITRD_MAX ? loader_u32(k, H_INITRD_ADDR_MAX) : OLD_INITRD_MAX;
    l->cmdline_max =
        version >= VERSION_CMDLINE_SIZE ? loader_u32(k, H_CMDLINE_SIZE) : OLD_CMDLINE_MAX;
    l->pref = version >= VERSION_INIT_SIZE ? loader_u64(k, H_PREF_ADDRESS) : MIB(1);
    if (version >= VERSION_RELOCATABLE && k->data[H_RELOCATABLE]) {
        l->align = loader_u32(k, H_KERNEL_ALIGNMENT);
    }
}

static enum hv_err check_sizes(struct loader_request *req, struct layout *l)
{
    const struct loader_image *k = &req->kernel;
    unsigned sects = k->data[H_SETUP_SECTS] ? k->data[H_SETUP_SECTS] : 4;
    l->setup_bytes = (sects + 1) * 512ULL;
    l->sys_bytes = loader_u32(k, H_SYSSIZE) * 16ULL;
    uint64_t there = k->size - MIN(l->setup_bytes, k->size);
    if (there != 0 && l->sys_bytes - there < 16) {
        l->sys_bytes = there; /* whole paragraphs were counted */
    }
    if (l->sys_bytes > there || there == 0) {
        return loader_fail(req, HV_EINVAL,
                           "%s: truncated: the header promises %llu bytes, the module has %llu",
                           k->name, (unsigned long long)(l->setup_bytes + l->sys_bytes),
                           (unsigned long long)k->size);
    }
    if (l->sys_bytes <= ENTRY_64_OFFSET) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: a kernel of %llu bytes holds no entry",
                           k->name, (unsigned long long)l->sys_bytes);
    }
    uint16_t version = loader_u16(k, H_VERSION);
    uint64_t payload = (uint64_t)loader_u32(k, H_PAYLOAD_OFFSET) + loader_u32(k, H_PAYLOAD_LENGTH);
    if (version >= VERSION_PAYLOAD && payload > l->sys_bytes) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: the payload ends at byte %llu of %llu",
                           k->name, (unsigned long long)payload, (unsigned long long)l->sys_bytes);
    }
    uint64_t init =
        version >= VERSION_INIT_SIZE ? loader_u32(k, H_INIT_SIZE) : OLD_EXPANSION * l->sys_bytes;
    l->span = ALIGN_UP(MAX(init, l->sys_bytes), PAGE_SIZE);
    return HV_OK;
}

/* The preferred address, or the lowest aligned one when that is too high for the VM. */
static enum hv_err choose_address(struct loader_request *req, struct layout *l)
{
    const struct loader_image *k = &req->kernel;
    uint64_t top = loader_ram_top(req), align = l->align, pref = l->pref;
    bool movable = align != 0;
    if (movable && (align < PAGE_SIZE || align > GIB(1) || (align & (align - 1)))) {
        return loader_fail(req, HV_EINVAL,
                           "%s: corrupt: alignment 0x%llx; accepted: powers of two from 4 KiB",
                           k->name, (unsigned long long)align);
    }
    uint64_t lowest = movable ? ALIGN_UP(MIB(1), align) : MIB(1);
    if (pref >= MIB(1) && pref <= top && l->span <= top - pref && IS_ALIGNED(pref, PAGE_SIZE)) {
        l->load = pref;
        return HV_OK;
    }
    if (movable && lowest <= top && l->span <= top - lowest) {
        l->load = lowest;
        return HV_OK;
    }
    uint64_t need = (movable || pref > GUEST_PCI_HOLE ? lowest : pref) + l->span;
    return loader_fail(req, HV_ERANGE,
                       "%s: the VM has %llu MiB of memory; this kernel needs at least %llu MiB to "
                       "start",
                       k->name, (unsigned long long)(loader_memory_bytes(req) / MIB(1)),
                       (unsigned long long)((need + MIB(1) - 1) / MIB(1)));
}

static void put(uint8_t *zero_page, unsigned offset, const void *value, size_t len)
{
    memcpy(zero_page + offset, value, len);
}

static void put32(uint8_t *zero_page, unsigned offset, uint64_t value)
{
    uint32_t v = (uint32_t)value;
    put(zero_page, offset, &v, sizeof(v));
}

static void put_memory_map(const struct loader_request *req, uint8_t *zero_page)
{
    struct loader_range map[LOADER_MAX_RANGES];
    unsigned n = loader_memory_map(loader_memory_bytes(req), map, LOADER_MAX_RANGES);
    zero_page[Z_E820_COUNT] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = Z_E820_TABLE + i * E820_ENTRY;
        put(zero_page, at, &map[i].base, 8);
        put(zero_page, at + 8, &map[i].size, 8);
        put(zero_page, at + 16, &map[i].type, 4);
    }
}

static enum hv_err write_zero_page(struct loader_request *req, const struct layout *l,
                                   uint64_t initrd)
{
    const struct loader_image *k = &req->kernel;
    uint8_t zp[PAGE_SIZE];
    memset(zp, 0, sizeof(zp));
    /* "Real-mode header": from 0x1f1 to 0x202 + the byte at 0x201. */
    uint64_t end = MIN((uint64_t)H_MAGIC + k->data[H_JUMP + 1], (uint64_t)Z_HEADER_MAX);
    end = MIN(MAX(end, (uint64_t)H_END), k->size);
    memcpy(zp + H_SETUP_SECTS, k->data + H_SETUP_SECTS, end - H_SETUP_SECTS);

    uint16_t vid_mode = VID_MODE_NORMAL;
    put(zp, H_VID_MODE, &vid_mode, sizeof(vid_mode));
    zp[H_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    zp[H_LOADFLAGS] = (uint8_t)((zp[H_LOADFLAGS] | LOADED_HIGH) & ~CAN_USE_HEAP);
    put32(zp, H_CODE32_START, l->load);
    put32(zp, H_RAMDISK_IMAGE, initrd);
    put32(zp, H_RAMDISK_SIZE, initrd ? req->initrd.size : 0);
    put32(zp, H_CMD_LINE_PTR, LOADER_CMDLINE);
    put(zp, Z_RSDP, &req->rsdp, sizeof(req->rsdp));
    put_memory_map(req, zp);
    return loader_write(req, LOADER_INFO, zp, sizeof(zp), "zero page");
}

static enum hv_err linux_load(struct loader_request *req, struct loader_entry *out)
{
    struct layout l = {0};
    uint64_t initrd = 0;
    char clock[40] = "";
    enum hv_err err;
    err = check_header(req);
    if (err) {
        return err;
    }
    read_fields(&req->kernel, &l);
    if ((err = check_sizes(req, &l)) || (err = choose_address(req, &l))) {
        return err;
    }
    *out = (struct loader_entry){.mode = l.is64 ? ENTRY_LONG64 : ENTRY_PROTECTED32,
                                 .rip = l.load + (l.is64 ? ENTRY_64_OFFSET : 0),
                                 .rsi = LOADER_INFO};
    if (req->tsc_khz != 0) {
        snprintf(clock, sizeof(clock), LOADER_LINUX_CLOCK, (unsigned long long)req->tsc_khz);
    }
    if ((err = loader_write_cmdline(req, clock, l.cmdline_max)) ||
        (err = loader_place_initrd(req, l.load + l.span, l.initrd_max + 1, &initrd)) ||
        (err = loader_write_module(req, l.load, req->kernel.data + l.setup_bytes, l.sys_bytes,
                                   "kernel")) ||
        (err = write_zero_page(req, &l, initrd)) ||
        (l.is64 && (err = loader_write_identity(req, out)))) {
        return err;
    }
    return loader_write_gdt(req, out);
}

const struct loader loader_linux = {
    .format = "Linux bzImage",
    .probe = linux_probe,
    .load = linux_load,
};
