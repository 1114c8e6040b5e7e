# SPDX-License-Identifier: BSD-2-Clause
"""Host disks: each driver on the emulator that has its controller (Bochs: IDE only), swap areas, and disks that
fail (QEMU only: its blkdebug and throttling make them)."""

import re

from disks import (MIB, SECTOR, TEST_SECTOR, RepeatedByEmulator, attach, blkdebug, digest, drive,
                   filled_image, mkswap, path_of, repeat_crashes, sfdisk, swap_image, write_gpt)
from machine import conf, guest_elf
from platforms import runs_on

GOOD_ROUND = r"round \d+: 256 pages written and read back as they were"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
BALLAST = "797f303f-3ac4-4508-8bae-a906e97a9277"


def exercise(m, disk, rounds=3):
    """`swap test` on a disk: every round good."""
    out = m.command("swap test %d %s" % (rounds, disk), 120)
    assert len(re.findall(GOOD_ROUND, out)) == rounds, out


def counters(m, disk):
    """Retries, resets and errors that `disks` reports."""
    out = m.command("disks")
    found = re.search(r"^%s .*\n.*?(\d+) retries, (\d+) resets, (\d+) errors" % disk, out, re.M)
    assert found, out
    return tuple(int(n) for n in found.groups())


def format_code(m, disk):
    """What `swap format` wants repeated."""
    return re.search(r"swap format %s (\w+)" % disk, m.command("swap format " + disk))[1]


def check_kinds(on, kinds):
    """A disk of each kind, (kind, name it gets, what `disks` says of it), all at once."""
    extra = []
    for i, (kind, _, _) in enumerate(kinds):
        image = swap_image("%s-%d" % (on.name, i))
        extra += drive(kind, image, i, serial="serial-%d" % i)
    with on.machine(extra=extra, cmdline="swap=disk:serial-0") as m:
        m.prompt()
        m.wait_log([r"swap on %s: 14 MiB" % kinds[0][1]])
        out = m.command("disks")
        for i, (_, name, words) in enumerate(kinds):
            line = re.search(r"^%s +16M  .*" % name, out, re.M)
            assert line and "serial-%d" % i in line[0], out
            assert all(w in line[0] for w in words), line[0]
        assert out.count("Ballast swap area") == len(kinds), out
        for _, name, _ in kinds:
            exercise(m, name)
            assert counters(m, name) == (0, 0, 0)
        assert "passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"smp": 2, "mem": "512M"})
def test_disks_virtio(on):
    """The modern and the legacy interface, with and without interrupts and indirect descriptors, and
    large sectors."""
    check_kinds(on, [("virtio", "virtio0", ["512-byte", "MSI-X"]),
                     ("virtio-legacy", "virtio1", ["legacy", "MSI-X"]),
                     ("virtio-polled", "virtio2", ["polled"]),
                     ("virtio-direct", "virtio3", ["MSI-X"]),
                     ("virtio-4k", "virtio4", ["4096-byte"])])


@runs_on(svm={"smp": 2, "mem": "512M"})
def test_disks_nvme(on):
    check_kinds(on, [("nvme", "nvme0", ["QEMU NVMe", "512-byte", "MSI-X"]),
                     ("nvme-4k", "nvme1", ["4096-byte"])])


@runs_on(svm={"smp": 2, "mem": "512M"})
def test_disks_ahci(on):
    """Two disks on one controller."""
    check_kinds(on, [("sata", "sata0", ["QEMU HARDDISK", "MSI"]), ("sata", "sata1", ["MSI"])])


@runs_on(svm={"smp": 2, "mem": "512M", "machine": "pc"})
def test_disks_ide(on):
    """Two disks on one channel, which take turns, and one on the other."""
    check_kinds(on, [("ide", "ide0", ["QEMU HARDDISK", "IRQ 14"]), ("ide", "ide1", ["IRQ 14"]),
                     ("ide", "ide2", ["IRQ 15"])])


@runs_on(svm={"mem": "5G", "machine": "pc"})
def test_disks_high_memory(on):
    """A controller that reaches 4 GiB: frames above it go through others below. The allocator hands
    out high memory first."""
    image = swap_image(on.name)
    with on.machine(extra=drive("ide", image)) as m:
        m.prompt()
        exercise(m, "ide0")
        assert int(re.search(r"(\d+) bounced", m.command("disks"))[1]) > 50
        m.poweroff()


