# SPDX-License-Identifier: BSD-2-Clause
"""Bad input at boot: every error names file, line and reason, and nothing else is lost."""

import re

from machine import conf, guest_elf, linux_modules
from platforms import runs_on

HELLO = {"memory": "8M", "kernel": "hello.elf", "output": "log", "cmdline": "name=ok end=exit"}


def _boots(on, text, expected, modules=None, cmdline=""):
    """Boot with this ballast.conf; each expected pattern is on the console, and the VM `ok` (if
    there is one) ran; then the shell answers."""
    files = {"ballast.conf": text, "hello.elf": guest_elf("hello")}
    files.update(modules or {})
    with on.machine(modules=files, cmdline=cmdline) as m:
        m.prompt()
        if "[ok]" in text:
            m.wait_for("vms", r"ok\s+stopped.*exited with code 1\b")
        m.wait_log(expected)
        assert "ballast" in m.command("version").lower()
        m.poweroff()


@runs_on(svm={"mem": "512M"}, vmx={"mem": "256M"})
def test_bad_config(on):
    """The configuration's own errors, many in one file, and those of the command line."""
    text = "\n".join([
        "seed = 1",                    # 1
        "colour = blue",               # 2
        "loglevel = loud",             # 3
        "[ok]",                        # 4
        *["%s = %s" % kv for kv in HELLO.items()],   # 5-8
        "[typo]",                      # 9
        "memroy = 8M",                 # 10
        "kernel = hello.elf",          # 11
        "[range]",                     # 12
        "memory = 8M",                 # 13
        "vcpus = 99",                  # 14
        "kernel = hello.elf",          # 15
        "[size]",                      # 16
        "memory = 8Q",                 # 17
        "kernel = hello.elf",          # 18
        "[small]",                     # 19
        "memory = 4K",                 # 20
        "kernel = hello.elf",          # 21
        "[nokernel]",                  # 22
        "memory = 8M",                 # 23
        "kernel = nothere.elf",        # 24
        "this is no line",             # 25
        "[ok]",                        # 26
        "memory = 8M",                 # 27
        "kernel = hello.elf",          # 28
        ""])
    _boots(on, text, [
        r"ballast\.conf:2: .*colour",
        r"ballast\.conf:3: .*loud.*error.*warn.*info.*debug",
        r"ballast\.conf:10: .*memroy.*memory",
        r"ballast\.conf:14: .*99.*16",
        r"ballast\.conf:17: .*8Q",
        r"ballast\.conf:20: .*4K",
        r"ballast\.conf:24: .*nothere\.elf",
        r"ballast\.conf:26: .*\[ok\]",
        r"ballast\.conf:25: ",
        r"command line: 'maxcpu' is ignored; accepted: loglevel, .*maxcpus, .*break",
        r"command line: loglevel=loud: accepted: error, warn, info, debug",
        r"command line: fail=p2m\.frme: there is no such site; accepted: .*p2m\.frame.*slab\.object",
        r"command line: seed=apple: accepted: a number from 0 to 18446744073709551615",
        r"command line: panic=loop: accepted: halt, reboot",
        r"command line: console=tape: accepted: com1, com2, com3, com4, pci, display",
        r"command line: maxcpus=0: accepted: 1 to \d+",
        r"command line: selftest=shed: accepted: sched",
        r"command line: bench=chair: accepted: share, swap",
        r"command line: swap=tape: accepted: off, auto, disk:NAME, ram:SIZE",
    ], cmdline="maxcpu=1 loglevel=loud fail=p2m.frme:7 seed=apple panic=loop console=com1,tape maxcpus=0 "
               "selftest=shed bench=chair swap=tape")


@runs_on(svm={"mem": "256M", "limit": 60}, vmx={"mem": "256M", "long": True})
def test_bad_fail_rate(on):
    """One in no allocations: refused, and none fails."""
    _boots(on, conf(("ok", HELLO), seed=1), [
        r"command line: fail=slab\.object:0: accepted: SITE or SITE:N, N from 1 on",
    ], cmdline="fail=slab.object:0")


