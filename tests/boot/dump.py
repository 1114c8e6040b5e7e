# SPDX-License-Identifier: BSD-2-Clause
"""Guest memory counted from outside: a dump of the emulated machine, read by its frame table.

The count shares nothing with the hypervisor's own sharing but the 16-byte frame records (mm/frame.h).
"""

import hashlib
import mmap
import os
import re
import struct
import time

PAGE = 4096
RECORD = struct.Struct("<BBHIQ")  # use, order, owner, refs, gfn
ORDER_MASK = 0x1f
USE_GUEST, USE_SHARED = 3, 4


def take(machine, path, megabytes, timeout=60):
    """Machine memory into a file, while the machine stands still. Needs monitor=True."""
    size = megabytes << 20
    if os.path.exists(path):
        os.remove(path)
    machine.monitor("stop", 'pmemsave 0 %d "%s"' % (size, path), pause=0.5)
    end = time.monotonic() + timeout
    while not os.path.exists(path) or os.path.getsize(path) != size:
        if time.monotonic() > end:
            raise TimeoutError(path + " is not complete")
        time.sleep(0.2)
    machine.monitor("cont")


def frame_table(mem):
    """Address of the frame table and number of its records, from the shell's `mem`."""
    found = re.search(r"META +/KB: (\d+) frame table \(at (0x[0-9a-f]+)\)", mem)
    return int(found.group(2), 16), int(found.group(1)) * 1024 // RECORD.size


def _records(memory, table, nr_frames):
    """First frame, size and fields of each block's record."""
    at = 0
    while at < nr_frames:
        use, order, owner, refs, gfn = RECORD.unpack_from(memory, table + at * RECORD.size)
        size = 1 << (order & ORDER_MASK)
        yield at, size, use, owner, refs, gfn
        at += size


def guest_frames(memory, table, nr_frames):
    """(mfn, pages that stand on it) of each frame of guest memory."""
    for at, size, use, _, refs, _ in _records(memory, table, nr_frames):
        if use == USE_GUEST:
            for mfn in range(at, at + size):
                yield mfn, 1
        elif use == USE_SHARED:
            yield at, refs


def owned_frames(memory, table, nr_frames):
    """(VM, gfn, mfn) of each frame that is a guest's alone."""
    for at, size, use, owner, _, gfn in _records(memory, table, nr_frames):
        if use == USE_GUEST and (at + size) * PAGE <= len(memory):
            for i in range(size):
                yield owner, gfn + i, at + i


class Count:
    """Pages of guests, and how many frames their contents need: one for each, zero included."""

    def __init__(self, path, table, nr_frames):
        contents = set()
        self.granted = 0
        with open(path, "rb") as f:
            memory = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        for mfn, pages in guest_frames(memory, table, nr_frames):
            if mfn * PAGE + PAGE > len(memory):
                continue
            page = memory[mfn * PAGE:mfn * PAGE + PAGE]
            key = hashlib.blake2b(page, digest_size=16).digest()
            contents.add(key)
            self.granted += pages
        self.distinct = len(contents)
        self.removable = self.granted - self.distinct
        memory.close()
