# SPDX-License-Identifier: BSD-2-Clause
"""What the experiments have in common: a machine whose telemetry is read while it runs, guests that
follow scripts, and results that say whether a published shape was found.

The emulator counts time by instructions executed (-icount), so that what is measured does not depend on
how busy the computer is; while all processors are idle, time is skipped. Lab(icount=False) is the exception.
"""

import csv
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "../.."))
for folder in ("tests/boot", "tools"):
    sys.path.insert(0, os.path.join(ROOT, folder))

from machine import BUILD, SLOW, Machine, conf, guest_elf  # noqa: E402
from telemetry import Telemetry  # noqa: E402

OUT = os.path.join(BUILD, "experiments")
ICOUNT = ["-icount", "shift=3,sleep=off"]  # 125 million instructions a second
LINE = re.compile(r"\[(?P<name>[\w.-]+)\] wset: t=(?P<t>\d+\.\d+) step=(?P<step>\d+) "
                  r"size=(?P<size>\d+) touched=(?P<touched>\d+) bad=(?P<bad>\d+)")
BEGIN = re.compile(r"^\[ *(\d+\.\d+)\].*\[([\w.-]+)\] wset: .* begins", re.M)


class Result:
    """What an experiment found. `figure` is the published one; each check is (text, good)."""

    def __init__(self, name, figure, published, setup):
        self.name, self.figure, self.published, self.setup = name, figure, published, setup
        self.checks = []
        self.rows = []  # for the CSV; dicts of equal keys
        self.plot = None  # a function of a path

    def check(self, good, text, *values):
        self.checks.append((text % values, bool(good)))

    @property
    def holds(self):
        return bool(self.checks) and all(good for _, good in self.checks)

    def write(self, directory=OUT):
        """NAME.csv and NAME.svg."""
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, self.name + ".csv"), "w", newline="", encoding="utf-8") as f:
            out = csv.DictWriter(f, self.rows[0].keys())
            out.writeheader()
            out.writerows(self.rows)
        if self.plot:
            self.plot(os.path.join(directory, self.name + ".svg"))


def wset_vm(name, memory, script, options="", **keys):
    """A small guest with a working set by script."""
    return name, {"memory": "%dM" % memory, "kernel": "wset.elf", "output": "log",
                  "cmdline": '"name=%s %s end=halt script=%s"' %
                             (name, options, re.sub(r"\s*;\s*", ";", script).replace(" ", "_")), **keys}


class Lab(Machine):
    """A machine with telemetry in a file. `host`: options of ballast.conf. Without `icount` its time is the
    computer's."""

    def __init__(self, name, vms, mem, host, modules=None, limit=400, extra=(), icount=True):
        self.telemetry_path = os.path.join(BUILD, "tests", "boot", name + ".jsonl")
        modules = {"ballast.conf": conf(*vms, seed=1, **{"overcommit": "unbacked", **host}), "wset.elf": guest_elf("wset"),
                   **(modules or {})}
        super().__init__(name, mem=mem, modules=modules, limit=limit,
                         extra=[*(ICOUNT if icount else ()), "-serial", "file:" + self.telemetry_path, *extra])

    def __enter__(self):
        if os.path.exists(self.telemetry_path):
            os.remove(self.telemetry_path)
        return super().__enter__()

    def data(self):
        """All telemetry so far."""
        return Telemetry(self.telemetry_path)

    def now(self):
        """The host's time; 0 before there is any."""
        try:
            with open(self.telemetry_path, "rb") as f:
                f.seek(max(0, os.path.getsize(self.telemetry_path) - 4096))
                times = re.findall(rb'"t":(\d+\.\d+)', f.read())
        except OSError:
            return 0.0
        return float(times[-1]) if times else 0.0

    def run_until(self, t):
        """Let the machine run to this time of its own. Its console is read meanwhile."""
        end = time.monotonic() + self.limit * SLOW
        while self.now() < t:
            self.child.expect([r"[^\n]*\n", self.pexpect_timeout()], timeout=0.3)
            if time.monotonic() > end or not self.child.isalive():
                raise AssertionError("%s: the machine's time stands at %.1f s; see %s" %
                                     (self.name, self.now(), self.log_path))

    @staticmethod
    def pexpect_timeout():
        import pexpect
        return pexpect.TIMEOUT

    def set(self, option, value):
        """Change a host option; returns the machine's time at which that was done."""
        said = self.command("set %s %s" % (option, value))
        assert re.search(r"%s +%s" % (re.escape(option), value), said), said
        return self.now()

    def wset(self):
        """name to the guest's lines, dicts whose `host_t` is on the host's clock."""
        text = self.text()
        start = {name: float(t) for t, name in BEGIN.findall(text)}
        out = {}
        for m in LINE.finditer(text):
            row = {k: float(v) if k == "t" else int(v) for k, v in m.groupdict().items()
                   if k != "name"}
            row["host_t"] = start.get(m["name"], 0.0) + row["t"]
            out.setdefault(m["name"], []).append(row)
        return out


def rate(rows, start, end, key="touched"):
    """Growth of a counter per second between two times of the host."""
    inside = [r for r in rows if start <= r["host_t"] <= end]
    if len(inside) < 2:
        return 0.0
    return (inside[-1][key] - inside[0][key]) / (inside[-1]["host_t"] - inside[0]["host_t"])


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def between(series, start, end):
    """The values of (times, values) within two times."""
    return [v for t, v in zip(*series) if start <= t <= end]
