# SPDX-License-Identifier: BSD-2-Clause
"""Small guests: many of them, hostile ones, and every frame accounted for."""

import re

import pytest

from machine import conf, guest_elf, linux_modules, linux_vm, number
from platforms import PREEMPTED, runs_on


@runs_on(svm={"smp": 2, "mem": "2G", "limit": 240}, vmx={"smp": 2, "mem": "1G", "limit": 400, "long": True},
         shadow_svm={"smp": 2, "mem": "2G", "limit": 240, "long": True},
         shadow_vmx={"smp": 2, "mem": "1G", "limit": 400, "long": True})
def test_hundred_small_guests(on):
    vms = [("g%d" % i, {"memory": "8M", "kernel": "hello.elf", "output": "log",
                        "cmdline": "name=g%d end=exit" % i}) for i in range(100)]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "hello.elf": guest_elf("hello")}) as m:
        m.prompt()
        m.wait_for("vms", r"100 VMs?: 0 running", timeout=on["limit"])
        m.wait_log([r"vm g%d: exited with code 1\b" % i for i in range(100)] +
                   [r"\[g%d\] SUMMARY passed 1 failed 0" % i for i in range(100)])
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"millions": 20, "long": True}, vmx={"millions": 4, "long": True},
         shadow_svm={"millions": 20, "long": True}, shadow_vmx={"millions": 4, "long": True})
@pytest.mark.parametrize("smp", [1, 2, 4])
def test_smp(on, smp):
    _smp(on, smp)


@runs_on(svm={"limit": 300, "millions": 20}, vmx={"limit": 300, "millions": 4, "long": True},
         shadow_svm={"limit": 300, "millions": 20, "long": True},
         shadow_vmx={"limit": 300, "millions": 4, "long": True})
def test_smp8(on):
    """Eight processors, all started; twice as many guests that do nothing but compute come to their end."""
    _smp(on, 8)


def _smp(on, smp):
    vms = [("f%d" % i, {"memory": "8M", "kernel": "fair.elf", "output": "log",
                        "cmdline": "name=f%d end=exit steps=4 millions=%d" % (i, on["millions"])})
           for i in range(2 * smp)]
    with on.machine(smp=smp, mem="1G", modules={"ballast.conf": conf(*vms, seed=1),
                                                "fair.elf": guest_elf("fair")}) as m:
        m.prompt()
        cpus = m.command("cpus")
        assert len(re.findall(r"^ +\d+ +\d+ +\d+\.\d ", cpus, re.M)) == smp, cpus
        m.wait_for("vms", r"%d VMs?: 0 running" % (2 * smp), timeout=on["limit"])
        m.wait_log([r"vm f%d: exited with code 1\b" % i for i in range(2 * smp)])
        m.poweroff()


@runs_on(svm={"options": " limits=off", "checks": 22},
         vmx=[{"cpu": "corei5_lynnfield_750"}, {"cpu": "corei7_skylake_x", "long": True}],
         shadow_svm={"options": " limits=off", "checks": 22}, shadow_vmx={"long": True})
def test_real_mode(on):
    """A guest's second processor in real mode: by the processor, or by the emulator (Lynnfield)."""
    vm = ("r", {"memory": "16M", "vcpus": 2, "kernel": "realmode.elf", "output": "log",
                "cmdline": "name=r end=exit" + on.get("options", "")})
    with on.machine(mem="256M", modules={"ballast.conf": conf(vm, seed=1),
                                         "realmode.elf": guest_elf("realmode")}) as m:
        m.expect(r"vm r: exited with code 1\b", 100)
        m.wait_log([r"\[r\] SUMMARY passed %d failed 0" % on.get("checks", 24)])
        m.poweroff()


@runs_on(svm={"options": " exact=off", "checks": 55}, vmx={},
         shadow_vmx={"cpu": "corei7_skylake_x", "mmu": "software"},
         shadow_svm_bochs={"options": " int=off v86=off", "checks": 61})
def test_task_switch(on):
    """Hardware task switches of a 32-bit guest: by the processor (nested paging on SVM), or in software. Not
    on shadow_svm: QEMU's TCG ignores the intercept."""
    vm = ("t", {"memory": "16M", "kernel": "task.elf", "output": "log",
                "cmdline": "name=t end=exit" + on.get("options", "")})
    with on.machine(mem="256M", modules={"ballast.conf": conf(vm, seed=1),
                                         "task.elf": guest_elf("task")}) as m:
        m.expect(r"vm t: exited with code 1\b", 100)
        m.wait_log([r"\[t\] SUMMARY passed %d failed 0" % on.get("checks", 73)])
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2}, vmx={"smp": 2}, shadow_svm={"smp": 2, "long": True}, shadow_vmx={"smp": 2, "long": True})
def test_guest_smp(on):
    """A guest with four processors of its own on two of ours."""
    vm = ("s", {"memory": "16M", "vcpus": 4, "kernel": "smp.elf", "output": "log",
                "cmdline": "name=s cpus=4 end=exit"})
    with on.machine(mem="512M", modules={"ballast.conf": conf(vm, seed=1),
                                         "smp.elf": guest_elf("smp")}) as m:
        m.expect(r"vm s: exited with code 1\b", 100)
        assert re.search(r"\[s\] SUMMARY passed \d+ failed 0", m.text())