@runs_on(vmx={"mem": "256M", "limit": 240, "emulated": True},
         svm_bochs={"mem": "256M", "limit": 240, "long": True})
def test_disks_ide_bochs(on):
    """Bochs has a PIIX IDE controller and nothing else."""
    image = swap_image(on.name)
    extra = 'ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15\n' \
            'ata1-master: type=disk, mode=flat, path="%s"' % image
    with on.machine(extra=extra) as m:
        m.prompt()
        m.wait_log([r"swap on ide0: 14 MiB"])
        exercise(m, "ide0")
        assert counters(m, "ide0") == (0, 0, 0)
        m.poweroff()


@runs_on(svm=[{"mem": "256M", "id": "aes", "by": "AES-NI"},
              {"mem": "256M", "id": "tables", "cpu": "qemu64,+svm", "by": "AES-tables", "emulated": True}],
         vmx={"mem": "256M", "by": "AES-NI"})
def test_disks_ram(on):
    """Machine memory as a disk; and whether and by what it is encrypted is said."""
    with on.machine(cmdline="swap=ram:16M") as m:
        m.prompt()
        m.wait_log([r"swap on ram0: 14 MiB", r"pages go to ram0: \d+ slots of 4 KiB, %s\b" % on["by"]])
        assert re.search(r"^ram0: \d+ slots, 14.9M, %s\r?$" % on["by"], m.command("swap"), re.M)
        exercise(m, "ram0")
        m.poweroff()
    with on.machine(cmdline="swap=ram:16M",
                    modules={"ballast.conf": conf(**{"swap.encrypt": "off"})}) as m:
        m.prompt()
        m.wait_log([r"pages go to ram0: \d+ slots of 4 KiB, unencrypted\b"])
        assert "unencrypted" in m.command("swap")
        m.poweroff()


@runs_on(svm={"mem": "256M"}, vmx={"mem": "256M", "limit": 240})
def test_swap_signature(on):
    """Disks without our signature are never written, whatever the configuration and the operator say, but
    for a format that is confirmed; and that writes nothing outside of its partition."""
    noise = filled_image(on.name + "-noise")
    parted = filled_image(on.name + "-parted", seed=2)
    write_gpt(parted, [(LINUX, 2048, 10239, "root"), (BALLAST, 10240, 24575, "swap")])
    part = (10240 * SECTOR, 24576 * SECTOR)
    extra, (alone, disk) = attach(on, noise, parted)
    ours = disk + "p2"
    before = digest(noise), digest(parted)
    for option in (alone, ours):
        with on.machine(extra=extra, cmdline="swap=disk:" + option) as m:
            m.prompt()
            out = m.command("disks")
            assert re.search(r"%s .*\n.*\n  no partitions: unknown data" % alone, out), out
            assert "GPT, 2 partitions" in out, out
            assert re.search(r'%sp1 +4M  at sector 2048, Linux filesystem "root": unknown' % disk, out), out
            assert re.search(r'%s +7M  at sector 10240, Ballast swap "swap": unknown' % ours, out), out
            assert "no swap area" in m.command("swap")
            assert "no swap area on " + alone in m.command("swap test 1 " + alone)
            assert "will be lost" in m.command("swap format " + alone)
            assert "not the code" in m.command("swap format %s 12345678" % alone)
            assert "no disk" in m.command("swap format virtio7")
            m.wait_log(["carries no swap area of ours; nothing is written to it"])
            m.poweroff()
        assert (digest(noise), digest(parted)) == before, option
    with on.machine(extra=extra, cmdline="swap=disk:" + ours) as m:
        m.prompt()
        code = format_code(m, ours)
        assert "formatted" in m.command("swap format %s %s" % (ours, code))
        m.wait_log([r"swap on %s: 5 MiB" % ours])
        exercise(m, ours)
        for words in (ours, ours + " " + code, disk):
            assert "is in use" in m.command("swap format " + words)
        m.poweroff()
    assert digest(noise) == before[0]
    outside = digest(parted, [part])
    with open(parted, "rb") as f:
        f.seek(part[0])
        assert f.read(15) == b"BALLAST-SWAP-01"
    with on.machine(extra=extra, cmdline="swap=auto") as m:
        m.prompt()
        m.wait_log([r"swap on %s: 5 MiB" % ours])
        exercise(m, ours)
        m.poweroff()
    filled_image(on.name + "-parted2", seed=2)
    assert digest(parted, [part]) == outside and digest(noise) == before[0]
    with open(parted, "rb") as f, open(path_of(on.name + "-parted2"), "rb") as g:
        data, noise_data = f.read(), g.read()
    # The partition before ours, and the pages behind the test zone that nobody swapped to.
    assert data[2048 * SECTOR:10240 * SECTOR] == noise_data[2048 * SECTOR:10240 * SECTOR]
    slots = part[0] + 257 * 4096
    assert data[slots:part[1] - 4096] == noise_data[slots:part[1] - 4096]
    assert data[part[1]:15 * MIB] == noise_data[part[1]:15 * MIB]


