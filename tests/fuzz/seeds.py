#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""seeds.py DIR: first inputs of the fuzz targets, one directory each."""
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
from mkcpio import Archive  # noqa: E402

CONFIG = """\
seed = 42
loglevel = debug
Mem.ShareScanTime = 10

[web] # one
memory = 256M
vcpus = 2
kernel = vmlinuz
cmdline = "console=ttyS0 \\
 quiet"
identity = none
largepages = off
cpu_shares = high
salt = lab
start = manual
output = log
on_reset = restart
[web]
memory = 12Q
"""

INSNS = """8908 8b0425000010fe c7400401020304 66a5 f3a4 f348a5 f2ae f3a6 0fb608 480fbe08 678903
f0480fc708 0fc708 ff30 8f00 8f442408 0fab08 0fbae803 870b 0fc10b 6c f36e 0f22c0 0f01f3 a300000000
648908 2e8a07 50 5b 6801000000 8c18 0fae38""".split()


def emul_seeds():
    regs = struct.pack("<16H", *[64 + 700 * i for i in range(16)])
    for mode in range(3):
        for text in INSNS:
            insn = bytes.fromhex(text)
            what = 8 if insn[-1] in (0x6c, 0x6e) else 16 if insn[:2] in (b"\x0f\x22", b"\x0f\x01") else 0
            yield struct.pack("<6B", mode, what, 0, 0, len(insn), 0) + insn.ljust(15, b"\0") + b"\0" + \
                regs + struct.pack("<H", 0)


def step_seeds():
    """Programs in each mode: the machine's state, eights of bytes of vectors and descriptors, then code."""
    def flat(attributes):
        return struct.pack("<HHBBBB", 0xffff, 0x8000, 0, attributes & 0xff, attributes >> 8, 0)
    tables = bytes(8) + flat(0x4f9b) + struct.pack("<HHBBBB", 0xffff, 0, 0, 0x93, 0x4f, 0) + bytes(8 * 5) + \
        struct.pack("<HHHH", 0x100, 8, 0x8e00, 0) * 16
    regs = struct.pack("<16H", *[0x2000 + 0x120 * i for i in range(16)])
    programs = """fa0f01160010 0f20c00c010f22c0 ea00000800 8ed88ed0 8ec08ee08ee8 b81000 cd1090cf fbf4 9c9d 60611e1f 06070fa00fa1
f3a4 f36c f36e e8000058c3 9a00000800cb c8100000c9 d7 f6f1 f7f9 2727d40ad50a e2fe c40700 0fb20700 0f01e0 0f01f0 0f0008
0f00d8 0fa2 0f31 0f30 e460 e664 cc ce 0f0b 66ea000000000800 0fafc1 0fabc0 0fc708 8f0600 ff3600 0f01060000 67668b8000000000""".split()
    for mode in range(4):
        for text in programs:
            yield struct.pack("<6BHH", mode, 12, 0, 0, 32, 2, 0xffff, 0xffff) + regs + struct.pack("<6H", *[16] * 6) + \
                bytes([0x93] * 6) + bytes([len(tables) // 8]) + b"\0" + tables + bytes.fromhex(text)


def tag(kind, payload):
    data = struct.pack("<II", kind, 8 + len(payload)) + payload
    return data + bytes(-len(data) % 8)


def boot_seeds():
    ranges = struct.pack("<II", 24, 0) + struct.pack("<QQII", 0, 0x9f000, 1, 0) + \
        struct.pack("<QQII", 0x100000, 1 << 28, 1, 0) + struct.pack("<QQII", 0xf0000, 1 << 16, 2, 0)
    tags = tag(1, b"loglevel=debug\0") + tag(2, b"GRUB\0") + tag(6, ranges) + \
        tag(3, struct.pack("<II", 0x10000, 0x10010) + b"ballast.conf args\0") + \
        tag(8, struct.pack("<QIIIBBH", 0xb8000, 160, 80, 25, 16, 2, 0)) + \
        tag(14, b"RSD PTR ".ljust(20, b"\0")) + tag(0, b"")
    yield b"\0" + struct.pack("<II", 8 + len(tags), 0) + tags
    yield b"\1" + struct.pack("<IIII4QII", 0x336ec578, 1, 0, 0, 0, 0, 0, 0x10038, 1, 0) + \
        struct.pack("<QQII", 0, 1 << 28, 1, 0)
    archive = Archive()
    archive.file("ballast.conf", CONFIG.encode())
    archive.directory("dir")
    archive.file("vmlinuz", b"\x7fELF")
    yield b"\2" + archive.bytes()


def devices_seeds():
    """Operations of four words: kind, place, width and value."""
    def op(kind, place, width, value):
        return struct.pack("<BBHI", kind, width, place, value)
    yield b"".join([op(0, 0x43, 0, 0x34), op(0, 0x40, 0, 1), op(0, 0x40, 0, 0), op(4, 10, 0, 1000)] * 4)
    yield b"".join([op(2, 0x100, 2, 0x4e), op(2, 0x108, 3, 1), op(2, 0x10, 2, 3), op(4, 15, 0, 9)] * 4)
    yield b"".join([op(0, 0x70, 0, 11), op(0, 0x71, 0, 0x72), op(4, 12, 0, 5), op(0, 0x70, 0, 12),
                    op(1, 0x71, 0, 0)] * 4)
    yield b"".join([op(3, 0x0f0, 2, 0x1ff), op(3, 0x320, 2, 0x20040), op(3, 0x380, 2, 1), op(5, 0, 0, 0)] * 4)
    yield b"".join([op(0, 0x20, 0, 0x11), op(0, 0x21, 0, 8), op(0, 0x21, 0, 4), op(0, 0x21, 0, 1),
                    op(6, 0, 0, 0), op(7, 0, 0, 0)] * 4)


def vring_seeds():
    """Rings of 8: a chain of three parts, one in an indirect table, and a loop."""
    def piece(gpa, data):
        return struct.pack("<HB", gpa // 2, len(data)) + data

    def desc(gpa, length, flags, following=0):
        return struct.pack("<QIHH", gpa, length, flags, following)

    avail = piece(0x2000, struct.pack("<3H", 0, 1, 0))
    plain = desc(0x5000, 16, 1, 1) + desc(0x6ff0, 100, 1, 2) + desc(0x8000, 1, 2)
    for what, table in ((1, piece(0x1000, plain)),
                        (1, piece(0x1000, desc(0x4008, 48, 4)) + piece(0x4008, plain)),
                        (2, piece(0x1000, desc(1 << 40, 1 << 31, 2))),
                        (0, piece(0x1000, desc(0x5000, 16, 1, 0)))):
        for fail in (0, 120):
            yield struct.pack("<4B4H", 3, what, fail, 3, 0x800, 0x1000, 0x1800, 0) + avail + table


SEEDS = {"devices": devices_seeds, "emul": emul_seeds, "step": step_seeds, "boot": boot_seeds, "vring": vring_seeds,
         "config": lambda: [CONFIG.encode()]}


def main():
    for target, make in SEEDS.items():
        where = os.path.join(sys.argv[1], target)
        os.makedirs(where, exist_ok=True)
        for i, data in enumerate(make()):
            with open(os.path.join(where, "%03d" % i), "wb") as f:
                f.write(data)


main()