@runs_on(svm={"smp": 2, "limit": 200}, vmx={"smp": 2, "limit": 400, "long": True},
         shadow_svm={"smp": 2, "limit": 200},
         shadow_vmx={"smp": 2, "limit": 400, "long": True})
def test_guest_ipi(on):
    """Interprocessor interrupts of every kind, in every mode of the local APIC."""
    vm = ("i", {"memory": "16M", "vcpus": 4, "kernel": "ipi.elf", "output": "log",
                "cmdline": "name=i cpus=4 end=exit"})
    with on.machine(mem="512M", modules={"ballast.conf": conf(vm, seed=1),
                                         "ipi.elf": guest_elf("ipi")}) as m:
        m.expect(r"vm i: exited with code 1\b")
        assert re.search(r"\[i\] SUMMARY passed \d+ failed 0", m.text())


# `xcr0`: what of the extended state the processor has, and the guest finds.
@runs_on(svm={"smp": 2, "limit": 200, "xcr0": "7", "long": True},
         vmx={"smp": 2, "limit": 400, "xcr0": "e7", "long": True},
         shadow_svm={"cpu": "EPYC,+svm,-npt", "smp": 2, "limit": 200, "xcr0": "7", "long": True},
         shadow_vmx={"smp": 2, "limit": 400, "xcr0": "3", "long": True})
def test_guest_state(on):
    """Vector, x87 and debug registers survive sharing processors; XCR0, MSRs and the TSC are as told."""
    vms = [("s%d" % i, {"memory": "16M", "vcpus": 2, "kernel": "state.elf", "output": "log",
                        "cmdline": "name=s%d cpus=2 end=exit" % i}) for i in range(3)]
    with on.machine(mem="512M", modules={"ballast.conf": conf(*vms, seed=1),
                                         "state.elf": guest_elf("state")}) as m:
        m.prompt()
        m.wait_log([r"vm s%d: exited with code 1\b" % i for i in range(3)], timeout=on["limit"])
        text = m.text()
        for i in range(3):
            assert re.search(r"\[s%d\] SUMMARY passed \d+ failed 0" % i, text), i
        assert re.search(r"extended state %s " % on["xcr0"], text)
        m.poweroff()


# What a guest's command line says, and how the VM then ends.
RESETS = {"reset": "reset", "keyboard": "reset", "outputport": "reset", "port92": "reset",
          "triple": "triple fault"}


@runs_on(svm={"smp": 2}, vmx={"smp": 2, "limit": 300, "long": True},
         shadow_svm={"smp": 2, "long": True}, shadow_vmx={"limit": 300, "long": True})
def test_guest_resets(on):
    """Each way to reset a PC stops the VM or starts it again, as on_reset says."""
    vms = [("%s-%s" % (how, then), {"memory": "8M", "kernel": "hello.elf", "on_reset": then,
                                    "start": "auto" if then == "stop" else "manual",
                                    "cmdline": "name=%s end=%s" % (how, how)})
           for how in RESETS for then in ("stop", "restart")]
    with on.machine(mem="512M", modules={"ballast.conf": conf(*vms, seed=1),
                                         "hello.elf": guest_elf("hello")}) as m:
        m.prompt()
        for how, ending in RESETS.items():
            m.wait_for("vms", r"%s-stop\s+stopped.*%s" % (how, ending))
            m.command("vm %s-restart start" % how)
            m.wait_log([r"(?s)(vm %s-restart: %s.*){3}" % (how, ending)])
            assert "destroyed" in m.command("vm %s-restart destroy" % how)
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={}, vmx={"long": True}, shadow_svm={"long": True}, shadow_vmx={"long": True})
def test_guest_timer(on):
    vm = ("t", {"memory": "16M", "kernel": "timer.elf", "output": "log",
                "cmdline": "name=t end=exit"})
    with on.machine(mem="512M", modules={"ballast.conf": conf(vm, seed=1),
                                         "timer.elf": guest_elf("timer")}) as m:
        m.expect(r"vm t: exited with code 1\b", 100)
        assert re.search(r"\[t\] SUMMARY passed \d+ failed 0", m.text())


# Mode of the guest, and how it must end.
BAD = {
    "triple": r"triple fault",
    "mmio": r"exited with code 1\b",
    "ports": r"exited with code 1\b|powered off|reset",
    "vmrun": r"exited with code 1\b",
    "msrs": r"exited with code 1\b",
    "cr": r"exited with code 1\b",
    "apic": r"exited with code 1\b",
    "reset": r"reset",
    "poweroff": r"powered off",
    "wild": r"\S.*",
    "idt": r"triple fault",
}
ENDLESS = ("cli", "clihlt")