@runs_on(svm={"mem": "256M"}, vmx={"mem": "256M", "limit": 240})
def test_swap_signature_reused(on):
    """A signature outlives what is done to the disk afterwards: what was partitioned or given to a RAID since it
    was formatted as a whole is not written, whether named or not, before it is formatted again; and a signed
    partition of another type is taken only by its name."""
    dos, gpt, raid = [swap_image("%s-%s" % (on.name, what)) for what in ("dos", "gpt", "raid")]
    sfdisk(dos, "dos", "start=2048, size=8192, type=83", "start=10240, size=8192, type=83")
    sfdisk(gpt, "gpt", "start=2048, size=8192, type=" + LINUX, "start=10240, size=14336, type=" + BALLAST)
    with open(gpt, "r+b") as f:
        f.seek(2048 * SECTOR)
        f.write(mkswap.header(1024).ljust(4096, b"\0"))
    with open(raid, "r+b") as f:
        f.seek(4096)
        f.write(bytes.fromhex("fc4e2ba9"))
    extra, names = attach(on, dos, gpt, raid)
    what = [r"a partition table \(MBR, 2 partitions\)", r"a partition table \(GPT, 2 partitions\)",
            "Linux RAID member"]
    before = [digest(image) for image in (dos, gpt, raid)]
    with on.machine(extra=extra, cmdline="swap=auto") as m:
        m.prompt()
        m.wait_log([r"swap area on %s passed over: behind its signature is %s; nothing is written to it. "
                    r"`swap format %s` makes it an area again" % (n, w, n) for n, w in zip(names, what)])
        m.wait_log([r"swap area on %sp1 passed over: the partition is not of a swap area's type" % names[1]])
        for name in names:
            assert "behind its signature is" in m.command("swap test 1 " + name)
        assert "no swap area" in m.command("swap")
        m.poweroff()
    with on.machine(extra=extra, cmdline="swap=disk:" + names[0]) as m:
        m.prompt()
        m.wait_log([r"swap = disk:%s: no swap on %s: behind its signature is %s" % (names[0], names[0], what[0])])
        assert "no swap area" in m.command("swap")
        m.poweroff()
    assert [digest(image) for image in (dos, gpt, raid)] == before
    with on.machine(extra=extra, cmdline="swap=disk:%sp1" % names[1]) as m:  # named, it is meant
        m.prompt()
        m.wait_log([r"swap on %sp1: 2 MiB" % names[1]])
        part = names[1] + "p2"
        out = m.command("swap format %s %s" % (part, format_code(m, part)))
        assert "not in use: there is one already, on %sp1" % names[1] in out and "type" not in out, out
        assert "formatted" in m.command("swap format %s %s" % (names[2], format_code(m, names[2])))
        m.poweroff()
    assert digest(dos) == before[0]
    with on.machine(extra=extra, cmdline="swap=auto") as m:
        m.prompt()
        m.wait_log([r"swap on %sp2: 5 MiB" % names[1]])
        exercise(m, names[2])
        m.poweroff()


