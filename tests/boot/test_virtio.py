# SPDX-License-Identifier: BSD-2-Clause
"""virtio devices under Debian's unmodified drivers, and under a guest that lies to them."""

import hashlib
import os
import random
import re
import shutil
import subprocess
import time

import pytest

import disks
from machine import BUILD, SLOW, conf, guest_elf, linux_modules, linux_vm
from platforms import runs_on

DRIVERS = "virtio_ring,virtio,virtio_mmio"


def _ext4(name, megabytes, files):
    """An ext4 image with these files."""
    tool = shutil.which("mke2fs") or "/usr/sbin/mke2fs"
    if not os.path.exists(tool):
        pytest.skip("mke2fs is not installed (Debian package e2fsprogs)")
    base = os.path.join(BUILD, "tests", "boot", name)
    shutil.rmtree(base + ".dir", ignore_errors=True)
    os.makedirs(base + ".dir")
    for k, v in files.items():
        with open(os.path.join(base + ".dir", k), "wb") as f:
            f.write(v)
    if os.path.exists(base):
        os.remove(base)
    subprocess.run([tool, "-q", "-t", "ext4", "-d", base + ".dir", "-E", "root_owner=0:0", base,
                    "%dM" % megabytes], check=True)
    with open(base, "rb") as f:
        return f.read()


def _linux(name, modules, extra="", **keys):
    return linux_vm(name, cmdline='"console=ttyS0 quiet pci=off name=%s modules=%s,%s %s"' %
                    (name, DRIVERS, modules, extra), **keys)


def _overhead(m, name):
    return int(re.search(r"overhead (\d+) KiB", m.command("vm " + name)).group(1))


@runs_on(svm={"smp": 2, "mem": "1G", "limit": 300, "mb": 4},
         vmx={"smp": 1, "mem": "1G", "limit": 900, "mb": 1, "long": True},
         shadow_svm={"smp": 2, "mem": "1G", "limit": 400, "mb": 4, "long": True},
         shadow_vmx={"smp": 1, "mem": "1G", "limit": 900, "mb": 1, "named": True})
