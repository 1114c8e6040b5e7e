# SPDX-License-Identifier: BSD-2-Clause
"""pytest set-up of the boot tests."""

import resource

import pytest

import platforms


def pytest_configure(config):
    config.addinivalue_line("markers", "long: only in `make test-all`, or when named by K=")
    config.addinivalue_line("markers", "named: only with NAMED=1, or when named by K=")
    config.addinivalue_line("markers", "emulated: not in `make test-hw`")
    config.addinivalue_line("markers", "runs_on(PLATFORM={...}): where a scenario runs")


def pytest_generate_tests(metafunc):
    if "on" in metafunc.fixturenames:
        platforms.parametrize(metafunc)


@pytest.fixture
def on(request):
    """The platform of a scenario."""
    platform, values = request.param
    return platforms.On(platform, request.node.callspec.id, values)


def pytest_collection_modifyitems(items):
    """The longest tests first, so that emulators side by side end together."""
    items.sort(key=platforms.patience, reverse=True)


# ---- What each test costs: processor seconds of its emulators, which do not depend on other load ----

SHOWN = 15


def _spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    before = _spent()
    yield
    item.user_properties.append(("cpu_s", _spent() - before))


def pytest_terminal_summary(terminalreporter):
    costs = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "cpu_s":
                    costs[report.nodeid.rpartition("::")[2]] = value
    if costs:
        terminalreporter.section("processor seconds: %.0f in all" % sum(costs.values()))
        for test, value in sorted(costs.items(), key=lambda c: -c[1])[:SHOWN]:
            terminalreporter.write_line("%8.1f  %s" % (value, test))
