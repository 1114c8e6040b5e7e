# SPDX-License-Identifier: BSD-2-Clause
"""Checks that run a compiler or another tool over the tree."""
import concurrent.futures
import os
import shutil
import subprocess
import tempfile

from tree import files, kernel_files, verdict

BUILD = os.environ.get("BUILD", "build")
MAKE = os.environ.get("MAKE", "make").split()[0]
COMPILERS = ("gcc", "clang")
IMAGE_LIMIT = 512 * 1024  # bytes of text and read-only data


def missing(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def in_parallel(function, items):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [result for result in pool.map(function, items) if result]


def clang_format():
    reason = missing("clang-format")
    if reason:
        yield ("SKIP", "format", reason)
        return

    def check(name):
        done = subprocess.run(["clang-format", "--dry-run", "-Werror", name], capture_output=True,
                              text=True)
        return f"{name}: run make format" if done.returncode else None

    yield verdict("format", in_parallel(check, files(".c", ".h")))


def flags(compiler):
    """The image's own flags, asked of the Makefile; Zydis headers included."""
    done = subprocess.run([MAKE, "-s", "--no-print-directory", f"CC={compiler}", f"BUILD={BUILD}/check-{compiler}",
                           f"THIRD_PARTY={BUILD}/third_party", "print-flags"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def headers():
    for compiler in COMPILERS:
        name = f"headers compile alone ({compiler})"
        reason = missing(compiler)
        if reason:
            yield ("SKIP", name, reason)
            continue
        arguments = flags(compiler)

        def check(header):
            text = f'#include "{header}"\n#include "{header}"\n'
            done = subprocess.run([compiler, *arguments, "-fsyntax-only", "-x", "c", "-"], input=text,
                                  capture_output=True, text=True)
            return f"{header}\n{done.stderr}" if done.returncode else None

        yield verdict(name, in_parallel(check, kernel_files(".h")))


def warnings():
    """A whole build with each compiler. What `make` itself has just compiled is not done again."""
    for compiler in COMPILERS:
        name = f"no warnings ({compiler})"
        reason = missing(compiler)
        if reason:
            yield ("SKIP", name, reason)
            continue
        folder = BUILD if compiler == os.environ.get("CC") else f"{BUILD}/check-{compiler}"
        done = subprocess.run([MAKE, "-k", "-s", f"-j{os.cpu_count()}", "--no-print-directory",
                               f"CC={compiler}", f"BUILD={folder}",
                               f"THIRD_PARTY={BUILD}/third_party", "objects"],
                              capture_output=True, text=True)
        yield verdict(name, done.stderr.splitlines() if done.returncode or done.stderr else [])


def image():
    """The image repeats byte for byte in another build folder, and stays small."""
    elf = os.path.join(BUILD, "ballast.elf")
    reason = missing("size", "cmp")
    if reason or not os.path.exists(elf):
        yield ("SKIP", "image", reason or f"{elf} is not built")
        return
    with tempfile.TemporaryDirectory() as other:
        # Third-party code is compiled again, but not fetched again.
        fetched = os.path.join(BUILD, "third_party")
        os.mkdir(os.path.join(other, "third_party"))
        for package in os.listdir(fetched):
            if os.path.exists(os.path.join(fetched, package, ".fetched")):
                os.symlink(os.path.abspath(os.path.join(fetched, package)),
                           os.path.join(other, "third_party", package))
        done = subprocess.run([MAKE, "-s", f"-j{os.cpu_count()}", "--no-print-directory",
                               f"BUILD={other}", "kernel"], capture_output=True, text=True)
        same = done.returncode == 0 and subprocess.run(
            ["cmp", "-s", elf, os.path.join(other, "ballast.elf")]).returncode == 0
    yield verdict("image is the same built twice", [] if same else ["it differs", done.stderr[-500:]])

    listed = subprocess.run(["size", "-A", elf], capture_output=True, text=True, check=True).stdout
    sizes = {row.split()[0]: int(row.split()[1]) for row in listed.splitlines() if row.startswith(".")}
    read_only = sum(sizes.get(section, 0) for section in (".text", ".rodata", ".note", ".symbols"))
    text = f"{read_only // 1024} KiB of text and read-only data"
    yield ("PASS" if read_only <= IMAGE_LIMIT else "FAIL", "image size", text)
