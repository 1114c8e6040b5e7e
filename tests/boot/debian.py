# SPDX-License-Identifier: BSD-2-Clause
"""Debian packages whose kernels and programs run in guests: downloaded and unpacked once, under
BUILD/guests/debian, and installed nowhere. A test that needs one which cannot be had is skipped."""

import contextlib
import fcntl
import glob
import gzip
import os
import re
import shutil
import subprocess

import pytest

from machine import BUILD
from mkcpio import Archive

DIR = os.path.join(BUILD, "guests", "debian")

# What Debian's stress-ng is linked with, directly and not.
STRESS_NG = """stress-ng libapparmor1 libbsd0 libc6 libcrypt1 libdrm2 libegl1 libexpat1 libffi8 libgbm1
libgles2 libglvnd0 libipsec-mb1 libjpeg62-turbo libjudydebian1 libkmod2 liblzma5 libmd0 libsctp1 libssl3
libwayland-server0 libxxhash0 libzstd1 zlib1g""".split()


def _run(argv, what):
    done = subprocess.run(argv, cwd=DIR, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("%s: %s" % (what, (done.stderr.strip().splitlines() or ["no reason given"])[-1]))
    return done.stdout


@contextlib.contextmanager
def _alone(name):
    """One test at a time makes it; the others wait and find it made."""
    os.makedirs(DIR, exist_ok=True)
    with open(os.path.join(DIR, name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def package(name):
    """The directory into which the package is unpacked."""
    tree = os.path.join(DIR, name)
    with _alone(name):
        if not os.path.isdir(tree):
            _run(["apt-get", "download", "-qq", name], "cannot download Debian's " + name)
            deb = glob.glob(os.path.join(DIR, name + "_*.deb"))[0]
            _run(["dpkg-deb", "-x", deb, tree + ".new"], "cannot unpack " + deb)
            os.remove(deb)
            os.rename(tree + ".new", tree)
    return tree


def read(name, pattern):
    """The first file of a package that fits a pattern; unpacked, if it is compressed as a whole."""
    found = sorted(glob.glob(os.path.join(package(name), pattern)))
    assert found, "%s has no %s" % (name, pattern)
    with (gzip.open if found[0].endswith("-amd64.gz") or re.search(r"gnumach.*\.gz$", found[0])
          else open)(found[0], "rb") as f:
        return f.read()


def generic_kernel():
    """The kernel that linux-image-amd64 stands for today."""
    os.makedirs(DIR, exist_ok=True)
    depends = _run(["apt-cache", "depends", "linux-image-amd64"], "apt knows no linux-image-amd64")
    name = re.search(r"Depends: (linux-image-[0-9]\S*-amd64)$", depends, re.M)
    if not name:
        pytest.skip("apt knows no linux-image-amd64: apt-get update")
    return read(name.group(1), "boot/vmlinuz-*")


def _needed(path):
    out = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", out)


def _libraries(program, trees):
    """Every shared library that the program needs: its name and its file."""
    found, todo = {}, [program]
    while todo:
        for name in _needed(todo.pop()):
            if name in found:
                continue
            where = [p for t in trees for p in glob.glob(os.path.join(t, "**", name), recursive=True)]
            assert where, "no package of the list has " + name
            found[name] = os.path.realpath(where[0])
            todo.append(found[name])
    return found


def stress_ng():
    """A compressed archive that adds stress-ng to the Linux guest's initramfs: /bin/stress-ng."""
    path = os.path.join(DIR, "stress-ng.cpio.gz")
    with _alone("stress-ng.cpio"):
        if not os.path.exists(path):
            _make_stress_ng(path)
    with open(path, "rb") as f:
        return f.read()


def _make_stress_ng(path):
    trees = [package(name) for name in STRESS_NG]
    program = shutil.which("readelf") and os.path.join(trees[0], "usr/bin/stress-ng")
    if not program:
        pytest.skip("readelf is not installed (Debian package binutils)")
    archive = Archive()
    for directory in ("bin", "lib", "lib64"):
        archive.directory(directory)
    for name, source in [("bin/stress-ng", program)] + [
            (("lib64/" if name.startswith("ld-linux") else "lib/") + name, source)
            for name, source in sorted(_libraries(program, trees).items())]:
        with open(source, "rb") as f:
            archive.file(name, f.read(), 0o755)
    with open(path + ".new", "wb") as f:
        f.write(gzip.compress(archive.bytes(), mtime=0))
    os.rename(path + ".new", path)


def script(name, text):
    """A compressed archive that adds an executable script to the initramfs."""
    archive = Archive().directory("bin").file("bin/" + name, text.encode(), 0o755)
    return gzip.compress(archive.bytes(), mtime=0)
