# SPDX-License-Identifier: BSD-2-Clause
"""The software MMU: guests on processors without nested paging, and by choice on those with it."""

import re

from machine import conf, guest_elf, linux_modules, linux_vm
from platforms import runs_on

NPT = "EPYC,+svm"
EPT = "corei7_skylake_x"


def small(name, kernel, cmdline, **keys):
    return (name, {"memory": "64M", "kernel": kernel + ".elf", "output": "log",
                   "cmdline": '"name=%s %s end=exit"' % (name, cmdline), **keys})


@runs_on(shadow_svm={"limit": 200}, shadow_svm_bochs={"limit": 300, "long": True})
def test_small_guests(on):
    """Each of the small guests, once; the audit afterwards. (SVM only: shadow_vmx_software_mmu is the like.)"""
    vms = [small("h", "hello", ""), small("m", "memtouch", "rounds=2"),
           small("s", "smp", "cpus=2", vcpus=2)]
    modules = {k + ".elf": guest_elf(k) for k in ("hello", "memtouch", "smp")}
    with on.machine(smp=2, mem="512M", modules={"ballast.conf": conf(*vms, seed=1), **modules}) as m:
        m.prompt()
        m.wait_for("vms", r"3 VMs?: 0 running", timeout=on["limit"])
        m.wait_log([r"vm %s: exited with code 1\b" % name for name, _ in vms])
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(shadow_svm={"cpu": NPT, "limit": 500, "mem": "2G", "smp": 2, "vcpus": 2, "long": True},
         shadow_vmx={"cpu": EPT, "limit": 1500, "mem": "1G", "vcpus": 1, "long": True})
def test_linux_mixed(on):
    """Three Linux guests on one machine: one on nested tables, one on shadow tables, and one that takes what
    there is."""
    line = '"console=ttyS0 quiet pci=off name=%s run=poweroff"'
    kinds = {"hw": {"mmu": "hardware"}, "sw": {"mmu": "software", "vcpus": on["vcpus"]}, "any": {}}
    vms = [linux_vm(name, cmdline=line % name, output="log", **keys) for name, keys in kinds.items()]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1), **linux_modules()}) as m:
        m.prompt()
        for name, keys in kinds.items():
            assert keys.get("mmu", "hardware") + " MMU" in m.command("vm " + name), name
        m.wait_log([r"vm %s: powered off" % name for name, _ in vms], timeout=on["limit"])
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(shadow_vmx=[{"cpu": "core2_penryn_t9600"},
                     {"cpu": "corei7_skylake_x", "mmu": "software", "smp": 2},
                     {"cpu": "corei5_lynnfield_750", "mmu": "software", "long": True}])
def test_software_mmu(on):
    """Memory touched, two vCPUs, a processor in real mode. (VMX only: SVM runs real mode itself;
    shadow_svm_small_guests is the like.)"""
    vms = [small("touch", "memtouch", "rounds=1 order=random", memory="32M"),
           small("two", "smp", "cpus=2", vcpus=2, memory="16M"),
           small("real", "realmode", "", vcpus=2, memory="16M")]
    modules = {name + ".elf": guest_elf(name) for name in ("memtouch", "smp", "realmode")}
    with on.machine(mem="256M", modules={"ballast.conf": conf(*vms, seed=1), **modules}) as m:
        m.prompt()
        for name, _ in vms:
            m.wait_for("vms", name + r"\s+stopped.*exited with code 1\b", timeout=100)
            m.wait_log([r"\[%s\] SUMMARY passed \d+ failed 0" % name])
        assert "audit: passed" in m.command("audit")
        m.poweroff()


# What QEMU may do otherwise: its instructions in any case, its walker where that walks the guest's tables.
# Without SMEP and SMAP there is less to say; with la57 there is something to hide, but not where nested paging
# leaves CR4 to the guest, as on SVM.
LA57 = NPT + ",+la57"
FEWER, NESTED, ALL = 61, 72, 76


@runs_on(svm={"quirks": "tcg-nested", "passed": NESTED}, vmx={"passed": ALL, "long": True},
         shadow_svm=[{"id": "no-npt", "quirks": "tcg", "passed": FEWER},
                     {"id": "npt", "cpu": LA57, "mmu": "software", "quirks": "tcg", "passed": ALL}],
         shadow_vmx=[{"id": "penryn", "passed": FEWER},
                     {"id": "ept", "mmu": "software", "passed": ALL, "long": True}])
def test_paging32(on):
    """32-bit paging, 4 MiB pages, PAE, long mode: what a processor does, exactly. So with SMEP, SMAP and 1 GiB
    pages where it has them; where it has five-level paging, that is hidden."""
    vm = small("p", "paging32", "quirks=%s" % on.get("quirks", "none"))
    with on.machine(mem="256M", modules={"ballast.conf": conf(vm, seed=1),
                                         "paging32.elf": guest_elf("paging32")}) as m:
        m.prompt()
        m.wait_log([r"vm p: exited with code \d"])
        assert re.search(r"\[p\] SUMMARY passed %d failed 0" % on["passed"], m.text()), m.log_path
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(shadow_svm={"limit": 200}, shadow_vmx={"limit": 200, "long": True})
def test_no_hardware_mmu(on):
    """A VM that insists on nested paging does not start where there is none; the others do."""
    vms = [small("hard", "hello", "", mmu="hardware"), small("soft", "hello", "")]
    with on.machine(mem="512M", modules={"ballast.conf": conf(*vms, seed=1),
                                         "hello.elf": guest_elf("hello")}) as m:
        m.expect(r"vm hard: mmu: this processor has no nested paging; accepted: auto, software", 60)
        m.expect(r"vm soft: exited with code 1\b", 60)
        m.prompt()
        vms = m.command("vms")
        assert re.search(r"^hard +\(not built\)", vms, re.M), vms
        assert re.search(r"^soft +stopped +1 +software ", vms, re.M), vms
        assert "software MMU" in m.command("vm soft")
        m.poweroff()
