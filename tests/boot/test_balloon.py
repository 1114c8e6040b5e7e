# SPDX-License-Identifier: BSD-2-Clause
"""Ballooning with whole guests: Debian's unmodified vmw_balloon, our small guests' driver, and guests
that lie."""

import re
import time

from machine import SLOW, conf, guest_elf, linux_modules, linux_vm, number
from memscreen import mem
from platforms import runs_on


class Balloon:
    """A row of `balloon`, sizes in MB."""

    def __init__(self, text, name):
        row = re.search(r"^%s +([YN]) +(\S+) +(\S+) +(\S+) +(\S+) +(hand|auto) +(\d+) +(\d+) +(\d+) *(.*)$" %
                        name, text, re.M)
        assert row, text
        self.present = row.group(1) == "Y"
        self.size, self.target, self.told, self.most = [float(row.group(i)) for i in range(2, 6)]
        self.starts, self.resets, self.refused = [int(row.group(i)) for i in range(7, 10)]
        self.remark = row.group(10).strip()


def _balloon(m, name):
    return Balloon(m.command("balloon"), name)


def _wait_balloon(m, name, good, timeout):
    """Until the balloon is as it should be; the row."""
    end = time.monotonic() + timeout * SLOW

    while True:
        b = _balloon(m, name)
        if good(b):
            return b
        if time.monotonic() > end:
            raise AssertionError("the balloon of %s: %s" % (name, vars(b)))
        time.sleep(0.2)


def _free_mb(m):
    return number(m.command("audit"), r"(\d+) frames free of") / 256


def _row(m, name):
    """MEMSZ, GRANT, CNSM of one VM in MB."""
    row = mem(m)[name]
    return [row["MEMSZ"], row["GRANT"], row["CNSM"]]


def _guest_free(m, name):
    """Free memory as the guest sees it, MB."""
    return int(m.guest_shell(name, "grep MemFree /proc/meminfo", r"MemFree: +(\d+) kB").group(1)) / 1024


def _load(m, megabytes):
    """The guest uses and frees that much, so that the frames behind it are its own."""
    m.guest_shell("l", "dd if=/dev/zero of=/dev/null bs=%dM count=1 2>/dev/null && echo loaded" %
                  megabytes, "loaded", timeout=300)


HALF = {"mem": "192M", "memory": 128, "load": 60, "balloon": 40, "filler": 70, "long": True}


@runs_on(svm={"limit": 600, "mem": "384M", "memory": 256, "load": 150, "balloon": 100, "filler": 165},
         vmx={"limit": 1200, "ips": 50000000, **HALF}, shadow_svm={"limit": 600, **HALF},
         shadow_vmx={"limit": 1200, "ips": 50000000, **HALF})
