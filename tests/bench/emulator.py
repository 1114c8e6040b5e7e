# SPDX-License-Identifier: BSD-2-Clause
"""One bounded run of QEMU with its serial port on pipes, for the benchmarks."""
import os
import re
import select
import subprocess
import sys
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tools"))
from mkcpio import Archive  # noqa: E402,F401

QEMU = "qemu-system-x86_64"
ICOUNT = ["-icount", "shift=0,sleep=off"]


class Failure(Exception):
    """A run that did not do what was waited for; the message has the end of its output."""


class Emulator:
    """QEMU under `timeout`; use as a context manager."""

    def __init__(self, args, seconds, log):
        self.text = ""
        self._log = open(log, "w", encoding="utf-8")
        self._end = time.monotonic() + seconds
        argv = ["timeout", "-k", "5", str(seconds), QEMU, "-accel", "tcg", "-nodefaults",
                "-display", "none", "-serial", "stdio", "-no-reboot", *args]
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self._child.poll() is None:
            self._child.terminate()
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()
        self._log.close()
        return False

    def _read(self):
        """More output; False at its end."""
        out = self._child.stdout.fileno()
        ready, _, _ = select.select([out], [], [], 1)
        if not ready:
            return True
        data = os.read(out, 65536)
        text = data.decode("utf-8", "replace").replace("\r", "")
        self.text += text
        self._log.write(text)
        return bool(data)

    def wait(self, pattern, start=0):
        """Waits until pattern appears behind position start; the match."""
        while True:
            match = re.compile(pattern).search(self.text, start)
            if match:
                return match
            if time.monotonic() > self._end or not self._read():
                raise Failure("no %r in the output, which ends:\n%s" % (pattern, self.text[-1500:]))

    def finish(self):
        """Waits until the machine has powered off."""
        while self._read():
            if time.monotonic() > self._end:
                raise Failure("the machine does not end; output:\n" + self.text[-1500:])
        self._child.wait()

    def send(self, text):
        self._child.stdin.write(text.encode())
        self._child.stdin.flush()


def read(path):
    with open(path, "rb") as f:
        return f.read()