@runs_on(svm={"mem": "1G"}, vmx={"mem": "1G", "limit": 300, "long": True})
def test_bad_config_images(on):
    """Images: corrupt, truncated, too large for their VM. The others start."""
    linux = linux_modules()
    kernel = linux["vmlinuz"]
    scribbled = bytearray(kernel[:65536])
    scribbled[0x1f1:0x1f1 + 0x40] = b"\xff" * 0x40
    vms = [
        ("ok", HELLO),
        ("truncated", {"memory": "256M", "kernel": "short", "initrd": "initrd.img"}),
        ("scribbled", {"memory": "256M", "kernel": "scribbled"}),
        ("noise", {"memory": "64M", "kernel": "noise"}),
        ("tight", {"memory": "16M", "kernel": "vmlinuz"}),
        ("fat", {"memory": "96M", "kernel": "vmlinuz", "initrd": "huge"}),
        ("halfelf", {"memory": "16M", "kernel": "halfelf"}),
    ]
    _boots(on, conf(*vms, seed=1), [
        r"truncated.*short.*truncated",
        r"vm scribbled.*scribbled",
        r"vm noise.*noise",
        r"vm tight.*vmlinuz.*memory",
        r"vm fat.*huge.*initrd|vm fat.*initrd.*huge",
        r"vm halfelf.*halfelf",
    ], modules={"vmlinuz": kernel, "initrd.img": linux["initrd.img"], "short": kernel[:1 << 20],
                "scribbled": bytes(scribbled), "noise": bytes(range(256)) * 64,
                "huge": b"\x5a" * (100 << 20), "halfelf": guest_elf("hello")[:700]})


@runs_on(svm={"mem": "256M", "limit": 60}, vmx={"mem": "256M", "long": True})
def test_no_modules(on):
    """No module at all: the shell comes up and says that there is no configuration."""
    with on.machine() as m:
        m.prompt()
        assert "ballast.conf" in m.text()
        assert re.search(r"0 VMs", m.command("vms"))
        out = m.command("frobnicate")
        assert re.search(r"frobnicate.*help", out, re.S), out
        assert re.search(r"usage|accepted|no VM", m.command("vm nobody start"))
        m.poweroff()


@runs_on(svm={"mem": "256M", "limit": 60}, vmx={"mem": "256M", "long": True})
def test_empty_config(on):
    with on.machine(modules={"ballast.conf": ""}) as m:
        m.prompt()
        m.poweroff()


@runs_on(svm={"limit": 200, "tiny": "4M"}, vmx={"limit": 240, "tiny": None, "long": True})
def test_too_little_memory(on):
    """A machine too small for its VM, and one too small for Ballast itself (QEMU: GRUB needs more to
    get there)."""
    vms = [("ok", HELLO), ("greedy", {"memory": "1G", "kernel": "memtouch.elf", "output": "log",
                                      "cmdline": "name=greedy end=exit rounds=1"})]
    modules = {"ballast.conf": conf(*vms, seed=1), "hello.elf": guest_elf("hello"),
               "memtouch.elf": guest_elf("memtouch")}
    # What can never be there is refused, with the numbers.
    with on.machine("_refused", mem="256M", modules=modules) as m:
        m.expect(r"vm greedy: refused: with its max of 1024 MB .* (\d+) MB for VMs and 0 MB of swap, "
                 r"so (\d+) MB lack")
        assert 150 < int(m.match.group(1)) < 256 and 780 < int(m.match.group(2)) < 900
        m.prompt()
        m.wait_for("vms", r"ok\s+stopped.*exited with code 1\b")
        assert re.search(r"greedy +stopped +\d+ +hardware +1G +0B ", m.command("vms"))
        m.poweroff()
    # Unless the operator said that he knows.
    modules["ballast.conf"] = conf(*vms, seed=1, overcommit="unbacked")
    with on.machine(mem="256M", modules=modules) as m:
        m.prompt()
        m.wait_for("vms", r"ok\s+stopped.*exited with code 1\b")
        m.wait_for("vms", r"greedy\s+stopped.*memory", timeout=120)
        assert "audit: passed" in m.command("audit")
        m.poweroff()
    if on["tiny"]:
        with on.machine("_tiny", mem=on["tiny"]) as m:
            m.expect(r"(?i)too little memory")


@runs_on(svm=[{"cpu": "EPYC,-svm", "missing": "SVM", "emulated": True},
              {"cpu": "qemu64,-svm", "missing": "SVM", "emulated": True}],
         vmx=[{"cpu": "p4_prescott_celeron_336", "missing": "VMX", "emulated": True}],
         svm_bochs={"cpu": "athlon64_clawhammer", "missing": "SVM", "long": True})
def test_missing(on):
    """A processor without what we need: say what is missing, and halt."""
    with on.machine(mem="256M") as m:
        m.expect(r"(?i)%s" % on["missing"], 100)
        m.expect(r"(?i)halted", 40)
