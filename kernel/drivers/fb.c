/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Linear framebuffer with direct colour, 16 to 32 bits per pixel. Memory is only ever written, a
 * glyph line at a time: reading write-combined memory back is slow.
 */
#include "kernel/drivers/fb.h"

#include "arch/x86_64/hostmap.h"
#include "boot/bootinfo.h"
#include "kernel/drivers/term.h"
#include "kernel/lib/string.h"

#define GLYPH_WIDTH 8u
#define GLYPH_HEIGHT 16u
#define FIRST_GLYPH ' '
#define LAST_GLYPH '~'
#define BYTES_PER_PIXEL_MAX 4u

/* Generated; one byte per line, leftmost pixel in bit 7. */
extern const uint8_t console_font[LAST_GLYPH - FIRST_GLYPH + 1][GLYPH_HEIGHT];

static uint8_t *base;
static uint32_t pitch;
static unsigned pixel_bytes;
static uint32_t ink, paper;

static void put_pixel(uint8_t *p, uint32_t colour)
{
    for (unsigned i = 0; i < pixel_bytes; i++) {
        p[i] = (uint8_t)(colour >> (8 * i));
    }
}

static void fb_draw(unsigned x, unsigned y, char c, bool inverse)
{
    const uint8_t *glyph =
        console_font[(c < FIRST_GLYPH || c > LAST_GLYPH ? '?' : c) - FIRST_GLYPH];
    uint8_t *at = base + (size_t)y * GLYPH_HEIGHT * pitch + (size_t)x * GLYPH_WIDTH * pixel_bytes;

    for (unsigned line = 0; line < GLYPH_HEIGHT; line++, at += pitch) {
        unsigned bits = inverse ? (uint8_t)~glyph[line] : glyph[line];
        uint8_t pixels[GLYPH_WIDTH * BYTES_PER_PIXEL_MAX];

        for (unsigned i = 0; i < GLYPH_WIDTH; i++) {
            put_pixel(pixels + i * pixel_bytes, bits & (0x80u >> i) ? ink : paper);
        }
        memcpy(at, pixels, GLYPH_WIDTH * pixel_bytes);
    }
}

static const struct display_ops fb_ops = {.name = "framebuffer", .draw = fb_draw};

/* `level` of 255 in a field of `size` bits at `pos`. */
static uint32_t field(unsigned level, uint8_t pos, uint8_t size)
{
    return size >= 8 ? (uint32_t)level << (pos + size - 8) : (uint32_t)(level >> (8 - size)) << pos;
}

static uint32_t grey(const struct boot_framebuffer *fb, unsigned level)
{
    return field(level, fb->red_pos, fb->red_size) | field(level, fb->green_pos, fb->green_size) |
           field(level, fb->blue_pos, fb->blue_size);
}

static bool usable(const struct boot_framebuffer *fb)
{
    return fb->kind == BOOT_FB_RGB && (fb->bpp == 16 || fb->bpp == 24 || fb->bpp == 32) &&
           fb->width >= 40 * GLYPH_WIDTH && fb->height >= 10 * GLYPH_HEIGHT && fb->width <= 16384 &&
           fb->height <= 16384 && fb->pitch >= fb->width * (fb->bpp / 8u) &&
           fb->pitch <= 1u << 20 && fb->red_pos + fb->red_size <= 32 &&
           fb->green_pos + fb->green_size <= 32 && fb->blue_pos + fb->blue_size <= 32;
}

const struct display_ops *fb_init(const struct boot_info *info, unsigned *columns, unsigned *rows)
{
    const struct boot_framebuffer *fb = &info->fb;

    if (!usable(fb)) {
        return NULL;
    }
    base = hostmap_device(HPA(fb->pa), (uint64_t)fb->pitch * fb->height, true);
    if (!base) {
        return NULL;
    }
    pitch = fb->pitch;
    pixel_bytes = fb->bpp / 8u;
    ink = grey(fb, 0xc0);
    paper = grey(fb, 0);
    *columns = MIN(fb->width / GLYPH_WIDTH, TERM_MAX_COLUMNS);
    *rows = MIN(fb->height / GLYPH_HEIGHT, TERM_MAX_ROWS);
    for (uint32_t y = 0; y < fb->height; y++) {
        memset(base + (size_t)y * pitch, 0, (size_t)fb->width * pixel_bytes);
    }
    return &fb_ops;
}
