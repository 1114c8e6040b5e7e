/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VGA text buffer: one word per cell, attribute above character.
 */
#include "kernel/drivers/vga.h"

#include "arch/x86_64/hostmap.h"
#include "arch/x86_64/io.h"
#include "boot/bootinfo.h"

#define VGA_TEXT_PA 0xb8000ULL
#define CRTC_INDEX 0x3d4
#define CRTC_DATA 0x3d5
#define CRTC_CURSOR_START 0x0a
#define CURSOR_OFF 0x20
#define ATTRIBUTE_NORMAL 0x07u
#define ATTRIBUTE_INVERSE 0x70u

static volatile uint16_t *cells;
static unsigned cell_columns;

static void vga_draw(unsigned x, unsigned y, char c, bool inverse)
{
    unsigned attribute = inverse ? ATTRIBUTE_INVERSE : ATTRIBUTE_NORMAL;

    cells[y * cell_columns + x] = (uint16_t)(attribute << 8 | (uint8_t)c);
}

static const struct display_ops vga_ops = {.name = "VGA text", .draw = vga_draw};

/* Where nothing decodes the window, writes are lost. */
static bool holds_data(void)
{
    uint16_t old = cells[0];
    bool holds;

    cells[0] = 0x0741;
    holds = cells[0] == 0x0741;
    cells[0] = 0x0742;
    holds = holds && cells[0] == 0x0742;
    cells[0] = old;
    return holds;
}

const struct display_ops *vga_init(const struct boot_info *info, unsigned *columns, unsigned *rows)
{
    uint64_t pa = VGA_TEXT_PA;

    *columns = 80;
    *rows = 25;
    if (info->fb.kind == BOOT_FB_TEXT && info->fb.width >= 40 && info->fb.height >= 10) {
        pa = info->fb.pa;
        *columns = info->fb.width;
        *rows = info->fb.height;
    } else if (info->firmware == BOOT_FIRMWARE_UEFI) {
        return NULL;
    }
    cells = hostmap_device(HPA(pa), 2ULL * *columns * *rows, false);
    cell_columns = *columns;
    if (!cells || !holds_data()) {
        return NULL;
    }
    outb(CRTC_INDEX, CRTC_CURSOR_START); /* we draw our own */
    outb(CRTC_DATA, CURSOR_OFF);
    return &vga_ops;
}
