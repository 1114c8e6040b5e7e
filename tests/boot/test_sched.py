# SPDX-License-Identifier: BSD-2-Clause
"""Threads, timers and processors: the hypervisor's own self-test, on several numbers of processors."""

import pytest

from platforms import runs_on


@runs_on(svm={}, vmx={"limit": 500, "ips": 40000000, "long": True})
@pytest.mark.parametrize("smp", [1, 2, pytest.param(4, marks=pytest.mark.long),
                                 pytest.param(8, marks=pytest.mark.long)])
def test_sched_selftest(on, smp):
    with on.machine(smp=smp, mem="256M", cmdline="selftest=sched") as m:
        m.expect(r"selftest sched: \d+ of \d+ passed on %d processors" % smp, on.get("limit", 120) - 10)
        assert "selftest sched: FAIL" not in m.text()
        m.prompt()
        m.poweroff()
