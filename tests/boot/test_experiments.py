# SPDX-License-Identifier: BSD-2-Clause
"""Published experiments in small: `make experiments` draws them too (tests/experiments/). QEMU only: its -icount
is their clock, and its second serial port writes their numbers to a file."""

import importlib
import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../experiments"))


def _run(name):
    result = importlib.import_module(name).run()
    for text, good in result.checks:
        print("%s %s" % ("ok " if good else "NOT", text))
    result.write()
    assert result.holds, [text for text, good in result.checks if not good]


@pytest.mark.long
def test_svm_sampling_staircase():
    """Figure 6: the estimate follows fast upwards, slowly downwards, without bias."""
    _run("sampling_staircase")


@pytest.mark.long
def test_svm_idle_tax_two_vms():
    """Figure 7: an idle VM of equal shares gives way to a busy one, by the tax."""
    _run("idle_tax_two_vms")


@pytest.mark.long
def test_svm_dynamic_reallocation():
    """Figure 8: sharing takes the boot spike, balloons take over, an idle VM falls to its minimum and
    comes back."""
    _run("dynamic_reallocation")
