# SPDX-License-Identifier: BSD-2-Clause
"""A Bochs machine under test: the interface of machine.Machine, booted from an ISO of its own."""

import os
import shutil
import sys
import time

import pexpect.fdpexpect
import pytest

from machine import BUILD, KERNEL, SLOW, Machine

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
import bochs_run  # noqa: E402
import mkiso  # noqa: E402

TYPED = 8  # bytes; a FIFO has 16
PAUSE_S = 0.02


class BochsMachine(Machine):
    """One run of Bochs. `cpu` is one of its models; `iso` overrides kernel and modules; `extra` are lines
    of its configuration. A reset always boots again."""

    # pylint: disable=super-init-not-called,unused-argument
    def __init__(self, name, cpu="corei7_skylake_x", smp=1, mem="1G", modules=None, cmdline="",
                 limit=120, iso=None, ips=100000000, extra="", reboot=True):
        for tool in ("bochs", mkiso.TOOL):
            if not shutil.which(tool):
                pytest.skip(tool + " is not installed")
        self.name = name
        self.limit = limit * SLOW
        self.dir = os.path.join(BUILD, "tests", "boot")
        os.makedirs(self.dir, exist_ok=True)
        self.log_path = os.path.join(self.dir, name + ".log")
        self.iso = iso
        if iso is None:
            self.iso = os.path.join(self.dir, name + ".iso")
            mkiso.make_iso(self.iso, KERNEL, modules or {}, cmdline)
        self.options = {"model": cpu, "smp": smp, "mem": mem, "ips": ips, "extra": extra}
        self.child = None

    def __enter__(self):
        self.log = open(self.log_path, "w", encoding="utf-8", errors="replace")
        self.bochs = bochs_run.Run(self.dir, self.name, self.iso, limit=self.limit, **self.options)
        self.child = pexpect.fdpexpect.fdspawn(self.bochs.fd, encoding="utf-8",
                                               codec_errors="replace", timeout=self.limit)
        self.child.delaybeforesend = None
        self.child.logfile_read = self.log
        return self

    def send(self, text):
        """As if typed: Bochs keeps interrupts back from a guest for up to a millisecond, in which more than
        a FIFO's worth of bytes would be lost, as on a real line."""
        for at in range(0, len(text), TYPED):
            self.child.send(text[at:at + TYPED])
            time.sleep(PAUSE_S)

    def __exit__(self, *exc):
        self.bochs.close()
        self.log.close()
        return False