def test_balloon_stock_linux(on):
    """Debian's unmodified module, loaded by its own alias, inflates by 100 MiB of 256; another VM gets the
    frames; both sides' numbers agree; it gives all back. Removal, re-insertion and a reboot in
    mid-balloon leave nothing behind."""
    most, again = on["balloon"], on["balloon"] * 6 // 10
    name, keys = linux_vm("l", memory="%dM" % on["memory"], on_reset="restart", largepages="off",
                          cmdline='"console=ttyS0 quiet pci=off name=l modules=auto"')
    filler = ("filler", {"memory": "%dM" % (on["filler"] + 8), "kernel": "memtouch.elf",
                         "start": "manual", "output": "log",
                         "cmdline": "name=filler end=exit rounds=1 mb=%d" % on["filler"]})
    text = conf((name, keys), filler, seed=21, overcommit="unbacked", **{"Mem.ShareScanGHz": 0})
    with on.machine(modules={"ballast.conf": text, "memtouch.elf": guest_elf("memtouch"),
                             **linux_modules()}) as m:
        m.prompt()
        m.expect(r"vm l: balloon driver started: batched, 2 MiB pages", 300)
        m.send("\r")
        m.prompt()
        m.wait_for("balloon", r"l +Y +0\.0 ")
        m.guest_shell("l", "lsmod", r"vmw_balloon +\d+")
        _load(m, on["load"])
        before = {"free": _free_mb(m), "guest": _guest_free(m, "l"), "grant": _row(m, "l")[1]}
        assert before["free"] < on["filler"]
        assert "at most" in m.command("balloon l %dM" % on["memory"])
        m.command("balloon l %dM" % most)
        b = _wait_balloon(m, "l", lambda b: b.size >= most - 0.5, 300)
        after = {"free": _free_mb(m), "guest": _guest_free(m, "l"), "grant": _row(m, "l")[1]}
        m.note("balloon %.1f MB: guest's free memory %.1f -> %.1f MB, host's %.1f -> %.1f MB, "
               "granted %.1f -> %.1f MB" % (b.size, before["guest"], after["guest"], before["free"],
                                            after["free"], before["grant"], after["grant"]))
        assert most - 0.5 <= b.size < most + 2 and b.resets == 0 and b.refused == 0
        assert abs((before["guest"] - after["guest"]) - b.size) < 6
        assert after["free"] > on["filler"] + 8
        assert after["grant"] + b.size <= on["memory"]
        assert abs(before["free"] + before["grant"] - after["free"] - after["grant"]) < 3
        assert "audit: passed" in m.command("audit")
        # The frames that it freed are another VM's now, which finds no byte of the guest's in them.
        m.command("vm filler start")
        m.expect(r"\[filler\] SUMMARY passed \d+ failed 0", 300)
        m.wait_for("vms", r"filler\s+stopped.*exited with code 1\b")
        m.command("vm filler destroy")
        # All of it back, and the guest can use it.
        m.command("balloon l 0")
        b = _wait_balloon(m, "l", lambda b: b.size == 0, 60)
        assert b.resets == 0
        assert abs(before["guest"] - _guest_free(m, "l")) < 8
        _load(m, on["load"])
        # Removal and re-insertion in mid-balloon.
        m.command("balloon l %dM" % again)
        _wait_balloon(m, "l", lambda b: b.size > again // 3, 60)
        m.guest_shell("l", "rmmod vmw_balloon")
        b = _balloon(m, "l")
        assert not b.present and b.size == 0 and b.remark == "no driver"
        _load(m, on["load"])
        m.guest_shell("l", "insmod /modules/vmw_balloon.ko")
        b = _wait_balloon(m, "l", lambda b: b.present and b.size >= again - 0.5, 200)
        assert b.resets == 0 and b.starts == 2
        assert "audit: passed" in m.command("audit")
        # The guest reboots: its balloon is empty, and fills again once its driver is there.
        m.send("console l\r")
        m.expect("Ctrl-")
        m.send("\rreboot -f\r")
        m.expect("vm l: reset", 60)
        m.send("\x1d")
        m.prompt()
        b = _wait_balloon(m, "l", lambda b: not b.present, 30)
        assert b.size == 0
        m.expect(r"balloon driver started", 300)
        m.send("\r")
        m.prompt()
        _wait_balloon(m, "l", lambda b: b.size >= again - 0.5, 200)
        assert "audit: passed" in m.command("audit")
        m.command("vm l destroy")
        assert "audit: passed" in m.command("audit")
        m.poweroff()


# ---- Our small guests ----

def _kept(m, name, rounds):
    """The guest has checked all of its memory so many times more, and found it good."""
    m.send("console %s\r" % name)
    for _ in range(rounds + 1):
        m.expect(r"round \d+, [^\r\n]*?0 words bad", 120)
    m.send("\x1d")
    m.prompt()


@runs_on(svm={"mem": "256M", "limit": 300, "mb": 48}, vmx={"mem": "192M", "limit": 400, "mb": 32},
         shadow_svm={"mem": "256M", "limit": 300, "mb": 48, "long": True},
         shadow_vmx={"mem": "192M", "limit": 400, "mb": 32, "long": True})
def test_balloon_small(on):
    """Three of our own guests give up half of their memory by single, batched and 2 MiB commands, get
    it back, touch what they gave up, and check every page all the while. A driver that falls silent
    counts as none."""
    caps = ("basic", "batched", "all")
    sizes = {"basic": 8, "batched": on["mb"], "all": on["mb"]}
    total = sum(sizes.values()) // 2
    vms = [(c, {"memory": "%dM" % (mb + 8), "kernel": "balloon.elf",
                "cmdline": "name=%s mb=%d caps=%s pause=30000000 rounds=0" % (c, mb, c)})
           for c, mb in ((c, sizes[c]) for c in caps)]
    deaf = ("deaf", {"memory": "16M", "kernel": "balloon.elf",
                     "cmdline": "name=deaf mb=4 deaf pause=30000000 rounds=0"})
    pop = ("pop", {"memory": "16M", "kernel": "balloon.elf",
                   "cmdline": "name=pop mb=8 pop=4 pause=30000000 rounds=0"})
    # No region that became small is joined again: that would take what the balloons gave.
    text = conf(*vms, deaf, pop, seed=22, **{"Mem.ShareScanGHz": 0, "LPage.LPageAlwaysTryForNPT": 0})
    with on.machine(modules={"ballast.conf": text, "balloon.elf": guest_elf("balloon")}) as m:
        m.prompt()
        for c in caps + ("pop",):
            _wait_balloon(m, c, lambda b: b.present, 100)
            _kept(m, c, 1)
        _kept(m, "deaf", 1)
        free = _free_mb(m)
        for c in caps:
            m.command("balloon %s %dM" % (c, sizes[c] // 2))
        m.command("balloon pop 4M")
        for c in caps:
            b = _wait_balloon(m, c, lambda b: b.size == sizes[c] // 2, 100)
            assert b.resets == 0, c
        gained = _free_mb(m) - free
        m.note("balloons of %d MB: %.1f MB became free" % (total, gained))
        assert gained > total - 2
        assert "audit: passed" in m.command("audit")
        for c in caps:
            _kept(m, c, 2)
            m.command("balloon %s 0" % c)
        for c in caps:
            _wait_balloon(m, c, lambda b: b.size == 0, 100)
            _kept(m, c, 2)
        # Who touches what he gave up is told to start anew.
        _wait_balloon(m, "pop", lambda b: b.resets >= 3, 200)
        _kept(m, "pop", 2)
        _wait_balloon(m, "deaf", lambda b: b.remark == "driver silent" and not b.present, 100)
        assert "FAIL" not in m.text()
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "256M", "limit": 300, "flood": 20000},
         vmx={"smp": 2, "mem": "192M", "limit": 500, "flood": 3000, "long": True},
         shadow_svm={"smp": 2, "mem": "256M", "limit": 300, "flood": 20000, "long": True},
         shadow_vmx={"smp": 2, "mem": "192M", "limit": 500, "flood": 3000, "long": True})
def test_balloon_hostile(on):
    """Guests that lie to their balloon get the statuses that say so, leak nothing and disturb nobody."""
    bad = [("bad%d" % n, {"memory": "25M", "vcpus": n, "kernel": "badballoon.elf", "output": "log",
                          "start": "manual",
                          "cmdline": "name=bad%d mb=18 cpus=%d flood=%d end=exit" %
                          (n, n, on["flood"])}) for n in (1, 2)]
    suicide = ("suicide", {"memory": "16M", "kernel": "badballoon.elf", "start": "manual",
                           "cmdline": "name=suicide mode=suicide"})
    good = ("good", {"memory": "24M", "kernel": "balloon.elf",
                     "cmdline": "name=good mb=12 pause=30000000 rounds=0"})
    # 18 MB are more than the host may take of 25 MB, whole 2 MiB pages included. No region of the good
    # guest's is joined again, so that it holds the same frames all the time.
    text = conf(*bad, suicide, good, seed=23, **{
        "Mem.ShareScanGHz": 0, "Mem.CtlMaxPercent": 60, "LPage.LPageAlwaysTryForNPT": 0})
    with on.machine(modules={"ballast.conf": text, "balloon.elf": guest_elf("balloon"),
                             "badballoon.elf": guest_elf("badballoon")}) as m:
        m.prompt()
        _wait_balloon(m, "good", lambda b: b.present, 100)
        m.command("balloon good 4M")
        _wait_balloon(m, "good", lambda b: b.size == 4, 100)
        free = number(m.command("audit"), r"(\d+) frames free of")
        for name, _ in bad:
            m.command("vm %s start" % name)
            m.expect(r"\[%s\] SUMMARY passed (\d+) failed (\d+)" % name, 200)
            passed, failed = int(m.match.group(1)), int(m.match.group(2))
            m.note("%s: %d checks passed, %d failed" % (name, passed, failed))
            assert failed == 0 and passed > 70
            m.wait_for("vms", r"%s\s+stopped.*exited with code 1\b" % name)
            assert "audit: passed" in m.command("audit")
        m.command("vm suicide start")
        m.wait_for("vms", r"suicide\s+stopped", timeout=100)
        for name, _ in bad + [suicide]:
            m.command("vm %s destroy" % name)
        # The three had structures before they started; those are free now as well.
        assert number(m.command("audit"), r"(\d+) frames free of") > free
        assert "audit: passed" in m.command("audit")
        b = _balloon(m, "good")
        assert b.present and b.size == 4 and b.resets == 0
        _kept(m, "good", 2)
        m.poweroff()