def test_linux_virtio_blk(on):
    """Two guests share one ext4 image from a boot module: each sees what is in it and what it wrote
    itself, never what the other wrote; what it discards goes back. A third may only read, and has its
    shell on a virtio console."""
    blob = random.Random(5).randbytes(3 << 20)
    digest = hashlib.sha256(blob).hexdigest()
    image = _ext4("virtio.ext4", 24, {"blob": blob, "note": b"from the image\n"})
    vms = [_linux(n, "virtio_blk,virtio-rng", disk="image.ext4", rng="on", memory="128M")
           for n in ("a", "b")]
    vms.append(_linux("ro", "virtio_blk,virtio_console", "tty=hvc0", disk="image.ext4", console="virtio",
                      disk_readonly="on", memory="128M"))
    modules = {"ballast.conf": conf(*vms, seed=31, swap="ram:64M"), "image.ext4": image, **linux_modules()}
    with on.machine(modules=modules) as m:
        m.prompt()
        for n in ("a", "b", "ro"):
            flags = "-o ro,noload" if n == "ro" else ""
            m.guest_shell(n, "mkdir -p /mnt; mount -t ext4 %s /dev/vda /mnt && sha256sum /mnt/blob" % flags,
                          digest, 200)
        m.guest_shell("a", "cat /sys/block/vda/serial", r"image\.ext4")
        m.guest_shell("ro", "cat /sys/block/vda/ro; tty", r"\n1\r\r?\n/dev/hvc0")
        m.guest_shell("ro", "i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line-$i-of-many; done | "
                      "tee /dev/hvc0 | md5sum", hashlib.md5(b"".join(b"line-%d-of-many\n" % (i + 1)
                                                           for i in range(500))).hexdigest())
        listed = m.command("vm ro")
        assert re.search(r"virtio blk at 0xfeb00000, line 16: driver ready, [1-9]\d* requests; image\.ext4, "
                         r"\d+ MiB, read-only, 0 KiB of its own", listed), listed
        assert re.search(r"virtio console at 0xfeb0[1-3]000, line 1[789]: driver ready, [1-9]", listed), listed
        before = {n: _overhead(m, n) for n in ("a", "b")}
        for n in ("a", "b"):
            m.guest_shell(n, "echo by-%s >/mnt/note; dd if=/dev/urandom of=/mnt/%s bs=1M count=%d "
                          "2>/dev/null; sync; sha256sum /mnt/%s >/mnt/sum; umount /mnt; "
                          "echo 3 >/proc/sys/vm/drop_caches" % (n, n, on["mb"], n), timeout=300)
            assert _overhead(m, n) - before[n] > 1000 * on["mb"]
        for n, other in (("a", "b"), ("b", "a")):
            # Rings and buffers are away when the device wants them.
            m.command("vm %s swapout 40M" % n)
            answer = m.guest_shell(n, "mount -t ext4 /dev/vda /mnt; cat /mnt/note; sha256sum -c /mnt/sum; "
                                   "sha256sum /mnt/blob; ls /mnt", timeout=300)
            assert "by-" + n in answer and "/mnt/%s: OK" % n in answer and digest in answer, answer
            assert not re.search(r"\b%s\b" % other, answer.split("lost+found")[0].split("blob")[-1]), answer
        # What is freed and trimmed goes back to the host.
        full = _overhead(m, "a")
        m.guest_shell("a", "rm /mnt/a; sync; fstrim /mnt; sync", timeout=200)
        assert full - _overhead(m, "a") > 700 * on["mb"]
        m.guest_shell("ro", "cat /mnt/note", "from the image")
        # Entropy: two guests, two streams.
        seen = [re.search(r"((?: [0-9a-f]{2}){16})",
                          m.guest_shell(n, "dd if=/dev/hwrng bs=16 count=1 2>/dev/null | od -An -tx1")).group(1)
                for n in ("a", "b")]
        assert seen[0] != seen[1]
        assert "audit: passed" in m.command("audit")
        for n in ("a", "b", "ro"):
            m.command("vm %s destroy" % n)
        assert "audit: passed" in m.command("audit")
        assert "the driver is wrong" not in m.text()
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "512M", "limit": 300, "long": True},
         shadow_svm={"smp": 2, "mem": "512M", "limit": 400, "long": True})
def test_linux_virtio_disk(on):
    """A guest's disk is a partition of the host's: what it writes is there afterwards, nobody else gets the
    partition meanwhile, and nothing beside it changes. (QEMU only: vmx_linux_virtio_blk is the driver on VMX,
    vmx_disks_ide_bochs the host's disk.)"""
    first, megabytes = 2048, 24
    fs = _ext4("virtio-disk.ext4", megabytes, {"note": b"from the disk\n"})
    path = disks.filled_image(on.name, (megabytes + 4) << 20)
    disks.write_gpt(path, [("0fc63daf-8483-4772-8e79-3d69d8477de4", first,
                            first + (megabytes << 11) - 1, "guest")])
    with open(path, "r+b") as f:
        f.seek(first * disks.SECTOR)
        f.write(fs)
    span = [(first * disks.SECTOR, first * disks.SECTOR + len(fs))]
    beside = disks.digest(path, span)
    vms = (_linux("a", "virtio_blk", disk="disk:nvme0p1", memory="128M"),
           _linux("b", "virtio_blk", disk="disk:nvme0p1", memory="128M"),
           _linux("c", "virtio_blk", disk="disk:nvme7", memory="128M"))
    with on.machine(modules={"ballast.conf": conf(*vms, seed=34), **linux_modules()},
                    extra=disks.drive("nvme", path)) as m:
        m.prompt()
        text = m.text()
        assert "vm b: disk: nvme0p1 is in use" in text
        assert "vm c: disk: the host has no disk or partition 'nvme7'" in text
        assert "in use" in m.command("swap format nvme0p1")
        m.guest_shell("a", "mkdir -p /mnt; mount -t ext4 /dev/vda /mnt && cat /mnt/note", "from the disk", 200)
        digest = m.guest_shell("a", "dd if=/dev/urandom of=/mnt/new bs=1M count=8 2>/dev/null; sync; "
                               "sha256sum /mnt/new; umount /mnt; sync", r"([0-9a-f]{64})", 200).group(1)
        assert "audit: passed" in m.command("audit")
        m.command("vm a destroy")
        assert "audit: passed" in m.command("audit")
        m.poweroff()
    assert disks.digest(path, span) == beside
    part = path + ".part"
    with open(path, "rb") as f, open(part, "wb") as out:
        f.seek(first * disks.SECTOR)
        out.write(f.read(len(fs)))
    tool = shutil.which("debugfs") or "/usr/sbin/debugfs"
    new = subprocess.run([tool, "-R", "cat /new", part], capture_output=True, check=True).stdout
    assert hashlib.sha256(new).hexdigest() == digest


