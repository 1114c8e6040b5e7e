# SPDX-License-Identifier: BSD-2-Clause
"""pytest set-up of the boot tests."""


def pytest_configure(config):
    config.addinivalue_line("markers", "long: only in `make test-all`, or when named by K=")
