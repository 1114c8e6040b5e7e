# SPDX-License-Identifier: BSD-2-Clause
"""Disk images for machines under test, and how QEMU gets them."""

import functools
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import uuid
import zlib

import pytest

from bochs import BochsMachine
from machine import BUILD, EmulatorCrash
from platforms import PLATFORMS

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
import mkswap  # noqa: E402

SECTOR = 512
MIB = 1 << 20
TEST_SECTOR = 8  # of a whole-disk swap area: where the pages of `swap test` begin
FIRST_SLOT = 257  # pages of a whole-disk swap area before its slots

# Kind to the devices' arguments behind -device ("{}": the drive), and the machine type that has it.
DEVICES = {
    "virtio": "virtio-blk-pci,drive={}",
    "virtio-legacy": "virtio-blk-pci,drive={},disable-modern=on",
    "virtio-polled": "virtio-blk-pci,drive={},vectors=0",
    "virtio-direct": "virtio-blk-pci,drive={},indirect_desc=off",
    "virtio-4k": "virtio-blk-pci,drive={},logical_block_size=4096,physical_block_size=4096",
    "virtio-unmerged": "virtio-blk-pci,drive={},request-merging=off",
    "nvme": "nvme,drive={}",
    "nvme-4k": "nvme,drive={},logical_block_size=4096,physical_block_size=4096",
    "sata": "ide-hd,drive={}",
    "ide": "ide-hd,drive={}",
}


def path_of(name):
    directory = os.path.join(BUILD, "tests", "boot")
    os.makedirs(directory, exist_ok=True)
    return os.path.join(directory, name + ".img")


def swap_image(name, size=16 * MIB):
    path = path_of(name)
    mkswap.make(path, size)
    return path


def slot_sector(slot):
    """Where a slot of a whole-disk swap area begins."""
    return (FIRST_SLOT + slot) * 4096 // SECTOR


def filled_image(name, size=16 * MIB, seed=1):
    """An image full of noise that is nobody's."""
    path = path_of(name)
    with open(path, "wb") as f:
        f.write(random.Random(seed).randbytes(size))
    return path


def digest(path, skip=()):
    """A hash of an image, without the byte ranges `skip`."""
    with open(path, "rb") as f:
        data = bytearray(f.read())
    for start, end in skip:
        data[start:end] = bytes(end - start)
    return hashlib.sha256(data).hexdigest()


def write_gpt(path, parts):
    """Both copies of a GPT; `parts` are (type GUID, first sector, last sector, name)."""
    size = os.path.getsize(path)
    last = size // SECTOR - 1
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", uuid.UUID(kind).bytes_le, uuid.uuid4().bytes_le, first, end, 0,
                    name.encode("utf-16-le")) for kind, first, end, name in parts)
    entries = entries.ljust(128 * 128, b"\0")
    disk = uuid.uuid4().bytes_le

    def header(at, other, table):
        h = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, at, other, 34,
                        last - 33, disk, table, 128, 128, zlib.crc32(entries))
        return h[:16] + struct.pack("<I", zlib.crc32(h)) + h[20:]

    with open(path, "r+b") as f:
        f.seek(446)
        f.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xee, b"\xff\xff\xff", 1, last))
        f.write(bytes(48) + b"\x55\xaa")
        for at, other, table in ((1, last, 2), (last, 1, last - 32)):
            f.seek(at * SECTOR)
            f.write(header(at, other, table))
            f.seek(table * SECTOR)
            f.write(entries)


def drive(kind, path, number=0, serial=None, options="", prefix=""):
    """QEMU's arguments for one disk of a kind; `number` tells a machine's disks apart; `prefix`:
    "blkdebug:FILE:" in front of the path."""
    name = "d%d" % number
    device = DEVICES[kind].format(name)
    if kind == "sata":
        device += ",bus=ide.%d" % number
    if kind == "ide":
        device += ",bus=ide.%d,unit=%d" % divmod(number, 2)
    device += ",serial=" + (serial or "s%d" % number)
    return ["-drive", "if=none,id=%s,format=raw,file=%s%s,rerror=report,werror=report%s" %
            (name, prefix, path, options), "-device", device]


def attach(on, *images):
    """Up to three images as disks of the platform's machine: its argument `extra`, and the disks' names. QEMU gives
    each a controller of another kind, and the serial numbers s0, s1, ...; Bochs has one, for IDE."""
    if issubclass(PLATFORMS[on.platform][0], BochsMachine):
        places = ("ata0-slave", "ata1-master", "ata1-slave")
        lines = ["ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15"]
        lines += ['%s: type=disk, mode=flat, path="%s"' % pair for pair in zip(places, images)]
        return "\n".join(lines), ["ide%d" % i for i in range(len(images))]
    kinds = ("virtio", "nvme", "sata")
    extra = [a for i, (kind, path) in enumerate(zip(kinds, images)) for a in drive(kind, path, i)]
    return extra, [kind + "0" for kind in kinds[:len(images)]]


def sfdisk(path, label, *parts):
    """Partition an image as an operator would: `label` is gpt or dos, `parts` are lines of sfdisk's script."""
    tool = shutil.which("sfdisk", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not tool:
        pytest.skip("sfdisk is not installed")
    subprocess.run([tool, "--quiet", path], input="\n".join(("label: " + label, *parts, "")), text=True,
                   check=True)


def blkdebug(name, *rules):
    """A file of rules for QEMU's blkdebug, as "blkdebug:FILE:"; a rule is a dict, of one that changes the
    state with "new_state"."""
    path = path_of(name) + ".blkdebug"
    with open(path, "w", encoding="ascii") as f:
        for rule in rules:
            f.write("[set-state]\n" if "new_state" in rule else "[inject-error]\n")
            f.write("".join('%s = "%s"\n' % kv for kv in rule.items()))
    return "blkdebug:%s:" % path


class RepeatedByEmulator(Exception):
    """A disk command failed and was repeated by the emulator, not by Ballast."""


def repeat_crashes(scenario):
    """Decorates a scenario whose disk commands fail. QEMU 7.2's AHCI dies of a null pointer about every
    tenth time that one fails and is repeated; and a port that stopped at an error starts the failed
    command again by itself when a new one is issued before the error is seen (about every fiftieth
    time). Then the scenario starts once more."""
    @functools.wraps(scenario)
    def wrapper(**fixtures):
        for tries in range(3):
            try:
                return scenario(**fixtures)
            except (EmulatorCrash, RepeatedByEmulator) as e:
                print("try %d: %s" % (tries, str(e).splitlines()[0]))
        return scenario(**fixtures)
    return wrapper
