# SPDX-License-Identifier: BSD-2-Clause
"""The telemetry stream against its documented schema, and with readers that do not read. QEMU only: Bochs's
COM2 has no reader to choose; nothing of it depends on the vendor."""

import fcntl
import json
import os
import re
import subprocess
import sys
import time

from machine import SLOW, conf, guest_elf
from memscreen import mem
from platforms import runs_on

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
sys.path.insert(0, os.path.join(ROOT, "tools"))
import telemetry  # noqa: E402

TYPES = {"integer": int, "number": (int, float), "string": str, "array": list, "object": dict}
F_SETPIPE_SZ = 1031


def _schema():
    """kind to {key: type}, from the tables of docs/telemetry.md."""
    kinds, keys, version = {}, None, None
    with open(os.path.join(ROOT, "docs/telemetry.md"), encoding="utf-8") as f:
        for line in f:
            head = re.match(r"## (Every line|kind = (\w+))", line)
            if head:
                keys = kinds.setdefault(head.group(2) or "every", {})
            row = re.match(r"\| (\w+) \| (\w+) \| .* \|$", line)
            if row and keys is not None and row.group(1) != "key":
                keys[row.group(1)] = TYPES[row.group(2)]
            version = version or re.match(r"\| v \| integer \| version of this schema: (\d+)", line)
    return kinds, int(version[1])


def _check(record, schema):
    wanted = {**schema["every"], **schema[record["kind"]]}
    assert record.keys() == wanted.keys(), (record.keys() ^ wanted.keys(), record)
    for key, kind in wanted.items():
        assert isinstance(record[key], kind) and not isinstance(record[key], bool), (key, record)
        assert not isinstance(record[key], (int, float)) or record[key] >= 0, (key, record)


def _modules():
    vms = [("calm", {"memory": "8M", "kernel": "hello.elf", "cmdline": "name=calm end=halt"}),
           ("busy", {"memory": "32M", "kernel": "memtouch.elf", "largepages": "off",
                     "cmdline": "name=busy rounds=0 end=halt"})]
    return {"ballast.conf": conf(*vms, seed=1), "hello.elf": guest_elf("hello"),
            "memtouch.elf": guest_elf("memtouch")}


def _wait_lines(path, enough, timeout=60):
    end = time.monotonic() + timeout * SLOW
    while True:
        text = telemetry.Telemetry(path)
        if enough(text):
            return text
        assert time.monotonic() < end, "too few lines in " + path
        time.sleep(0.3)


@runs_on(svm={"mem": "256M", "limit": 90})
def test_telemetry(on):
    """Every line is as documented, once a second, and says what the screen says."""
    schema, version = _schema()
    assert len(schema["vm"]) > 25 and len(schema["host"]) > 20
    path = os.path.join(on.machine().dir, on.name + ".jsonl")
    with on.machine(modules=_modules(), extra=["-serial", "file:" + path]) as m:
        m.prompt()
        _wait_lines(path, lambda t: len(t.host) >= 4 and t.vms["busy"][-1]["grant"] > 28 << 10)
        screen = mem(m)
        seen = _wait_lines(path, lambda t: len(t.host) >= 6 and len(t.maps) == 2)
        for r in telemetry.records(path):
            _check(r, schema)
            assert r["v"] == version
        last = {n: seen.vms[n][-1] for n in ("calm", "busy")}
        pairs = {"MEMSZ": "memsz", "GRANT": "grant", "CNSM": "cnsm", "ZERO": "zero", "MCTLMAX": "mctlmax",
                 "CACHESZ": "cachesz"}
        for name, row in last.items():
            for title, key in pairs.items():
                assert abs(screen[name][title] * 1024 - row[key]) < 110, (name, title, row)
            assert screen[name]["2M"] == row["large_2m"] and screen[name]["OVHD/KB"] == row["ovhd"]
            assert row["mmu"] == "hardware" and re.search(name + r" +\w+ +1 +hardware ", m.command("vms"))
        assert abs(screen.host(r"PMEM +/MB: +(\d+) total") * 1024 - seen.host[-1]["total"]) <= 1024
        for name, cells in (("calm", 4), ("busy", 16)):
            for r in seen.maps[name]:
                assert r["cell"] == 2048 and r["first"] == 0 and len(r["map"]) == cells, r
        assert seen.maps["busy"][-1]["map"].count("P") >= 13, seen.maps
        # Pages of 4 KiB, each by an exit of its own.
        assert 4 * last["busy"]["exits"]["memory"] > 0.9 * last["busy"]["grant"], last["busy"]
        # It was touched page by page: some second saw it.
        assert max(seen.series("faults", "busy")[1]) > 1000
        times = seen.series("t")[0]
        # A second each; one that comes late is followed by one in time.
        assert all(0 < b - a < 5 * SLOW for a, b in zip(times, times[1:])), times
        assert times[-1] - times[0] > len(times) - 2, times
        assert seen.host[-1]["dropped"] == 0 and seen.host[-1]["vms"] == 2
        assert "no VM 'nobody'" in m.command("map nobody")
        drawn = re.search(r"0x0000000000 \|(.*)\|", m.command("map busy")).group(1)
        assert len(drawn) == 16 and drawn.count("P") >= 13, drawn
        drawn = re.search(r"0x0000000000 \|(.*)\|", m.command("map calm")).group(1)
        assert re.fullmatch(r"[0-9pPzZ.]{4}", drawn) and set(drawn) - {"."}, drawn
        m.poweroff()
    _pictures(path)


