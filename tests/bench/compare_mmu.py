#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""compare_mmu.py BENCH_CSV: the rows of memory and page tables, nested paging beside the software MMU, in
instructions of the same emulated machine, from what `make bench` wrote.
"""
import csv
import sys

NESTED, SHADOW = "svm-npt", "svm-shadow"
WORDS = ("fresh", "mapped", "pte", "invlpg", "#PF", "map", "cr3", "tlb flush", "inside")


def main():
    columns = {NESTED: {}, SHADOW: {}}
    order = []
    with open(sys.argv[1], encoding="utf-8", newline="") as f:
        for line in csv.DictReader(f):
            if line["machine"] in columns and line["ours"]:
                columns[line["machine"]][line["row"]] = int(line["ours"])
                if line["row"] not in order:
                    order.append(line["row"])
    rows = [r for r in order if r in columns[NESTED] and r in columns[SHADOW] and
            any(w.lower() in r.lower() for w in WORDS)]
    if not rows:
        sys.exit("%s: no rows of both %s and %s" % (sys.argv[1], NESTED, SHADOW))
    print("%-44s %10s %10s %8s" % ("row (instructions, median)", "nested", "shadow", "ratio"))
    for row in rows:
        nested, shadow = columns[NESTED][row], columns[SHADOW][row]
        ratio = shadow / max(nested, 1)
        print("%-44s %10d %10d %8.1f %s" % (row, nested, shadow, ratio, "#" * min(int(ratio).bit_length(), 12)))


if __name__ == "__main__":
    main()
