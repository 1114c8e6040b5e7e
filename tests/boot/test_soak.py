# SPDX-License-Identifier: BSD-2-Clause
"""Anything, for a while, under a seed; and the same thing twice. QEMU only: disk errors come from its blkdebug,
and -icount makes its time repeat."""

import os
import random
import re
import time

from disks import MIB, SECTOR, blkdebug, drive, swap_image
from machine import SLOW, conf, guest_elf
from platforms import runs_on

SECONDS = int(os.environ.get("BALLAST_SOAK_SECONDS", "180"))  # half an hour: 1800
SEED = int(os.environ.get("BALLAST_SEED", "1"))

# Name, memory in MiB, kernel, command line.
GUESTS = [
    ("noise", 24, "memtouch", "mb=20 fill=random order=random rounds=400"),
    ("half", 24, "memtouch", "mb=20 fill=half order=random rounds=400"),
    ("lines", 24, "memtouch", "mb=20 rounds=400"),
    ("large", 48, "memtouch", "fill=half rounds=40"),
    ("short", 16, "memtouch", "mb=4 rounds=1"),
    ("hello", 8, "hello", ""),
    ("pinned", 16, "memtouch", "mb=8 fill=random rounds=400"),
    ("over", 16, "overwrite", "mb=10"),
]

OPTIONS = [("Mem.MemZipEnable", (0, 1)), ("Mem.MemZipMaxPct", (5, 10, 50)),
           ("Mem.ShareScanGHz", (0, 4)), ("Mem.AllocGuestLargePage", (0, 1)),
           ("Mem.MemMinFreePct", (0, 6, 20)), ("Mem.ShareForceSalting", (0, 1, 2))]


def step(m, rng):
    """One thing that an operator might do. Refusals are fine."""
    name = rng.choice(GUESTS)[0]
    kind = rng.randrange(20)
    if kind < 5:
        m.command("vm %s start" % name, 120)
    elif kind < 7:
        m.command("vm %s destroy" % name, 120)
    elif kind < 10:
        m.command("vm %s %s" % (name, rng.choice(("pause", "resume", "reset", "drop"))), 120)
    elif kind < 14:
        m.command("vm %s swapout %dM" % (name, rng.randrange(1, 12)), 180)
    elif kind < 16:
        option, values = rng.choice(OPTIONS)
        m.command("set %s %d" % (option, rng.choice(values)))
    elif kind < 17:
        m.command("share scan " + name, 120)
    elif kind < 18:
        m.command(rng.choice(("mem once", "vms", "disks", "set", "balloon", "vm " + name)))
    else:
        time.sleep(rng.random())


@runs_on(svm={"mem": "128M", "smp": 2, "limit": SECONDS + 300})
def test_soak(on):
    """VMs come and go, load, pause, leave for a disk that fails now and then, while options change: no
    guest finds a wrong byte, and in the end everything is counted and free."""
    rng = random.Random(SEED)
    errors = [{"event": kind + "_aio", "iotype": kind, "errno": 5, "once": "on",
               "sector": (257 + rng.randrange(3000)) * 4096 // SECTOR}
              for kind in ("read", "write") * 30]
    image = swap_image(on.name, 64 * MIB)
    extra = drive("virtio", image, prefix=blkdebug(on.name, *errors))
    vms = [(name, {"memory": "%dM" % mib, "kernel": kernel + ".elf", "output": "log", "start": "manual",
                   "salt": "lab", "swap": "off" if name == "pinned" else "auto",
                   "cmdline": "name=%s end=exit %s" % (name, words)}) for name, mib, kernel, words in GUESTS]
    modules = {"ballast.conf": conf(*vms, seed=SEED, **{"swap.encrypt": "off"})}
    modules.update({k + ".elf": guest_elf(k) for k in {g[2] for g in GUESTS}})
    with on.machine(extra=extra, modules=modules) as m:
        m.prompt()
        empty = int(re.search(r"(\d+) frames free", m.command("audit"))[1])
        end = time.monotonic() + SECONDS
        steps = 0
        while time.monotonic() < end:
            step(m, rng)
            steps += 1
            if steps % 50 == 0:
                assert "audit: passed" in m.command("audit", 120)
        for name in [g[0] for g in GUESTS]:
            m.command("vm %s destroy" % name, 120)
        audit = m.command("audit", 120)
        assert "audit: passed" in audit, audit
        # What stays are small objects, tables of the content index and the like.
        assert int(re.search(r"(\d+) frames free", audit)[1]) >= empty - 256, audit
        text = m.text()
        assert not re.search(r"FAIL|panic|holds 0x|remain after|DISAGREES", text)
        m.note("soak: seed %d, %d steps" % (SEED, steps))
        assert steps > SECONDS / 4
        m.poweroff()


def once(on, suffix, seed):
    """Guests of more than the machine, compressed and swapped, to their end; the digest of all memory."""
    vms = [("w%d" % i, {"memory": "30M", "kernel": "memtouch.elf", "output": "log", "largepages": "off",
                        "cmdline": "name=w%d end=exit order=random rounds=1 fill=%s" %
                                   (i, ("random", "half")[i])}) for i in range(2)]
    host = {"seed": seed, "swap": "ram:48M", "swap.encrypt": "off", "Mem.ShareScanGHz": 0}
    modules = {"ballast.conf": conf(*vms, **host), "memtouch.elf": guest_elf("memtouch")}
    extra = ["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01T00:00:00,clock=vm"]
    with on.machine(suffix, extra=extra, modules=modules) as m:
        for name in [v[0] for v in vms]:
            m.wait_text(r"vm %s: exited with code 1\b" % name)
        # The reclaimer brings memory back to its goal; idle time passes at once. What is typed before that
        # would count from another moment in each run.
        time.sleep(8 * SLOW)
        m.send("\r")
        m.prompt()
        mem = m.command("mem once")
        digest = re.search(r"digest ([0-9a-f]{16}): (\d+) pages", m.command("digest", 120))
        assert "audit: passed" in m.command("audit")
        m.poweroff()
    assert int(digest[2]) == 60 * 256
    assert int(re.search(r"STORE +: \S+ (\d+) of", mem)[1]) > 100, mem
    return digest[1]


@runs_on(svm={"mem": "96M", "smp": 1, "limit": 400, "emulated": True, "long": True})
def test_twice(on):
    """The same seed on a machine whose time is its instructions: the same state, to the last page."""
    first = once(on, "-1", 7)
    assert once(on, "-2", 7) == first
    assert once(on, "-3", 8) != first
