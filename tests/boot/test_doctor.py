# SPDX-License-Identifier: BSD-2-Clause
"""The entry doctor: hardware state that is broken on purpose is refused by name, and no guest can bring
that about."""

import fcntl
import os
import re
import subprocess

import pytest

import bochs
import machine
from machine import BUILD, THIRD_PARTY, conf, guest_elf
from platforms import runs_on

# What is broken, and the field and rule that the console must name. `late` leaves it to the processor
# to refuse; QEMU's TCG has stored the host's registers by then, but not the controls.
BROKEN = {
    "svm": [("efer=0", r"EFER = 0: must hold: SVME is set", False),
            ("cr0=0x20000011", r"CR0 = 0x20000011: must hold: NW may not be set", False),
            ("asid=0", r"guest ASID = 0: must hold: not 0", False),
            ("intercepts=0,late", r"intercepts = 0: must hold: the VMRUN intercept is set", True)],
    "vmx": [("host-cr4=0x2000", r"host CR4 = 0x2000: must hold: PAE is set", False),
            ("pin=0", r"pin-based controls = 0: must hold: only bits that", False),
            ("rflags=0", r"RFLAGS = 0: must hold: bit 1 is set", False),
            ("host-cr4=0x2000,late", r"host CR4 = 0x2000: must hold: PAE is set", True),
            ("link=0x1008,late", r"VMCS link pointer = 0x1008: must hold", True)],
}


def broken_vm(m, rule, late):
    """One machine with one damage."""
    m.prompt()
    m.wait_for("vms", r"3 VMs?: 0 running", timeout=60)
    vms = m.command("vms")
    assert re.search(r"bad\s+stopped.*VM entry failed", vms), vms
    for name in ("before", "after"):
        assert re.search(name + r"\s+stopped.*exited with code 1\b", vms), vms
    text = m.text()
    assert re.search(r"vm bad: vcpu 0: VM entry: %s.* \(manual: \"[A-Z][^\"]+\"\)" % rule, text), text
    refused = "vm bad: vcpu 0: the processor refused the entry" in text
    assert refused == late, text
    # One that is broken does not start a second time either, and leaves nothing behind.
    m.command("vm bad start")
    m.wait_for("vms", r"bad\s+stopped.*VM entry failed")
    assert "destroyed" in m.command("vm bad destroy")
    assert "audit: passed" in m.command("audit")
    assert "panic" not in m.text()


@runs_on(svm={"mem": "256M"}, vmx={"mem": "256M", "limit": 200}, svm_bochs={"mem": "256M", "long": True},
         shadow_svm={"mem": "256M", "long": True}, shadow_vmx={"mem": "256M", "limit": 200, "long": True})
def test_entry_doctor(on):
    """Each damage of BROKEN is named with its rule and section; the other VMs end as they should."""
    vms = [(name, {"memory": "8M", "kernel": "hello.elf", "output": "log",
                   "cmdline": "name=%s end=exit" % name}) for name in ("before", "bad", "after")]
    for i, (damage, rule, late) in enumerate(BROKEN[on.vendor]):
        with on.machine("_%d" % i, cmdline="break=bad:" + damage,
                        modules={"ballast.conf": conf(*vms, seed=1),
                                 "hello.elf": guest_elf("hello")}) as m:
            broken_vm(m, rule, late)


@pytest.fixture
def debug_kernel(monkeypatch):
    """A build with DEBUG=1, which asks the doctor before every entry, in place of the usual one."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    build = os.path.join(BUILD, "debug")
    os.makedirs(build, exist_ok=True)
    with open(os.path.join(build, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-C", root, "BUILD=" + build, "DEBUG=1", THIRD_PARTY, "kernel"], check=True,
                       stdout=subprocess.DEVNULL)
    for module in (machine, bochs):
        monkeypatch.setattr(module, "KERNEL", os.path.join(build, "ballast.elf"))


HOSTILE = ("cr", "crkill", "msrs", "vmrun", "wild", "apic", "idt", "triple")


@runs_on(svm={"mem": "512M", "limit": 300, "long": True},
         vmx={"mem": "512M", "limit": 600, "long": True},
         shadow_svm={"mem": "512M", "limit": 300, "long": True},
         shadow_vmx={"mem": "512M", "limit": 600, "long": True})
def test_doctor_hostile(on, debug_kernel):  # pylint: disable=unused-argument,redefined-outer-name
    """Whatever a guest writes into its registers, the doctor has no reason to complain."""
    vms = [("bad-" + mode, {"memory": "16M", "kernel": "badguest.elf", "output": "log",
                            "cmdline": "mode=%s end=exit" % mode}) for mode in HOSTILE]
    vms.append(("smp", {"memory": "16M", "vcpus": 2, "kernel": "smp.elf", "output": "log",
                        "cmdline": "name=smp cpus=2 end=exit"}))
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1), "smp.elf": guest_elf("smp"),
                             "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        m.wait_for("vms", r"%d VMs?: 0 running" % len(vms), timeout=on["limit"])
        text = m.text()
        assert "not entered" not in text and "VM entry" not in text, text
        assert re.search(r"\[smp\] SUMMARY passed \d+ failed 0", text)
        assert "audit: passed" in m.command("audit")
        assert "panic" not in text
