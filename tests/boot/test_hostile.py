# SPDX-License-Identifier: BSD-2-Clause
"""Guests that storm, wander over the edges of RAM or reset for ever; operators who stop VMs halfway."""

import re

from machine import Machine, conf, guest_elf

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


def test_svm_bad_edges():
    vms = [("bad-" + k, {"memory": "16M", "vcpus": vcpus, "kernel": "badguest.elf",
                         "output": "log", "cmdline": "mode=%s end=exit" % k})
           for k, (vcpus, _) in EDGES.items()]
    with Machine("svm_bad_edges", smp=2, mem="1G", limit=240,
                 modules={"ballast.conf": conf(*vms, seed=1),
                          "badguest.elf": guest_elf("badguest")}) as m:
        m.prompt()
        for k, (_, how) in EDGES.items():
            m.wait_for("vms", r"bad-%s\s+stopped.*(%s)" % (k, how), timeout=180)
        text = m.text()
        for k in ("timer", "edge", "exec", "morph", "real"):
            assert re.search(r"\[bad-%s\] SUMMARY passed \d+ failed 0" % k, text), k
        assert "audit: passed" in m.command("audit")
        assert "panic" not in text
        m.poweroff()


def test_svm_stop_while_paused():
    """A paused VM, and one whose vCPUs have hardly begun, can be reset and destroyed."""
    vms = [("p", {"memory": "16M", "vcpus": 2, "kernel": "badguest.elf",
                  "cmdline": "mode=cli end=exit"})]
    with Machine("svm_stop_while_paused", smp=1, mem="512M", limit=120,
                 modules={"ballast.conf": conf(*vms, seed=1),
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


def test_svm_reset_loop():
    """Guests that reset for ever replace their memory under the eyes of every command."""
    vms = [("r%d" % i, {"memory": "16M", "kernel": "badguest.elf", "on_reset": "restart",
                        "cmdline": "mode=reset"}) for i in range(2)]
    with Machine("svm_reset_loop", smp=2, mem="512M", limit=120,
                 modules={"ballast.conf": conf(*vms, seed=1),
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
