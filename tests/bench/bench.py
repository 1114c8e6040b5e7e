#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench.py BUILD [qemu|bochs|shadow|bochs-shadow [guest|linux]]: Ballast's instruction counts beside
KVM's and Xen's.

Boots Ballast with the bench guest, on one processor of which one tick of the TSC is one instruction:
in QEMU (TCG, EPYC with SVM) or in Bochs (Skylake with VMX), and in both again on the software MMU. In
QEMU a Linux guest's whole boot is then compared with the same boot directly on the emulator. Prints a
table and writes BUILD/bench.csv, where the others' rows are kept. Bars are data: bars.csv; peers: peer-figures.csv. Exits with 1 when
a bar does not hold or its row is missing.
"""
import csv
import os
import re
import subprocess
import sys
from collections import namedtuple

from emulator import Archive, Bochs, Failure, ICOUNT, Qemu, read

HERE = os.path.dirname(os.path.abspath(__file__))
QEMU_CPU = "EPYC,+svm"
BOCHS_CPU = "corei7_skylake_x"
PROMPT = "ballast> "
LINUX_ROW = "linux boot to power-off, ratio to direct boot x1000"

BALANCE_ROW = "sampling and balancing 10 VMs, part of all instructions x1000000"
BALANCED_VMS = 10
BALANCED_FROM, BALANCED_SECONDS = 10, 60

# Guest runs: name, rows= on its command line, keys of its section, and whether a failure is one.
GUEST_RUNS = [
    ("bench4k", "basic,4k,pt", {"largepages": "off"}, True),
    ("bench2m", "2m", {"largepages": "auto"}, True),
    ("benchsmp", "smp", {"vcpus": "2"}, True),
]

# The same with the software MMU; the peers ran on one processor there.
SHADOW_RUNS = [(name + "s", rows, {**keys, "mmu": "software"}, needed)
               for name, rows, keys, needed in GUEST_RUNS if name != "benchsmp"]

# Direct boots see the processor as a guest of Ballast does, so that Linux takes the same decisions.
DIRECT_CPU = "EPYC,-svm,-monitor,-mce,-mca"
LINUX_CMDLINE = "console=ttyS0 quiet name=linux run=poweroff"

# Name in bench.csv, the peers' columns in peer-figures.csv, what can be run.
Machine = namedtuple("Machine", "name kvm xen parts")
MACHINES = {
    "qemu": Machine("svm-npt", "svm_kvm_npt", "svm_xen_hap", ("guest", "share", "sample", "swap", "linux")),
    "bochs": Machine("vmx-ept", "vmx_kvm_ept", None, ("guest",)),
    "shadow": Machine("svm-shadow", "svm_kvm_shadow", None, ("guest",)),
    "bochs-shadow": Machine("vmx-shadow", "vmx_kvm_shadow", None, ("guest",)),
}


def section(name, keys):
    return "[%s]\n" % name + "".join("%s = %s\n" % kv for kv in keys.items())


def qemu_args(build, name, members, extra=()):
    """QEMU's arguments that boot Ballast with the given modules."""
    archive = Archive()
    for member, data in members.items():
        archive.file(member, data)
    path = os.path.join(build, "tests", "bench", name + ".cpio")
    archive.write(path)
    return ["-machine", "q35", "-cpu", QEMU_CPU, "-smp", "1", "-m", "2G", *ICOUNT, *extra,
            "-kernel", os.path.join(build, "ballast.elf"), "-initrd", path]


def log_path(build, name):
    return os.path.join(build, "tests", "bench", name + ".log")


def parse_rows(text):
    """The CSV lines of the bench guest, wherever a log prefix left them."""
    rows = {}
    for m in re.finditer(r'"([^"\n]+)",(\d+),(\d+),(\d+),(\d+),(\d+)\n', text):
        rows[m[1]] = int(m[4])
    return rows


def start(emu, build, name, members):
    """The emulator with Ballast and these modules in it."""
    if emu.startswith("bochs"):
        return Bochs(BOCHS_CPU, build + "/ballast.elf", members, 600, log_path(build, name))
    return Qemu(qemu_args(build, name, members), 300, log_path(build, name))


def run_guest(emu, build, name, rows, keys):
    conf = "seed = 1\n" + section(name, {
        "memory": "512M", "kernel": "bench.elf", "output": "log",
        "cmdline": '"name=%s rows=%s present=ins"' % (name, rows), **keys})
    members = {"ballast.conf": conf.encode(), "bench.elf": read(build + "/guests/bench.elf")}
    with start(emu, build, name, members) as machine:
        machine.wait("bench: done")
        return parse_rows(machine.text)


