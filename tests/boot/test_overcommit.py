# SPDX-License-Identifier: BSD-2-Clause
"""More Linux guests than the machine has memory for: all of them finish, with right results. QEMU only: eight
Linux guests with work to do take hours in Bochs; test_swap.py overcommits there."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from disks import MIB, drive, swap_image
from machine import BUILD, ISO, SLOW, Machine, conf, linux_modules, linux_vm
from memscreen import mem
from platforms import runs_on

NAMES = ["linux%d" % i for i in range(1, 9)]


def work_modules(text):
    """Kernel and the initial file system with its work."""
    with open(os.path.join(BUILD, "guests", "linux", "work.img"), "rb") as f:
        work = f.read()
    return {"ballast.conf": text, "vmlinuz": linux_modules()["vmlinuz"], "work.img": work}


def worker(name, rounds, noise=48, **keys):
    """A Linux guest that does a fixed work and powers off. It has no swap space of its own: its balloon
    must leave it what it uses, or Linux kills its work."""
    return linux_vm(name, initrd="work.img", output="log", salt="lab", maxmemctl="64M", cmdline=
                    '"console=ttyS0 quiet pci=off name=%s modules=vmw_vmci,vmw_balloon run=work_%d_%d"' %
                    (name, rounds, noise), **keys)


def results(text, names, rounds):
    """Everybody's sums are everybody else's, and nothing was wrong."""
    assert "WRONG" not in text
    packed = {}
    for name in names:
        packed[name] = re.findall(r"work: %s round \d+ packed ([0-9a-f]{64})" % name, text)
        assert len(packed[name]) == rounds, (name, packed[name])
        assert re.search(r"work: %s done" % name, text), name
    data = set(re.findall(r"work: \S+ data ([0-9a-f]{64})", text))
    assert len(data) == 1 and len({s for sums in packed.values() for s in sums}) == 1


@runs_on(svm={"smp": 2, "mem": "1G", "limit": 1500, "long": True})
def test_overcommit_linux_eight(on):
    """Eight guests of 256 MiB on 1 GiB, whose work is right to the last bit, with every means of taking
    memory in use."""
    rounds = 1
    extra = drive("virtio", swap_image(on.name, 2048 * MIB))
    vms = [worker(name, rounds, 64) for name in NAMES]
    most = {"shared": 0, "ballooned": 0, "zipped": 0, "swapped": 0}
    with on.machine(extra=extra, modules=work_modules(conf(*vms, seed=1))) as m:
        m.prompt()
        while True:
            screen = mem(m)
            for key, title in (("shared", "SHRD"), ("ballooned", "MCTLSZ"), ("swapped", "SWCUR")):
                most[key] = max(most[key], screen.sum([n for n in NAMES if n in screen.vms], title))
            most["zipped"] = max(most["zipped"], screen.host(r"(\d+(?:\.\d+)?) zipped"))
            if re.search(r"\d+ VMs?: 0 running", m.command("vms")):
                break
            m.pause(3)
        text = m.wait_log([r"vm %s: powered off" % n for n in NAMES])
        results(text, NAMES, rounds)
        m.note("most at once, MiB: %s" % most)
        assert all(n > 0 for n in most.values()), most
        assert "audit: passed" in m.command("audit")
        m.poweroff()


def overcommit(screen):
    """Memory of the VMs, which are all started, over what the machine has for them, now: 1 more than the
    overcommitment that `mem` and docs/telemetry.md average."""
    available = screen.host(r"PMEM +/MB: +(\d+) total") - screen.host(r"total: +(\d+) vmk")
    return screen.sum([n for n in screen.vms if n != "(all)"], "MEMSZ") / available


def times(on, suffix, machine_mib, names, idle):
    """Seconds that the busy guests take for their work beside `idle` ones that hold memory of theirs and
    do nothing, which the host has found out; by how much memory is overcommitted then; and the memory screen
    at the end."""
    rounds = 2
    vms = [worker(n, rounds, 32, memory="192M") for n in names]
    vms += [linux_vm("idle%d" % i, memory="192M", initrd="work.img", output="log", cmdline=
                     '"console=ttyS0 quiet pci=off name=idle%d run=dd_if=/dev/urandom_of=/tmp/x_bs=64k_count=1100;'
                     'echo_idle:_full;sleep_100000"' % i) for i in range(idle)]
    for _, keys in vms[:len(names)]:
        keys["start"] = "manual"
    extra = drive("virtio", swap_image(on.name + suffix, 2048 * MIB))
    # What idles for minutes is known as idle; here within a tenth of the time.
    options = {"Mem.SamplePeriod": 6, "Mem.BalancePeriod": 2}
    with on.machine(suffix, mem="%dM" % machine_mib, extra=extra,
                    modules=work_modules(conf(*vms, seed=1, **options))) as m:
        m.prompt()
        m.wait_log([r"\[idle%d\] idle: full" % i for i in range(idle)], 200)
        end = time.monotonic() + 200 * SLOW
        screen = mem(m)
        while max(screen["idle%d" % i]["%ACTV"] for i in range(idle)) > 50:
            assert time.monotonic() < end, "idle memory still counts as active:\n" + screen.text
            m.pause(1)
            screen = mem(m)
        for name in names:
            m.command("vm %s start" % name)
        ratio = overcommit(mem(m))
        m.wait_log([r"vm %s: powered off" % n for n in names], 600)
        text = m.text()
        results(text, names, rounds)
        took = []
        for name in names:
            start, end = [float(re.search(r"\[ *(\d+\.\d+)\] .*%s" % p, text)[1]) for p in
                          (r"work: %s data" % name, r"work: %s done" % name)]
            took.append(end - start)
        screen = mem(m)
        m.poweroff()
    return max(took), ratio, screen


@runs_on(svm={"limit": 900, "emulated": True, "long": True})
def test_overcommit_idle_memory(on):
    """Two guests at work beside three that only hold memory: 1.5 times more than the machine has costs them
    less than a tenth of their throughput."""
    names = ["busy0", "busy1"]
    # At the same time, so that both are slowed down alike by what else the computer has to do.
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(times, on, *size, names, 3) for size in (("-plenty", 1536), ("-short", 672))]
        (plenty, enough, _), (short, ratio, screen) = [run.result() for run in runs]
    note = "work of 2 guests beside 3 idle ones: %.1f s with memory for all (they have %.2f of it), %.1f s " \
           "overcommitted (%.2f): %.0f %%" % (plenty, enough, short, ratio, 100 * plenty / short)
    print(note)
    with open(os.path.join(BUILD, "tests", "boot", on.name + ".txt"), "w", encoding="utf-8") as f:
        f.write(note + "\n" + screen.text)
    assert enough <= 1 and ratio >= 1.5, note
    assert plenty / short >= 0.9, note


@pytest.mark.long
def test_svm_overcommit_demo():
    """What `make run` shows: with a swap disk the ISO boots eight guests, and the memory screen lives.
    (QEMU only: in Bochs `make run` has no such disk.)"""
    extra = drive("virtio", swap_image("svm_overcommit_demo", 2048 * MIB))
    with Machine("svm_overcommit_demo", boot=["-cdrom", ISO, "-boot", "d"], smp=2, mem="1G", limit=400,
                 extra=extra) as m:
        for _ in range(2):
            m.expect(r"\x1b\[6n", 200)
            m.send("\x1b[50;160R")  # as a terminal of that size; a program that only reads sees it once
            m.expect(r"PMEM", 60)
        m.send(" ")
        m.prompt()
        assert "swap on virtio0" in m.text() or "pages go to virtio0" in m.command("log")
        assert re.search(r"8 VMs?: 8 running", m.command("vms"))
        m.poweroff()
