# SPDX-License-Identifier: BSD-2-Clause
"""A Bochs machine under test: the interface of machine.Machine, booted from an ISO of its own.

The ISO holds the kernel and the test's modules under a GRUB for BIOS alone, without menu.
"""

import os
import shutil
import subprocess
import sys

import pexpect.fdpexpect
import pytest

from machine import BUILD, KERNEL, SLOW, Machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
import bochs_run  # noqa: E402

GRUB_DIR = "/usr/lib/grub/i386-pc"
GRUB_MODULES = "normal multiboot2 iso9660 part_msdos"


def _make_iso(path, tree, modules, cmdline):
    """A bootable ISO at `path`; `tree` is a directory to build it in."""
    shutil.rmtree(tree, ignore_errors=True)
    os.makedirs(os.path.join(tree, "boot/grub"))
    shutil.copy(KERNEL, os.path.join(tree, "ballast.elf"))
    lines = ["multiboot2 /ballast.elf " + cmdline, "set gfxpayload=text"]
    for i, (name, data) in enumerate(modules.items()):
        with open(os.path.join(tree, "m%d" % i), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        lines.append("module2 /m%d %s" % (i, name))
    with open(os.path.join(tree, "boot/grub/grub.cfg"), "w", encoding="utf-8") as f:
        f.write("\n".join([*lines, "boot", ""]))
    subprocess.run(["grub-mkrescue", "-d", GRUB_DIR, "-o", path, "--locales=", "--themes=",
                    "--fonts=", "--install-modules=" + GRUB_MODULES, tree],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(tree)


class BochsMachine(Machine):
    """One run of Bochs. `cpu` is one of its models; `iso` overrides kernel and modules."""

    # pylint: disable=super-init-not-called
    def __init__(self, name, cpu="corei7_skylake_x", smp=1, mem="1G", modules=None, cmdline="",
                 limit=120, iso=None, ips=100000000, extra=""):
        for tool in ("bochs", "grub-mkrescue"):
            if not shutil.which(tool):
                pytest.skip(tool + " is not installed")
        self.name = name
        self.limit = limit * SLOW
        self.dir = os.path.join(BUILD, "tests", "boot")
        os.makedirs(self.dir, exist_ok=True)
        self.log_path = os.path.join(self.dir, name + ".log")
        self.iso = iso
        if iso is None:
            self.iso = os.path.join(self.dir, name + ".iso")
            _make_iso(self.iso, os.path.join(self.dir, name + ".tree"), modules or {}, cmdline)
        self.options = {"model": cpu, "smp": smp, "mem": mem, "ips": ips, "extra": extra}
        self.child = None

    def __enter__(self):
        self.log = open(self.log_path, "w", encoding="utf-8", errors="replace")
        self.bochs = bochs_run.Run(self.dir, self.name, self.iso, limit=self.limit, **self.options)
        self.child = pexpect.fdpexpect.fdspawn(self.bochs.fd, encoding="utf-8",
                                               codec_errors="replace", timeout=self.limit)
        self.child.delaybeforesend = None
        self.child.logfile_read = self.log
        return self

    def __exit__(self, *exc):
        self.bochs.close()
        self.log.close()
        return False