def run_share(build):
    """Rows of page sharing: the hypervisor's own, and a guest's writes to merged pages."""
    off = "seed = 1\nMem.ShareScanGHz = 0\n"
    args = qemu_args(build, "benchshare0", {"ballast.conf": off.encode()})
    with Qemu([*args, "-append", "bench=share"], 300, log_path(build, "benchshare0")) as machine:
        machine.wait("bench share: done")
        rows = parse_rows(machine.text)
    conf = off + section("bench", {
        "memory": "512M", "kernel": "bench.elf", "output": "log", "largepages": "off",
        "cmdline": '"name=bench rows=share"'})
    members = {"ballast.conf": conf.encode(), "bench.elf": read(build + "/guests/bench.elf")}
    with start("qemu", build, "benchshare", members) as machine:
        machine.wait("bench: share")
        machine.send("share scan bench\r")
        machine.wait("bench: done")
        rows.update(parse_rows(machine.text))
    return rows


def run_soft_fault(build, emu):
    """Row of touches of pages that are being watched, where sampling takes their translations."""
    conf = "seed = 1\nMem.ShareScanGHz = 0\nMem.SampleMethod = fault\n" \
           "Mem.SamplePeriod = 1\nMem.SampleSize = 480\n"
    conf += section("bench", {"memory": "512M", "kernel": "bench.elf", "output": "log",
                              "largepages": "off", "cmdline": '"name=bench rows=sample"'})
    members = {"ballast.conf": conf.encode(), "bench.elf": read(build + "/guests/bench.elf")}
    with start(emu, build, "benchsample", members) as machine:
        machine.wait("bench: done")
        return parse_rows(machine.text)


def balancing_ms(machine):
    """The balancing thread's time on the processor, in ms."""
    at = len(machine.text)
    machine.send("threads\r")
    found = machine.wait(r"\nbalance +\w+ +\d+ +\d+ +(\d+)\.(\d+)s", at)
    return int(found[1] + found[2])


def run_balance(build):
    """What sampling and balancing of ten VMs takes of a processor's time, all options as they come. The
    VMs use little of it themselves: while nobody runs, the emulator lets time jump, and what the
    thread executes of a second's instructions stays the same."""
    conf = "seed = 1\n"
    for i in range(BALANCED_VMS):
        conf += section("vm%d" % i, {
            "memory": "64M", "kernel": "wset.elf", "output": "log",
            "cmdline": '"name=vm%d script=rate_500;touch_32M_random_10m"' % i})
    members = {"ballast.conf": conf.encode(), "wset.elf": read(build + "/guests/wset.elf")}
    stamp = r"\[ *(\d+)\.(\d{3})\d*\] \[vm"
    with start("qemu", build, "benchbalance", members) as machine:
        machine.wait(r"wset: t=%d\." % BALANCED_FROM)
        used = balancing_ms(machine)
        begin = machine.wait(stamp, len(machine.text))
        machine.wait(r"wset: t=%d\." % (BALANCED_FROM + BALANCED_SECONDS))
        end = re.findall(stamp, machine.text)[-1]
        used = balancing_ms(machine) - used
        passed = int("".join(end)) - int(begin[1] + begin[2])
        return round(used * 1000000 / passed)


def run_sample(build, emu):
    """Rows of sampling and balancing."""
    rows = run_soft_fault(build, emu)
    rows[BALANCE_ROW] = run_balance(build)
    return rows


def native_swap(build):
    """Nanoseconds of this machine for the rows of swapping."""
    out = subprocess.run([os.path.join(build, "tests", "bench", "native_swap")], check=True,
                         capture_output=True, text=True).stdout
    print("%-62s %s" % ("row (native time, median)", "ns"))
    for name, ns in re.findall(r'"([^"]+)",(\d+)', out):
        print("%-62s %s" % (name, ns))


def run_swap(build):
    """Rows of swapping: the hypervisor's own, without a guest."""
    conf = "seed = 1\nswap = off\nswap.encrypt = off\nMem.ShareScanGHz = 0\n"
    args = qemu_args(build, "benchswap", {"ballast.conf": conf.encode()})
    with Qemu([*args, "-append", "bench=swap"], 300, log_path(build, "benchswap")) as machine:
        machine.wait("bench swap: done")
        return parse_rows(machine.text)


def plugin(build, name):
    """Arguments for the instruction counter, and where it writes."""
    out = os.path.join(build, "tests", "bench", name + ".count")
    if os.path.exists(out):
        os.remove(out)
    return ["-plugin", "%s/tests/bench/icount_plugin.so,out=%s" % (build, out)], out


def linux_direct(build):
    args, out = plugin(build, "direct")
    linux = build + "/guests/linux/"
    argv = ["-machine", "q35", "-cpu", DIRECT_CPU, "-smp", "1", "-m", "256", *ICOUNT, *args,
            "-kernel", linux + "vmlinuz", "-initrd", linux + "initrd.img",
            "-append", LINUX_CMDLINE]
    with Qemu(argv, 300, log_path(build, "direct")) as machine:
        machine.wait("linux ready")
        machine.finish()
    return int(read(out))


