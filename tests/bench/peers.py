#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""peers.py BUILD: measures KVM with the bench guest on the machine that bench.py uses for Ballast.

A Linux guest of the emulator (Debian's cloud kernel and its kvm-amd) runs guests/bench/kvm_vmm.c
with bench.elf, once with one vCPU and once with two. Writes BUILD/bench-peers.csv (row,kvm,recorded)
beside the recorded figures.
"""
import csv
import glob
import gzip
import os
import re
import sys

from bench import HERE, QEMU_CPU, load_csv, log_path, parse_rows
from emulator import Archive, Failure, ICOUNT, Qemu, read

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in $(cat /modules/order); do insmod /modules/$m.ko || echo "peers: $m does not load"; done
echo always >/sys/kernel/mm/transparent_hugepage/enabled
kvm_vmm /bench.elf "rows=basic,4k,2m,pt present=1" 1
kvm_vmm /bench.elf "rows=smp" 2
echo "peers: done"
poweroff -f
"""


def module_order(root, wanted):
    """wanted and all they depend on, dependencies first, as {name: path}."""
    paths = {os.path.basename(p)[:-3].replace("-", "_"): p
             for p in glob.glob(root + "/lib/modules/*/kernel/**/*.ko", recursive=True)}
    order = {}

    def add(name):
        if name in order:
            return
        if name not in paths:
            sys.exit("peers: the kernel package has no module " + name)
        needs = re.search(rb"\0depends=([^\0]*)\0", read(paths[name]))[1].decode()
        for need in filter(None, needs.split(",")):
            add(need.replace("-", "_"))
        order[name] = paths[name]

    for name in wanted:
        add(name)
    return order


def initramfs(build):
    root = build + "/guests/linux/root"
    archive = Archive()
    for name in ("bin", "dev", "proc", "sys", "modules"):
        archive.directory(name)
    archive.chardev("dev/console", 5, 1)
    archive.file("bin/busybox", read(root + "/bin/busybox"), 0o755)
    archive.file("bin/kvm_vmm", read(build + "/tests/bench/kvm_vmm"), 0o755)
    archive.file("bench.elf", read(build + "/guests/bench.elf"))
    archive.file("init", INIT.encode(), 0o755)
    order = module_order(root, ["kvm_amd"])
    for name, path in order.items():
        archive.file("modules/%s.ko" % name, read(path))
    archive.file("modules/order", "\n".join(order).encode())
    out = build + "/tests/bench/peers.img"
    with open(out, "wb") as f:
        f.write(gzip.compress(archive.bytes(), 1, mtime=0))
    return out


def measure(build):
    argv = ["-machine", "q35", "-cpu", QEMU_CPU, "-smp", "1", "-m", "2G", *ICOUNT,
            "-kernel", build + "/guests/linux/vmlinuz", "-initrd", initramfs(build),
            "-append", "console=ttyS0 quiet"]
    with Qemu(argv, 900, log_path(build, "peers")) as machine:
        machine.wait("peers: done")
        return parse_rows(machine.text)


def main():
    build = os.path.abspath(sys.argv[1])
    os.makedirs(os.path.join(build, "tests", "bench"), exist_ok=True)
    try:
        kvm = measure(build)
    except Failure as failure:
        sys.exit("bench-peers: %s" % failure)
    with open(build + "/bench-peers.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["row", "kvm", "recorded"])
        print("%-52s %9s %9s" % ("row (instructions, median)", "KVM", "recorded"))
        for row in load_csv(os.path.join(HERE, "peer-figures.csv")):
            name, recorded = row["row"], row["svm_kvm_npt"]
            out.writerow([name, kvm.get(name, ""), recorded])
            print("%-52s %9s %9s" % (name, kvm.get(name, "-"), recorded))
    print("written: %s/bench-peers.csv" % build)


if __name__ == "__main__":
    main()
