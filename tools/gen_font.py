#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Write the printable ASCII glyphs of an 8x16 console font (PSF 1 or 2, gzipped) as NASM source.

usage: gen_font.py FONT.psf.gz > font.asm
"""
import gzip
import struct
import sys

FIRST, LAST, HEIGHT = 0x20, 0x7E, 16


def parse_psf1(data):
    mode, height = data[2], data[3]
    count = 512 if mode & 1 else 256
    glyphs = [data[4 + i * height:4 + (i + 1) * height] for i in range(count)]
    table = {}
    if mode & 6:
        words = struct.unpack(f"<{(len(data) - 4 - count * height) // 2}H", data[4 + count * height:])
        glyph, in_sequence = 0, False
        for word in words:
            if word == 0xFFFF:
                glyph, in_sequence = glyph + 1, False
            elif word == 0xFFFE:
                in_sequence = True
            elif not in_sequence:
                table.setdefault(word, glyph)
    return 8, height, glyphs, table


def parse_psf2(data):
    _, _, start, flags, count, size, height, width = struct.unpack("<8I", data[:32])
    glyphs = [data[start + i * size:start + (i + 1) * size] for i in range(count)]
    table = {}
    if flags & 1:
        entries = data[start + count * size:].split(b"\xff")[:count]
        for glyph, entry in enumerate(entries):
            for character in entry.split(b"\xfe")[0].decode("utf-8"):
                table.setdefault(ord(character), glyph)
    return width, height, glyphs, table


def main():
    data = gzip.open(sys.argv[1]).read()
    if data[:2] == b"\x36\x04":
        width, height, glyphs, table = parse_psf1(data)
    elif data[:4] == b"\x72\xb5\x4a\x86":
        width, height, glyphs, table = parse_psf2(data)
    else:
        sys.exit(f"{sys.argv[1]}: not a PSF font")
    if (width, height) != (8, HEIGHT):
        sys.exit(f"{sys.argv[1]}: {width}x{height}, want 8x{HEIGHT}")
    print("section .rodata\nglobal console_font\nconsole_font:")
    for code in range(FIRST, LAST + 1):
        glyph = glyphs[table.get(code, code)]
        print("    db " + ", ".join(f"0x{line:02x}" for line in glyph) + f" ; {chr(code)!r}")
    print("section .note.GNU-stack noalloc noexec nowrite progbits")


main()
