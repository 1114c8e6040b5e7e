# SPDX-License-Identifier: BSD-2-Clause
"""What a VM costs beyond its memory, as `mem` prints it."""

import pytest

from machine import conf, guest_elf
from memscreen import mem
from platforms import runs_on


@runs_on(svm={}, vmx={"long": True})
@pytest.mark.parametrize("pages,limit_kib", [("auto", 1024), ("off", 1536)])
def test_overhead(on, pages, limit_kib):
    """A VM of 256 MiB with every page touched: the most tables that it can have."""
    vm = ("full", {"memory": "256M", "kernel": "memtouch.elf", "output": "log", "largepages": pages,
                   "cmdline": "name=full end=halt rounds=0"})
    with on.machine(mem="512M", modules={"ballast.conf": conf(vm, seed=1),
                                         "memtouch.elf": guest_elf("memtouch")}) as m:
        m.expect(r"\[full\] SUMMARY passed \d+ failed 0", 100)
        m.send("\r")
        m.prompt()
        row = mem(m)["full"]
        assert row["MEMSZ"] == 256 and row["GRANT"] > 250
        assert row["OVHD/KB"] <= limit_kib
        m.poweroff()
