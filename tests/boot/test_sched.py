# SPDX-License-Identifier: BSD-2-Clause
"""Threads, timers and processors: the hypervisor's own self-test, on several numbers of processors."""

import pytest

from machine import Machine


@pytest.mark.parametrize("smp", [1, 2, pytest.param(4, marks=pytest.mark.long),
                                 pytest.param(8, marks=pytest.mark.long)])
def test_sched_selftest(smp):
    with Machine("sched_selftest_%d" % smp, smp=smp, mem="256M", limit=120,
                 cmdline="selftest=sched") as m:
        m.expect(r"selftest sched: \d+ of \d+ passed on %d processors" % smp, 110)
        assert "selftest sched: FAIL" not in m.text()
        m.prompt()
        m.poweroff()
