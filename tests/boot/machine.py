# SPDX-License-Identifier: BSD-2-Clause
"""A machine under test: QEMU with Ballast in it, its serial port at the end of a pexpect child.

Every wait has a bound, every emulator runs under `timeout`, and what came over the serial port is
kept in BUILD/tests/boot/NAME.log, which a failure names.
"""

import os
import re
import shutil
import signal
import socket
import sys
import time

import pexpect
import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../tools"))
from mkcpio import Archive  # noqa: E402

BUILD = os.environ.get("BALLAST_BUILD", os.path.join(os.path.dirname(__file__), "../../build"))
BUILD = os.path.abspath(BUILD)
THIRD_PARTY = "THIRD_PARTY=" + os.path.join(BUILD, "third_party")  # for builds beside this one
KERNEL = os.path.join(BUILD, "ballast.elf")
ISO = os.path.join(BUILD, "ballast.iso")
USB = os.path.join(BUILD, "ballast.usb.img")
PROMPT = "ballast> "
OVMF = ["/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE.fd"]

# A loaded two-core machine is several times slower than an idle one: bounds are generous, for a
# hang must be told from a slow emulator, not from a fast one.
SLOW = float(os.environ.get("BALLAST_TEST_SLOW", "1"))


def guest_elf(name):
    path = os.path.join(BUILD, "guests", name + ".elf")
    with open(path, "rb") as f:
        return f.read()


def linux_modules():
    base = os.path.join(BUILD, "guests", "linux")
    out = {}
    for name in ("vmlinuz", "initrd.img"):
        with open(os.path.join(base, name), "rb") as f:
            out[name] = f.read()
    return out


def ovmf():
    for path in OVMF:
        if os.path.exists(path):
            return path
    pytest.skip("no OVMF firmware (Debian package ovmf)")


class EmulatorCrash(Exception):
    """The emulator died of a segmentation fault, which no machine in it should be able to bring about."""


