# SPDX-License-Identifier: BSD-2-Clause
"""Machines that differ: processors, chipsets, missing firmware tables, odd IOMMUs; Bochs's models."""

import re

import pytest

from machine import Machine, conf, guest_elf, linux_modules, linux_vm
from platforms import runs_on

# Name, constructor arguments, what the start screen must say of it.
MACHINES = [
    ("pc", {"machine": "pc"}, r"ACPI\s+\d+ tables"),
    ("rome", {"cpu": "EPYC-Rome,+svm"}, r"SVM, nested paging"),
    ("qemu64", {"cpu": "qemu64,+svm,+npt"}, r"SVM, nested paging"),
    ("max", {"cpu": "max"}, r"SVM, nested paging"),
    ("no_acpi", {"machine": "pc,acpi=off"}, r"ACPI\s+none"),
    ("no_hpet", {"machine": "pc,hpet=off"}, r"clock\s+TSC \S+ MHz by (?!HPET)"),
    ("amd_iommu", {"extra": ["-device", "amd-iommu"]}, r"IOMMUs: 1"),
    ("amd_iommu_intremap", {"extra": ["-device", "amd-iommu,intremap=on"]}, r"IOMMUs: 1"),
    ("intel_iommu", {"machine": "q35,kernel-irqchip=split",
                     "extra": ["-device", "intel-iommu,intremap=off"]}, r"IOMMUs: 1"),
    ("sockets", {"smp": "4,sockets=2,cores=2"}, r"processors\s+4 running"),
    ("vga", {"extra": ["-vga", "std"]}, None),
]


@pytest.mark.parametrize("name,args,says", MACHINES, ids=[m[0] for m in MACHINES])
def test_svm_machine(name, args, says):
    """A small guest on each. (QEMU only: its options make them; test_models has Bochs's.)"""
    vm = ("ok", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                 "cmdline": "name=ok end=exit"})
    with Machine("svm_machine_" + name, limit=60, mem="256M",
                 modules={"ballast.conf": conf(vm, seed=1), "hello.elf": guest_elf("hello")},
                 **args) as m:
        m.prompt()
        m.wait_for("vms", r"ok\s+stopped.*exited with code 1\b")
        assert says is None or re.search(says, m.text()), m.text()
        if name == "no_acpi":
            m.send("poweroff\r")
            m.expect("does not switch itself off; it is safe to do so now")
        else:
            m.poweroff()


# Bochs's models differ in what their VMX and SVM have; where guests have no real mode, the second vCPU,
# which begins there, is emulated at first.
@runs_on(vmx=[{"cpu": "corei7_haswell_4770", "smp": 2},
              {"cpu": "corei7_sandy_bridge_2600k", "long": True},
              {"cpu": "corei7_icelake_u", "long": True},
              {"cpu": "corei5_arrandale_m520", "long": True},
              {"cpu": "corei7_ivy_bridge_3770k", "long": True},
              {"cpu": "broadwell_ult", "long": True},
              {"cpu": "corei3_cnl", "long": True},
              {"cpu": "tigerlake", "long": True},
              {"cpu": "corei5_lynnfield_750"},
              {"cpu": "core2_penryn_t9600", "long": True}],
         svm_bochs=[{"cpu": "phenom_8650_toliman", "smp": 2}, {"cpu": "zambezi", "long": True},
                    {"cpu": "trinity_apu", "long": True}, {"cpu": "ryzen", "long": True}])
def test_models(on):
    """Small guests on processors of several generations."""
    vms = [("hello", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                      "cmdline": "name=hello end=exit"}),
           ("touch", {"memory": "32M", "kernel": "memtouch.elf", "output": "log",
                      "cmdline": "name=touch end=exit rounds=1 order=random"}),
           ("two", {"memory": "16M", "vcpus": 2, "kernel": "smp.elf", "output": "log",
                    "on_reset": "stop", "cmdline": "name=two cpus=2 end=exit"})]
    modules = {name + ".elf": guest_elf(name) for name in ("hello", "memtouch", "smp")}
    with on.machine(mem="256M", modules={"ballast.conf": conf(*vms, seed=1), **modules}) as m:
        m.prompt()
        for name in ("hello", "touch"):
            m.wait_for("vms", name + r"\s+stopped.*exited with code 1\b", timeout=100)
            m.wait_log([r"\[%s\] SUMMARY passed \d+ failed 0" % name])
        m.wait_for("vms", r"two\s+stopped.*exited with code 1\b", timeout=100)
        assert "audit: passed" in m.command("audit")
        m.poweroff()


# Linux does not run on every model without Ballast either: phenom_8650_toliman reports POPCNT and
# refuses it, corei7_icelake_u contradicts itself about the sizes of its XSAVE state.
@runs_on(vmx=[{"cpu": cpu, "limit": 500, "long": True}
              for cpu in ("corei7_haswell_4770", "corei7_sandy_bridge_2600k", "broadwell_ult",
                          "corei5_lynnfield_750")],
         svm_bochs=[{"cpu": "zambezi", "limit": 500, "long": True}])
def test_model_boots_linux(on):
    """Linux to power-off on them."""
    vm = linux_vm("l", cmdline='"console=ttyS0 quiet pci=off name=l run=poweroff"', output="log")
    with on.machine(mem="512M", modules={"ballast.conf": conf(vm, seed=1), **linux_modules()}) as m:
        m.expect("vm l: powered off")
        m.send("\r")
        m.prompt()
        assert "audit: passed" in m.command("audit")
        m.poweroff()
