# SPDX-License-Identifier: BSD-2-Clause
"""One bounded run of an emulator with its serial port at hand, for the benchmarks."""
import errno
import os
import re
import select
import subprocess
import sys
import time

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tools"))
import bochs_run  # noqa: E402
import mkiso  # noqa: E402
from mkcpio import Archive  # noqa: E402,F401

QEMU = "qemu-system-x86_64"
ICOUNT = ["-icount", "shift=0,sleep=off"]


class Failure(Exception):
    """A run that did not do what was waited for; the message has the end of its output."""


class Emulator:
    """A machine that runs, its serial port on file descriptors; use as a context manager."""

    def __init__(self, seconds, log, receive, transmit):
        self.text = ""
        self._log = open(log, "w", encoding="utf-8")
        self._end = time.monotonic() + seconds
        self._receive, self._transmit = receive, transmit

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
        self._log.close()
        return False

    def stop(self):
        """End the emulator, if it has not ended, and wait for it."""
        raise NotImplementedError

    def _read(self):
        """More output; False at its end."""
        ready, _, _ = select.select([self._receive], [], [], 1)
        if not ready:
            return True
        try:
            data = os.read(self._receive, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # the other side of a pseudo-terminal is closed
                raise
            data = b""
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

    def send(self, text):
        os.write(self._transmit, text.encode())


class Qemu(Emulator):
    """QEMU under `timeout`, with these arguments."""

    def __init__(self, args, seconds, log):
        argv = ["timeout", "-k", "5", str(seconds), QEMU, "-accel", "tcg", "-nodefaults",
                "-display", "none", "-serial", "stdio", "-no-reboot", *args]
        self._child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
        super().__init__(seconds, log, self._child.stdout.fileno(), self._child.stdin.fileno())

    def stop(self):
        if self._child.poll() is None:
            self._child.terminate()
        self._child.wait()
        self._child.stdin.close()
        self._child.stdout.close()

    def finish(self):
        super().finish()
        self._child.wait()


class Bochs(Emulator):
    """Bochs under `timeout`: `kernel` with `modules`, a tick per instruction and nanosecond. Files are
    kept beside the log."""

    def __init__(self, model, kernel, modules, seconds, log):
        directory, name = os.path.split(log[:-len(".log")])
        iso = os.path.join(directory, name + ".iso")
        mkiso.make_iso(iso, kernel, modules)
        self._run = bochs_run.Run(directory, name, iso, model, limit=seconds, mem="1G",
                                  ips=1000000000)
        super().__init__(seconds, log, self._run.fd, self._run.fd)

    def stop(self):
        self._run.close()


def read(path):
    with open(path, "rb") as f:
        return f.read()
