#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""native.py BUILD: page sharing in native time, beside Linux KSM.

Boots Linux guests under Ballast in QEMU, dumps their pages, and gives these to mm/share as a user
program (native_share.c) and to KSM. Says how many pages each merges and scans in a second of processor
time. Exits with 1 when ours are not BAR times KSM's merged pages; without KSM it says so.
"""
import mmap
import os
import statistics
import struct
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "boot"))

BAR = 10
GUESTS = 5
MEMORY = 96  # MiB of a guest
MACHINE = 768  # and of the machine
PAGE = 4096
ROUNDS = 5
SECONDS = 120  # for KSM
KSM = "/sys/kernel/mm/ksm/"
# What is changed for the measurement, and how it was.
KSM_SETTINGS = {"sleep_millisecs": "0", "pages_to_scan": "20000", "smart_scan": "0",
                "advisor_mode": "none", "use_zero_pages": "0"}


# ---- Pages ----

def dump_guests(build, path):
    """Pages of guests that have booted: guest, gfn and contents of each, as native_share.c reads them."""
    os.environ["BALLAST_BUILD"] = build
    import dump  # of tests/boot, which look for the build when they are loaded
    from machine import Machine, conf, linux_modules, linux_vm

    vms = [linux_vm("n%d" % i, memory="%dM" % MEMORY, largepages="off") for i in range(GUESTS)]
    text = conf(*vms, seed=11, **{"Mem.ShareScanGHz": 0})
    modules = {"ballast.conf": text, **linux_modules()}
    memory = path + ".memory"
    with Machine("bench_native", smp=2, mem="%dM" % MACHINE, limit=600, monitor=True,
                 modules=modules) as m:
        m.prompt()
        for name, _ in vms:
            m.send("console %s\r" % name)
            m.expect(r"%s:[^\r\n]*# " % name)
            m.send("\x1d")
            m.prompt()
        table, frames = dump.frame_table(m.command("mem"))
        dump.take(m, memory, MACHINE)
        m.poweroff()
    with open(memory, "rb") as f, open(path + ".part", "wb") as out:
        pages = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        owners = {}
        for owner, gfn, mfn in dump.owned_frames(pages, table, frames):
            guest = owners.setdefault(owner, len(owners))
            out.write(struct.pack("<IIQ", guest, 0, gfn) + pages[mfn * PAGE:mfn * PAGE + PAGE])
    os.remove(memory)
    os.rename(path + ".part", path)


def pages_of(build):
    path = os.path.join(build, "tests", "bench", "pages.bin")
    kernel = os.path.join(build, "ballast.elf")
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(kernel):
        dump_guests(build, path)
    return path


# ---- Ours ----

def ours(program, path):
    """Pages scanned, merged, and seconds of the processor: the median of several runs."""
    runs = []
    for _ in range(ROUNDS):
        words = subprocess.run([program, "scan", path], check=True, capture_output=True,
                               text=True).stdout.split()
        runs.append((int(words[0]), int(words[2]), float(words[3])))
    return runs[0][0], runs[0][1], statistics.median(r[2] for r in runs)


# ---- KSM ----

def read(name):
    with open(KSM + name, encoding="ascii") as f:
        text = f.read().split()
    chosen = [word for word in text if word.startswith("[")]
    return chosen[0].strip("[]") if chosen else text[0]


def write(name, value):
    with open(KSM + name, "w", encoding="ascii") as f:
        f.write(value)


def ksmd():
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open("/proc/%s/comm" % pid, encoding="ascii") as f:
                    if f.read().strip() == "ksmd":
                        return pid
            except OSError:
                pass
    return None


def why_not():
    """Why KSM cannot be measured here; None: it can."""
    if not os.path.isdir(KSM):
        return "this kernel has no KSM"
    if ksmd() is None:
        return "there is no ksmd"
    if not os.access(KSM + "run", os.W_OK) or os.geteuid() != 0:
        return "only root may switch KSM on"
    if read("run") != "0":
        return "KSM is in use on this machine"
    return None


def cpu_seconds(pid):
    with open("/proc/%s/stat" % pid, encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settle(pid):
    """Let KSM run until a scan of everything merges no more: scanned, merged, seconds of the
    processor up to then."""
    write("run", "2")  # what ended processes left behind
    start, scanned = cpu_seconds(pid), int(read("pages_scanned"))
    best = (0, 0, 0.0)
    write("run", "1")
    scans = int(read("full_scans"))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(0.02)
        merged = int(read("pages_sharing"))
        if merged > best[1]:
            best = (int(read("pages_scanned")) - scanned, merged, cpu_seconds(pid) - start)
            scans = int(read("full_scans"))
        elif best[1] and int(read("full_scans")) > scans + 1:
            break
    write("run", "0")
    return best


def with_ksm(program, path):
    saved = {name: read(name) for name in KSM_SETTINGS if os.path.exists(KSM + name)}
    with subprocess.Popen([program, "hold", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as child:
        try:
            if child.stdout.readline().strip() != "ready":
                return None
            for name in saved:
                write(name, KSM_SETTINGS[name])
            return settle(ksmd())
        finally:
            write("run", "0")
            for name, value in saved.items():
                write(name, value)
            child.stdin.close()


# ---- Report ----

def line(name, figures):
    scanned, merged, seconds = figures
    print("%-10s %9d scanned, %8d merged in %7.3f s of the processor: %9.0f merged, %9.0f scanned "
          "per second" % (name, scanned, merged, seconds, merged / seconds, scanned / seconds))
    return merged / seconds


def main():
    build = os.path.abspath(sys.argv[1])
    program = os.path.join(build, "tests", "bench", "native_share")
    path = pages_of(build)
    mine = line("mm/share", ours(program, path))
    reason = why_not()
    theirs = None if reason else with_ksm(program, path)
    if theirs is None or theirs[1] == 0:
        print("SKIP KSM: %s" % (reason or "it merged nothing"))
        return 0
    ratio = mine / line("Linux KSM", theirs)
    print("ours are %.1f times KSM's merged pages per second (bar: %d). KSM write-protects in page tables "
          "that processors use, and flushes their TLBs; there is nobody to flush here." % (ratio, BAR))
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