def _granted(m, name):
    """GRANT of one VM in MB, as `mem` shows it."""
    return float(re.search(r"^%s +\S+ +(\S+)" % name, m.command("mem"), re.M).group(1))


@runs_on(svm={"smp": 2, "mem": "1G", "limit": 300, "mb": 150, "long": True},
         vmx={"smp": 1, "mem": "1G", "limit": 900, "mb": 40, "long": True},
         shadow_svm={"smp": 2, "mem": "1G", "limit": 400, "mb": 150, "long": True},
         shadow_vmx={"smp": 1, "mem": "1G", "limit": 900, "mb": 40, "named": True})
def test_virtio_balloon_reporting(on):
    """Debian's unmodified virtio_balloon: what a process frees is back with the host within 3 seconds;
    a balloon set by hand fills, and gives way when the guest runs out of memory."""
    vm = _linux("l", "virtio_balloon", balloon="virtio", memory="256M")
    with on.machine(modules={"ballast.conf": conf(vm, seed=32), **linux_modules()}) as m:
        m.prompt()
        m.expect("vm l: balloon driver started: virtio, statistics, reports of free pages", 200)
        m.send("\r")
        m.prompt()
        m.guest_shell("l", "sleep 5; true")
        idle = _granted(m, "l")
        # The host's options count while the guest runs: small ranges are left alone, reports wait.
        m.command("set Mem.PageReportOrder 9")
        m.command("set Mem.PageReportDelay 10")
        m.guest_shell("l", "dd if=/dev/zero of=/dev/null bs=%dM count=1 2>/dev/null & wait; true" % on["mb"],
                      timeout=300)
        start = time.monotonic()
        while _granted(m, "l") > idle + 0.2 * on["mb"]:
            assert time.monotonic() - start < 3 * SLOW, "still there: %.1f MB" % _granted(m, "l")
            time.sleep(0.1)
        print("memory of a process of %d MB was back after %.1f s" % (on["mb"], time.monotonic() - start))
        reported = re.search(r"reported free (\S+) MB", m.command("balloon l")).group(1)
        assert float(reported) > 0.8 * on["mb"]
        # What it freed reads as zero when it comes again, and everything else is as it was.
        m.guest_shell("l", "dd if=/dev/urandom of=/tmp/a bs=1M count=20 2>/dev/null; cp /tmp/a /tmp/b; "
                      "sleep 3; cmp /tmp/a /tmp/b && echo SA''ME; rm /tmp/a /tmp/b", "SAME", 300)
        # The balloon, and the guest's own numbers.
        m.command("balloon l 100M")
        m.wait_for("balloon", r"l +Y +100\.0 +100\.0", timeout=60)
        out = m.command("balloon l")
        total, free = [float(re.search(r"guest's %s +(\S+) MB" % k, out).group(1)) for k in ("total", "free")]
        assert free < 150 and total < 256, out
        assert _granted(m, "l") < 150
        # A guest in need takes back what it needs, by itself.
        m.guest_shell("l", "dd if=/dev/zero of=/dev/null bs=130M count=1 2>&1; true", r"1\+0 records out", 300)
        out = m.command("balloon l")
        assert int(re.search(r"(\d+) signs of distress", out).group(1)) >= 1, out
        assert float(re.search(r"taken back (\S+) MB", out).group(1)) > 10, out
        m.command("balloon l 0")
        m.wait_for("balloon", r"l +Y +0\.0 +0\.0", timeout=60)
        # The module goes, and a new one starts from nothing.
        m.command("balloon l 20M")
        m.wait_for("balloon", r"l +Y +20\.0", timeout=60)
        m.guest_shell("l", "rmmod virtio_balloon")
        m.wait_for("balloon", r"l +N +0\.0", timeout=30)
        m.guest_shell("l", "insmod /modules/virtio_balloon.ko")
        m.wait_for("balloon", r"l +Y +20\.0", timeout=60)
        assert "audit: passed" in m.command("audit")
        m.command("vm l destroy")
        assert "audit: passed" in m.command("audit")
        assert "the driver is wrong" not in m.text()
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "512M", "limit": 300, "storm": 2000},
         vmx={"smp": 1, "mem": "256M", "limit": 900, "storm": 300, "long": True},
         shadow_svm={"mmu": "software", "smp": 2, "mem": "512M", "limit": 300, "storm": 2000, "long": True},
         shadow_vmx={"smp": 1, "mem": "256M", "limit": 900, "storm": 300, "long": True})
