#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""mmu_linux.py BUILD: nested beside shadow paging under Linux, on the works of guests/linux/mmuload.c.

Boots Ballast with one Linux guest of 1, 2 and 4 vCPUs, with mmu = hardware and mmu = software, in QEMU (TCG, EPYC
with SVM) under -icount: there is one processor, which the vCPUs share, a tick of its TSC is an instruction,
and a run repeats. Each work's exits and the VM's overhead come from telemetry, between the quiet seconds
before and behind it. Prints a table, writes BUILD/bench-mmu.csv and BUILD/bench-mmu.svg. Exits with 1
when a run fails or the published shape is not found.
"""
import csv
import gzip
import os
import re
import sys
from collections import namedtuple

from bench import PROMPT, log_path, qemu_args, section
from emulator import Archive, Failure, Qemu, TOP, read

sys.path.insert(0, os.path.join(TOP, "tools"))
import mmu_picture  # noqa: E402
from telemetry import records  # noqa: E402

VCPUS = (1, 2, 4)
MMUS = {"nested": "hardware", "shadow": "software"}
QUIET = 4.0  # seconds, as in mmuload.c

# The works in order: what a unit is; the levels of the guest's tables that a TLB miss walks, if it is
# a work of TLB misses.
Work = namedtuple("Work", "name unit levels")
WORKS = [Work("idle", "", 0), Work("fork-exec", "process", 0), Work("mmap-touch", "page", 0),
         Work("switch", "switch", 0), Work("random-4k", "access", 4), Work("random-2m", "access", 3)]
TLB_ENTRIES = 1536  # second level of the processor whose model the emulator has
AREA = 64 << 20

KINDS = ("memory", "page-fault", "cr", "invlpg", "pause", "cpuid", "msr", "hlt", "interrupt")

CAPTION = (
    "Instructions are all that the machine executed, guest and hypervisor, for a unit of work; the vCPUs share one "
    "processor and each does the same work. An emulator's instruction does not cost more when the TLB misses, so what nested "
    "paging pays in the random accesses is not in these columns but in the references to memory that a walk "
    "makes (computed from the formats, no walk cached). Nor do exits cost what silicon takes for them.")


def walk(levels, nested_levels):
    """References to memory of a TLB miss: every guest entry's address, and the result's, is translated."""
    return levels if nested_levels == 0 else (levels + 1) * (nested_levels + 1) - 1


def run(build, mmu, vcpus):
    """The log and the telemetry of a guest's works."""
    name = "mmu-%s-%d" % (mmu, vcpus)
    linux = build + "/guests/linux/"
    program = Archive().directory("bin").file("bin/mmuload", read(linux + "mmuload"), 0o755)
    conf = "seed = 1\nMem.ShareScanGHz = 0\n" + section("linux", {
        # Linux makes large pages of its own accord only with 512 MiB and more.
        "memory": "768M", "vcpus": str(vcpus), "mmu": MMUS[mmu], "kernel": "vmlinuz", "initrd": "initrd.img",
        "output": "log", "cmdline": '"console=ttyS0 quiet pci=off name=linux run=mmuload"'})
    members = {"ballast.conf": conf.encode(), "vmlinuz": read(linux + "vmlinuz"),
               "initrd.img": read(linux + "initrd.img") + gzip.compress(program.bytes(), mtime=0)}
    path = os.path.join(build, "tests", "bench", name + ".jsonl")
    args = qemu_args(build, name, members, ["-serial", "file:" + path])
    with Qemu(args, 300, log_path(build, name)) as machine:
        machine.wait("vm linux: powered off")
        start = len(machine.text)
        machine.send("audit\r")
        machine.wait("audit: passed(.|\n)*" + PROMPT, start)
        machine.send("poweroff\r")
        machine.finish()
        return machine.text, [r for r in records(path) if r["kind"] == "vm"]


def measure(text, telemetry, mmu, vcpus):
    """A row for each work."""
    times = {(m[2], m[3]): (float(m[1]), m[4]) for m in re.finditer(
        r"\[ *(\d+\.\d+)\] \[linux\] mmuload: (\S+) (ready|done)(.*)", text)}
    for work in WORKS:
        if (work.name, "done") not in times:
            raise Failure("no end of %s; output ends:\n%s" % (work.name, text[-1500:]))
        begin = times[work.name, "ready"][0] + QUIET
        end, said = times[work.name, "done"]
        before = [r for r in telemetry if r["t"] < begin][-1]
        after = [r for r in telemetry if r["t"] > end - QUIET][0]
        exits = {k: n - before["exits"].get(k, 0) for k, n in after["exits"].items()}
        cpus, units, ticks = map(int, re.findall(r"=(\d+)", said))
        if cpus != vcpus:
            raise Failure("Linux found %d of %d processors" % (cpus, vcpus))
        row = {"work": work.name, "vcpus": vcpus, "mmu": mmu, "unit": work.unit, "units": units,
               "instructions": ticks, "exits": sum(exits.values()), **{k: exits.pop(k, 0) for k in KINDS}}
        row["other"] = sum(exits.values())
        row["overhead_kib"] = max(r["ovhd"] for r in telemetry if before["t"] <= r["t"] <= after["t"])
        row["guest_2m"], row["guest_4k"] = after["large_2m"], after["small_4k"]
        # Nested leaves are as large as the machine's pages.
        large = 512 * after["large_2m"] > after["small_4k"]
        row["walk"] = walk(work.levels, (3 if large else 4) if mmu == "nested" else 0) if work.levels else ""
        yield row


