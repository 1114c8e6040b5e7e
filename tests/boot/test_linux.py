# SPDX-License-Identifier: BSD-2-Clause
"""Unmodified Debian Linux guests."""

import re

from machine import conf, linux_modules, linux_vm
from platforms import runs_on

UUID_OF_ONE = "94d54d56-e7a5-46a5-a52d-4c05690b4ac8"  # of seed 7 and the name `one`


def _modules(text):
    return {"ballast.conf": text, **linux_modules()}


# `self_tests`: of Linux's ciphers, which are no load for an MMU.
@runs_on(svm={"limit": 400, "urandom_mb": 40, "self_tests": True},
         vmx={"limit": 700, "urandom_mb": 8, "self_tests": True},
         shadow_svm={"limit": 400, "urandom_mb": 8},
         shadow_vmx={"limit": 700, "urandom_mb": 2, "long": True})
def test_linux_one(on):
    """An unmodified Linux reaches its shell, finds what was configured, and powers off."""
    text = conf(linux_vm("one", self_tests=on.get("self_tests", False)), seed=7)
    with on.machine(modules=_modules(text)) as m:
        m.prompt()
        m.send("console one\r")
        m.expect(r"one:[^\r\n]*# ")
        m.send("grep -c . /proc/cpuinfo; dmesg | grep -i 'hypervisor detected'\r")
        m.expect("Hypervisor detected: VMware", 60)
        # Memory: what Linux sees is what was configured, and it can be written.
        m.send("grep MemTotal /proc/meminfo\r")
        m.expect(r"MemTotal:\s+(\d+) kB", 30)
        assert 200000 < int(m.match.group(1)) < 262144
        m.send("dd if=/dev/urandom of=/tmp/a bs=1M count=%d 2>/dev/null; cp /tmp/a /tmp/b; "
               "cmp /tmp/a /tmp/b && echo SA''ME\r" % on["urandom_mb"])
        m.expect("SAME", 200)
        # The host's seed and the VM's name decide the UUID: once and for all this one.
        m.send("cat /sys/class/dmi/id/product_uuid\r")
        m.expect(r"\n([0-9a-f-]{36})\r", 30)
        assert m.match.group(1) == UUID_OF_ONE
        # Linux has judged the TSC against its other clocks, and kept it.
        m.send("cat /sys/devices/system/clocksource/clocksource0/current_clocksource\r")
        m.expect(r"\ntsc\r+\n", 30)
        m.send("\x1d")
        m.prompt()
        out = m.command("vm one")
        assert re.search(r"running", out), out
        m.send("console one\r")
        m.send("\rpoweroff -f\r")
        m.expect("vm one: powered off", 60)
        m.send("\x1d")
        m.wait_for("vms", r"one\s+stopped.*powered off")
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"limit": 300}, vmx={"limit": 700, "long": True},
         shadow_svm={"limit": 300, "long": True}, shadow_vmx={"limit": 900, "long": True})
def test_linux_again(on):
    """A VM that powered itself off starts again, and a reboot stops it, as `on_reset` is by default."""
    with on.machine(modules=_modules(conf(linux_vm("one"), seed=7))) as m:
        m.prompt()
        m.send("console one\r")
        m.expect(r"one:[^\r\n]*# ")
        m.send("poweroff -f\r")
        m.expect("vm one: powered off", 60)
        m.send("\x1d")
        m.wait_for("vms", r"one\s+stopped.*powered off")
        m.command("vm one start")
        m.send("console one\r")
        # What the console kept of the first run is shown before what comes.
        for _ in range(2):
            m.expect(r"one ready")
        m.expect(r"one:[^\r\n]*# ")
        m.send("reboot -f\r")
        m.expect("vm one: reset", 60)
        m.send("\x1d")
        m.wait_for("vms", r"one\s+stopped.*reset")
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "2G", "limit": 500}, vmx={"smp": 1, "mem": "1G", "limit": 900, "long": True},
         shadow_svm={"smp": 2, "mem": "2G", "limit": 500, "long": True},
         shadow_vmx={"smp": 1, "mem": "1G", "limit": 900, "long": True})
def test_linux_three(on):
    names = ("a", "b", "c")
    text = conf(*[linux_vm(n) for n in names], seed=3)
    with on.machine(modules=_modules(text)) as m:
        m.prompt()
        for n in names:
            m.send("console %s\r" % n)
            m.expect(r"%s:[^\r\n]*# " % n)
            m.send("hostname; echo sum $((6*7))\r")
            m.expect(r"\n%s\r+\n" % n, 30)
            m.expect("sum 42", 30)
            m.send("\x1d")
            m.prompt()
        vms = m.command("vms")
        mem = m.command("mem")
        for n in names:
            assert re.search(r"^%s\s+running" % n, vms, re.M), vms
            assert re.search(r"^%s\s+256" % n, mem, re.M), mem
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "2G", "limit": 400},
         vmx={"smp": 2, "mem": "1G", "limit": 700, "long": True},
         shadow_svm={"smp": 2, "mem": "2G", "limit": 400, "long": True},
         shadow_vmx={"smp": 2, "mem": "1G", "limit": 900, "long": True})
def test_linux_pause(on):
    """A paused guest stands still, a resumed one goes on, and its neighbour never notices."""
    text = conf(linux_vm("p"), linux_vm("q"), seed=5)
    with on.machine(modules=_modules(text)) as m:
        m.prompt()
        m.send("console p\r")
        m.expect(r"p:[^\r\n]*# ")
        m.send("i=0; while true; do i=$((i+1)); echo tick-$i; sleep 1; done\r")
        m.expect("tick-2", 60)
        m.send("\x1d")
        m.prompt()
        m.command("vm p pause")
        m.wait_for("vms", r"p\s+paused")
        m.send("console q\r")
        m.expect(r"q:[^\r\n]*# ")
        m.send("echo al''ive\r")
        m.expect("alive", 30)
        m.send("\x1d")
        m.prompt()
        m.command("vm p resume")
        m.send("console p\r")
        m.expect(r"tick-\d+", 60)
        first = int(re.search(r"\d+", m.child.after).group())
        m.expect("tick-%d" % (first + 3), 60)
        m.send("\x1d")
        m.prompt()
        m.poweroff()


@runs_on(svm_bochs={"mem": "512M", "limit": 400, "long": True})
def test_linux(on):
    """Linux to its shell and to power-off on an AMD processor of Bochs's: next RIP and flush by ASID,
    which QEMU's have not. (SVM only: vmx_linux_one and others are Bochs's on VMX.)"""
    with on.machine(modules=_modules(conf(linux_vm("l"), seed=2))) as m:
        m.prompt()
        m.send("console l\r")
        m.expect(r"l:[^\r\n]*# ")
        m.send("echo sum $((6*7))\r")
        m.expect("sum 42", 60)
        m.send("poweroff -f\r")
        m.expect("vm l: powered off", 60)
        m.send("\x1d")
        m.prompt()
        assert "audit: passed" in m.command("audit")
        m.poweroff()
