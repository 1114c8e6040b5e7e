/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the image formats share: messages, placing things in guest memory, the tables that a kernel
 * is entered with. Only kernel/vm/loader*.c include this.
 *
 * Guest-physical layout of what a loader leaves behind, all in low RAM:
 *   0x10000  page tables (long mode): an identity map of the first 4 GiB
 *   0x17000  global descriptor table
 *   0x18000  start information (zero page, or Multiboot information)
 *   0x1c000  command line
 * RAM that a loader does not write reads as zero: vm_start begins with empty memory.
 */
#pragma once

#include "kernel/vm/loader.h"

#define LOADER_AREA_BASE 0x10000ULL
#define LOADER_TABLES 0x10000ULL
#define LOADER_GDT 0x17000ULL
#define LOADER_INFO 0x18000ULL
#define LOADER_CMDLINE 0x1c000ULL
#define LOADER_AREA_END 0x20000ULL
#define LOADER_CMDLINE_MAX (LOADER_AREA_END - LOADER_CMDLINE - 1)

#define LOADER_MAX_RANGES 8u

/* In front of a Linux command line, with kHz: without it Linux measures the TSC against a timer, and
 * gives up on a busy host. What the operator writes comes later in the line and wins. */
#define LOADER_LINUX_CLOCK "tsc_early_khz=%llu "

extern const struct loader loader_linux;
extern const struct loader loader_multiboot1;
extern const struct loader loader_multiboot2;
extern const struct loader loader_pvh;

/* Formats the reason into req->error and returns err. */
enum hv_err loader_fail(struct loader_request *req, enum hv_err err, const char *fmt, ...)
    __printf_like(3, 4);

/* Little-endian fields of an image; the caller has checked that offset + width is inside. */
uint16_t loader_u16(const struct loader_image *img, uint64_t offset);
uint32_t loader_u32(const struct loader_image *img, uint64_t offset);
uint64_t loader_u64(const struct loader_image *img, uint64_t offset);

/* guestmem_write with the reason filled in on failure. */
enum hv_err loader_write(struct loader_request *req, uint64_t gpa, const void *src, uint64_t len,
                         const char *what) __must_check;

/* guestmem_read likewise. */
enum hv_err loader_read(struct loader_request *req, uint64_t gpa, void *dst, uint64_t len,
                        const char *what) __must_check;

/* loader_write of a piece of a boot module, whose pages VMs of a common salt share from the start. */
enum hv_err loader_write_module(struct loader_request *req, uint64_t gpa, const void *src,
                                uint64_t len, const char *what) __must_check;

/* What the configuration gives the VM. */
uint64_t loader_memory_bytes(const struct loader_request *req);

/* Guest RAM from 1 MiB up ends here (never above the hole below 4 GiB). */
uint64_t loader_ram_top(const struct loader_request *req);

/* Writes the command line to LOADER_CMDLINE; `max` is what the kernel takes, NUL not counted. */
enum hv_err loader_write_cmdline(struct loader_request *req, const char *prefix,
                                 uint64_t max) __must_check;

/* Writes a flat GDT (0x10 code, 0x18 data) for the entry's mode and fills its gdt fields. */
enum hv_err loader_write_gdt(struct loader_request *req, struct loader_entry *entry) __must_check;

/* Writes the identity map of the first 4 GiB in 2 MiB pages and fills entry->cr3. */
enum hv_err loader_write_identity(struct loader_request *req,
                                  struct loader_entry *entry) __must_check;

/* The same, with the kernel's name as its first word, as other Multiboot loaders have it. */
enum hv_err loader_write_named_cmdline(struct loader_request *req) __must_check;

/* Copies an image to the highest page-aligned place that ends at or below `limit` and RAM's end and begins
 * at or above `floor`; `what` it is, for messages. */
enum hv_err loader_place(struct loader_request *req, const struct loader_image *image,
                         const char *what, uint64_t floor, uint64_t limit,
                         uint64_t *gpa) __must_check;

/* A module in guest memory. */
#define LOADER_MAX_PLACED (LOADER_MAX_MODULES + 1)
struct loader_placed {
    uint64_t gpa, size;
    char text[LOADER_ARGS_MAX]; /* its name and arguments, cut to size */
    const char *args;           /* the arguments alone */
};

/* Copies the initrd, as the first module, and the modules to the top of RAM below 4 GiB, none below
 * `floor`. Fills `out` in their order. */
enum hv_err loader_place_modules(struct loader_request *req, uint64_t floor,
                                 struct loader_placed out[LOADER_MAX_PLACED],
                                 unsigned *nr) __must_check;

/* A piece of the kernel's file and where it goes; the rest of `memsz` is zeros. */
struct loader_part {
    uint64_t offset, paddr, filesz, memsz;
};
/* Checks it against file, RAM and the loader's area, and copies it; *end becomes the highest end. */
enum hv_err loader_load_part(struct loader_request *req, const struct loader_part *part,
                             uint64_t *end) __must_check;

/* The screen that a kernel which asks for one is told of: text, as a PC's firmware leaves it. Nobody
 * looks at it. */
#define LOADER_TEXT_SCREEN 0xb8000u
#define LOADER_TEXT_COLUMNS 80u
#define LOADER_TEXT_LINES 25u
#define LOADER_TEXT_PITCH (2 * LOADER_TEXT_COLUMNS)
#define LOADER_TEXT_TYPE 2u

/* What ELF32 and ELF64 have in common, widened. */
struct loader_elf {
    uint64_t entry, phoff;
    unsigned phnum, phentsize;
    bool is64;
};

/* Little-endian ELF by its identification. */
bool loader_is_elf(const struct loader_image *k);
/* Checks the kernel's headers; `format` is for messages. */
enum hv_err loader_elf_read(struct loader_request *req, const char *format,
                            struct loader_elf *e) __must_check;
/* Copies the segments; gives the physical entry point (not wanted: NULL) and the end of the image. */
enum hv_err loader_elf_load(struct loader_request *req, const struct loader_elf *e, uint64_t *entry,
                            uint64_t *end) __must_check;
/* The note `type` of `owner`, by program headers: where its descriptor lies in the file. */
struct loader_note {
    uint64_t offset, size;
};
bool loader_elf_note(const struct loader_image *k, const char *owner, uint32_t type,
                     struct loader_note *out);

/*
 * Copies the initrd to the highest page-aligned place that ends at or below `limit` and RAM's end
 * and begins at or above `floor`. *gpa is 0 without an initrd.
 */
enum hv_err loader_place_initrd(struct loader_request *req, uint64_t floor, uint64_t limit,
                                uint64_t *gpa) __must_check;