def per_unit(row, key):
    return row[key] / max(row["units"], 1)


def pairs(rows):
    """Nested and shadow rows side by side, in order."""
    for work in WORKS:
        for vcpus in VCPUS:
            yield work, vcpus, *[next(r for r in rows if (r["work"], r["vcpus"], r["mmu"]) == (work.name, vcpus, m))
                                 for m in MMUS]


def print_table(rows):
    print("%-10s %-8s %5s | %9s %9s %6s | %8s %8s | %6s %6s | %s" % (
        "work", "unit", "vCPUs", "nested", "shadow", "ratio", "nested", "shadow", "nested", "shadow", ""))
    print("%25s | %26s | %17s | %13s | %s" % ("", "instructions a unit", "exits, 1000 units", "overhead KiB",
                                              "exits by kind, shadow (nested)"))
    for work, vcpus, nested, shadow in pairs(rows):
        kinds = sorted((k for k in (*KINDS, "other") if nested[k] or shadow[k]),
                       key=lambda k: -max(nested[k], shadow[k]))[:4]
        if work.unit:
            costs = [per_unit(r, "instructions") for r in (nested, shadow)]
            figures = "%9.1f %9.1f %6.3f | %8.1f %8.1f" % (
                *costs, costs[1] / costs[0], *[1000 * per_unit(r, "exits") for r in (nested, shadow)])
        else:  # nothing to divide by: the exits of two seconds without work
            figures = "%9s %9s %6s | %8d %8d" % ("-", "-", "-", nested["exits"], shadow["exits"])
        print("%-10s %-8s %5d | %s | %6d %6d | %s" % (
            work.name, work.unit, vcpus, figures, nested["overhead_kib"], shadow["overhead_kib"],
            ", ".join("%s %d (%d)" % (k, shadow[k], nested[k]) for k in kinds)))


def walks():
    """Size of the guest's pages to the references of a miss: nested pages of 4 KiB, of 2 MiB, shadow tables."""
    return {w.name[-2:].upper(): [walk(w.levels, n) for n in (4, 3, 0)] for w in WORKS if w.levels}


def print_walks():
    print("\n%-32s %12s %12s %7s | misses of 1000 random accesses" % (
        "memory references of a TLB miss", "nested (4K)", "nested (2M)", "shadow"))
    for work in WORKS:
        if work.levels:
            size, pages = work.name[-2:].upper(), AREA >> (12 + 9 * (4 - work.levels))
            print("guest pages of %-17s %12d %12d %7d | %d with %d entries" % (
                size, *walks()[size], 1000 * max(0, pages - TLB_ENTRIES) // pages, TLB_ENTRIES))


def judge(rows):
    """The published shape: page-table work costs more in shadow tables, random access does not, and
    overhead grows with vCPUs. True when it is found."""
    ratio, overhead = {}, {}
    for work, vcpus, nested, shadow in pairs(rows):
        if work.unit:
            ratio[work, vcpus] = per_unit(shadow, "instructions") / per_unit(nested, "instructions")
            overhead[vcpus] = max(overhead.get(vcpus, 0), shadow["overhead_kib"] - nested["overhead_kib"])
    checks = [
        ("page-table work takes more instructions with shadow tables",
         all(r > 1.05 for (work, _), r in ratio.items() if not work.levels)),
        ("random access takes as many (within 2 %)",
         all(abs(r - 1) < 0.02 for (work, _), r in ratio.items() if work.levels)),
        ("shadow tables need more overhead memory, and the more the more vCPUs: " +
         ", ".join("%d KiB" % overhead[n] for n in VCPUS), 0 < overhead[1] < overhead[2] < overhead[4])]
    for text, good in checks:
        print("%s: %s" % ("holds" if good else "does not hold", text))
    return all(good for _, good in checks)


def main():
    build = os.path.abspath(sys.argv[1])
    os.makedirs(os.path.join(build, "tests", "bench"), exist_ok=True)
    rows = []
    for vcpus in VCPUS:
        for mmu in MMUS:
            try:
                rows += measure(*run(build, mmu, vcpus), mmu, vcpus)
            except Failure as failure:
                sys.exit("mmu_linux: %s paging, %d vCPUs: %s" % (mmu, vcpus, failure))
    with open(os.path.join(build, "bench-mmu.csv"), "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, rows[0].keys(), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    print_table(rows)
    print_walks()
    print("\n" + CAPTION)
    mmu_picture.draw(list(pairs(rows)), VCPUS, walks(), build + "/bench-mmu.svg", CAPTION)
    print("written: %s/bench-mmu.csv, bench-mmu.svg" % build)
    sys.exit(0 if judge(rows) else 1)


if __name__ == "__main__":
    main()
