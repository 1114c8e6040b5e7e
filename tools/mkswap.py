#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""mkswap.py FILE [SIZE]: make a file a disk image that is one swap area of Ballast's (what `swap format`
writes; kernel/drivers/swaparea.h). With SIZE (64M) the file is made, sparse; without, all of the existing
file is used, and lost."""

import os
import re
import struct
import sys
import uuid
import zlib

PAGE = 4096
MIN_PAGES = 513
TEST_PAGES = 256
MAGIC = b"BALLAST-SWAP-01\0"


def header(nr_pages, area=None):
    """The first 64 bytes of an area."""
    h = struct.pack("<16sIIQ16s12x", MAGIC, 1, PAGE, nr_pages, (area or uuid.uuid4()).bytes)
    return h + struct.pack("<I", zlib.crc32(h))


def size_of(text):
    m = re.fullmatch(r"(\d+)([KMGT]?)", text.upper())
    if not m:
        sys.exit("mkswap: '%s' is not a size" % text)
    return int(m[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[m[2]]


def make(path, size=None):
    with open(path, "r+b" if size is None else "wb") as f:
        if size is not None:
            f.truncate(size)
        pages = os.fstat(f.fileno()).st_size // PAGE
        if pages < MIN_PAGES:
            sys.exit("mkswap: %s: smaller than %d KiB" % (path, MIN_PAGES * PAGE // 1024))
        f.write(header(pages).ljust((1 + TEST_PAGES) * PAGE, b"\0"))  # no mark of a file system stays
        f.seek((pages - 1) * PAGE)
        f.write(bytes(PAGE))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    make(sys.argv[1], size_of(sys.argv[2]) if len(sys.argv) == 3 else None)
