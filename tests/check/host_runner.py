#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Run the host test programs named as arguments, one per processor at a time; show what failed; end
with one summary line.

Each program is a cmocka runner under AddressSanitizer and UndefinedBehaviorSanitizer. A program
that dies without cmocka's own count is one failure. ThreadSanitizer forgets old accesses' stacks; a report
without one can neither be matched with tests/host/tsan.supp nor be judged, and is shown only.
"""
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_SECONDS = 300
TSAN_EXIT_CODE = 66
TSAN_REPORT = "WARNING: ThreadSanitizer"


def judged(text):
    """Whether ThreadSanitizer has a report with the stacks of both accesses."""
    reports = text.split(TSAN_REPORT)[1:]
    return not reports or any("[failed to restore the stack]" not in r for r in reports)


def run(program):
    environment = dict(os.environ, UBSAN_OPTIONS="print_stacktrace=1", ASAN_OPTIONS="detect_leaks=1")
    start = time.monotonic()
    try:
        done = subprocess.run([program], capture_output=True, text=True, errors="replace",
                              env=environment, timeout=TIMEOUT_SECONDS)
        text, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired:
        text, code = f"no end after {TIMEOUT_SECONDS} s\n", 124
    counts = {kind: len(re.findall(rf"^\[\s*{kind}\s*\] (?!\d)", text, re.M))
              for kind in ("OK", "FAILED", "SKIPPED")}
    failed = len(set(re.findall(r"^\[\s*FAILED\s*\] (?!\d)(\S+)", text, re.M)))
    if code != 0 and failed == 0 and (code != TSAN_EXIT_CODE or judged(text)):
        failed = 1
    return counts["OK"], failed, counts["SKIPPED"], code, text, time.monotonic() - start


def main():
    passed = failed = skipped = 0
    programs = sys.argv[1:]
    for program, result in zip(programs, ThreadPoolExecutor(os.cpu_count()).map(run, programs)):
        ok, bad, skip, code, text, seconds = result
        passed, failed, skipped = passed + ok, failed + bad, skipped + skip
        print(f"{os.path.basename(program):32} {ok} passed, {bad} failed, {skip} skipped"
              f"  ({seconds:.1f} s)")
        if bad or code:
            print(text)
            print(f"(exit code {code})")
    print(f"host tests: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
