# SPDX-License-Identifier: BSD-2-Clause
"""Anything, for a while, under a seed; and the same thing twice. QEMU only: disk errors come from its blkdebug,
and -icount makes its time repeat."""

import os
import random
import re
import time

from disks import FIRST_SLOT, MIB, TEST_SECTOR, blkdebug, drive, slot_sector, swap_image
from machine import SLOW, conf, guest_elf, number
from memscreen import mem
from platforms import runs_on

SECONDS = int(os.environ.get("BALLAST_SOAK_SECONDS", "180"))  # half an hour: 1800
SEED = int(os.environ.get("BALLAST_SEED", "1"))
AREA_MIB = 224  # with the machine's memory, room for all VMs at once

# Name, memory in MiB, kernel, command line, other keys. None of them ends by itself, but `short` and `hello`.
GUESTS = [
    ("noise", 24, "memtouch", "mb=20 fill=random order=random rounds=100000", {}),
    ("half", 24, "memtouch", "mb=20 fill=half order=random rounds=100000", {}),
    ("lines", 24, "memtouch", "mb=20 rounds=100000", {}),
    ("large", 48, "memtouch", "fill=half rounds=100000", {}),
    ("pair", 24, "memtouch", "mb=20 fill=random order=random rounds=100000 cpus=2", {"vcpus": 2}),
    ("soft", 24, "memtouch", "mb=20 fill=random order=random rounds=100000", {"mmu": "software"}),
    ("short", 16, "memtouch", "mb=4 rounds=1", {}),
    ("hello", 8, "hello", "", {}),
    ("pinned", 16, "memtouch", "mb=8 fill=random rounds=100000", {"swap": "off"}),
    ("over", 16, "overwrite", "mb=10", {}),
    ("twin", 16, "share", "mb=8 break=3 pause=100000000", {}),
    ("twins", 16, "share", "mb=8 break=3 pause=100000000 cpus=2", {"vcpus": 2}),
    ("gives", 32, "balloon", "mb=20 pause=100000000", {}),
]
NAMES = [g[0] for g in GUESTS]

OPTIONS = [("Mem.MemZipEnable", (0, 1)), ("Mem.MemZipMaxPct", (5, 10, 50)),
           ("Mem.ShareScanGHz", (0, 4)), ("Mem.AllocGuestLargePage", (0, 1)),
           ("Mem.MemMinFreePct", (0, 6, 20)), ("Mem.ShareForceSalting", (0, 1, 2))]

# The disk has other bad slots every few seconds: so many whose every read or write fails meanwhile, and
# whose first one does.
PHASE_S = 8
PHASES = SECONDS * 15 // 16 // PHASE_S
BAD = {"read": 32, "write": 16}
ONCE = {"read": 16, "write": 8}


def bad_slots(rng):
    """blkdebug's rules. A flush, which nobody asks for but `next_phase`, takes it from one state to the next;
    behind the last the disk is good."""
    nr_slots = AREA_MIB * MIB // 4096 - FIRST_SLOT
    rules = []
    for state in range(1, PHASES + 1):
        rules.append({"event": "flush_to_os", "state": state, "new_state": state + 1})
        for kind in ("read", "write"):
            sectors = [slot_sector(s) for s in rng.sample(range(nr_slots), BAD[kind] + ONCE[kind])]
            rules += [{"event": kind + "_aio", "iotype": kind, "errno": 5, "state": state, "sector": s}
                      for s in sectors]
            for rule in rules[-ONCE[kind]:]:
                rule["once"] = "on"
    # Until others are in force the old rules are.
    rules += [{"event": kind + "_aio", "iotype": kind, "errno": 5, "state": PHASES + 1, "sector": TEST_SECTOR}
              for kind in ("read", "write")]
    return rules


def by_disk(text):
    """VMs by what the log says: those that wait for a page that cannot be read, and how often one that had
    gone on afterwards."""
    waiting, went_on = set(), 0
    for word in re.finditer(r"vm (\S+): (paused: guest page 0x[0-9a-f]+ cannot be read back|started|destroyed)|"
                            r"\[(\S+)\] (?:(?:memtouch|share|balloon): round|SUMMARY)", text):
        name = word[1] or word[3]
        went_on += word[3] in waiting
        if (word[2] or "").startswith("paused"):
            waiting.add(name)
        else:
            waiting.discard(name)
    return waiting, went_on


class Tally:
    """What has happened so far, and the most of what there was at once."""

    def __init__(self):
        self.steps = self.created = self.destroyed = 0
        self.most = dict.fromkeys(("SHRD", "MCTLSZ", "CACHEUSD", "SWCUR"), 0)
        self.errors = []  # of the disk, up to the end of each phase

    def look(self, m):
        """At the end of a phase."""
        screen = mem(m)
        for title in self.most:
            self.most[title] = max(self.most[title], screen.sum([n for n in NAMES if n in screen.vms], title))
        self.errors.append(sum(screen.host(r"errors: .*?(\d+) " + kind) for kind in ("write", "read")))
        return screen


