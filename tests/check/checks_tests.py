# SPDX-License-Identifier: BSD-2-Clause
"""What boot tests promise about themselves."""

import ast
import glob
import os
import re

from checks_text import verdict

# In the docstring of a test or of its file: "(QEMU only: its monitor ...)".
REASON = re.compile(r"\b(QEMU|Bochs|SVM|VMX) only:|\(Not on ")


def _vendors(decorator):
    """The vendors of @runs_on(svm=..., shadow_vmx=..., **SOMETHING); None: only pytest knows."""
    names = [k.arg for k in decorator.keywords]
    if None in names:
        return None
    return {"svm" if "svm" in name else "vmx" for name in names}


def both_vendors():
    """Every scenario runs on both vendors, or says why not."""
    problems = []
    for path in sorted(glob.glob("tests/boot/test_*.py")):
        with open(path, encoding="utf-8") as f:
            tree = ast.parse(f.read())
        reasons = ast.get_docstring(tree) or ""
        for test in [n for n in tree.body if isinstance(n, ast.FunctionDef)]:
            for decorator in test.decorator_list:
                if getattr(getattr(decorator, "func", None), "id", "") != "runs_on":
                    continue
                said = reasons + (ast.get_docstring(test) or "")
                if _vendors(decorator) not in (None, {"svm", "vmx"}) and not REASON.search(said):
                    problems.append("%s:%d: %s runs on one vendor and does not say why" %
                                    (os.path.normpath(path), test.lineno, test.name))
    yield verdict("boot tests run on both vendors, or say why not", problems)
