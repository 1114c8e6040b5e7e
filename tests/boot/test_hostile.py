# SPDX-License-Identifier: BSD-2-Clause
"""Guests that storm, wander over the edges of RAM or reset for ever; operators who stop VMs halfway."""

import re

from machine import conf, guest_elf
from platforms import PREEMPTED, runs_on

# Mode of the guest: its vCPUs, and how it must end.
EDGES = {
    "timer": (1, r"exited with code 1\b"),
    "flood": (4, r"exited with code 1\b|triple fault"),
    "edge": (1, r"exited with code 1\b"),
    "exec": (1, r"exited with code 1\b"),
    "morph": (2, r"exited with code 1\b"),
    "tables": (1, r"\S.*"),
    "stack": (1, r"\S.*"),
    "real": (2, r"exited with code 1\b"),
}


@runs_on(svm={"smp": 2, "mem": "1G", "limit": 240}, vmx={"smp": 2, "mem": "512M", "limit": 600, "long": True},
         shadow_svm={"smp": 2, "mem": "1G", "limit": 240, "long": True},
         shadow_vmx={**PREEMPTED, "smp": 2, "mem": "512M", "limit": 300, "long": True})
def test_bad_edges(on):
    """At the edges of RAM and with code that changes itself: what a guest did wrong is its own."""
    vms = [("bad-" + k, {"memory": "16M", "vcpus": vcpus, "kernel": "badguest.elf",
                         "output": "log", "cmdline": "mode=%s end=exit" % k})
           for k, (vcpus, _) in EDGES.items()]
    if not on.get("mmu"):
        vms.append(("bad-soft", {**dict(vms)["bad-edge"], "mmu": "software"}))
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        for k, (_, how) in EDGES.items():
            m.wait_for("vms", r"bad-%s\s+stopped.*(%s)" % (k, how), timeout=on["limit"])
        passed = ["timer", "edge", "exec", "morph", "real"]
        if not on.get("mmu"):
            m.wait_for("vms", r"bad-soft\s+stopped.*exited with code 1\b", timeout=on["limit"])
            passed.append("soft")
        text = m.text()
        for k in passed:
            assert re.search(r"\[bad-%s\] SUMMARY passed \d+ failed 0" % k, text), k
        assert "audit: passed" in m.command("audit")
        assert "panic" not in text
        m.poweroff()


@runs_on(svm={"mem": "512M"}, vmx={"mem": "256M", "limit": 300, "long": True},
         shadow_svm={"mem": "512M", "long": True}, shadow_vmx={**PREEMPTED, "mem": "256M", "limit": 300, "long": True})
def test_stop_while_paused(on):
    """A paused VM, and one whose vCPUs have hardly begun, can be reset and destroyed."""
    vms = [("p", {"memory": "16M", "vcpus": 2, "kernel": "badguest.elf",
                  "cmdline": "mode=cli end=exit"})]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        for _ in range(3):
            assert "p paused" in m.command("vm p pause")
            assert "p reset" in m.command("vm p reset")
        for _ in range(10):
            assert "p reset" in m.command("vm p reset")
        assert "p paused" in m.command("vm p pause")
        assert "p resumed" in m.command("vm p resume")
        assert "p destroyed" in m.command("vm p destroy")
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "512M"}, vmx={"smp": 2, "mem": "256M", "limit": 400, "long": True},
         shadow_svm={"smp": 2, "mem": "512M", "long": True},
         shadow_vmx={**PREEMPTED, "smp": 2, "mem": "256M", "limit": 400, "named": True})
def test_reset_loop(on):
    """Guests that reset for ever replace their memory under the eyes of every command."""
    vms = [("r%d" % i, {"memory": "16M", "kernel": "badguest.elf", "on_reset": "restart",
                        "cmdline": "mode=reset"}) for i in range(2)]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        for _ in range(15):
            for command in ("vms", "mem", "vm r0"):
                m.command(command)
            assert "audit: passed" in m.command("audit")
        for i in range(2):
            assert "r%d destroyed" % i in m.command("vm r%d destroy" % i)
        assert "audit: passed" in m.command("audit")
        assert "panic" not in m.text()
        m.poweroff()
