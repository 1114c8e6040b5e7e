# SPDX-License-Identifier: BSD-2-Clause
"""What a VM costs beyond its memory, as `mem` prints it."""

import pytest

from machine import conf, guest_elf
from memscreen import mem
from platforms import runs_on


# By the size of the VM's pages, KiB.
NESTED = {"auto": 1024, "off": 1536}
SHADOW = {"auto": 1024, "off": 2048}
# No code in large leaves there (docs/memory.md), and all of this guest's pages may be executed.
SHADOW_SMALL_CODE = {"auto": 2048, "off": 2048}


@runs_on(svm=NESTED, vmx={**NESTED, "long": True}, shadow_svm={**SHADOW, "long": True},
         shadow_vmx={**SHADOW_SMALL_CODE, "long": True})
@pytest.mark.parametrize("pages", ["auto", "off"])
def test_overhead(on, pages):
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
        assert row["OVHD/KB"] <= on[pages], row
        m.poweroff()
