# SPDX-License-Identifier: BSD-2-Clause
"""Which files the checks look at: everything tracked or about to be, so nothing under build/."""
import subprocess


def files(*suffixes):
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"],
                            capture_output=True, text=True)
    if listed.returncode == 0:
        names = listed.stdout.split("\n")
    else:  # an unpacked archive instead of a clone
        found = subprocess.run(["find", ".", "-path", "./build*", "-prune", "-o", "-type", "f", "-print"],
                               capture_output=True, text=True, check=True)
        names = [name[2:] for name in found.stdout.split("\n")]
    import os
    return sorted({name for name in names if name.endswith(suffixes) and os.path.exists(name)})


def verdict(name, problems, limit=20):
    """One result: PASS, or FAIL with the problems under it."""
    if not problems:
        return ("PASS", name, "")
    shown = "".join(f"\n    {line}" for line in problems[:limit])
    more = f"\n    ... and {len(problems) - limit} more" if len(problems) > limit else ""
    return ("FAIL", name, f"{len(problems)} problem(s){shown}{more}")


KERNEL_FOLDERS = ("boot/", "arch/", "kernel/", "mm/", "vmx/", "svm/")


def kernel_files(*suffixes):
    """Sources of the image: without the UEFI loader, which is a program of its own."""
    return [name for name in files(*suffixes)
            if name.startswith(KERNEL_FOLDERS) and not name.startswith("boot/efi/")]
