/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of image formats and what they share. Called by
 * vm_start in thread context; images are boot modules and hostile.
 */
#include "kernel/vm/loader.h"

#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader_internal.h"
#include "kernel/vm/vm.h"

#define PTE_TABLE 0x3ULL /* present, writable */
#define PTE_LEAF_2M 0x83ULL
#define PAGE_2M (2ULL << 20)
#define IDENTITY_TABLES 6u /* PML4, PDPT, four page directories */

static const struct loader *const formats[] = {&loader_linux, &loader_multiboot1,
                                               &loader_multiboot2, &loader_pvh};

enum hv_err loader_load(struct loader_request *req, struct loader_entry *out)
{
    req->error[0] = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(formats); i++) {
        if (formats[i]->probe(&req->kernel)) {
            *out = (struct loader_entry){0};
            return formats[i]->load(req, out);
        }
    }
    return loader_fail(
        req, HV_EINVAL,
        "module '%s' (%llu bytes) is no kernel that can be loaded; accepted: %s, %s, "
        "%s, %s",
        req->kernel.name, (unsigned long long)req->kernel.size, formats[0]->format,
        formats[1]->format, formats[2]->format, formats[3]->format);
}

enum hv_err loader_fail(struct loader_request *req, enum hv_err err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vscnprintf(req->error, sizeof(req->error), fmt, ap);
    va_end(ap);
    return err;
}

uint16_t loader_u16(const struct loader_image *img, uint64_t offset)
{
    uint16_t v;
    memcpy(&v, img->data + offset, sizeof(v));
    return v;
}

uint32_t loader_u32(const struct loader_image *img, uint64_t offset)
{
    uint32_t v;
    memcpy(&v, img->data + offset, sizeof(v));
    return v;
}

uint64_t loader_u64(const struct loader_image *img, uint64_t offset)
{
    uint64_t v;
    memcpy(&v, img->data + offset, sizeof(v));
    return v;
}

enum hv_err loader_write(struct loader_request *req, uint64_t gpa, const void *src, uint64_t len,
                         const char *what)
{
    enum hv_err err = guestmem_write(req->vm, GPA(gpa), src, len);
    if (err) {
        return loader_fail(req, err, "%s: cannot write the %s (%llu bytes at 0x%llx): %s",
                           req->kernel.name, what, (unsigned long long)len, (unsigned long long)gpa,
                           hv_strerror(err));
    }
    return HV_OK;
}

enum hv_err loader_read(struct loader_request *req, uint64_t gpa, void *dst, uint64_t len,
                        const char *what)
{
    enum hv_err err = guestmem_read(req->vm, GPA(gpa), dst, len);
    if (err) {
        return loader_fail(req, err, "%s: cannot read the %s: %s", req->kernel.name, what,
                           hv_strerror(err));
    }
    return HV_OK;
}

enum hv_err loader_write_module(struct loader_request *req, uint64_t gpa, const void *src,
                                uint64_t len, const char *what)
{
    const char *from = src;

    while (guestmem_shares(req->vm) && IS_ALIGNED(gpa, PAGE_SIZE) && len >= PAGE_SIZE &&
           guestmem_share(req->vm, GPA(gpa), from) == HV_OK) {
        gpa += PAGE_SIZE;
        from += PAGE_SIZE;
        len -= PAGE_SIZE;
    }
    return len != 0 ? loader_write(req, gpa, from, len, what) : HV_OK;
}

uint64_t loader_memory_bytes(const struct loader_request *req)
{
    return req->vm->config.memory_bytes;
}

uint64_t loader_ram_top(const struct loader_request *req)
{
    return MIN(loader_memory_bytes(req), GUEST_PCI_HOLE);
}

enum hv_err loader_write_cmdline(struct loader_request *req, const char *prefix, uint64_t max)
{
    uint64_t head = strlen(prefix), len = strlen(req->cmdline);
    max = MIN(max, LOADER_CMDLINE_MAX);
    if (head + len > max) {
        return loader_fail(
            req, HV_ERANGE, "%s: the command line has %llu characters; this kernel accepts %llu",
            req->kernel.name, (unsigned long long)(head + len), (unsigned long long)max);
    }
    enum hv_err err = loader_write(req, LOADER_CMDLINE, prefix, head, "command line");
    if (err) {
        return err;
    }
    return loader_write(req, LOADER_CMDLINE + head, req->cmdline, len + 1, "command line");
}

