# SPDX-License-Identifier: BSD-2-Clause
"""The memory screen in place: it fits the terminal, follows its size, ends with a key. QEMU only: nothing
of it depends on the vendor, and Bochs is slow at redrawing."""

import re

from machine import conf, guest_elf
from memscreen import MemScreen, mem
from platforms import runs_on

ASK = r"\x1b\[6n"
CSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _frame(m):
    """The lines of one refresh: from one question for the size to the next."""
    m.expect(ASK, 30)
    m.expect(ASK, 30)
    text = m.child.before
    return [CSI.sub("", line).replace("\r", "") for line in text[text.index("\x1b[H"):].split("\n")]


def _answer(m, rows, columns):
    m.send("\x1b[%d;%dR" % (rows, columns))


@runs_on(svm={"mem": "256M", "limit": 90})
def test_mem_screen(on):
    """The same numbers in every width; a terminal that is asked and answers gets a screen in place."""
    vms = [(n, {"memory": "8M", "kernel": "hello.elf", "cmdline": "name=%s end=halt" % n})
           for n in ("one", "a-much-longer-name")]
    with on.machine(modules={"ballast.conf": conf(*vms, seed=1),
                             "hello.elf": guest_elf("hello")}) as m:
        m.prompt()
        m.wait_for("vms", r"one\s+running")
        once = mem(m)
        assert once["one"]["MEMSZ"] == 8 and once["(all)"]["MEMSZ"] == 16, once.text
        assert max(len(line) for line in once.text.splitlines()) <= 80, once.text
        wide = MemScreen(m.command("mem once 400"))
        assert len([line for line in wide.text.splitlines() if line.startswith("NAME")]) == 1
        assert wide["one"].keys() == once["one"].keys() and "%LAT_M" in wide["one"]
        assert wide.host(r"(\d+) managed") == once.host(r"(\d+) managed")
        # A terminal that does not answer gets it once.
        assert "FREE" in m.command("mem")

        m.send("mem\r")
        m.expect(ASK)
        _answer(m, 30, 100)
        m.expect("MEM overcommit avg: 0.00")
        lines = _frame(m)
        assert len(lines) <= 30 and max(map(len, lines)) <= 100, lines
        assert any(line.startswith("MEMCTL/MB") for line in lines) and "key ends" in lines[-1], lines
        assert any(line.startswith("a-much-longer-name") for line in lines), lines
        _answer(m, 12, 60)
        _frame(m)
        lines = _frame(m)
        assert len(lines) <= 12 and max(map(len, lines)) <= 60, lines
        assert re.search(r"\d+ more lines", lines[-1]), lines
        m.send("q")
        m.prompt()
        # A width that is given is not asked for.
        m.send("mem 132x20\r")
        m.expect("key ends", 30)
        m.expect("key ends", 30)
        assert not re.search(ASK, m.child.before)
        m.send("\x1b[A")
        m.prompt()
        for bad in ("0", "39", "401", "wide", "80x", "80x7", "80x201", "x20"):
            assert "'%s' is not a size; accepted: once, a width from 40" % bad in m.command("mem " + bad)
        assert "usage: mem" in m.command("mem 80 20")
        assert "usage: mem" in m.command("mem once 80 20")
        m.poweroff()