def step(m, rng, tally):
    """One thing that an operator might do. Refusals are fine."""
    name = rng.choice(NAMES)
    kind = rng.randrange(20)
    tally.steps += 1
    if kind < 5:
        tally.created += "%s started" % name in m.command("vm %s start" % name, 120)
    elif kind < 7:
        tally.destroyed += "%s destroyed" % name in m.command("vm %s destroy" % name, 120)
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
    time.sleep(rng.random() / 3)


def go_on(m):
    """Who stopped at a bad slot tries again, and `over`, which waits for a word, writes to its pages. Those that
    had stopped."""
    waiting = by_disk(m.text())[0]
    for name in waiting:
        m.command("vm %s resume" % name, 120)  # maybe again: an operator's pause can come last
    if re.search(r"over +running", m.command("vms")):
        m.send("console over\r")
        m.expect("Ctrl-")
        m.send("x\x1d")
        m.prompt()
    return waiting


def next_phase(m, tally):
    """Other slots are bad from now on."""
    m.monitor("qemu-io d0 flush")
    tally.look(m)
    go_on(m)
    assert "audit: passed" in m.command("audit", 120)


@runs_on(svm={"mem": "128M", "smp": 2, "limit": SECONDS + 300},
         shadow_svm={"mem": "128M", "smp": 2, "limit": SECONDS + 300, "named": True})
def test_soak(on):
    """VMs come and go, load, pause, leave for a disk that fails here and there all the time, while options
    change: no guest finds a wrong byte, who stopped at a bad slot goes on when it is good, and in the end
    everything is counted and free."""
    rng = random.Random(SEED)
    image = swap_image(on.name, AREA_MIB * MIB)
    extra = drive("virtio", image, prefix=blkdebug(on.name, *bad_slots(rng)))
    vms = [(name, {"memory": "%dM" % mib, "kernel": kernel + ".elf", "output": "log", "start": "manual",
                   "salt": "lab", "cmdline": "name=%s end=exit %s" % (name, words), **keys})
           for name, mib, kernel, words, keys in GUESTS]
    modules = {"ballast.conf": conf(*vms, seed=SEED, **{"swap.encrypt": "off"})}
    modules.update({k + ".elf": guest_elf(k) for k in {g[2] for g in GUESTS}})
    tally = Tally()
    with on.machine(extra=extra, modules=modules, monitor=True) as m:
        m.prompt()
        empty = number(m.command("audit"), r"(\d+) frames free")
        begin = time.monotonic()
        for phase in range(1, PHASES + 1):
            while time.monotonic() < begin + phase * PHASE_S:
                step(m, rng, tally)
            next_phase(m, tally)
        while waiting := go_on(m):
            assert time.monotonic() < begin + SECONDS + 60 * SLOW, "the disk is good, but %s wait" % waiting
            m.pause(1)
        screen = tally.look(m)
        for name in NAMES:
            tally.destroyed += "%s destroyed" % name in m.command("vm %s destroy" % name, 120)
        audit = m.command("audit", 120)
        assert "audit: passed" in audit, audit
        # What stays are small objects, tables of the content index and the like.
        assert number(audit, r"(\d+) frames free") >= empty - 256, audit
        assert number(m.command("mem once"), r": (\d+) of \d+ slots") == 0
        disks = m.command("disks")
        text = m.text()
        assert not re.search(r"FAIL|panic|holds 0x|remain after|DISAGREES|[1-9]\d* words bad", text)
        retired = screen.host(r"slots, (\d+) bad")
        stopped = len(re.findall(r"paused: guest page 0x[0-9a-f]+ cannot be read back", text))
        m.note("soak: seed %d, %d steps, %d VMs created, %d destroyed; the disk failed %d times, %d slots retired, "
               "%d stops, %d went on; most at once, MiB: %s" %
               (SEED, tally.steps, tally.created, tally.destroyed, tally.errors[-1], retired, stopped,
                by_disk(text)[1], tally.most))
        assert tally.steps > SECONDS / 4 and tally.created > SECONDS / 10 and tally.destroyed > SECONDS / 10
        assert all(n > 0 for n in tally.most.values())
        assert number(disks, r"(\d+) reads,") > 10 * SECONDS and number(disks, r"(\d+) writes") > 10 * SECONDS
        assert retired > 0 and stopped > 0 and by_disk(text)[1] > 0
        # No part of the run was without errors.
        thirds = [tally.errors[PHASES * i // 3 - 1] if i else 0 for i in range(4)]
        assert all(b > a for a, b in zip(thirds, thirds[1:])), thirds
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
        screen = m.command("mem once")
        digest = re.search(r"digest ([0-9a-f]{16}): (\d+) pages", m.command("digest", 120))
        assert "audit: passed" in m.command("audit")
        m.poweroff()
    assert int(digest[2]) == 60 * 256
    assert int(re.search(r"STORE +: \S+ (\d+) of", screen)[1]) > 100, screen
    return digest[1]


@runs_on(svm={"mem": "96M", "smp": 1, "limit": 400, "emulated": True, "long": True},
         shadow_svm={"mem": "96M", "smp": 1, "limit": 400, "emulated": True, "long": True})
def test_twice(on):
    """The same seed on a machine whose time is its instructions: the same state, to the last page."""
    first = once(on, "-1", 7)
    assert once(on, "-2", 7) == first
    assert once(on, "-3", 8) != first
