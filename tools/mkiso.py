# SPDX-License-Identifier: BSD-2-Clause
"""A small ISO for one run: the kernel and its modules under a GRUB for BIOS alone, without menu.

For emulators that boot from media only; the ISO that people boot is made by boot/media.mk.
"""

import os
import shutil
import subprocess
import tempfile

TOOL = "grub-mkrescue"
GRUB_DIR = "/usr/lib/grub/i386-pc"
GRUB_MODULES = "normal multiboot2 iso9660 part_msdos"


def make_iso(path, kernel, modules, cmdline=""):
    """Write the ISO to `path`. `kernel` is a file, `modules` maps names to contents (bytes or str)."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as tree:
        os.makedirs(os.path.join(tree, "boot/grub"))
        shutil.copy(kernel, os.path.join(tree, "ballast.elf"))
        lines = ["multiboot2 /ballast.elf " + cmdline, "set gfxpayload=text"]
        for i, (name, data) in enumerate(modules.items()):
            with open(os.path.join(tree, "m%d" % i), "wb") as f:
                f.write(data if isinstance(data, bytes) else data.encode())
            lines.append("module2 /m%d %s" % (i, name))
        with open(os.path.join(tree, "boot/grub/grub.cfg"), "w", encoding="utf-8") as f:
            f.write("\n".join([*lines, "boot", ""]))
        subprocess.run([TOOL, "-d", GRUB_DIR, "-o", path, "--locales=", "--themes=", "--fonts=",
                        "--install-modules=" + GRUB_MODULES, tree],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
