# SPDX-License-Identifier: BSD-2-Clause
"""Checks that read sources as text: include directions, licences, left-over markers, configuration."""
import os
import re

from tree import files, kernel_files, verdict

# What each room may include, besides itself. The longest matching prefix counts. Freestanding
# headers of the compiler are free for all.
LIB = ("kernel/lib/",)
LOG = ("kernel/log.h", "kernel/panic.h")
# Vendor code sees the neutral interface, the structs it is handed (vm.h), the kinds of access and the
# table formats it reports, and memory for its tables.
BACKEND_SEES = ("arch/x86_64/", "mm/types.h", "mm/slab.h", "mm/buddy.h", "mm/env.h",
                "mm/p2m.h", "mm/pt/", "kernel/vm/backend.h", "kernel/vm/doctor.h",
                "kernel/vm/softmmu_regs.h", "kernel/vm/vm.h", *LIB, *LOG)
ALLOWED = {
    "kernel/lib/": (),
    "mm/": LIB,
    "boot/": LIB,
    "arch/x86_64/": ("mm/", "boot/", *LIB, *LOG),
    "kernel/sched/": ("arch/x86_64/", "mm/", *LIB, *LOG),
    "kernel/drivers/": ("arch/x86_64/", "boot/", "mm/", "kernel/sched/", *LIB, *LOG),
    # Decoding is pure; carrying an instruction out reaches guest memory and devices.
    "kernel/emul/": ("arch/x86_64/", "mm/", "kernel/vm/", "kernel/devices/", *LIB, *LOG, "Zydis/"),
    "vmx/": BACKEND_SEES,
    "svm/": BACKEND_SEES,
    "kernel/devices/": ("arch/x86_64/", "mm/", "kernel/sched/", "kernel/drivers/", "kernel/vm/",
                        "kernel/emul/", *LIB, *LOG),
    "kernel/vm/": ("arch/x86_64/", "mm/", "boot/", "kernel/sched/", "kernel/devices/",
                   "kernel/emul/", "kernel/drivers/", "kernel/main.h", "kernel/options.h", *LIB, *LOG),
    "kernel/shell/": ("arch/x86_64/", "mm/", "boot/", "kernel/"),
    # main, log, panic: the boot sequence and what it prints with.
    "kernel/": ("arch/x86_64/", "mm/", "boot/", "kernel/"),
}
FREESTANDING = {"stdint.h", "stddef.h", "stdbool.h", "stdarg.h", "limits.h", "stdalign.h",
                "stdnoreturn.h", "cpuid.h", "xxhash.h",
                "lz4.h", "mbedtls/aes.h"}
# On the host the C library stands in for ours.
HOST_ONLY = {"kernel/lib/string.h": {"string.h"}, "kernel/lib/printf.h": {"stdio.h"}}
# Where a lower room hands the processor over: a wait inside mm gives it away, and a started
# processor ends in the scheduler, which the reschedule interrupt enters as well.
EXCEPTIONS = {("arch/x86_64/mm_env.c", "kernel/sched/sched.h"),
              ("arch/x86_64/smp.c", "kernel/sched/sched.h")}
# Implementations of an interface that another room declares.
OWN_HEADER = {"arch/x86_64/mm_env.c": "mm/env.h"}
VENDOR_SELECTOR = "kernel/vm/backend.c"

INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.M)


def room_of(name):
    rooms = [room for room in ALLOWED if name.startswith(room)]
    return max(rooms, key=len) if rooms else None


def include_problem(name, target):
    room = room_of(name)
    if (name, target) in EXCEPTIONS:
        return None
    if target in FREESTANDING or target in HOST_ONLY.get(name, ()):
        return None
    if room is None:
        return None
    if target.startswith(("vmx/", "svm/")):
        return None if name == VENDOR_SELECTOR or target.startswith(room) else "names a vendor"
    own = room_of(target) == room
    if own or target.startswith(ALLOWED[room]):
        return None
    return "wrong direction"


def layers():
    problems = []
    for name in kernel_files(".c", ".h"):
        text = open(name, encoding="utf-8").read()
        for target in INCLUDE.findall(text):
            problem = include_problem(name, target)
            if problem:
                problems.append(f"{name} includes {target}: {problem}")
    yield verdict("include directions", problems)


# Common files name no vendor, in words or in names, but for citations of manuals and these.
VENDOR_WORD = re.compile(r"(?<![a-z])(svm|vmx|vmcb|vmcs|vmrun|vmload|vmsave|stgi|clgi|vmlaunch|"
                         r"vmresume|vmread|vmwrite|amd|intel)(?![a-z])", re.I)
CITATION = re.compile(r"Manual: |Programmer's|Developer's|Intel 64 and IA-32")
VENDOR_FILES = {
    VENDOR_SELECTOR: "chooses between them",
    "kernel/vm/cpuid.c": "leaves that only one vendor's processors have",
    "kernel/vm/msr.c": "registers that only one vendor's processors have",
    "mm/pt/fmt_x86.c": "a table format is its vendor's",
    "mm/pt/fmt_x86.h": "a table format is its vendor's",
    "mm/pt/fmt_ept.h": "a table format is its vendor's",
    # Features of processors by name, and what follows from them for the host.
    "arch/x86_64/cpu.c": "detects them",
    "arch/x86_64/cpu.h": "detects them",
    "arch/x86_64/cpuid.h": "leaves by name",
    "arch/x86_64/msr.h": "registers by name",
    "arch/x86_64/desc.h": "two interrupt tables, and why",
    "arch/x86_64/percpu.h": "the current processor without GS, and why",
    "arch/x86_64/firmware.c": "what the firmware may have switched off",
    "arch/x86_64/fpu.c": "differences of FXSAVE",
    "arch/x86_64/mce.c": "banks of machine checks",
    "arch/x86_64/mitigate_plan.c": "flaws by model",
}


