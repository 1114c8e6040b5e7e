#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Bochs as a machine: its configuration, and a run with COM1 on this terminal.

Debian's Bochs contains its debugger, which must be told to go on (-rc), and has no way to go without
a display: a VNC server that nobody looks at. COM1 is the far end of a pseudo-terminal, so that input
works as well as output. Whatever the guest does, Bochs ends with exit code 1.

    tools/bochs_run.py --cpu corei7_skylake_x --smp 2 --mem 1G build/ballast.iso
"""

import argparse
import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import termios
import threading
import tty

SHARE = "/usr/share/bochs"

CONFIG = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
romimage: file={share}/BIOS-bochs-latest
vgaromimage: file={share}/VGABIOS-lgpl-latest
memory: guest={mib}, host={host_mib}
cpu: model={model}, count={smp}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=0
clock: sync=none, time0=1700000000
ata0-master: type=cdrom, path="{iso}", status=inserted
boot: cdrom
com1: enabled=1, mode=term, dev={tty}
log: "{log}"
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
sound: waveoutdrv=dummy
speaker: enabled=0
{extra}
"""

# Guest memory that Bochs keeps in its own; it pages the rest to a file.
HOST_MIB_MAX = 2048


def mebibytes(text):
    """'1G' or '512M' as a number of MiB."""
    match = re.fullmatch(r"([1-9]\d*)([GM])", text)
    if match is None:
        sys.exit("memory %s: accepted: a number with M or G, as 512M or 2G" % text)
    number, unit = match.groups()
    return int(number) * (1024 if unit == "G" else 1)


def write_config(directory, name, iso, tty_path, model, smp=1, mem="1G", ips=100000000, extra=""):
    """Write NAME.bochsrc and its companion into directory; the command line that runs it."""
    mib = mebibytes(mem)
    base = os.path.join(directory, name)
    with open(base + ".bochsrc", "w", encoding="utf-8") as f:
        f.write(CONFIG.format(share=SHARE, mib=mib, host_mib=min(mib, HOST_MIB_MAX), model=model,
                              smp=smp, ips=ips, iso=iso, tty=tty_path, log=base + ".bochs.log",
                              extra=extra))
    with open(base + ".bochs.rc", "w", encoding="utf-8") as f:
        f.write("c\n")
    return ["bochs", "-q", "-f", base + ".bochsrc", "-rc", base + ".bochs.rc"]


class Run:
    """A running Bochs; `fd` is this side of COM1, and reads as ended once Bochs has ended."""

    def __init__(self, directory, name, iso, model, limit=None, **options):
        self.fd, far = os.openpty()
        tty.setraw(far)
        argv = write_config(directory, name, iso, os.ttyname(far), model, **options)
        if limit is not None:
            argv = ["timeout", str(int(limit)), *argv]
        self.output = open(os.path.join(directory, name + ".bochs.out"), "wb")
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.output,
                                        stderr=subprocess.STDOUT)
        # The line must stay open until Bochs opens it, and end when Bochs does.
        self.waiter = threading.Thread(target=self._wait, args=(far,), daemon=True)
        self.waiter.start()

    def _wait(self, far):
        self.process.wait()
        os.close(far)

    def close(self):
        self.process.terminate()
        self.waiter.join()
        with contextlib.suppress(OSError):  # a reader that met its end has closed it
            os.close(self.fd)
        self.output.close()


def _console(fd):
    """Connect this terminal with COM1 until the machine ends or Ctrl-A x is typed."""
    keys = sys.stdin.fileno()
    saved = termios.tcgetattr(keys) if os.isatty(keys) else None
    escape = False
    sources = [fd, keys]
    if saved:
        tty.setraw(keys)
    try:
        while True:
            ready, _, _ = select.select(sources, [], [])
            if fd in ready:
                try:
                    os.write(sys.stdout.fileno(), os.read(fd, 4096))
                except OSError:
                    return
            if keys in ready:
                data = os.read(keys, 1)
                if not data:
                    sources = [fd]
                elif escape and data == b"x":
                    return
                elif data == b"\x01" and not escape:
                    escape = True
                else:
                    escape = False
                    os.write(fd, data)
    finally:
        if saved:
            termios.tcsetattr(keys, termios.TCSADRAIN, saved)


def models():
    """The names of the processors that Bochs knows."""
    out = subprocess.run(["bochs", "--help", "cpu"], stdin=subprocess.DEVNULL, capture_output=True,
                         text=True, errors="replace", check=False)
    return re.findall(r"^(\w+)$", out.stdout + out.stderr, re.M)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("iso")
    parser.add_argument("--cpu", default="corei7_skylake_x", help="a model of `bochs --help cpu`")
    parser.add_argument("--smp", type=int, default=1)
    parser.add_argument("--mem", default="1G")
    parser.add_argument("--dir", default=".", help="for configuration and log")
    args = parser.parse_args()
    if not shutil.which("bochs"):
        sys.exit("bochs is not installed: make deps")
    if args.cpu not in models():
        sys.exit("Bochs has no processor %r; it has: %s" % (args.cpu, " ".join(models())))
    run = Run(args.dir, "run", os.path.abspath(args.iso), args.cpu, smp=args.smp, mem=args.mem)
    try:
        _console(run.fd)
    finally:
        run.close()


if __name__ == "__main__":
    main()
