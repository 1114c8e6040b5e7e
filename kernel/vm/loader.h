/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loaders: guest images from boot modules into guest memory. One struct per format in a table; the
 * first whose probe recognises the file loads it. Images are hostile input: everything is checked,
 * and an error names the module, what is wrong and what is accepted.
 */
#pragma once

#include "kernel/lib/err.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/config.h"
#include "mm/types.h"

struct vm;

struct loader_image {
    const char *name; /* module name, for messages */
    const uint8_t *data;
    uint64_t size;
};

/* How vCPU 0 starts. */
struct loader_entry {
    enum { ENTRY_LONG64, ENTRY_PROTECTED32 } mode;
    uint64_t rip, rsp, rax, rbx, rsi;
    uint64_t cr3; /* LONG64: identity map built by the loader in guest memory */
    uint64_t gdt; /* guest-physical address of a flat GDT: 0x10 code, 0x18 data */
    uint16_t gdt_limit;
};

/* A boot module that goes with the kernel, and the text that goes with it. */
#define LOADER_MAX_MODULES CONFIG_NR_MODULES
#define LOADER_ARGS_MAX CONFIG_MODULE_ARGS_MAX
struct loader_module {
    struct loader_image image;
    char args[LOADER_ARGS_MAX]; /* without the module's name */
};

struct loader_request {
    struct vm *vm;
    struct loader_image kernel;
    struct loader_image initrd; /* size 0: none */
    struct loader_module modules[LOADER_MAX_MODULES];
    unsigned nr_modules;
    const char *cmdline;
    uint64_t tsc_khz; /* told to kernels that have no other way to learn it; 0: they have */
    uint64_t rsdp;    /* guest-physical, 0: none */
    char error[200];  /* filled on failure */
};

struct loader {
    const char *format; /* "Linux bzImage" */
    bool (*probe)(const struct loader_image *img);
    enum hv_err (*load)(struct loader_request *req, struct loader_entry *out);
};

/* Guest-physical layout, one place: RAM below 640 KiB minus EBDA, the rest of the first MiB, RAM from
 * 1 MiB up to 3 GiB, rest from 4 GiB. All of it is backed: where a PC has adapter ROMs kernels look
 * for signatures, which shall not cost an emulated access each, and the first 2 MiB can be one
 * large page. Fills at most `max` entries; returns how many. */
struct loader_range {
    uint64_t base, size;
    uint32_t type; /* e820: 1 RAM, 2 reserved, 3 ACPI data */
};
#define GUEST_LOW_RAM_END 0x9f000ULL
#define GUEST_ACPI_BASE 0xe0000ULL
#define GUEST_ACPI_END 0x100000ULL
#define GUEST_PCI_HOLE 0xc0000000ULL
unsigned loader_memory_map(uint64_t memory_bytes, struct loader_range *out, unsigned max);

/* Recognise and load; on failure req->error says why. */
enum hv_err loader_load(struct loader_request *req, struct loader_entry *out) __must_check;
