# SPDX-License-Identifier: BSD-2-Clause
"""Memory moves between VMs: the states of memory and what follows from them."""

import re

from disks import MIB, drive, swap_image
from machine import conf, guest_elf
from memscreen import mem
from platforms import PREEMPTED, runs_on

CHANGE = re.compile(r"\[ *(\d+\.\d+)\] (?:info: )?memory: (\w+), was (\w+): (\d+) MB free, ([^\r\n]*)")


def _changes(m):
    """(second, to, from, MB free, cause) of every change of state so far."""
    return [(float(t), to, was, int(mb), cause) for t, to, was, mb, cause in CHANGE.findall(m.text())]


def _hog(n, mb, **keys):
    return "hog%d" % n, {"memory": "%dM" % (mb + 4), "kernel": "memtouch.elf", "output": "log",
                         "start": "manual", "cmdline": "name=hog%d end=halt rounds=1 mb=%d" % (n, mb),
                         **keys}


def _refused_as_whole(m):
    """What its operator asks for in vain of a VM that is never swapped."""
    assert "vm: whole: its swap is off: none of its pages" in m.command("vm whole swapout 4M")
    assert "min 1024K, max 12288K, 0 shares; its swap is off, so max counts as min" in m.command("vm whole min 1M")
    assert re.search(r"max is not changed: its max \(its min, for swap = off\) of 160 MB and overhead of \d+ MB do "
                     r"not fit: with the \d+ MB that are guaranteed", m.command("vm whole max 160M"))


@runs_on(svm={"mem": "256M", "limit": 300, "mb": 28}, vmx={"mem": "256M", "limit": 400, "mb": 28, "long": True},
         shadow_svm={"mem": "256M", "limit": 300, "mb": 28, "long": True},
         shadow_vmx={**PREEMPTED, "mem": "256M", "limit": 400, "mb": 28, "long": True})
def test_states_walk(on):
    """VMs that come, one by one, drive the host through all states, and back as they go. Nothing can be
    taken from them, so the last one waits in *low*, until memory is there again. One that is never swapped
    has no min and no shares: its max is its due all the same."""
    period, nr = 2, 9
    hogs = [_hog(n, on["mb"]) for n in range(nr)]
    keep = ("keep", {"memory": "24M", "min": "24M", "kernel": "memtouch.elf",
                     "cmdline": "name=keep end=halt rounds=100000 mb=16"})
    whole = ("whole", {"memory": "160M", "max": "12M", "shares": 0, "swap": "off", "cpu_shares": "low",
                       "kernel": "memtouch.elf", "largepages": "off",
                       "cmdline": "name=whole end=halt rounds=100000 mb=8"})
    text = conf(keep, whole, *hogs, seed=31, overcommit="unbacked",
                **{"Mem.ShareScanGHz": 0, "Mem.MemZipEnable": 0, "Mem.MemMinFreePct": 40,
                   "Mem.BalancePeriod": period})
    with on.machine(modules={"ballast.conf": text, "memtouch.elf": guest_elf("memtouch")}) as m:
        m.prompt()
        _refused_as_whole(m)
        m.pause(1.5)  # that a VM runs is known, and its min guaranteed, from the next second on (docs/reclaim.md)
        waits = None
        for name, _ in hogs:
            m.send("vm %s start\r" % name)
            if m.expect([r"\[%s\] SUMMARY passed \d+ failed 0" % name, "memory: low, was"], 60) == 1:
                waits = name
                break
        assert waits, "memory never became low"
        m.send("\r")
        m.prompt()
        m.wait_for("why %s" % waits, r"It is low, and this VM waits because it holds more than its due", 8)
        # Who holds no more than its due goes on.
        for name in ("keep", "whole"):
            assert "waits" not in m.command("why " + name)
            m.send("console %s\r" % name)
            m.expect("Ctrl-")
            for _ in range(3):
                m.expect(r"round \d+", 30)
            m.send("\x1d")
            m.prompt()
        assert "Nothing was asked of it" in m.command("why whole")
        row = mem(m)["whole"]
        assert row["SZTGT"] == row["MIN"] == row["MAX"] == 12 and 8 <= row["GRANT"] <= 12, row
        assert row["SWCUR"] == row["ZIPPED"] == row["MCTLTGT"] == row["%LAT_M"] == 0, row
        m.command("vm hog0 destroy")
        m.command("vm hog1 destroy")
        m.wait_log([r"\[%s\] SUMMARY passed \d+ failed 0" % waits])
        for name, _ in hogs[2:]:
            if name == waits:
                break
            m.command("vm %s destroy" % name)
        m.wait_for("why keep", "Memory is high", 60)
        assert "audit: passed" in m.command("audit")
        changes = _changes(m)
        for t, to, was, mb, cause in changes:
            m.note("%.1f s: %s, was %s, %d MB free, %s" % (t, to, was, mb, cause))
        order = ["high", "soft", "hard", "low"]
        falls = [c for c in changes if order.index(c[1]) > order.index(c[2])]
        climbs = [c for c in changes if c not in falls]
        assert [c[1] for c in falls][:3] == ["soft", "hard", "low"]
        assert {c[1] for c in climbs} == {"hard", "soft", "high"}
        for c in falls:
            assert re.search(r"below \d+ MB; vm \w+ took \d+ KB just now", c[4]), c
        for c in climbs:
            # One step at a time, and not before the period is over since the last fall.
            assert order.index(c[2]) - order.index(c[1]) == 1
            assert all(c[0] - f[0] > period - 0.2 for f in falls if f[0] < c[0]), c
        assert "FAIL" not in m.text()
        m.poweroff()


