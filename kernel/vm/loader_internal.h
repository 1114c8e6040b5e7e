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

extern const struct loader loader_linux;
extern const struct loader loader_multiboot1;

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

/*
 * Copies the initrd to the highest page-aligned place that ends at or below `limit` and RAM's end
 * and begins at or above `floor`. *gpa is 0 without an initrd.
 */
enum hv_err loader_place_initrd(struct loader_request *req, uint64_t floor, uint64_t limit,
                                uint64_t *gpa) __must_check;
