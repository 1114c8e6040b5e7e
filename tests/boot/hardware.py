# SPDX-License-Identifier: BSD-2-Clause
"""Boot tests on hardware virtualisation: `make test-hw ACCEL=kvm`.

As a program, says why that cannot be, or nothing. As a pytest plug-in, runs the scenarios of
platforms.py on the platform that the host's processor is, in QEMU with `-accel kvm -cpu host`; what
asks for an emulator by itself is left out.
"""

import os
import re
import sys

CPUINFO = "/proc/cpuinfo"
KVM = "/dev/kvm"
NESTED = {"svm": "/sys/module/kvm_amd/parameters/nested", "vmx": "/sys/module/kvm_intel/parameters/nested"}


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""


def vendor():
    """The kind of virtualisation that the host's processor offers, or None."""
    flags = re.search(r"^flags\s*:(.*)$", read(CPUINFO), re.M)
    for name in NESTED:
        if flags and name in flags.group(1).split():
            return name
    return None


def missing(accel):
    """Why the tests cannot run on hardware; empty if they can. Starts nothing."""
    if accel != "kvm":
        return "ACCEL=%s is no hardware virtualisation; use ACCEL=kvm" % accel
    if not os.path.exists(KVM):
        return "there is no " + KVM
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "no right to read and write " + KVM
    kind = vendor()
    if kind is None:
        return "the processor offers neither SVM nor VMX (%s)" % CPUINFO
    if read(NESTED[kind]).strip() not in ("1", "Y", "y"):
        return "%s is not 1: KVM offers its guests no virtualisation" % NESTED[kind]
    return ""


def use_hardware(kind):
    """Make platform `kind` the hardware."""
    import platforms
    from machine import Machine

    class HardwareMachine(Machine):
        """QEMU on KVM, whatever model of an emulator the scenario asks for."""

        def __init__(self, name, cpu=None, extra=(), ips=None, **arguments):
            del cpu, ips
            super().__init__(name, cpu="host", extra=() if isinstance(extra, str) else extra,
                             **arguments)
            self.argv[self.argv.index("-accel") + 1] = "kvm"

    platforms.PLATFORMS[kind] = (HardwareMachine, "host")


def pytest_configure():
    use_hardware(vendor())


def pytest_collection_modifyitems(config, items):
    """Keep the scenarios of this platform."""
    kind = vendor()

    def is_ours(item):
        on = getattr(item, "callspec", None) and item.callspec.params.get("on")
        return bool(on) and on[0] == kind and item.get_closest_marker("emulated") is None

    config.hook.pytest_deselected(items=[i for i in items if not is_ours(i)])
    items[:] = [i for i in items if is_ours(i)]


if __name__ == "__main__":
    print(missing(sys.argv[1] if len(sys.argv) > 1 else ""))