def vendors():
    problems = []
    for name in kernel_files(".c", ".h", ".asm"):
        if name.startswith(("vmx/", "svm/")) or name in VENDOR_FILES:
            continue
        for number, line in enumerate(open(name, encoding="utf-8"), 1):
            if VENDOR_WORD.search(line) and not CITATION.search(line):
                problems.append(f"{name}:{number}: {line.strip()}")
    unused = [name for name in VENDOR_FILES if not os.path.exists(name) or
              not VENDOR_WORD.search(open(name, encoding="utf-8").read())]
    problems += [f"{name}: names no vendor: take it off the list" for name in unused]
    yield verdict("common files name no vendor", problems)


def spdx():
    problems = []
    for name in files(".c", ".h", ".asm", ".py", ".sh", ".mk", ".ld", "Makefile", ".cfg"):
        with open(name, encoding="utf-8") as f:
            head = f.readline() + f.readline()
        if "SPDX-License-Identifier: BSD-2-Clause" not in head:
            problems.append(f"{name}: no SPDX line at the top")
    yield verdict("licence lines", problems)


def markers():
    pattern = re.compile(r"\b(TODO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    problems = []
    for name in files(".c", ".h", ".asm", ".py", ".sh", ".mk", ".ld", "Makefile"):
        if name == "tests/check/checks_text.py":
            continue
        for number, line in enumerate(open(name, encoding="utf-8"), 1):
            if pattern.search(line):
                problems.append(f"{name}:{number}: {line.strip()}")
    yield verdict("no left-over markers", problems)


def pragma_once():
    problems = []
    for name in kernel_files(".h"):
        if "#pragma once" not in open(name, encoding="utf-8").read():
            problems.append(f"{name}: no #pragma once")
    for name in kernel_files(".c"):
        own = name[:-2] + ".h"
        first = INCLUDE.search(open(name, encoding="utf-8").read())
        expected = OWN_HEADER.get(name, own)
        if os.path.exists(expected) and (first is None or first.group(1) != expected):
            problems.append(f"{name}: its own header is not its first include")
    yield verdict("headers once, own header first", problems)


# docs/configuration.md has a row for whatever can be configured; of options also default and range.
CONFIGURATION = "docs/configuration.md"
OPTION = re.compile(r'\{\.name =\s*"([^"]+)",\s*\.low = (\d+),\s*\.high = (\d+),\s*\.standard = (\d+),\s*'
                    r'\.help =\s*(?:"[^"]*"\s*)+,?(?:\s*\.words = "([^"]*)",?)?\s*\}')


def documented_rows(text, heading):
    """First column to the whole row, of the table below a heading."""
    part = re.search(r"^## %s\n(.*?)(?=^## |\Z)" % re.escape(heading), text, re.M | re.S)
    return {m[1]: m[0] for m in re.finditer(r"^\| ([^|]+?) \|.*$", part[1], re.M)} if part else {}


def read(name):
    with open(name, encoding="utf-8") as f:
        return f.read()


def configuration():
    text = read(CONFIGURATION)
    problems = []

    def compare(heading, names):
        rows = documented_rows(text, heading)
        for name in names:
            if name not in rows:
                problems.append(f"{CONFIGURATION}: \"{heading}\" has no row {name}")
        for name in list(rows)[1:]:
            if name not in names:
                problems.append(f"{CONFIGURATION}: {name} of \"{heading}\" does not exist")
        return rows

    options = read("kernel/options.c")
    found = OPTION.findall(options)
    if len(found) != options.count(".standard ="):
        problems.append("kernel/options.c: not every option was understood")
    rows = compare("Host options", [option[0] for option in found])
    for name, low, high, standard, words in found:
        accepted = ", ".join(words.split("|")) if words else f"{low} to {high}"
        default = words.split("|")[int(standard)] if words else standard
        if name in rows and not rows[name].startswith(f"| {name} | {default} | {accepted} |"):
            problems.append(f"{CONFIGURATION}: {name}: should begin | {name} | {default} | {accepted} |")

    keys = read("kernel/vm/config_keys.c").split("config_vm_keys[")
    for heading, part in zip(("Host keys", "A VM's section"), keys):
        compare(heading, re.findall(r'\{\.name = "([^"]+)"', part))
    words = set()
    for name in kernel_files(".c"):
        words.update(re.findall(r'parse_option\([^;]*?, "(\w+)"', read(name)))
    compare("The boot loader's command line", words)
    keys = re.search(r"cmdline_keys\[\] = \{(.*?)\};", read("kernel/startup.c"), re.S)
    if not keys or set(re.findall(r'"(\w+)"', keys[1])) != words:
        problems.append("kernel/startup.c: cmdline_keys are not what parse_option is asked for")
    yield verdict("everything that can be configured is documented", problems)
