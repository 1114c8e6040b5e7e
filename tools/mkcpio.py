#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Writes newc cpio archives that depend on nothing but their contents.

As a program: mkcpio.py OUT NAME=PATH ...   (the modules of a PVH boot, in the order given)
As a library: Archive().file(...).directory(...).write(path); used for the Linux initramfs too.
Times, owners and inode numbers are fixed, so the same contents give the same bytes.
"""
import sys


class Archive:
    """A newc archive in memory; members appear in the order they were added."""

    def __init__(self):
        self._parts = []
        self._ino = 0

    def _member(self, name, mode, data=b"", rdev=(0, 0)):
        self._ino += 1
        links = 2 if mode & 0o040000 else 1
        encoded = name.encode() + b"\0"
        fields = [self._ino, mode, 0, 0, links, 0, len(data), 0, 0, *rdev, len(encoded), 0]
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + encoded
        head += b"\0" * (-len(head) % 4)
        self._parts += [head, data, b"\0" * (-len(data) % 4)]
        return self

    def directory(self, name, mode=0o755):
        return self._member(name, 0o040000 | mode)

    def file(self, name, data, mode=0o644):
        return self._member(name, 0o100000 | mode, data)

    def symlink(self, name, target):
        return self._member(name, 0o120777, target.encode())

    def chardev(self, name, major, minor, mode=0o600):
        return self._member(name, 0o020000 | mode, b"", (major, minor))

    def bytes(self):
        self_parts = list(self._parts)
        trailer = b"070701" + b"%08x" * 13 % (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11, 0)
        trailer += b"TRAILER!!!\0"
        self_parts += [trailer, b"\0" * (-len(trailer) % 4)]
        return b"".join(self_parts)

    def write(self, path):
        with open(path, "wb") as out:
            out.write(self.bytes())


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: mkcpio.py OUT NAME=PATH ...")
    archive = Archive()
    for arg in sys.argv[2:]:
        name, _, path = arg.partition("=")
        with open(path or name, "rb") as member:
            archive.file(name, member.read())
    archive.write(sys.argv[1])


if __name__ == "__main__":
    main()
