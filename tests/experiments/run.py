#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Runs the experiments (all, or those of EXPERIMENTS="NAME ...") and writes build/experiments/: a CSV and a
picture of each, summary.csv, and index.html with every picture beside the published outcome."""

import csv
import html
import importlib
import json
import os
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lab  # noqa: E402

NAMES = ("sampling_staircase", "idle_tax_two_vms", "dynamic_reallocation", "balloon_or_native",
         "sharing_clones")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Ballast: experiments</title>
<style>body{font:15px/1.45 sans-serif;max-width:62em;margin:2em auto;padding:0 1em}
img{max-width:100%%}h2{border-top:1px solid #ccc;padding-top:1em}.yes{color:#067d4f}.no{color:#b22222}
td,th{text-align:left;padding:.15em 1em .15em 0}</style></head><body>
<h1>The experiments of "Memory Resource Management in VMware ESX Server", in small</h1>
<p>Each in an emulator that counts time by instructions, but for Figure 4. A figure holds if its shape is found: not its
numbers, which belong to another machine and other guests.</p>
<table><tr><th>experiment</th><th>figure</th><th>holds</th></tr>%s</table>%s</body></html>
"""
ROW = '<tr><td><a href="#%s">%s</a></td><td>%s</td><td class="%s">%s</td></tr>'
SECTION = """<h2 id="%s">%s: %s</h2>
<p><b>Published.</b> %s</p><p><b>Here.</b> %s</p><ul>%s</ul>
<p><img src="%s.svg" alt="%s"></p><p><a href="%s.csv">numbers</a></p>
"""


def keep(r):
    """So that a page made by a later run of another experiment shows this one too."""
    with open(os.path.join(lab.OUT, r.name + ".json"), "w", encoding="utf-8") as f:
        json.dump({k: getattr(r, k) for k in ("name", "figure", "published", "setup", "checks")}, f)


def kept():
    """The last results of all experiments, in order."""
    for name in NAMES:
        path = os.path.join(lab.OUT, name + ".json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                d = json.load(f)
            r = lab.Result(d["name"], d["figure"], d["published"], d["setup"])
            r.checks = d["checks"]
            yield r


def section(r):
    checks = "".join('<li class="%s">%s: %s</li>' % ("yes" if good else "no", "holds" if good else "does not",
                                                     html.escape(text)) for text, good in r.checks)
    return SECTION % (r.name, html.escape(r.name), r.figure, html.escape(r.published), html.escape(r.setup),
                      checks, r.name, r.name, r.name)


def write(results):
    with open(os.path.join(lab.OUT, "summary.csv"), "w", newline="", encoding="utf-8") as f:
        out = csv.writer(f)
        out.writerow(["experiment", "holds", "figure"])
        out.writerows([r.name, "yes" if r.holds else "no", r.figure] for r in results)
    rows = "".join(ROW % (r.name, r.name, r.figure, "yes" if r.holds else "no", "yes" if r.holds else "no")
                   for r in results)
    with open(os.path.join(lab.OUT, "index.html"), "w", encoding="utf-8") as f:
        f.write(PAGE % (rows, "".join(map(section, results))))


def failed(name, error):
    """The result of an experiment that broke off."""
    r = lab.Result(name, "-", "", "")
    r.check(False, "it broke off: %s", error)
    return r


def main():
    wanted = os.environ.get("EXPERIMENTS", "").split() or list(NAMES)
    unknown = [n for n in wanted if n not in NAMES]
    if unknown:
        sys.exit("experiments: no %s; there are: %s" % (unknown[0], ", ".join(NAMES)))
    os.makedirs(lab.OUT, exist_ok=True)
    results = []
    for name in wanted:
        print("RUN   %s" % name, flush=True)
        try:
            r = importlib.import_module(name).run()
            r.write()
        except BaseException as e:  # pytest's failures are no Exceptions
            if isinstance(e, KeyboardInterrupt):
                raise
            traceback.print_exc()
            r = failed(name, e)
        for text, good in r.checks:
            print("      %s %s" % ("ok  " if good else "NOT ", text))
        print("%s  %s (%s)" % ("HOLDS" if r.holds else "FAILS", name, r.figure), flush=True)
        results.append(r)
        keep(r)
        write(list(kept()))
    print("experiments: %d hold, %d do not; see %s" % (sum(r.holds for r in results),
          sum(not r.holds for r in results), os.path.join(lab.OUT, "index.html")))
    sys.exit(0 if all(r.holds for r in results) else 1)


if __name__ == "__main__":
    main()