@runs_on(svm={"mem": "256M"})
def test_swap_read_only(on):
    """A signed disk that cannot be written is no swap area, and not formatted. QEMU only: disks of Bochs are
    written. A partition of another type that is formatted is taken at once, but by `auto` never."""
    locked = swap_image(on.name + "-locked")
    parted = filled_image(on.name + "-parted")
    write_gpt(parted, [(LINUX, 2048, 24575, "root")])
    before = digest(locked)
    extra = drive("virtio", locked, 0, options=",readonly=on") + drive("nvme", parted, 1)
    with on.machine(extra=extra, cmdline="swap=disk:virtio0") as m:
        m.prompt()
        m.wait_log([r"swap = disk:virtio0: no swap on virtio0: the disk is read-only"])
        assert "virtio0: is read-only" in m.command("swap format virtio0")
        assert "virtio0: the disk is read-only" in m.command("swap test 1 virtio0")
        assert "no swap area" in m.command("swap")
        code = format_code(m, "nvme0p1")
        out = m.command("swap format nvme0p1 " + code)
        assert "at start-up only `swap = disk:nvme0p1` takes it" in out and "not in use" not in out, out
        m.wait_log([r"swap on nvme0p1: 9 MiB"])
        m.poweroff()
    for option, in_use in (("auto", False), ("disk:nvme0p1", True)):
        with on.machine(extra=extra, cmdline="swap=" + option) as m:
            m.prompt()
            assert ("no swap area" in m.command("swap")) != in_use
            if not in_use:
                m.wait_log([r"swap area on virtio0 passed over: the disk is read-only",
                            r"swap area on nvme0p1 passed over: the partition is not of a swap area's type"])
            m.poweroff()
    assert digest(locked) == before


