# SPDX-License-Identifier: BSD-2-Clause
"""From power-on to the shell over every way of booting. (QEMU only: UEFI and USB, for Bochs has BIOS and
CD.)"""

import os
import re

import pytest

from machine import ISO, USB, Machine, ovmf
from platforms import runs_on


DEMO = ("linux1", "linux2", "linux3")


def _demo_runs(m, loader, reach):
    """The demo's three Linux guests are started, and `reach` reach their shells; not to wait for them,
    the others are destroyed."""
    m.prompt(300)
    version = m.command("version")
    assert re.search(loader, version), version
    for name in DEMO:
        m.wait_for("vms", r"%s\s+running" % name)
    for name in DEMO:
        if name not in reach:
            assert "destroyed" in m.command("vm %s destroy" % name)
    for name in reach:
        m.send("console %s\r" % name)
        m.expect(r"%s:[^\r\n]*# " % name)
        m.send("echo $((40+2))-%s\r" % name)
        m.expect("42-" + name, 60)
        m.send("\x1d")
        m.prompt(20)
    m.poweroff()


@runs_on(svm={"smp": 2, "mem": "2G", "limit": 500, "reach": DEMO},
         vmx={"smp": 2, "mem": "1G", "limit": 600, "reach": DEMO[:1], "long": True})
def test_bios_iso(on):
    with on.machine(iso=ISO) as m:
        _demo_runs(m, r"GRUB.*BIOS|BIOS.*GRUB", on["reach"])


def test_svm_bios_usb():
    """The hybrid ISO written to a USB stick."""
    drive = "if=none,id=stick,format=raw,readonly=on,file=" + ISO
    with Machine("svm_bios_usb", boot=["-drive", drive, "-device", "qemu-xhci",
                                       "-device", "usb-storage,drive=stick,bootindex=0"],
                 smp=1, mem="2G", limit=300) as m:
        m.prompt(200)
        m.poweroff()


def test_svm_uefi_grub():
    with Machine("svm_uefi_grub", boot=["-bios", ovmf(), "-cdrom", ISO], smp=2, mem="2G",
                 limit=400) as m:
        m.prompt(240)
        assert re.search(r"GRUB", m.command("version"))
        assert re.search(r"UEFI", m.command("version"))
        m.wait_for("vms", r"linux1\s+running")
        m.poweroff()


def test_svm_uefi_loader():
    if not os.path.exists(USB):
        pytest.fail("no USB image: make usb")
    with Machine("svm_uefi_loader",
                 boot=["-bios", ovmf(), "-drive", "format=raw,snapshot=on,file=" + USB],
                 smp=2, mem="2G", limit=400) as m:
        m.prompt(240)
        version = m.command("version")
        assert "UEFI" in version and "GRUB" not in version, version
        m.wait_for("vms", r"linux1\s+running")
        m.poweroff()
