# SPDX-License-Identifier: BSD-2-Clause
"""pytest set-up of the boot tests."""

import pytest

import platforms


def pytest_configure(config):
    config.addinivalue_line("markers", "long: only in `make test-all`, or when named by K=")
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
