/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rest of the firmware: the BIOS data area, from which kernels learn where low memory ends and which
 * serial ports there are; real-mode interrupt vectors for those that call the BIOS on their way up, each
 * of which says "not supported" by the carry flag; and the reset vector, where a jump resets the VM. All
 * code is here, at the end of the first MiB. Called when a VM starts, before its images are loaded.
 */
#include "kernel/devices/bios.h"

#include "kernel/devices/platform.h"
#include "kernel/lib/string.h"
#include "kernel/vm/guestmem.h"
#include "kernel/vm/loader.h"
#include "kernel/vm/vm.h"

#define BIOS_SEGMENT 0xf000u
#define CODE_OFFSET 0xff00u
#define CODE_BASE ((BIOS_SEGMENT << 4) + CODE_OFFSET)
#define NR_VECTORS 256u
#define BDA_BASE 0x400u
#define COM1_PORT 0x3f8
#define EQUIPMENT 0x0220 /* one serial port; 80 columns in colour */
#define EBDA_KIB 4u

/* Offsets in the code below. */
enum code {
    CODE_IRET = 0x00,
    CODE_REFUSE = 0x10,
    CODE_EQUIPMENT = 0x20,
    CODE_MEMORY_SIZE = 0x30,
    CODE_SYSTEM = 0x40,
    CODE_RESET = 0xf0 /* ffff0 */
};

struct bda {
    uint16_t com[4], lpt[3];
    uint16_t ebda;      /* 40e: segment */
    uint16_t equipment; /* 410 */
    uint8_t unused1;
    uint16_t base_kib; /* 413 */
    uint8_t unused2[0x49 - 0x15];
    uint8_t video_mode; /* 449 */
    uint16_t columns;   /* 44a */
    uint8_t unused3[0x63 - 0x4c];
    uint16_t crtc; /* 463: port of the screen's controller */
    uint8_t unused4[0x84 - 0x65];
    uint8_t last_line; /* 484 */
} __packed;
_Static_assert(offsetof(struct bda, ebda) == 0x0e, "BIOS data area");
_Static_assert(offsetof(struct bda, base_kib) == 0x13, "BIOS data area");
_Static_assert(offsetof(struct bda, video_mode) == 0x49, "BIOS data area");
_Static_assert(offsetof(struct bda, crtc) == 0x63, "BIOS data area");
_Static_assert(offsetof(struct bda, last_line) == 0x84, "BIOS data area");

static uint32_t vector(enum code at)
{
    return BIOS_SEGMENT << 16 | (CODE_OFFSET + at);
}

static enum hv_err write_vectors(struct vm *vm)
{
    uint32_t table[NR_VECTORS];

    for (unsigned i = 0; i < NR_VECTORS; i++) {
        table[i] = vector(i >= 0x10 && i < 0x20 ? CODE_REFUSE : CODE_IRET);
    }
    table[0x11] = vector(CODE_EQUIPMENT);
    table[0x12] = vector(CODE_MEMORY_SIZE);
    table[0x15] = vector(CODE_SYSTEM);
    return guestmem_write(vm, GPA(0), table, sizeof(table));
}

/* 16-bit code. What the two services that answer say is filled in behind their MOV AX. */
static const struct {
    uint8_t at, size;
    const char *bytes;
} pieces[] = {
    {CODE_IRET, 1, "\xcf"},
    {CODE_REFUSE, 4, "\xf9\xca\x02\x00"},                    /* stc; retf 2 */
    {CODE_EQUIPMENT, 4, "\xb8\x00\x00\xcf"},                 /* mov ax; iret */
    {CODE_MEMORY_SIZE, 4, "\xb8\x00\x00\xcf"},               /* mov ax; iret */
    {CODE_SYSTEM, 6, "\xb4\x86\xf9\xca\x02\x00"},            /* mov ah, 86h; stc; retf 2 */
    {CODE_RESET, 9, "\xba\xf9\x0c\xb0\x06\xee\xf4\xeb\xfd"}, /* out to cf9; hlt; jmp to it */
};
_Static_assert(PLATFORM_RESET_PORT == 0xcf9 && PLATFORM_RESET_VALUE == 0x06, "as in the code");

static enum hv_err write_code(struct vm *vm, const struct bda *bda)
{
    uint8_t code[0x100] = {0};

    for (unsigned i = 0; i < ARRAY_SIZE(pieces); i++) {
        memcpy(&code[pieces[i].at], pieces[i].bytes, pieces[i].size);
    }
    memcpy(&code[CODE_EQUIPMENT + 1], &bda->equipment, sizeof(bda->equipment));
    memcpy(&code[CODE_MEMORY_SIZE + 1], &bda->base_kib, sizeof(bda->base_kib));
    return guestmem_write(vm, GPA(CODE_BASE), code, sizeof(code));
}

enum hv_err bios_write(struct vm *vm)
{
    uint64_t low_end = MIN(vm->config.memory_bytes, GUEST_LOW_RAM_END);
    struct bda bda = {
        .com = {COM1_PORT},
        .ebda = (uint16_t)(GUEST_LOW_RAM_END >> 4),
        .equipment = EQUIPMENT,
        .base_kib = (uint16_t)(low_end >> 10),
        .video_mode = 3,
        .columns = 80,
        .crtc = 0x3d4,
        .last_line = 24,
    };
    const uint8_t ebda_kib = EBDA_KIB;
    enum hv_err err = write_vectors(vm);

    if (!err) {
        err = guestmem_write(vm, GPA(BDA_BASE), &bda, sizeof(bda));
    }
    if (!err) {
        err = guestmem_write(vm, GPA(GUEST_LOW_RAM_END), &ebda_kib, sizeof(ebda_kib));
    }
    return err ? err : write_code(vm, &bda);
}