@runs_on(svm={"smp": 2, "mem": "2G", "limit": 400},
         vmx={"smp": 2, "mem": "1G", "limit": 700, "long": True},
         shadow_svm={"smp": 2, "mem": "2G", "limit": 400, "long": True},
         shadow_vmx={**PREEMPTED, "smp": 2, "mem": "1G", "limit": 700, "long": True})
def test_bad_guests(on):
    """Each way of misbehaving ends as it should; Linux, the shell and the other guests go on."""
    vms = [("bad-" + k, {"memory": "16M", "kernel": "badguest.elf", "output": "log",
                         "cmdline": "mode=%s end=exit" % k}) for k in (*BAD, *ENDLESS)]
    with on.machine(modules={"ballast.conf": conf(linux_vm("good"), *vms, seed=1), **linux_modules(),
                             "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        for k in ENDLESS:
            m.wait_for("vms", r"bad-%s\s+running" % k)
        for k, how in BAD.items():
            m.wait_for("vms", r"bad-%s\s+stopped.*(%s)" % (k, how), timeout=on["limit"])
        m.send("console good\r")
        m.expect(r"good:[^\r\n]*# ")
        m.send("echo still-$((1+1))-here\r")
        m.expect("still-2-here", 60)
        m.send("\x1d")
        m.prompt()
        text = m.wait_log([r"\[bad-%s\] SUMMARY passed \d+ failed 0" % k
                           for k in ("mmio", "vmrun", "msrs", "cr", "apic")])
        for k in ENDLESS:
            m.command("vm bad-%s destroy" % k)
            assert re.search(r"bad-%s\s+\(not built\)" % k, m.command("vms"))
        assert "audit: passed" in m.command("audit")
        assert "panic" not in text
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "512M", "limit": 400, "vms": 200},
         vmx={"smp": 2, "mem": "512M", "limit": 300, "vms": 40, "long": True},
         shadow_svm={"smp": 2, "mem": "512M", "limit": 400, "vms": 200, "long": True},
         shadow_vmx={"smp": 2, "mem": "512M", "limit": 300, "vms": 40, "long": True})
def test_destroy_leaks_nothing(on):
    """Many VMs created and destroyed, running ones among them; the audit finds every frame."""
    vms = [("d%d" % i, {"memory": "32M", "kernel": "memtouch.elf", "start": "manual",
                        "largepages": "off" if i % 2 else "auto",
                        "cmdline": "name=d%d end=exit mb=8 rounds=1" % i}) for i in range(4)]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "memtouch.elf": guest_elf("memtouch")}) as m:
        m.prompt()
        for i in range(on["vms"]):
            name = "d%d" % (i % 4)
            m.command("vm %s start" % name)
            if i % 5 == 0:
                m.wait_for("vms", name + r"\s+stopped.*exited with code 1\b", every=0.1)
            out = m.command("vm %s destroy" % name)
            assert "leak" not in out and "not" not in out, out
            if i == 7:
                free = _free_frames(m)
            if i % 40 == 39:
                assert "audit: passed" in m.command("audit")
        assert "audit: passed" in m.command("audit")
        # The hypervisor's own tables grow by a few frames while 256 stack slots are used in turn.
        assert free - _free_frames(m) <= 8, "frames are missing"
        m.poweroff()


def _free_frames(m):
    """Free frames as the audit counts them."""
    return number(m.command("audit"), r"(\d+) frames? free")


# 5 GiB are what Bochs starts with in bearable time; its chipset leaves 1 GiB of them above 4 GiB.
@runs_on(svm={"smp": 2, "mem": "20G", "limit": 300, "total_mb": 20000, "high_mb": 17000,
              "guest": "5G", "touch_mb": 600},
         vmx={"smp": 2, "mem": "5G", "limit": 600, "total_mb": 4000, "high_mb": 1000,
              "guest": "3584M", "touch_mb": 100, "long": True},
         shadow_svm={"smp": 2, "mem": "20G", "limit": 300, "total_mb": 20000, "high_mb": 17000,
                     "guest": "5G", "touch_mb": 600, "long": True})
def test_20g_machine(on):
    """Machine memory above 4 GiB is found, used by guests, and above 4 GiB in guests too."""
    vms = [("big", {"memory": on["guest"], "kernel": "memtouch.elf", "output": "log",
                    "cmdline": "name=big end=exit mb=%d rounds=1 order=random from=high" %
                    on["touch_mb"]})]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "memtouch.elf": guest_elf("memtouch")}) as m:
        m.expect(r"vm big: exited with code 1\b")
        m.send("\r")
        m.prompt()
        mem = m.command("mem")
        total = re.search(r"PMEM\s*/MB:\s*(\d+)\s+total", mem)
        assert total and int(total.group(1)) > on["total_mb"], mem
        above = re.search(r"HIGH\s*/MB:\s*(\d+) total above 4 GiB,\s*(\d+) of it used", mem)
        assert above and int(above.group(1)) > on["high_mb"], mem
        assert int(above.group(2)) >= on["touch_mb"], mem
        m.poweroff()
