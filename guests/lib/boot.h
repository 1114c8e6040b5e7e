/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the boot loader told the guest, copied out of its hands: command line, memory map, the end of
 * everything that was loaded. Filled once before guest_main runs; read-only afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOT_MAX_REGIONS 32

struct boot_region {
    uint64_t base;
    uint64_t size_bytes;
};

/* Usable RAM, ascending as the loader gave it. */
extern struct boot_region boot_ram[BOOT_MAX_REGIONS];
extern size_t boot_nr_ram;

/* What was loaded beside the guest; `text` is where the loader put it. */
#define BOOT_MAX_MODULES 16
struct boot_module {
    uint64_t base, size_bytes;
    const char *text;
};
extern struct boot_module boot_modules[BOOT_MAX_MODULES];
extern size_t boot_nr_modules;

/* multiboot1, multiboot2 or pvh. */
extern const char *boot_protocol;

/* First address above the image and whatever the loader placed at or above 1 MiB. */
extern uint64_t boot_loaded_end;

/* The first address behind this guest's image (linker script). */
extern char guest_image_end[];

/* Bytes of usable RAM. */
uint64_t boot_ram_bytes(void);

/*
 * Copies the value of the word "key=value" on the command line into buf (cut to size). The bare word
 * "key" gives an empty value. Returns false when the word is absent.
 */
bool boot_option(const char *key, char *buf, size_t size);

/* The number (decimal or 0x...) behind "key=", or fallback. */
uint64_t boot_option_u64(const char *key, uint64_t fallback);

/* True when the word "key=value" is on the command line. */
bool boot_option_is(const char *key, const char *value);

/* The VM's name from "name=", or the fallback. The buffer is static. */
const char *boot_name(const char *fallback);

/* Every guest supplies this. Returning ends the VM as "end=" on the command line says (power.h). */
void guest_main(void);