def _progress(m):
    """Name to steps or rounds by the guests' own words so far, all of them without a bad word."""
    out = {}
    for name, touched, bad in re.findall(r"\[([\w.-]+)\] wset: t=\S+ step=\d+ size=\d+ touched=(\d+) "
                                         r"bad=(\d+)", m.text()):
        out[name] = int(touched)
        assert bad == "0", name
    for name, nr in re.findall(r"\[([\w.-]+)\] balloon: round (\d+)", m.text()):
        out[name] = int(nr)
    return out


@runs_on(svm={"mem": "208M", "limit": 400, "long": True}, shadow_svm={"mem": "208M", "limit": 500, "long": True})
def test_thrash_zoo(on):
    """Five VMs that want more than there is: one that takes everything when it starts, two that swing in
    opposite phase, one without a balloon driver and one whose driver never answers. Each of them makes
    progress in every window of 20 seconds (the bound), and finds its memory as it left it. (QEMU only: in
    Bochs such a window takes ten minutes.)"""
    swing = "touch 40M random 8s; shrink 4M; sleep 8s; "

    def zoo(name, script, options=""):
        return name, {"memory": "64M", "min": "12M", "kernel": "wset.elf", "output": "log",
                      "cmdline": '"name=%s %s seed=3 end=halt script=%s"' %
                                 (name, options, re.sub(r"\s*;\s*", ";", script).replace(" ", "_"))}
    vms = [zoo("boots", "fill half; touch 30M random 400s", "wipe=yes"),
           zoo("swing", "fill half; " + swing * 9),
           zoo("swong", "fill half; sleep 8s; " + swing * 9),
           zoo("plain", "fill half; touch 40M random 400s", "balloon=no")]
    dead = ("dead", {"memory": "64M", "min": "12M", "kernel": "balloon.elf", "output": "log",
                     "cmdline": "name=dead mb=48 deaf pause=1000000 rounds=0"})
    text = conf(*vms, dead, seed=32, **{"Mem.BalancePeriod": 3, "Mem.SamplePeriod": 5})
    image = swap_image(on.name, 256 * MIB)
    with on.machine(extra=drive("virtio", image), modules={"ballast.conf": text, "wset.elf": guest_elf("wset"),
                                                 "balloon.elf": guest_elf("balloon")}) as m:
        m.prompt()
        m.expect(r"memory: (hard|low), was", 100)
        before, least = None, {}
        for _ in range(4):
            m.pause(20)
            now = _progress(m)
            for name in now if before else ():
                least[name] = min(least.get(name, 1 << 60), now[name] - before.get(name, 0))
            before = now
        m.note("least touched in a window: %s" % least)
        assert set(least) == {n for n, _ in vms} | {"dead"} and all(n > 0 for n in least.values())
        assert not re.search(r"stopped", m.command("vms"))
        assert re.search(r"driver does not answer|no balloon driver", m.command("why dead"))
        assert "audit: passed" in m.command("audit")
        m.poweroff()