@runs_on(svm={"mem": "256M"}, vmx={"mem": "256M", "limit": 240})
def test_swap_lent(on):
    """A guest can write a signature to its disk: what a VM names, by whatever name, is not taken for
    swapping, whether or not the VM runs; and what swapping has is no VM's disk."""
    forged = swap_image(on.name + "-forged")
    parted = filled_image(on.name + "-parted")
    write_gpt(parted, [(BALLAST, 2048, 10239, "swap"), (BALLAST, 10240, 24575, "swap")])
    with open(parted, "r+b") as f:
        for first, nr in ((2048, 1024), (10240, 1792)):
            f.seek(first * SECTOR)
            f.write(mkswap.header(nr).ljust(4096, b"\0"))
    area = mkswap.header(16 * MIB // 4096)
    with open(forged, "r+b") as f:
        f.write(area)
    extra, (guest, disk, ours) = attach(on, forged, parted, swap_image(on.name + "-ours"))
    one, two = disk + "p1", disk + "p2"
    # By serial numbers where we give them.
    serials = ("s0", "s1") if on.vendor == "svm" else (guest, disk)
    vm = {"memory": "8M", "kernel": "hello.elf", "output": "log", "cmdline": "name=a end=exit"}

    def machine(option, *names):
        vms = [("vm%d" % i, {**vm, "disk": "disk:" + n, "start": "manual"})
               for i, n in enumerate(names)]
        return on.machine(extra=extra, cmdline="swap=" + option,
                          modules={"ballast.conf": conf(*vms, seed=1),
                                   "hello.elf": guest_elf("hello")})

    lent = r"swap area on %s passed over: it is on the disk of vm %s"
    with machine("auto", serials[0], disk) as m:  # a disk whose partitions are signed
        m.prompt()
        m.wait_log([lent % (guest, "vm0"), lent % (one, "vm1"), lent % (two, "vm1"),
                    r"swap on %s: 14 MiB" % ours])
        m.poweroff()
    with machine("auto", guest, one, ours) as m:  # a partition leaves its neighbour
        m.prompt()
        m.wait_log([lent % (one, "vm1"), r"swap on %s: 5 MiB" % two])
        m.poweroff()
    with machine("disk:" + two, serials[1]) as m:  # a partition of the VM's disk
        m.prompt()
        m.wait_log([r"swap = disk:%s: no swap on %s: it is on the disk of vm vm0" % (two, two)])
        assert "no swap area" in m.command("swap")
        m.poweroff()
    with machine("disk:" + area[32:48].hex(), ours) as m:  # an area by its UUID, which the log says
        m.prompt()
        m.wait_log([r"swap on %s: 14 MiB, UUID %s" % (guest, area[32:48].hex())])
        m.poweroff()
    with machine("disk:" + area[32:48].hex(), guest) as m:  # the UUID in a forged signature
        m.prompt()
        m.wait_log([lent % (guest, "vm0"), "no such disk, partition or area"])
        assert "no swap area" in m.command("swap")
        m.poweroff()
    with machine("ram:16M", "ram0", guest) as m:
        m.prompt()
        m.wait_log([r"vm vm0: disk: ram0 is in use, by another VM or for swapping",
                    r"swap on ram0: 14 MiB"])
        assert guest + ": it is in use" in m.command("swap test 1 " + guest)
        m.command("vm vm1 start")
        m.wait_log([r"vm1\b"])
        m.poweroff()


def error_disks(on, kinds, *rules):
    """A machine with a disk of each kind that obeys the rules."""
    extra = []
    for i, kind in enumerate(kinds):
        name = "%s-%d" % (on.name, i)
        extra += drive(kind, swap_image(name), i, prefix=blkdebug(name, *rules))
    return on.machine(extra=extra)


ERRORS = {"svm": [{"mem": "256M", "cpu": "EPYC,+svm", "kinds": ("virtio", "nvme", "sata"),
                   "names": ("virtio0", "nvme0", "sata0")},
                  {"mem": "256M", "cpu": "EPYC-Rome,+svm", "machine": "pc", "kinds": ("ide",),
                   "names": ("ide0",)}]}


@runs_on(**ERRORS)
@repeat_crashes
def test_disk_error_once(on):
    """A read and a write that fail once each are tried again, and nobody notices. QEMU's virtio merges
    neighbouring requests, which then fail together."""
    with error_disks(on, on["kinds"],
                     {"event": "write_aio", "errno": 5, "sector": TEST_SECTOR + 80, "once": "on"},
                     {"event": "read_aio", "errno": 5, "sector": TEST_SECTOR + 800, "once": "on"}) as m:
        m.prompt()
        for name in on["names"]:
            exercise(m, name)
            retries, resets, errors = counters(m, name)
            assert (resets, errors) == (0, 0)
            if name == "sata0" and retries < 2:
                raise RepeatedByEmulator("%d retries of sata0" % retries)
            assert retries >= 2
        m.poweroff()


@runs_on(**ERRORS)
@repeat_crashes
def test_disk_errors(on):
    """Sectors that cannot be read or written for good: the request says so, others go on."""
    with error_disks(on, on["kinds"],
                     {"event": "read_aio", "errno": 5, "sector": TEST_SECTOR + 800}) as m:
        m.prompt()
        for name in on["names"]:
            out = m.command("swap test 2 " + name)
            assert len(re.findall(r"FAILED: 1 requests failed, 0 pages wrong", out)) == 2, out
            assert counters(m, name)[1:] == (0, 2)
        m.poweroff()
    with error_disks(on, on["kinds"],
                     {"event": "write_aio", "errno": 28, "sector": TEST_SECTOR + 800}) as m:
        m.prompt()
        for name in on["names"]:
            out = m.command("swap test 1 " + name)
            assert re.search(r"FAILED: 1 requests failed", out), out
            assert counters(m, name)[1:] == (0, 1)
        m.poweroff()


@runs_on(**ERRORS)
def test_disk_slow(on):
    """A disk that does not answer within the timeout is reset; when it is fast again it does what it was
    asked. (1 MiB at 8 KB/s; a reset lets what is in the emulator's queue pass.)"""
    extra = []
    for i, kind in enumerate(on["kinds"]):
        kind = "virtio-unmerged" if kind == "virtio" else kind
        extra += drive(kind, swap_image("%s-%d" % (on.name, i)), i,
                       options=",throttling.bps-write=8000,throttling.bps-write-max=8000")
    with on.machine(extra=extra, monitor=True) as m:
        m.prompt()
        for i, name in enumerate(on["names"]):
            m.send("swap test 1 %s\r" % name)
            m.expect("disk %s: no answer within 10 s; reset" % name, 60)
            m.monitor("block_set_io_throttle d%d 0 0 0 0 0 0" % i)
            m.expect(GOOD_ROUND, 60)
            m.prompt()
            assert counters(m, name)[1] >= 1
        m.poweroff()


@runs_on(svm={"mem": "256M"})
def test_disk_gone(on):
    """The emulator takes the disk's medium away: requests fail, the machine lives on."""
    image = swap_image(on.name)
    with on.machine(extra=drive("virtio", image), monitor=True) as m:
        m.prompt()
        exercise(m, "virtio0")
        m.monitor("drive_del d0")
        out = m.command("swap test 1")
        assert "no swap area" in out or "FAILED" in out, out
        assert "passed" in m.command("audit")
        m.poweroff()
