# SPDX-License-Identifier: BSD-2-Clause
"""The host's own side: log over a reset, screen and keyboard, runs that repeat."""

import os
import re

from machine import Machine, conf, guest_elf, linux_modules, linux_vm


def test_svm_log_survives_reset():
    """After a warm reset the log of the boot before is shown, and `log previous` has it."""
    vm = ("marker", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                     "cmdline": "name=trace-of-the-first-boot end=exit"})
    with Machine("svm_log_survives_reset", limit=120, mem="256M", reboot=True,
                 modules={"ballast.conf": conf(vm, seed=1), "hello.elf": guest_elf("hello")}) as m:
        m.prompt()
        m.wait_for("vms", r"marker\s+stopped")
        m.send("reboot\r")
        m.expect(r"previous boot", 60)
        m.prompt(60)
        out = m.command("log previous")
        assert "trace-of-the-first-boot" in out and "asked for by the operator" in out, out
        m.poweroff()


def _lit_pixels(path):
    with open(path, "rb") as f:
        head = f.readline() + f.readline() + f.readline()
        assert head.startswith(b"P6")
        data = f.read()
    return sum(1 for b in data[::3] if b > 64)


def test_svm_screen_keyboard():
    """The screen shows what the serial port says; keys typed there are commands."""
    with Machine("svm_screen_keyboard", limit=60, mem="256M", modules={"ballast.conf": ""},
                 extra=["-vga", "std"], monitor=True) as m:
        picture = os.path.join(m.dir, "svm_screen_keyboard.ppm")
        if os.path.exists(picture):
            os.remove(picture)
        m.prompt()
        m.monitor(*["sendkey %s" % k for k in ("shift-v", "backspace", "v", "m", "s", "ret")])
        m.expect(r"0 VMs: 0 running", 20)
        m.prompt()
        m.monitor("screendump " + picture)
        assert _lit_pixels(picture) > 2000, "the screen is dark"
        m.poweroff()


def _run_once(name):
    vms = [linux_vm("linux", cmdline='"console=ttyS0 quiet pci=off name=linux run=poweroff"',
                    output="log")]
    vms += [("m%d" % i, {"memory": "16M", "kernel": "memtouch.elf", "output": "log",
                         "cmdline": "name=m%d end=exit mb=4 rounds=1 order=random" % i})
            for i in range(3)]
    with Machine(name, limit=200, mem="1G", extra=["-icount", "shift=0,sleep=off", "-seed", "1"],
                 modules={"ballast.conf": conf(*vms, seed=99), **linux_modules(),
                          "memtouch.elf": guest_elf("memtouch")}) as m:
        m.expect(r"vm linux: powered off", 180)
        text = m.text()
    lines = [l for l in re.sub(r"\r", "", text).split("\n") if re.match(r"\[ *\d+\.\d+\]", l)]
    end = next(i for i, l in enumerate(lines) if "vm linux: powered off" in l)
    return lines[:end]


def test_svm_repeats():
    """The same seed under -icount gives the same run, to the last time stamp. (-seed is what RDRAND
    gives the guest.)"""
    first = _run_once("svm_repeats_1")
    second = _run_once("svm_repeats_2")
    assert len(first) > 20
    assert first == second
