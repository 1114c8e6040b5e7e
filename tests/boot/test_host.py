# SPDX-License-Identifier: BSD-2-Clause
"""The host's own side: log over a reset, screen and keyboard, runs that repeat."""

import os
import re

from machine import conf, guest_elf, linux_modules, linux_vm
from platforms import runs_on


@runs_on(svm={"mem": "256M"}, svm_bochs={"mem": "256M", "long": True})
def test_log_survives_reset(on):
    """After a warm reset the log of the boot before is shown, and `log previous` has it. (Not on Bochs's
    VMX models: their BIOS writes IA32_FEATURE_CONTROL, which it has locked before the reset, and dies.)
    """
    vm = ("marker", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                     "cmdline": "name=trace-of-the-first-boot end=exit"})
    with on.machine(reboot=True, modules={"ballast.conf": conf(vm, seed=1),
                                          "hello.elf": guest_elf("hello")}) as m:
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


@runs_on(svm={"mem": "256M", "extra": ["-vga", "std"]})
def test_screen_keyboard(on):
    """The screen shows what the serial port says; keys typed there are commands. (QEMU only: its monitor
    types and looks.)"""
    with on.machine(modules={"ballast.conf": ""}, monitor=True) as m:
        picture = os.path.join(m.dir, m.name + ".ppm")
        if os.path.exists(picture):
            os.remove(picture)
        m.prompt()
        m.monitor(*["sendkey %s" % k for k in ("shift-v", "backspace", "v", "m", "s", "ret")])
        m.expect(r"0 VMs: 0 running", 20)
        m.prompt()
        m.monitor("screendump " + picture)
        assert _lit_pixels(picture) > 2000, "the screen is dark"
        m.poweroff()


def _run_once(on, suffix):
    vms = [linux_vm("linux", cmdline='"console=ttyS0 quiet pci=off name=linux run=poweroff"',
                    output="log")]
    vms += [("m%d" % i, {"memory": "16M", "kernel": "memtouch.elf", "output": "log",
                         "cmdline": "name=m%d end=exit mb=4 rounds=1 order=random" % i})
            for i in range(3)]
    with on.machine(suffix, modules={"ballast.conf": conf(*vms, seed=99), **linux_modules(),
                                     "memtouch.elf": guest_elf("memtouch")}) as m:
        m.expect(r"vm linux: powered off")
        text = m.text()
    lines = [l for l in re.sub(r"\r", "", text).split("\n") if re.match(r"\[ *\d+\.\d+\]", l)]
    end = next(i for i, l in enumerate(lines) if "vm linux: powered off" in l)
    return lines[:end]


@runs_on(svm={"limit": 200, "emulated": True,
              "extra": ["-icount", "shift=0,sleep=off", "-seed", "1"]},
         vmx={"cpu": "corei7_sandy_bridge_2600k", "limit": 500, "emulated": True, "long": True},
         shadow_svm={"limit": 200, "emulated": True, "long": True,
                     "extra": ["-icount", "shift=0,sleep=off", "-seed", "1"]})
def test_repeats(on):
    """The same seed gives the same run, to the last time stamp: in QEMU under -icount (-seed is what
    RDRAND gives the guest), in Bochs on a model without RDRAND, which it seeds by the time of day."""
    first = _run_once(on, "_1")
    second = _run_once(on, "_2")
    assert len(first) > 20
    assert first == second
