# SPDX-License-Identifier: BSD-2-Clause
"""A swap disk that fails in every way, at every step: the VM that needs a page says what is wrong with
it, `resume` tries again, nobody else notices, and no byte is lost. QEMU only: its blkdebug, throttling and monitor make the errors."""

import re

import pytest

from disks import FIRST_SLOT, MIB, blkdebug, drive, repeat_crashes, slot_sector, swap_image
from machine import conf, guest_elf, number
from platforms import runs_on

NAMES = {"virtio": "virtio0", "nvme": "nvme0", "sata": "sata0", "ide": "ide0"}
PLACES = {"svm": [{"id": "virtio", "kind": "virtio"},
                  {"id": "nvme", "kind": "nvme", "long": True},
                  {"id": "ahci", "kind": "sata", "long": True},
                  {"id": "ide", "kind": "ide", "machine": "pc", "long": True}],
          "shadow_svm": [{"id": "virtio", "kind": "virtio", "long": True}]}


class Bench:
    """A machine with a VM that is swapped (`victim`) and two that are not to notice (`other`, whose
    pages leave as well, and `pinned`, whose do not)."""

    def __init__(self, on, rules=(), size=64 * MIB, options="", **machine):
        self.image = swap_image(on.name, size)
        extra = drive(on["kind"], self.image, options=options,
                      prefix=blkdebug(on.name, *rules) if rules else "")
        vms = [(n, {"memory": "14M", "kernel": "memtouch.elf", "output": "log", "start": "manual",
                    "swap": "off" if n == "pinned" else "auto",
                    "cmdline": "name=%s end=exit mb=10 fill=random order=random rounds=100000" % n})
               for n in ("victim", "other", "pinned")]
        vms += [("large", {**vms[0][1], "memory": "90M"})]  # swap must back it
        host = {"seed": 1, "Mem.MemZipEnable": 0}
        self.on = on
        self.machine = on.machine(extra=extra, mem="128M", smp=2, monitor=True, modules={
            "ballast.conf": conf(*vms, **host), "memtouch.elf": guest_elf("memtouch")}, **machine)

    def __enter__(self):
        m = self.m = self.machine.__enter__()
        m.prompt()
        for name in ("other", "pinned", "victim"):
            m.command("vm %s start" % name)
            m.expect(r"\[%s\] memtouch: round 1 of" % name, 60)
        return self

    def __exit__(self, *exc):
        return self.machine.__exit__(*exc)

    def goes_on(self, name, rounds=2):
        """The guest checks all of its memory, `rounds` times from now on."""
        for _ in range(rounds + 1):  # one may be on its way through the log
            self.m.expect(r"\[%s\] memtouch: round \d+ of" % name, 90)

    def take(self, name, mib=8):
        """Pages of the VM go to the disk."""
        out = self.m.command("vm %s swapout %dM" % (name, mib), 120)
        assert number(out, r"(\d+) pages compressed, or on") > 0

    def end(self):
        """Nobody found a wrong byte; everything is counted; destroying the VMs frees it all."""
        m = self.m
        for name in ("other", "pinned"):
            self.goes_on(name)
        for name in ("victim", "other", "pinned"):
            m.command("vm %s destroy" % name, 90)
        assert "audit: passed" in m.command("audit")
        text = m.text()
        assert "FAIL" not in text and "panic" not in text and "holds 0x" not in text
        m.poweroff()

    def fails(self, why):
        """The victim pauses with device, slot, page and reason on the console; the others go on."""
        pattern = r"vm victim: .*guest page 0x[0-9a-f]+ cannot be read back from slot (\d+) of %s: %s; " \
                  r"`vm victim resume` tries again" % (NAMES[self.on["kind"]], why)
        self.m.expect(pattern, 120)
        slot = int(self.m.match.group(1))
        assert re.search(r"victim +paused", self.m.command("vms"))
        return slot


@runs_on(**PLACES)
@repeat_crashes
def test_swap_errors_read(on):
    """A slot that cannot be read for a while."""
    bad = [{"event": "read_aio", "iotype": "read", "errno": 5, "sector": slot_sector(7), "once": "on"}] * 16
    with Bench(on, bad) as b:
        b.m.command("vm victim pause")
        b.take("victim")
        b.m.send("vm victim resume\r")
        assert b.fails("the disk reports an error") == 7
        b.goes_on("other")
        b.goes_on("pinned")
        for _ in range(20):
            b.m.send("vm victim resume\r")
            if b.m.expect([r"cannot be read back from slot 7 of", r"\[victim\] memtouch: round \d+ of"], 90):
                break
        b.goes_on("victim")
        b.end()