class Machine:
    """One run of the emulator. Use as a context manager. It boots `modules` by -kernel, the CD `iso`,
    or what the arguments `boot` say; `reboot`: a reset does not end it."""

    lines_asked = 0  # of guests' shells

    def __init__(self, name, cpu="EPYC,+svm", smp=1, mem="1G", boot=None, modules=None, iso=None,
                 cmdline="", extra=(), limit=120, machine="q35", reboot=False, monitor=False):
        self.name = name
        self.limit = limit * SLOW
        self.dir = os.path.join(BUILD, "tests", "boot")
        os.makedirs(self.dir, exist_ok=True)
        self.log_path = os.path.join(self.dir, name + ".log")
        qemu = shutil.which("qemu-system-x86_64")
        if not qemu:
            pytest.skip("qemu-system-x86_64 is not installed")
        argv = ["timeout", str(int(self.limit)), qemu, "-machine", machine, "-accel", "tcg",
                "-cpu", cpu, "-smp", str(smp), "-m", mem, "-nodefaults", "-display", "none",
                "-serial", "stdio"]
        if not reboot:
            argv.append("-no-reboot")
        if iso is not None:
            boot = ["-cdrom", iso]
        if boot is None:
            initrd = os.path.join(self.dir, name + ".cpio")
            argv += ["-kernel", KERNEL, "-append", cmdline]
            if modules is not None:
                archive = Archive()
                for k, v in modules.items():
                    archive.file(k, v if isinstance(v, bytes) else v.encode())
                archive.write(initrd)
                argv += ["-initrd", initrd]
        else:
            argv += boot
        self.socket = os.path.join(self.dir, name + ".sock")
        if monitor:
            if os.path.exists(self.socket):
                os.remove(self.socket)
            argv += ["-monitor", "unix:%s,server,nowait" % self.socket]
        self.argv = argv + list(extra)
        self.child = None

    def __enter__(self):
        self.log = open(self.log_path, "w", encoding="utf-8", errors="replace")
        self.child = pexpect.spawn(self.argv[0], self.argv[1:], encoding="utf-8",
                                   codec_errors="replace", timeout=self.limit, echo=False,
                                   dimensions=(50, 200))
        self.child.delaybeforesend = None
        self.child.logfile_read = self.log
        return self

    def __exit__(self, *exc):
        self.child.close(force=True)
        self.log.close()
        return False

    def expect(self, pattern, timeout=None):
        """Wait for a regular expression (or list of them); fails with the log's name and tail."""
        try:
            return self.child.expect(pattern, timeout=self.limit if timeout is None
                                     else timeout * SLOW)
        except (pexpect.TIMEOUT, pexpect.EOF) as e:
            tail = self.text()[-2500:]
            if isinstance(e, pexpect.EOF):
                self.child.close()
                if signal.SIGSEGV in (self.child.signalstatus, (self.child.exitstatus or 0) - 128):
                    raise EmulatorCrash("the emulator itself crashed; log %s ends:\n%s" %
                                        (self.log_path, tail)) from None
            pytest.fail("%s while waiting for %r; log %s ends:\n%s" %
                        (type(e).__name__, pattern, self.log_path, tail), pytrace=False)

    @property
    def match(self):
        return self.child.match

    def prompt(self, timeout=None):
        """Wait for the shell."""
        self.expect(re.escape(PROMPT), timeout)

    def send(self, text):
        self.child.send(text)

    def command(self, line, timeout=60):
        """Run one shell command; its output as a string."""
        # The shell echoes what is typed: the answer starts behind the echo.
        self.send(line + "\r")
        self.expect(re.escape(line) + r"\r*\n", timeout)
        self.expect(re.escape(PROMPT), timeout)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.child.before).replace("\r", "")

    def guest_shell(self, name, line, pattern=None, timeout=120):
        """One line to a Linux guest's shell; its answer, or the match of what it must contain."""
        # A console shows what came before: the answer is told by its number.
        self.lines_asked += 1
        end = "end-%d" % self.lines_asked
        self.send("console %s\r" % name)
        self.expect("Ctrl-")
        self.send("\r")
        self.expect(r"%s:[^\r\n]*# " % name)
        self.send("echo be''gin-%d; %s; echo e''%s\r" % (self.lines_asked, line, end[1:]))
        self.expect("begin-%d\r" % self.lines_asked, timeout)
        self.expect(end + "\r", timeout)
        answer = self.child.before
        self.send("\x1d")
        self.prompt()
        if pattern is None:
            return answer
        found = re.search(pattern, answer)
        assert found, answer
        return found

    def monitor(self, *lines, pause=0.2):
        """Give lines to the emulator's own monitor (constructed with monitor=True); each has been
        carried out on return. A connection that is closed earlier takes what was not read with it."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60 * SLOW)
            s.connect(self.socket)
            self._monitor_prompt(s)
            for line in lines:
                time.sleep(pause)
                s.sendall((line + "\n").encode())
                self._monitor_prompt(s)

    def _monitor_prompt(self, s):
        got = b""
        while not got.endswith(b"(qemu) "):
            try:
                more = s.recv(4096)
            except TimeoutError:
                more = b""
            if not more:
                pytest.fail("the emulator's monitor says no more than %r; see %s" % (got[-300:], self.log_path),
                            pytrace=False)
            got += more

    def wait_for(self, line, pattern, timeout=60, every=0.5):
        """Repeat a shell command until its output matches; the match object."""
        end = time.monotonic() + timeout * SLOW
        while True:
            out = self.command(line)
            m = re.search(pattern, out)
            if m:
                return m
            if time.monotonic() > end:
                pytest.fail("%r never matched %r; last output:\n%s" % (line, pattern, out),
                            pytrace=False)
            time.sleep(every)

    def wait_log(self, patterns, timeout=60):
        """Until each pattern has come over the serial port: the log is printed by a thread of its own,
        behind what the shell answers."""
        end = time.monotonic() + timeout * SLOW
        while True:
            text = self.text()
            missing = [p for p in patterns if not re.search(p, text)]
            if not missing:
                return text
            if time.monotonic() > end:
                pytest.fail("never logged: %r; log %s says:\n%s" %
                            (missing[:3], self.log_path, self.told(text)), pytrace=False)
            time.sleep(0.5)
            self.command("version")

    @staticmethod
    def told(text, lines=60):
        """The last lines that the hypervisor or a guest logged, without the shell's answers."""
        return "\n".join(re.findall(r"^(?:ballast> )?(\[ *\d+\.\d+\] .*?)\r*$", text, re.M)[-lines:])

    def wait_text(self, pattern, timeout=None):
        """Until the pattern has come over the serial port, without a word to the machine."""
        if not re.search(pattern, self.text()):
            self.expect(pattern, timeout)

    def pause(self, seconds):
        """Let the machine run. What it says is read meanwhile, for a serial port that nobody reads
        holds it up."""
        self.expect(pexpect.TIMEOUT, seconds)

    def note(self, text):
        """A figure for the reader: on the standard output and in the log."""
        print(text)
        self.log.write("\n# " + text + "\n")

    def poweroff(self):
        """Leave by the shell; the emulator must end by itself."""
        self.send("poweroff\r")
        self.expect_end()

    def expect_end(self, timeout=30):
        try:
            self.child.expect(pexpect.EOF, timeout=timeout * SLOW)
        except pexpect.TIMEOUT:
            pytest.fail("the machine did not power off; see " + self.log_path, pytrace=False)

    def text(self):
        self.log.flush()
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()


def conf(*sections, **host):
    """A ballast.conf: host options as keywords, VMs as (name, dict)."""
    lines = ["%s = %s" % kv for kv in host.items()]
    for name, keys in sections:
        lines.append("[%s]" % name)
        lines += ["%s = %s" % kv for kv in keys.items()]
    return "\n".join(lines) + "\n"


def number(text, pattern):
    """The whole number that is the pattern's group; fails with the text."""
    found = re.search(pattern, text)
    assert found, text
    return int(found.group(1))


# Linux tests its ciphers at boot, which takes as long as all the rest: test_linux_one lets it, on
# nested paging.
NO_SELF_TESTS = "cryptomgr.notests"


def linux_vm(name, self_tests=False, **keys):
    base = {"memory": "256M", "kernel": "vmlinuz", "initrd": "initrd.img",
            "cmdline": '"console=ttyS0 quiet pci=off name=%s"' % name}
    base.update(keys)
    if not self_tests:
        base["cmdline"] = '"%s %s"' % (base["cmdline"].strip('"'), NO_SELF_TESTS)
    return name, base