def linux_nested(build):
    """Instructions from Ballast's power-on to its power-off, and its shell's account of the exits."""
    args, out = plugin(build, "nested")
    conf = "seed = 1\n" + section("linux", {
        "memory": "256M", "kernel": "vmlinuz", "initrd": "initrd.img",
        "cmdline": '"%s"' % LINUX_CMDLINE})
    members = {"ballast.conf": conf.encode()}
    for name in ("vmlinuz", "initrd.img"):
        members[name] = read(build + "/guests/linux/" + name)
    argv = qemu_args(build, "nested", members, args)
    with Qemu(argv, 400, log_path(build, "nested")) as machine:
        machine.wait("vm linux: powered off")
        start = len(machine.text)
        machine.send("vm linux\r")
        machine.wait(r"vm linux\n(.|\n)*" + PROMPT, start)
        exits = machine.text[start:]
        machine.send("poweroff\r")
        machine.finish()
    return int(read(out)), exits


def run_linux(build):
    direct = linux_direct(build)
    nested, exits = linux_nested(build)
    print("Linux boot to power-off: %d instructions directly, %d in a VM (ratio %.4f)" %
          (direct, nested, nested / direct))
    print("exits of that boot, by kind (from the shell's `vm linux`):")
    print(exits)
    return round(nested * 1000 / direct)


def load_csv(name):
    with open(os.path.join(HERE, name), encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def verdict(ours, bar, partial):
    if bar is None or (ours is None and partial):
        return ""
    return "yes" if ours is not None and ours <= bar else "no"


def report(build, machine, ours, partial):
    """Prints and writes the table; True when every bar of what was run holds."""
    bars = {r["row"]: int(r["bar"]) for r in load_csv("bars.csv") if r["machine"] == machine.name}
    lines = []
    for peer in load_csv("peer-figures.csv"):
        name = peer["row"]
        bar = bars.get(name)
        value = ours.get(name)
        lines.append([name, machine.name, value, peer[machine.kvm],
                      peer[machine.xen] if machine.xen else "", bar, verdict(value, bar, partial)])
    write_csv(os.path.join(build, "bench.csv"), machine, lines)
    print("%-52s %9s %9s %9s %9s  %s" % ("row (instructions, median)", "ours", "KVM", "Xen", "bar",
                                         "holds"))
    for name, _, value, kvm, xen, bar, holds in lines:
        print("%-52s %9s %9s %9s %9s  %s" % (name, "-" if value is None else value, kvm or "-",
                                             xen or "-", "" if bar is None else bar, holds))
    print("written: %s/bench.csv (%s)" % (build, machine.name))
    return all(line[6] != "no" for line in lines)


def write_csv(path, machine, lines):
    """Replaces the machine's lines; those of others stay."""
    others = []
    if os.path.exists(path):
        with open(path, encoding="utf-8", newline="") as f:
            others = [line for line in list(csv.reader(f))[1:] if line[1] != machine.name]
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow("row machine ours kvm xen bar holds".split())
        out.writerows([["" if v is None else v for v in line] for line in lines] + others)


def main():
    build = os.path.abspath(sys.argv[1])
    emu = sys.argv[2] if len(sys.argv) > 2 else "qemu"
    if emu not in MACHINES:
        sys.exit("bench: no machine %s; accepted: %s" % (emu, ", ".join(MACHINES)))
    machine = MACHINES[emu]
    parts = sys.argv[3:] or machine.parts
    if not set(parts) <= set(machine.parts):
        sys.exit("bench: no rows %s; accepted: %s" % (" ".join(sorted(set(parts) - set(machine.parts))),
                                                      ", ".join(machine.parts)))
    os.makedirs(os.path.join(build, "tests", "bench"), exist_ok=True)
    ours = {}
    ok = True
    if "guest" in parts:
        for name, rows, keys, needed in SHADOW_RUNS if "shadow" in emu else GUEST_RUNS:
            try:
                for row, value in run_guest(emu, build, name, rows, keys).items():
                    ours.setdefault(row, value)
            except Failure as failure:
                print("bench: %s: %s" % (name, failure), file=sys.stderr)
                ok = ok and not needed
    if "share" in parts:
        try:
            ours.update(run_share(build))
        except Failure as failure:
            print("bench: share: %s" % failure, file=sys.stderr)
            ok = False
    if "sample" in parts:
        try:
            ours.update(run_sample(build, emu))
        except Failure as failure:
            print("bench: sample: %s" % failure, file=sys.stderr)
            ok = False
    if "swap" in parts:
        try:
            native_swap(build)
            ours.update(run_swap(build))
        except Failure as failure:
            print("bench: swap: %s" % failure, file=sys.stderr)
            ok = False
    if "linux" in parts:
        try:
            ours[LINUX_ROW] = run_linux(build)
        except Failure as failure:
            print("bench: linux: %s" % failure, file=sys.stderr)
            ok = False
    held = report(build, machine, ours, set(parts) != set(machine.parts))
    sys.exit(0 if ok and held else 1)


if __name__ == "__main__":
    main()
