/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linux bzImage by its 64-bit entry. Rules: Linux's Documentation/arch/x86/boot.rst ("The Linux/x86
 * Boot Protocol": "The Real-Mode Kernel Header", "64-bit Boot Protocol") and zero-page.rst.
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
#define MIN_VERSION 0x020c
#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x0001
#define ENTRY_64_OFFSET 0x200
#define LOADER_UNDEFINED 0xff
#define VID_MODE_NORMAL 0xffff
#define MIN_IMAGE (H_END + 1)

struct layout {
    uint64_t setup_bytes; /* real-mode part in the file */
    uint64_t sys_bytes;   /* protected-mode part behind it */
    uint64_t load, span;  /* where it goes, and what it needs there while it starts */
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
        return loader_fail(req, HV_ENOTSUP, "%s: boot protocol %u.%u; accepted: 2.12 and later",
                           k->name, version >> 8, version & 0xffu);
    }
    if (!(loader_u16(k, H_XLOADFLAGS) & XLF_KERNEL_64)) {
        return loader_fail(req, HV_ENOTSUP,
                           "%s: no 64-bit entry point; accepted: kernels with XLF_KERNEL_64",
                           k->name);
    }
    if (!(k->data[H_LOADFLAGS] & LOADED_HIGH)) {
        return loader_fail(req, HV_ENOTSUP, "%s: a zImage; accepted: bzImage", k->name);
    }
    return HV_OK;
}

static enum hv_err check_sizes(struct loader_request *req, struct layout *l)
{
    const struct loader_image *k = &req->kernel;
    unsigned sects = k->data[H_SETUP_SECTS] ? k->data[H_SETUP_SECTS] : 4;
    l->setup_bytes = (sects + 1) * 512ULL;
    l->sys_bytes = loader_u32(k, H_SYSSIZE) * 16ULL;
    if (l->setup_bytes >= k->size || l->sys_bytes > k->size - l->setup_bytes) {
        return loader_fail(req, HV_EINVAL,
                           "%s: truncated: the header promises %llu bytes, the module has %llu",
                           k->name, (unsigned long long)(l->setup_bytes + l->sys_bytes),
                           (unsigned long long)k->size);
    }
    if (l->sys_bytes <= ENTRY_64_OFFSET) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: a kernel of %llu bytes holds no entry",
                           k->name, (unsigned long long)l->sys_bytes);
    }
    uint64_t payload = (uint64_t)loader_u32(k, H_PAYLOAD_OFFSET) + loader_u32(k, H_PAYLOAD_LENGTH);
    if (payload > l->sys_bytes) {
        return loader_fail(req, HV_EINVAL, "%s: corrupt: the payload ends at byte %llu of %llu",
                           k->name, (unsigned long long)payload, (unsigned long long)l->sys_bytes);
    }
    l->span = ALIGN_UP(MAX((uint64_t)loader_u32(k, H_INIT_SIZE), l->sys_bytes), PAGE_SIZE);
    return HV_OK;
}

/* The preferred address, or the lowest aligned one when that is too high for the VM. */
static enum hv_err choose_address(struct loader_request *req, struct layout *l)
{
    const struct loader_image *k = &req->kernel;
    uint64_t top = loader_ram_top(req);
    uint64_t align = loader_u32(k, H_KERNEL_ALIGNMENT);
    uint64_t pref = loader_u64(k, H_PREF_ADDRESS);
    if (align < PAGE_SIZE || align > GIB(1) || (align & (align - 1))) {
        return loader_fail(req, HV_EINVAL,
                           "%s: corrupt: alignment 0x%llx; accepted: powers of two from 4 KiB",
                           k->name, (unsigned long long)align);
    }
    uint64_t lowest = ALIGN_UP(MIB(1), align);
    if (pref >= MIB(1) && pref <= top && l->span <= top - pref && IS_ALIGNED(pref, PAGE_SIZE)) {
        l->load = pref;
        return HV_OK;
    }
    if (k->data[H_RELOCATABLE] && lowest <= top && l->span <= top - lowest) {
        l->load = lowest;
        return HV_OK;
    }
    uint64_t need = (k->data[H_RELOCATABLE] || pref > GUEST_PCI_HOLE ? lowest : pref) + l->span;
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
    if ((err = check_header(req)) || (err = check_sizes(req, &l)) ||
        (err = choose_address(req, &l))) {
        return err;
    }
    uint64_t initrd_limit = (uint64_t)loader_u32(&req->kernel, H_INITRD_ADDR_MAX) + 1;
    uint64_t cmdline_max = loader_u32(&req->kernel, H_CMDLINE_SIZE);
    *out = (struct loader_entry){
        .mode = ENTRY_LONG64, .rip = l.load + ENTRY_64_OFFSET, .rsi = LOADER_INFO};
    /* Without it Linux measures the TSC against the PIT, and gives up on a busy host. What the
     * operator writes comes later in the line and wins. */
    if (req->tsc_khz != 0) {
        snprintf(clock, sizeof(clock), "tsc_early_khz=%llu ", (unsigned long long)req->tsc_khz);
    }
    if ((err = loader_write_cmdline(req, clock, cmdline_max)) ||
        (err = loader_place_initrd(req, l.load + l.span, initrd_limit, &initrd)) ||
        (err =
             loader_write(req, l.load, req->kernel.data + l.setup_bytes, l.sys_bytes, "kernel")) ||
        (err = write_zero_page(req, &l, initrd)) || (err = loader_write_identity(req, out))) {
        return err;
    }
    return loader_write_gdt(req, out);
}

const struct loader loader_linux = {
    .format = "Linux bzImage",
    .probe = linux_probe,
    .load = linux_load,
};
