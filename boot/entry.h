/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What boot/entry.asm leaves behind for C code, and the image's section boundaries (linker.ld).
 *
 * At kernel_main: long mode, interrupts off, the early tables in force (first 4 GiB mapped at 0 and
 * at PHYSMAP_BASE, the image at its linked address, all of it writable and executable), on the boot
 * stack, whose anchor word is still zero. arch/x86_64/hostmap.c replaces the tables.
 */
#pragma once

#include <stdint.h>

#define BOOT_STACK_SIZE 16384
#define BOOT_MAP_LIMIT 0x100000000ULL /* end of what the early tables map, bytes */

/* Physical address of __image_start; 2 MiB aligned, below 4 GiB. Constant after entry. */
extern uint64_t kernel_phys_base;

/* The boot processor's first stack: size-aligned, its lowest 8 bytes reserved for the anchor. */
extern uint8_t boot_stack[BOOT_STACK_SIZE];

extern char __image_start[], __image_end[];
extern char __text_start[], __text_end[];
extern char __rodata_start[], __rodata_end[];
extern char __data_start[], __data_end[];
extern char __bss_start[], __bss_end[];

/*
 * The boot sequence, called once by the entry code with what the loader passed: a boot protocol
 * magic (BOOT_MAGIC_*) and the physical address of its information block. Never returns.
 */
void kernel_main(uint64_t magic, uint64_t info_pa) __attribute__((noreturn));