@runs_on(**PLACES)
@repeat_crashes
def test_swap_errors_write(on):
    """Slots that cannot be written are retired, and their pages tried elsewhere; a disk that says that
    it is full likewise."""
    bad = [{"event": "write_aio", "iotype": "write", "errno": 5, "sector": slot_sector(5)},
           {"event": "write_aio", "iotype": "write", "errno": 28, "sector": slot_sector(40)}]
    with Bench(on, bad) as b:
        b.m.command("vm victim pause")  # a page that it touches meanwhile leaves its slot unwritten
        b.take("victim")
        b.m.wait_log([r"swap: slot 5 of %s cannot be written: .*; guest page 0x[0-9a-f]+ of VM \d+ stays" %
                      NAMES[on["kind"]], r"swap: slot 40 of "])
        b.m.command("vm victim resume")
        b.take("other")
        b.goes_on("victim")
        b.take("victim")
        audit = b.m.command("audit")
        assert re.search(r"every slot counted: \d+ of \d+ used, 2 bad", audit), audit
        b.goes_on("victim")
        b.end()


@runs_on(**PLACES)
@repeat_crashes
def test_swap_errors_checksum(on):
    """What comes back is not what was written: never given to the guest. Put right, it is."""
    with Bench(on) as b:
        b.m.command("vm victim pause")
        b.take("victim")
        b.m.wait_for("disks", r"\d+ writes")
        first, size = FIRST_SLOT * 4096, 16 * MIB
        with open(b.image, "r+b") as f:
            f.seek(first)
            was = f.read(size)
            f.seek(first)
            f.write(bytes(x ^ 0x10 for x in was))
        b.m.send("vm victim resume\r")
        b.fails(r"it is not what was written there \(checksum\)")
        b.goes_on("other")
        with open(b.image, "r+b") as f:
            f.seek(first)
            f.write(was)
        b.m.command("vm victim resume")
        b.goes_on("victim")
        b.end()


@runs_on(**PLACES)
@repeat_crashes
def test_swap_errors_ejected(on):
    """The medium is taken away: who has pages there stops when it needs one, and can be destroyed."""
    with Bench(on) as b:
        b.m.command("vm victim pause")
        b.take("victim")
        b.m.monitor("drive_del d0")
        b.m.send("vm victim resume\r")
        b.fails(r".*")
        b.take("other")
        b.m.send("vm victim resume\r")
        b.fails(r".*")
        b.end()


@runs_on(svm=[place for place in PLACES["svm"] if place["id"] != "ahci"])
def test_swap_errors_gone(on):
    """A disk that answers no more, whatever resets it: likewise; and its slots back no VM that starts. QEMU's AHCI
    does not come back from a reset while a request is held up."""
    with Bench(on) as b:
        b.m.command("vm victim pause")
        b.take("victim", 4)
        assert "GONE" not in b.m.command("mem once")
        b.m.monitor("block_set_io_throttle d0 1 0 0 0 0 0")
        b.m.send("vm victim swapout 4M\r")
        b.m.expect("disk %s: .*; it counts as gone" % NAMES[on["kind"]], 120)
        b.m.prompt(60)
        b.m.monitor("block_set_io_throttle d0 0 0 0 0 0 0")
        assert re.search(r"STORE +: %s: GONE; \d+ of \d+ slots" % NAMES[on["kind"]], b.m.command("mem once"))
        assert "THE DISK IS GONE" in b.m.command("swap")
        b.m.command("vm large start")
        b.m.wait_log([r"vm large: refused: .* MB for VMs and 0 MB of swap"])
        for _ in range(2):
            b.m.send("vm victim resume\r")
            b.fails("the disk is gone")
        b.goes_on("other")
        b.goes_on("pinned")
        b.end()


@runs_on(**PLACES)
@repeat_crashes
def test_swap_errors_slow(on):
    """A disk that is slower than its time-out: requests are given up, repeated, and done at last."""
    with Bench(on) as b:
        b.m.monitor("block_set_io_throttle d0 10000 0 0 0 0 0")
        b.m.send("vm victim swapout 2M\r")
        b.m.expect("disk %s: no answer within 10 s; reset" % NAMES[on["kind"]], 60)
        b.goes_on("other")
        b.m.monitor("block_set_io_throttle d0 0 0 0 0 0 0")
        b.m.prompt(120)
        b.goes_on("victim")
        b.end()


@runs_on(svm={"kind": "virtio", "long": True}, shadow_svm={"kind": "virtio", "long": True})
@pytest.mark.parametrize("mib", [4, 12])
def test_swap_errors_full(on, mib):
    """An area that is smaller than what is to leave: it fills up, the rest stays."""
    with Bench(on, size=mib * MIB) as b:
        for name in ("victim", "other") * 3:
            b.m.command("vm %s swapout 10M" % name, 120)  # there may be no room for any
        audit = b.m.command("audit")
        used, slots = [int(n) for n in re.search(r"slot counted: (\d+) of (\d+) used", audit).groups()]
        assert used > slots / 2, audit
        b.goes_on("victim")
        b.end()