def _pictures(path):
    """The tools make pictures of it, and say what is wrong with something else."""
    for tool in ("plot_memory.py", "plot_map.py"):
        out = "%s.%s.svg" % (path, tool)
        argv = [sys.executable, os.path.join(ROOT, "tools", tool), path, out]
        subprocess.run(argv, check=True)
        with open(out, encoding="utf-8") as f:
            first = f.read()
        assert "</svg>" in first and len(first) > 10000
        subprocess.run(argv, check=True)
        with open(out, encoding="utf-8") as f:
            assert f.read() == first, "the same data give another picture"
        done = subprocess.run(argv + ["--vm", "nobody"], capture_output=True, text=True, check=False)
        assert done.returncode != 0 and "nobody" in done.stderr, done
        bad = path + ".bad"
        with open(bad, "w", encoding="utf-8") as f:
            f.write('{"v":1,"t":1,"kind":"host"}\n{"v":1,\n')
        argv[2] = bad
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode != 0 and ".bad:2: not a telemetry line" in done.stderr, done


@runs_on(svm={"mem": "256M", "limit": 120})
def test_telemetry_unread(on):
    """Nobody reads: the host goes on, drops whole lines and counts them; a reader finds whole lines."""
    pipe = os.path.join(on.machine().dir, on.name + ".pipe")
    for end in (".in", ".out"):
        if os.path.exists(pipe + end):
            os.remove(pipe + end)
        os.mkfifo(pipe + end)
    reader = os.open(pipe + ".out", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, F_SETPIPE_SZ, 4096)
    vms = [("v%d" % i, {"memory": "8M", "kernel": "hello.elf", "cmdline": "name=v end=halt"})
           for i in range(24)]
    modules = {"ballast.conf": conf(*vms, seed=1), "hello.elf": guest_elf("hello")}
    with on.machine(modules=modules, extra=["-serial", "pipe:" + pipe]) as m:
        m.prompt()
        # A ring of 64 KiB is full after some seconds of 24 VMs.
        uptime = r"up (\d+) s"
        start = mem(m).host(uptime)
        while mem(m).host(uptime) < start + 12:
            time.sleep(0.3)
        data, dropped = b"", 0
        for _ in range(200):
            try:
                data += os.read(reader, 4096)
            except BlockingIOError:
                time.sleep(0.1)
            lines = [json.loads(text) for text in data.split(b"\n")[:-1]]
            dropped = max([r["dropped"] for r in lines if r["kind"] == "host"] + [0])
            if dropped:
                break
        os.close(reader)
        assert dropped >= 25, dropped
        assert len(lines) > 30 and {r["kind"] for r in lines} >= {"host", "vm"}
        assert "audit: passed" in m.command("audit")
        m.poweroff()


@runs_on(svm={"mem": "256M", "limit": 120})
def test_telemetry_ports(on):
    """The option chooses the port, refuses the console's, and names what it accepts."""
    base = on.machine().dir
    for i, (cmdline, extra, said, lines) in enumerate([
            ("telemetry=off", 1, None, False),
            ("telemetry=com3", 2, None, True),
            ("telemetry=com4", 1, "telemetry: there is no com4", False),
            ("telemetry=com1", 1, "telemetry: com1 is the console's", False),
            ("telemetry=tape", 1, "command line: telemetry=tape: accepted: auto, off, com1", True)]):
        path = os.path.join(base, "%s_%d.jsonl" % (on.name, i))
        serial = ["-serial", "null"] * (extra - 1) + ["-serial", "file:" + path]
        with on.machine(str(i), modules={"ballast.conf": conf(seed=1)}, cmdline=cmdline, extra=serial) as m:
            if said:
                m.expect(re.escape(said))
            m.prompt()
            while mem(m).host(r"up (\d+) s") < 3:
                time.sleep(0.3)
            assert (os.path.getsize(path) > 0) == lines, (cmdline, path)
            m.poweroff()
