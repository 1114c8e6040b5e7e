# SPDX-License-Identifier: BSD-2-Clause
"""Compression and swapping: more guest memory than the machine has, in guests without a balloon."""

import os
import re
import subprocess
import sys
import time

from disks import MIB, drive, swap_image
from machine import SLOW, conf, guest_elf, number
from memscreen import mem
from platforms import runs_on

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools")
sys.path.insert(0, TOOLS)
from telemetry import Telemetry  # noqa: E402

DISK_MIB = 512  # sparse


def bochs_disk(path):
    """Bochs's configuration of a disk that is not the one it boots from. One that was killed has left its
    lock behind."""
    if os.path.exists(path + ".lock"):
        os.remove(path + ".lock")
    return 'ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n' \
           'ata1-master: type=disk, mode=flat, path="%s"' % path


def disk_for(on, path, **options):
    """Arguments of the platform's machine for a disk of the kind that the scenario asks for."""
    if on.get("kind") == "bochs":
        return bochs_disk(path)
    return drive(on["kind"], path, **options)


def memtouch(name, mib, rounds, fill="random", vcpus=1, **keys):
    """A guest of so many MiB that writes all of its memory, and checks and renews it in rounds, all of its
    vCPUs in the same pages at once."""
    return name, {"memory": "%dM" % mib, "kernel": "memtouch.elf", "output": "log", "vcpus": vcpus,
                  "cmdline": "name=%s end=exit fill=%s order=random rounds=%d cpus=%d" %
                             (name, fill, rounds, vcpus), **keys}


def modules(*vms, **host):
    host.setdefault("seed", 1)
    return {"ballast.conf": conf(*vms, **host), "memtouch.elf": guest_elf("memtouch")}


def free_mib(on, extra):
    """Memory of the machine that guests can have."""
    with on.machine("-empty", extra=extra) as m:
        m.prompt()
        free = number(m.command("mem once"), r"(\d+) free")
        m.poweroff()
    return free


def all_passed(m, names, rounds, timeout):
    """Every guest ended by itself, with every page as it was written."""
    m.wait_for("vms", r"\d+ VMs?: 0 running", timeout=timeout, every=2)
    text = m.wait_log([r"vm %s: exited with code 1\b" % n for n in names])
    for name in names:
        assert re.search(r"\[%s\] SUMMARY passed %d failed 0" % (name, rounds + 2), text), name


# The quick set has the smallest machine, on virtio, and guests of one vCPU and of two; test-all a larger one,
# four vCPUs and the other controllers.
TWO_TO_ONE = {
    "svm": [{"id": "virtio", "kind": "virtio", "smp": 2, "mem": "40M", "limit": 240},
            {"id": "2vcpus", "kind": "virtio", "smp": 2, "mem": "40M", "vcpus": 2, "limit": 240},
            {"id": "4vcpus", "kind": "virtio", "smp": 2, "mem": "64M", "vcpus": 4, "limit": 400, "long": True},
            {"id": "virtio-128M", "kind": "virtio", "smp": 2, "mem": "128M", "limit": 600, "long": True},
            {"id": "ahci", "kind": "sata", "smp": 2, "mem": "64M", "limit": 240, "long": True},
            {"id": "nvme", "kind": "nvme", "smp": 2, "mem": "64M", "limit": 240, "long": True},
            {"id": "ide", "kind": "ide", "machine": "pc", "mem": "64M", "limit": 240, "long": True}],
    "vmx": [{"id": "1vcpu", "kind": "bochs", "mem": "32M", "limit": 600, "long": True, "emulated": True},
            {"id": "2vcpus", "kind": "bochs", "mem": "32M", "vcpus": 2, "limit": 900, "long": True,
             "emulated": True}],
    "shadow_svm": [{"id": "1vcpu", "kind": "virtio", "smp": 2, "mem": "40M", "limit": 400, "long": True},
                   {"id": "2vcpus", "kind": "virtio", "smp": 2, "mem": "40M", "vcpus": 2, "limit": 600,
                    "long": True}],
    "shadow_vmx": {"kind": "bochs", "mem": "32M", "limit": 900, "named": True, "emulated": True},
}


