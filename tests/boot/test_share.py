# SPDX-License-Identifier: BSD-2-Clause
"""Content-based page sharing, asked for by `share scan`."""

import re

from machine import Machine, conf, guest_elf


def _saving(m):
    found = re.search(r"PSHARE/MB:\s*(\d+) shared,\s*(\d+) common,\s*(\d+) saving", m.command("mem"))
    assert found
    return int(found.group(3))


def _two(name, salts):
    vms = [("m%d" % i, {"memory": "24M", "kernel": "memtouch.elf", "output": "log",
                        "largepages": "off", "cmdline": "name=m end=halt rounds=1",
                        **({"salt": salts[i]} if salts[i] else {})}) for i in range(2)]
    return Machine(name, smp=2, mem="512M", limit=120,
                   modules={"ballast.conf": conf(*vms, seed=1),
                            "memtouch.elf": guest_elf("memtouch")})


def _filled_and_scanned(m):
    for _ in range(2):
        m.expect(r"\[m\d\] SUMMARY passed \d+ failed 0", 100)
    m.send("\r")
    m.prompt()
    for vm in ("m0", "m1", "m0"):
        m.command("share scan " + vm, timeout=100)
    assert "audit: passed" in m.command("audit")


def test_svm_share_scan():
    """Two guests of one salt with the same contents cost little more than one; both are destroyed
    and no frame is missing."""
    with _two("svm_share_scan", ("lab", "lab")) as m:
        _filled_and_scanned(m)
        assert _saving(m) >= 18, m.command("mem")
        m.command("vm m0 destroy")
        assert "audit: passed" in m.command("audit")
        m.command("vm m1 destroy")
        assert "audit: passed" in m.command("audit")
        m.poweroff()


def test_svm_share_scan_salted():
    """Without a common salt nothing of one guest is merged with the other's."""
    with _two("svm_share_scan_salted", ("", "")) as m:
        _filled_and_scanned(m)
        assert _saving(m) <= 2, m.command("mem")
        m.poweroff()