def test_hostile_virtio(on):
    """Guests that lie to their devices in every way put them to rest, and after storms of registers,
    resets and notifications from two processors all of them work. A neighbour reads and writes the same
    image all the while and never notices."""
    devices = {"memory": "16M", "kernel": "badvirtio.elf", "disk": "image", "rng": "on",
               "console": "virtio", "balloon": "virtio"}
    bad = [("bad%d" % n, {**devices, "vcpus": n, "start": "manual",
                          "cmdline": "cpus=%d storm=%d end=exit" % (n, on["storm"])}) for n in (1, 2)]
    # A line to it is no longer than the serial port's FIFO: in Bochs a guest that exits all the time
    # with interrupts off keeps them off for long.
    steady = ("s", {**devices, "output": "log", "cmdline": "mode=steady"})
    text = conf(*bad, steady, seed=33, swap="ram:32M", **{"Mem.ShareScanGHz": 0})
    with on.machine(modules={"ballast.conf": text, "image": bytes(100000),
                             "badvirtio.elf": guest_elf("badvirtio")}) as m:
        m.prompt()
        m.expect(r"\[s\] steady: round 8\b", 60)
        free = int(re.search(r"(\d+) frames free of", m.command("audit")).group(1))
        for name, _ in bad:
            m.command("vm s swapout 8M")
            m.command("vm %s start" % name)
            for _ in range(4):
                m.command("vm s swapout 8M")
            m.wait_for("vms", r"%s\s+stopped" % name, timeout=250)
            m.send("console %s\r" % name)
            m.expect(r"SUMMARY passed (\d+) failed (\d+)")
            print("%s: %s checks passed, %s failed" % (name, m.match.group(1), m.match.group(2)))
            m.send("\x1d")
            m.prompt()
            m.wait_for("vms", r"%s\s+stopped.*exited with code 1\b" % name)
            assert "audit: passed" in m.command("audit")
        for name, _ in bad:
            m.command("vm %s destroy" % name)
        # Nothing of theirs is left, their structures of before included.
        assert int(re.search(r"(\d+) frames free of", m.command("audit")).group(1)) > free
        assert "audit: passed" in m.command("audit")
        # Each device said what was wrong, and not once for every lie.
        said = re.findall(r"vm bad1: virtio (\w+): the driver is wrong: ", m.text())
        assert {"rng", "blk", "balloon"} <= set(said) and len(said) < 100, said
        rounds = [int(n) for n in re.findall(r"steady: round (\d+)", m.text())]
        m.expect(r"\[s\] steady: round %d\b" % (2 * rounds[-1]), 100)
        assert "FAIL" not in m.text().replace("failed", "") and "panic" not in m.text()
        assert "vm s: virtio" not in m.text()
        m.poweroff()