@runs_on(**TWO_TO_ONE)
def test_swap_two_to_one(on):
    """Guests of twice the machine's memory write all of it with noise, and find it again in three
    rounds; none is stopped."""
    rounds = 3
    extra = disk_for(on, swap_image(on.name, DISK_MIB * MIB))
    guests = 2
    mib = 2 * free_mib(on, extra) // guests
    names = ["w%d" % i for i in range(guests)]
    vms = [memtouch(n, mib, rounds, vcpus=on.get("vcpus", 1), largepages="auto" if i % 2 else "off")
           for i, n in enumerate(names)]
    with on.machine(extra=extra, modules=modules(*vms)) as m:
        m.prompt()
        all_passed(m, names, rounds, on["limit"])
        mem = m.command("mem once")
        assert re.search(r"errors: 0 write, 0 read, 0 checksum", mem), mem
        for name in names:
            m.command("vm %s destroy" % name)
        assert number(m.command("mem once"), r": (\d+) of \d+ slots") == 0
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"kind": "virtio", "mem": "128M"},
         vmx={"kind": "bochs", "mem": "64M", "limit": 300, "long": True, "emulated": True},
         shadow_svm={"kind": "virtio", "mem": "128M"},
         shadow_vmx={"kind": "bochs", "mem": "64M", "limit": 300, "long": True, "emulated": True})
def test_swap_overwritten(on):
    """Pages that string instructions write as a whole are not read from the disk first; what they write
    in part, or move onto itself, is."""
    mib = 12
    extra = disk_for(on, swap_image(on.name, 64 * MIB))
    # A line to it is no longer than the serial port's FIFO: in Bochs a guest that exits all the time
    # with interrupts off keeps them off for long.
    vm = ("o", {"memory": "16M", "kernel": "overwrite.elf", "output": "log", "largepages": "off",
                "cmdline": "name=over end=exit mb=%d" % mib})
    host = {"seed": 1, "Mem.MemZipEnable": 0, "swap.encrypt": "off"}
    with on.machine(extra=extra, modules={"ballast.conf": conf(vm, **host),
                                          "overwrite.elf": guest_elf("overwrite")}) as m:
        m.expect(r"overwrite: filled", 90)
        m.send("\r")
        m.prompt()
        # Bochs takes most of a minute for it.
        taken = number(m.command("vm o swapout 9G", 150), r"(\d+) pages compressed, or on")
        assert taken >= mib * 256 * 9 // 10
        m.wait_for("mem once", r"STORE +: \S+ [1-9]\d\d+ of")
        # Batches of 32 pages are written at once; a few at the end are not full.
        written = number(m.command("mem once"), r"STORE +: \S+ (\d+) of")
        writes = number(m.command("disks"), r"reads, (\d+) writes,")
        assert writes * 8 <= written, (writes, written)
        m.send("console o\r")
        m.expect("Ctrl-")
        m.send("x\x1d")
        m.expect(r"\[o\] SUMMARY passed 1 failed 0", 120)
        m.send("\r")
        m.prompt()
        # Four kinds of pages in eight are whole; what touches that came first brought along is not spared.
        spared = number(m.command("mem once"), r"(\d+) spared")
        assert spared >= mib * 256 // 4, spared
        assert "audit: passed" in m.command("audit")
        m.poweroff()


# What each of two VMs must show some time: title on the screen, key in telemetry.
SEEN = {"zip": {"CACHESZ": "cachesz", "CACHEUSD": "cacheusd", "ZIPPED": "zipped", "ZIP/s": "zip", "UNZIP/s": "unzip",
                "%LAT_M": "lat_m"},
        "disk": {"SWCUR": "swcur", "SWTGT": "swtgt", "SWR/s": "swr", "SWW/s": "sww", "%LAT_M": "lat_m"}}
SEEN_OF_HOST = ("swap_curr", "swap_tgt", "swap_r", "swap_w", "zipped", "zip_saved")
COMPRESSED, ON_DISK = "#e69f00", "#b22222"  # the legend of tools/plot_map.py


def _screen_sees(m, limit):
    """All that SEEN says is above 0 on the memory screen; the VM that only compresses waits for nobody."""
    most = {(name, title): 0 for name, titles in SEEN.items() for title in titles}
    end = time.monotonic() + limit * SLOW
    while min(most.values()) == 0:
        assert time.monotonic() < end, (most, mem(m).text)
        m.pause(0.3)
        screen = mem(m)
        for name, title in most:
            most[name, title] = max(most[name, title], screen[name][title])
        assert screen["zip"]["SWCUR"] == screen["zip"]["SWR/s"] == 0 and screen.host(r"(\d+) waits") == 0, screen.text
    m.note("at most: " + ", ".join("%s %s %.2f" % (n, t, v) for (n, t), v in most.items()))


