# SPDX-License-Identifier: BSD-2-Clause
"""Where a scenario runs. It is written once, and says as data on which platforms and how large:

    @runs_on(svm={"smp": 2, "mem": "2G", "vms": 100}, vmx={"smp": 2, "vms": 20, "long": True})
    def test_many(on):
        with on.machine(modules=...) as m:
            ... on["vms"] ...

makes the tests svm_many and vmx_many. The keys are arguments of the platform's machine, sizes that the
scenario asks for, `mmu` for the kind that each VM has (shadow_X then runs on the processor of X, which has
nested paging), `long` for what runs in `make test-all` only, `named` for what runs only with NAMED=1 or when K=
names it (many minutes, of what other tests show as well), and `emulated` for what asks for an emulator
or for one of its processors: `make test-hw` leaves it out. A list of such values makes a
test of each, told apart by its processor, or by the key `id`. A scenario without a platform says why in its docstring.
"""

import re

import pytest

from bochs import BochsMachine
from machine import Machine

runs_on = pytest.mark.runs_on

# Name, the emulator's class, its processor unless the scenario names one.
PLATFORMS = {
    "svm": (Machine, "EPYC,+svm"),
    "vmx": (BochsMachine, "corei7_skylake_x"),
    "svm_bochs": (BochsMachine, "ryzen"),
    "shadow_svm": (Machine, "qemu64,+svm,-npt"),
    "shadow_svm_bochs": (BochsMachine, "turion64_tyler"),
    "shadow_vmx": (BochsMachine, "core2_penryn_t9600"),
}

# With its preemption timer Bochs ends the turn of a guest that keeps interrupts off; Penryn has none (README).
PREEMPTED = {"cpu": "corei7_skylake_x", "mmu": "software"}

MACHINE_KEYS = ("cpu", "smp", "mem", "limit", "machine", "extra", "cmdline", "ips")
MARKS = ("long", "named", "emulated")
DEFAULT_LIMIT = 120


class On:
    """One platform for one test: its name, its sizes and its machine."""

    def __init__(self, platform, test_id, values):
        self.platform = platform
        self.name = re.sub(r"[^\w.]+", "_", test_id)
        model = platform.removeprefix("shadow_") if values.get("mmu") else platform
        self._values = {"cpu": PLATFORMS[model][1], "limit": DEFAULT_LIMIT, **values}

    def __getitem__(self, key):
        return self._values[key]

    def get(self, key, default=None):
        """As of a dict."""
        return self._values.get(key, default)

    @property
    def vendor(self):
        """The kind of virtualisation: svm or vmx."""
        return self.platform.removeprefix("shadow_").partition("_")[0]

    def machine(self, suffix="", **arguments):
        """The machine that the platform's values describe, `arguments` first; `suffix` tells a
        test's machines apart."""
        values = {k: v for k, v in self._values.items() if k in MACHINE_KEYS}
        values.update(arguments)
        if self.get("mmu"):
            text = values["modules"]["ballast.conf"]
            text = re.sub(r"^\[.*\]$", r"\g<0>\nmmu = " + self["mmu"], text, flags=re.M)
            values["modules"] = {**values["modules"], "ballast.conf": text}
        return PLATFORMS[self.platform][0](self.name + suffix, **values)


def parametrize(metafunc):
    """Give a scenario one parameter set per platform, named PLATFORM_SCENARIO."""
    marker = metafunc.definition.get_closest_marker("runs_on")
    scenario = metafunc.function.__name__[len("test_"):]
    params = []
    for platform, given in marker.kwargs.items():
        for values in given if isinstance(given, list) else [given]:
            test_id = "%s_%s" % (platform, scenario)
            if isinstance(given, list):
                test_id += "-" + values.get("id", values.get("cpu"))
            marks = [getattr(pytest.mark, m) for m in MARKS if values.get(m)]
            params.append(pytest.param((platform, values), id=test_id, marks=marks))
    metafunc.parametrize("on", params, indirect=True)


def patience(item):
    """The longest that a test may take, in seconds: what to start first."""
    marker = item.get_closest_marker("runs_on")
    if not marker or not hasattr(item, "callspec") or "on" not in item.callspec.params:
        return 0
    return item.callspec.params["on"][1].get("limit", DEFAULT_LIMIT)
