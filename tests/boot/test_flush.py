# SPDX-License-Identifier: BSD-2-Clause
"""Flushes in emulators: a processor in guest mode is kicked within a bound, and guests do not notice
that their translations go away. That a flush is needed at all is proved elsewhere, for emulators
forgive: tests/host/test_tlb.c, and test_flush_proof.py, which breaks what is tested here.
"""

import re
import statistics

from machine import SLOW, conf, guest_elf
from platforms import PREEMPTED, runs_on

# A flush that ends a guest's spinning takes an interrupt and a world switch: microseconds. On a busy
# host the emulator's threads take turns of milliseconds. Without a kick, a flush waits for the next
# chance interrupt: a service thread's, of which the liveliest wakes up every 100 ms.
TYPICAL_US = 25000
WORST_US = 5000000
DROPS = 20


def drop(m, name, timeout=20):
    """Drop a VM's translations: how many there were, and the flush's microseconds."""
    for _ in range(3):
        out = m.command("vm %s drop" % name, timeout)
        found = re.search(r"%s: (\d+) translations in (\d+) tables, dropped in \d+ us, "
                          r"flushed in (\d+) us" % name, out)
        if found or not re.search(r"\[ *\d+\.\d{6}\]", out):
            break
        # A line of the log came in between: once more.
    assert found, out
    return int(found.group(1)), int(found.group(3))


def kicks(m, name):
    """Exits of the VM because of host interrupts."""
    found = re.search(r"^  interrupt +(\d+)", m.command("vm " + name), re.M)
    return int(found.group(1)) if found else 0


def kick(m):
    """A guest spins with interrupts off on one processor, the shell flushes on the other."""
    m.prompt()
    m.wait_for("vms", r"spin\s+running")
    before = kicks(m, "spin")
    dropped, took = zip(*(drop(m, "spin") for _ in range(DROPS)))
    assert statistics.median(took) < TYPICAL_US * SLOW, took
    assert max(took) < WORST_US * SLOW, took
    # The guest was in guest mode nearly always, and came back for what it had lost. Nearly: an emulator
    # whose threads have no processor of their own may not run the guest between two drops.
    assert kicks(m, "spin") - before >= DROPS * 3 // 4
    assert sum(n >= 1 for n in dropped[1:]) >= DROPS * 3 // 4, dropped
    # It goes on as if nothing had been; code 1 says that it found nothing wrong.
    m.wait_for("vms", r"spin\s+stopped.*exited with code 1\b", timeout=120)
    assert "audit: passed" in m.command("audit")


def kick_modules(steps, millions):
    spin = ("spin", {"memory": "8M", "kernel": "fair.elf",
                     "cmdline": "name=spin end=exit deaf=yes steps=%d millions=%d" %
                                (steps, millions)})
    # Fewer service threads that wake up: their interrupts do the work of a kick.
    host = {"seed": 1, "Mem.ShareScanGHz": 0}
    return {"ballast.conf": conf(spin, **host), "fair.elf": guest_elf("fair")}


@runs_on(svm={"limit": 200, "millions": 700}, vmx={"limit": 200, "millions": 150},
         shadow_svm={"limit": 200, "millions": 700},
         shadow_vmx={**PREEMPTED, "limit": 200, "millions": 150, "long": True})
def test_kick(on):
    with on.machine(smp=2, mem="256M", modules=kick_modules(3, on["millions"])) as m:
        kick(m)
        m.poweroff()


@runs_on(svm={"limit": 300, "rounds": 40}, vmx={"limit": 300, "rounds": 6, "long": True},
         shadow_svm={"limit": 300, "rounds": 40, "long": True},
         shadow_vmx={**PREEMPTED, "limit": 300, "rounds": 6, "long": True})
def test_drop_storm(on):
    """A guest checks its memory while its translations are dropped as fast as the shell can type."""
    vms = [(name, {"memory": "64M", "kernel": "memtouch.elf", "largepages": large,
                   "cmdline": "name=%s end=exit mb=24 rounds=%d order=random" % (name, on["rounds"])})
           for name, large in (("small", "off"), ("large", "auto"))]
    with on.machine(smp=2, mem="512M", modules={"ballast.conf": conf(*vms, seed=1),
                                                "memtouch.elf": guest_elf("memtouch")}) as m:
        m.prompt()
        drops = found = 0
        while "2 running" in m.command("vms") or drops < 10:
            for name in ("small", "large"):
                found += drop(m, name)[0]
                drops += 1
            if drops % 40 == 0:
                assert "audit: passed" in m.command("audit")
        for name in ("small", "large"):
            m.wait_for("vms", name + r"\s+stopped.*exited with code 1\b", timeout=240)
        assert drops >= 20 and found > 100 * drops, (drops, found)
        assert "audit: passed" in m.command("audit")
        m.poweroff()