def _telemetry_sees(path):
    """The same in telemetry, and its maps as a picture, once they show both VMs away."""
    end = time.monotonic() + 30 * SLOW
    while True:
        data = Telemetry(path)
        last = {n: data.maps[n][-1]["map"] for n in SEEN if n in data.maps}
        if "CCCCC" in last.get("zip", "") and "DDDDD" in last.get("disk", ""):
            break
        assert time.monotonic() < end, last
        time.sleep(0.3)
    for name, titles in SEEN.items():
        for key in titles.values():
            assert max(data.series(key, name)[1]) > 0, (name, key)
    for key in SEEN_OF_HOST:
        assert max(data.series(key)[1]) > 0, key
    for names, colours in ((["zip"], {COMPRESSED}), (["disk"], {ON_DISK}), ([], {COMPRESSED, ON_DISK})):
        svg = "%s.%s.svg" % (path, "_".join(names) or "all")
        subprocess.run([sys.executable, os.path.join(TOOLS, "plot_map.py"), path, svg] +
                       [a for n in names for a in ("--vm", n)], check=True)
        with open(svg, encoding="utf-8") as f:
            drawn = f.read()
        assert {c for c in (COMPRESSED, ON_DISK) if c in drawn} == colours, svg


@runs_on(svm={"kind": "virtio", "mem": "128M", "limit": 200},
         vmx={"kind": "bochs", "mem": "64M", "limit": 400, "long": True, "emulated": True},
         shadow_svm={"kind": "virtio", "mem": "128M", "limit": 200, "long": True})
def test_swap_seen(on):
    """Whatever shows pages that are compressed, on disk and on their way shows them, of two VMs that use more than
    their max: `mem`, telemetry and its picture (QEMU only: Bochs's COM2 has no reader), `map`, `why`."""
    page = "0x900"
    extra = disk_for(on, swap_image(on.name, 64 * MIB))
    path = os.path.join(on.machine().dir, on.name + ".jsonl") if on.vendor == "svm" else None
    if path:
        extra += ["-serial", "file:" + path]
    vms = [memtouch(name, 16, 1000000, fill=fill, max="8M", largepages="off")
           for name, fill in (("zip", "half"), ("disk", "random"))]
    host = {"Mem.ShareScanGHz": 0, "Mem.MemZipMaxPct": 100}
    with on.machine(extra=extra, modules=modules(*vms, **host)) as m:
        m.prompt()
        _screen_sees(m, on["limit"] // 2)
        assert re.search(r"more than its max; its due were .*compress and swap was to take \S+ MB from it",
                         m.command("why zip"))
        for name, letter, said in (
                ("zip", "C", r"is kept compressed\.\s.*it was compressed, for its VM held more than its due; "
                             r"bytes \d+\."),
                ("disk", "D", r"is in the swap area\.\s.*it was written to the swap area, for its VM held more than "
                              r"its due; slot \d+\.")):
            m.command("vm %s pause" % name)
            m.command("vm %s swapout 64M" % name)
            m.wait_for("map " + name, r"\|.*%s.*\|" % (5 * letter))
            assert re.search("Page %s of %s " % (page, name) + said, m.command("why %s %s" % (name, page)), re.S), name
        if path:
            _telemetry_sees(path)
        for name, said in (("zip", r"it was touched, and decompressed\."),
                           ("disk", r"it was read back from the swap area; slot \d+\.")):
            m.command("vm %s max 16M" % name)
            m.command("vm %s resume" % name)
            m.wait_for("why %s %s" % (name, page), "(?s)is on a frame of its own.*" + said, 60)
        assert "FAIL" not in m.text()
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"kind": "virtio", "mem": "96M", "smp": 2, "limit": 400, "long": True})
def test_swap_compression_saves_reads(on):
    """A compressible load asks the disk for at least three times fewer pages with compression than
    without. The cache may take as much as it needs: at the default of 10 % of a VM it could hold a small part
    of what is away here, and how many reads that saves follows from the bound, not from compressing
    (tests/host/test_swap.c, cache_saves_reads, has both). (QEMU only: what is counted is common code's
    doing, and Bochs takes ten minutes for it.)"""
    reads = {}
    for zip_on in (0, 1):
        extra = disk_for(on, swap_image(on.name, DISK_MIB * MIB))
        names = ["w0", "w1"]
        vms = [memtouch(n, 58, 2, fill="half") for n in names]
        host = {"Mem.MemZipEnable": zip_on, "Mem.MemZipMaxPct": 100, "swap.encrypt": "off"}
        with on.machine("-zip%d" % zip_on, extra=extra, modules=modules(*vms, **host)) as m:
            m.prompt()
            all_passed(m, names, 2, on["limit"])
            reads[zip_on] = number(m.command("disks"), r"(\d+) reads,")
            m.poweroff()
    print("disk reads: %d without compression, %d with it" % (reads[0], reads[1]))
    assert reads[0] > 3000 and reads[0] >= 3 * reads[1], reads
