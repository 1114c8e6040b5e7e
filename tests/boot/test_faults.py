# SPDX-License-Identifier: BSD-2-Clause
"""What goes wrong on purpose: allocations that fail, and memory that the machine reports bad."""

import re

import pytest

from machine import conf, guest_elf
from platforms import runs_on

# Where allocations can fail, and one in how many does: never at boot, often afterwards.
SITES = [("slab.object", 131), ("p2m.node", 5), ("p2m.frame", 97), ("p2m.large", 2), ("pt.table", 37)]
# And where the software MMU's can: its frames in place of page tables.
SHADOW_SITES = [("slab.object", 131), ("p2m.frame", 97), ("shadow.frame", 11)]


@runs_on(svm={"limit": 200, "starts": 40}, vmx={"limit": 240, "starts": 24, "long": True})
@pytest.mark.parametrize("site,every", SITES, ids=[s[0] for s in SITES])
def test_alloc_failures(on, site, every):
    """VMs are built, run and destroyed while allocations fail at one site, at another place of the
    sequence each time. What fails says so; no frame and no object is lost, and the shell goes on."""
    _alloc_failures(on, site, every)


@runs_on(shadow_svm={"limit": 200, "starts": 40, "long": True})
@pytest.mark.parametrize("site,every", SHADOW_SITES, ids=[s[0] for s in SHADOW_SITES])
def test_alloc_failures_software(on, site, every):
    """The same of VMs on the software MMU. (SVM only: what fails there does not
    depend on the vendor.)"""
    _alloc_failures(on, site, every)


def _alloc_failures(on, site, every):
    vms = [("f%d" % i, {"memory": "16M", "kernel": "memtouch.elf", "start": "manual", "vcpus": 1 + i,
                        "largepages": "off" if i % 2 else "auto",
                        "cmdline": "name=f%d end=exit mb=4 rounds=1" % i}) for i in range(3)]
    refused, ran = 0, 0
    with on.machine(mem="256M", smp=2, cmdline="fail=%s:%d" % (site, every),
                    modules={"ballast.conf": conf(*vms, seed=1),
                             "memtouch.elf": guest_elf("memtouch")}) as m:
        m.expect(r"fail=%s: one in %d" % (re.escape(site), every))
        m.prompt()
        for i in range(on["starts"]):
            name = "f%d" % (i % 3)
            out = m.command("vm %s start" % name)
            if "started" in out:
                m.wait_for("vms", name + r"\s+stopped", every=0.1)
                ran += 1
            else:
                assert re.search(r"memory|no VM|log", out), out
                refused += 1
            m.command("vm %s destroy" % name)
        assert "audit: passed" in m.command("audit")
        assert re.search(r"0 VMs", m.command("vms"))
        text = m.text()
        assert "remain after" not in text and "panic" not in text
        # Only what a VM is built from is a reason to refuse it; a guest's fault is tried again.
        if site in ("slab.object", "p2m.node", "shadow.frame"):
            assert refused > 0
        assert ran > 0
        m.poweroff()


# "Interpreting the MCA Error Codes": valid, uncorrected, enabled, MISC and address valid; a memory
# controller's read error. MISC: a physical address, of a page.
BAD_MEMORY = 0xbc0000000000009f
MISC = 0x8c
RIP_VALID_IN_PROGRESS = 5


@runs_on(svm={"mem": "512M"}, shadow_svm={"mem": "512M"})
def test_bad_memory(on):
    """A frame that a machine check reports is retired; its VM is stopped, and no other. (QEMU only: its
    monitor makes the machine check.)"""
    vms = [("large", {"memory": "384M", "kernel": "memtouch.elf", "output": "log",
                      "cmdline": "name=large end=halt rounds=1"}),
           ("small", {"memory": "8M", "kernel": "hello.elf", "output": "log",
                      "cmdline": "name=small end=halt"})]
    with on.machine(monitor=True,
                    modules={"ballast.conf": conf(*vms, seed=1), "hello.elf": guest_elf("hello"),
                             "memtouch.elf": guest_elf("memtouch")}) as m:
        m.prompt()
        m.expect(r"\[large\] SUMMARY passed \d+ failed 0", 100)
        # In the middle of the machine: the large VM's.
        at = 256 << 20
        m.monitor("mce 0 1 %#x %#x %#x %#x" % (BAD_MEMORY, RIP_VALID_IN_PROGRESS, at, MISC))
        m.expect(r"memory controller error", 20)
        m.expect(r"memory at %#x is bad: it is in use, will be retired" % at, 20)
        m.expect(r"vm large: machine memory at %#x is bad: guest page 0x[0-9a-f]+ lost" % at, 20)
        m.wait_for("vms", r"large\s+stopped.*is bad")
        assert re.search(r"small\s+running", m.command("vms"))
        assert "audit: passed" in m.command("audit")
        assert re.search(r"; 0 frames retired", m.command("mem"))
        assert "destroyed" in m.command("vm large destroy")
        assert re.search(r"; 1 frames? retired", m.command("mem"))
        assert "audit: passed" in m.command("audit")
        # Free memory is retired at once.
        m.monitor("mce 0 1 %#x %#x %#x %#x" % (BAD_MEMORY, RIP_VALID_IN_PROGRESS, at + 4096, MISC))
        m.expect(r"memory at %#x is bad: it was free, is retired" % (at + 4096), 20)
        m.wait_for("mem", r"; 2 frames retired")
        assert "audit: passed" in m.command("audit")
        # What is lost is not missed: the VM starts again.
        m.command("vm large start")
        m.expect(r"\[large\] SUMMARY passed \d+ failed 0", 100)
        m.poweroff()
