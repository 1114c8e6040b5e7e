# SPDX-License-Identifier: BSD-2-Clause
"""Machines that differ: processors, chipsets, missing firmware tables, odd IOMMUs."""

import re

import pytest

from machine import Machine, conf, guest_elf

# Name, constructor arguments, what the start screen must say.
MACHINES = [
    ("pc", {"machine": "pc"}, r"ACPI\s+\d+ tables"),
    ("rome", {"cpu": "EPYC-Rome,+svm"}, r"SVM, nested paging"),
    ("qemu64", {"cpu": "qemu64,+svm,+npt"}, r"SVM, nested paging"),
    ("max", {"cpu": "max"}, r"SVM, nested paging"),
    ("no_acpi", {"machine": "pc,acpi=off"}, r"ACPI\s+.*(no|0 tables)"),
    ("no_hpet", {"machine": "pc,hpet=off"}, r"clock\s+TSC"),
    ("amd_iommu", {"extra": ["-device", "amd-iommu"]}, r"IOMMUs: 1"),
    ("amd_iommu_intremap", {"extra": ["-device", "amd-iommu,intremap=on"]}, r"IOMMUs: 1"),
    ("intel_iommu", {"machine": "q35,kernel-irqchip=split",
                     "extra": ["-device", "intel-iommu,intremap=off"]}, r"IOMMUs: 1"),
    ("sockets", {"smp": "4,sockets=2,cores=2"}, r"processors\s+4 running"),
    ("vga", {"extra": ["-vga", "std"]}, r"SVM"),
]


@pytest.mark.parametrize("name,args,says", MACHINES, ids=[m[0] for m in MACHINES])
def test_svm_machine(name, args, says):
    vm = ("ok", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                 "cmdline": "name=ok end=exit"})
    with Machine("svm_machine_" + name, limit=60, mem="256M",
                 modules={"ballast.conf": conf(vm, seed=1), "hello.elf": guest_elf("hello")},
                 **args) as m:
        m.prompt()
        m.wait_for("vms", r"ok\s+stopped.*exited with code 1\b")
        assert re.search(says, m.text()), m.text()
        if name == "no_acpi":
            m.send("poweroff\r")
            m.expect("does not switch itself off; it is safe to do so now")
        else:
            m.poweroff()