enum hv_err loader_write_gdt(struct loader_request *req, struct loader_entry *entry)
{
    const uint64_t code =
        entry->mode == ENTRY_LONG64 ? 0x00af9b000000ffffULL : 0x00cf9b000000ffffULL;
    const uint64_t gdt[] = {0, 0, code, 0x00cf93000000ffffULL};
    entry->gdt = LOADER_GDT;
    entry->gdt_limit = sizeof(gdt) - 1;
    return loader_write(req, LOADER_GDT, gdt, sizeof(gdt), "descriptor table");
}

enum hv_err loader_write_identity(struct loader_request *req, struct loader_entry *entry)
{
    uint64_t table[512];
    _Static_assert(LOADER_TABLES + IDENTITY_TABLES * PAGE_SIZE <= LOADER_GDT,
                   "the tables end below the GDT");
    entry->cr3 = LOADER_TABLES;
    for (unsigned t = 0; t < IDENTITY_TABLES; t++) {
        memset(table, 0, sizeof(table));
        if (t == 0) {
            table[0] = (LOADER_TABLES + PAGE_SIZE) | PTE_TABLE;
        } else if (t == 1) {
            for (unsigned i = 0; i < 4; i++) {
                table[i] = (LOADER_TABLES + (2 + i) * PAGE_SIZE) | PTE_TABLE;
            }
        } else {
            for (unsigned i = 0; i < 512; i++) {
                table[i] = (GIB(t - 2) + i * PAGE_2M) | PTE_LEAF_2M;
            }
        }
        enum hv_err err =
            loader_write(req, LOADER_TABLES + t * PAGE_SIZE, table, sizeof(table), "page tables");
        if (err) {
            return err;
        }
    }
    return HV_OK;
}

enum hv_err loader_write_named_cmdline(struct loader_request *req)
{
    char argv0[80];

    snprintf(argv0, sizeof(argv0), "%.70s ", req->kernel.name);
    return loader_write_cmdline(req, argv0, LOADER_CMDLINE_MAX);
}

enum hv_err loader_place(struct loader_request *req, const struct loader_image *image,
                         const char *what, uint64_t floor, uint64_t limit, uint64_t *gpa)
{
    uint64_t top = MIN(limit, loader_ram_top(req));
    if (image->size > top || ALIGN_DOWN(top - image->size, PAGE_SIZE) < floor) {
        return loader_fail(req, HV_ERANGE,
                           "%s '%s' (%llu KiB) does not fit: the VM's memory is free for it "
                           "from 0x%llx to 0x%llx (%llu KiB)",
                           what, image->name, (unsigned long long)(image->size + 1023) / 1024,
                           (unsigned long long)floor, (unsigned long long)top,
                           (unsigned long long)(top > floor ? (top - floor) / 1024 : 0));
    }
    *gpa = ALIGN_DOWN(top - image->size, PAGE_SIZE);
    return loader_write_module(req, *gpa, image->data, image->size, what);
}

enum hv_err loader_place_initrd(struct loader_request *req, uint64_t floor, uint64_t limit,
                                uint64_t *gpa)
{
    *gpa = 0;
    return req->initrd.size ? loader_place(req, &req->initrd, "initrd", floor, limit, gpa) : HV_OK;
}

static enum hv_err place_module(struct loader_request *req, const struct loader_image *image,
                                const char *args, uint64_t floor, uint64_t *top,
                                struct loader_placed *out)
{
    enum hv_err err = loader_place(req, image, "module", floor, *top, &out->gpa);
    size_t n = scnprintf(out->text, sizeof(out->text), "%s", image->name);

    out->size = image->size;
    if (*args) {
        scnprintf(out->text + n, sizeof(out->text) - n, " %s", args);
    }
    out->args = args;
    *top = out->gpa;
    return err;
}

enum hv_err loader_place_modules(struct loader_request *req, uint64_t floor,
                                 struct loader_placed out[LOADER_MAX_PLACED], unsigned *nr)
{
    uint64_t top = GUEST_PCI_HOLE;
    enum hv_err err = HV_OK;

    floor = ALIGN_UP(floor, PAGE_SIZE);
    *nr = 0;
    if (req->initrd.size) {
        err = place_module(req, &req->initrd, "", floor, &top, &out[(*nr)++]);
    }
    for (unsigned i = 0; i < req->nr_modules && !err; i++) {
        const struct loader_module *m = &req->modules[i];

        err = place_module(req, &m->image, m->args, floor, &top, &out[(*nr)++]);
    }
    return err;
}
