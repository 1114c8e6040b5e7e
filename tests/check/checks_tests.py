# SPDX-License-Identifier: BSD-2-Clause
"""What boot tests promise about themselves."""

import ast
import glob
import os
import re

from checks_text import verdict

# In the docstring of a test or of its file: "(QEMU only: its monitor ...)".
REASON = re.compile(r"\b(QEMU|Bochs|SVM|VMX) only:|\(Not on ")


def _vendors(test):
    """The vendors of @runs_on(svm=..., shadow_vmx=..., **SOMETHING), or the one that the test is named
    after; None: either, or only pytest knows."""
    for decorator in test.decorator_list:
        if getattr(getattr(decorator, "func", None), "id", "") == "runs_on":
            names = [k.arg for k in decorator.keywords]
            return None if None in names else {"svm" if "svm" in n else "vmx" for n in names}
    named = re.match(r"test_(svm|vmx)_", test.name)
    return {named[1]} if named else None


def both_vendors():
    """Every scenario runs on both vendors, or says why not."""
    problems = []
    for path in sorted(glob.glob("tests/boot/test_*.py")):
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        reasons = ast.get_docstring(tree) or ""
        for test in [n for n in tree.body if isinstance(n, ast.FunctionDef)]:
            said = reasons + (ast.get_docstring(test) or "")
            if _vendors(test) not in (None, {"svm", "vmx"}) and not REASON.search(said):
                problems.append("%s:%d: %s runs on one vendor and does not say why" %
                                (os.path.normpath(path), test.lineno, test.name))
    yield verdict("boot tests run on both vendors, or say why not", problems)
