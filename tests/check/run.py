#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""All static checks of the tree: `make check`, or `make check CHECKS="layers headers"` for some.

Each check yields (status, name, detail) with status PASS, FAIL or SKIP; a missing tool is a SKIP with
its reason. The last line counts them. The environment carries BUILD and MAKE from the Makefile.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
import checks_build  # noqa: E402
import checks_tests  # noqa: E402
import checks_text  # noqa: E402

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))

CHECKS = {
    "layers": checks_text.layers,
    "vendors": checks_text.vendors,
    "spdx": checks_text.spdx,
    "markers": checks_text.markers,
    "once": checks_text.pragma_once,
    "configuration": checks_text.configuration,
    "platforms": checks_tests.both_vendors,
    "format": checks_build.clang_format,
    "headers": checks_build.headers,
    "warnings": checks_build.warnings,
    "image": checks_build.image,
}


def main():
    os.chdir(ROOT)
    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    names = sys.argv[1:] or list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        sys.exit(f"unknown checks {unknown}; there are: {', '.join(CHECKS)}")
    for name in names:
        for status, what, detail in CHECKS[name]():
            counts[status] += 1
            print(f"{status} {what}" + (f": {detail}" if detail else ""), flush=True)
    skipped = f", {counts['SKIP']} skipped" if counts["SKIP"] else ""
    print(f"check: {counts['PASS']} passed, {counts['FAIL']} failed{skipped}")
    sys.exit(1 if counts["FAIL"] else 0)


main()
