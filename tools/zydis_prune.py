#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Cut Zydis' decoder tables down to what the emulator can execute.

usage: zydis_prune.py ZYDIS_SOURCE OUTPUT

Zydis decodes with a tree of filters. Two thirds of its nodes describe vector extensions behind VEX, XOP
and EVEX prefixes, none of which the emulator executes: it cannot emulate them whether they decode or
not. Here they become invalid, rows that the root no longer reaches are dropped and equal rows are
written once; everything else decodes exactly as before. OUTPUT receives DecoderTables.inc and
InstructionDefinitions.inc, which tools/third_party.mk lets the compiler find before Zydis' own.
"""
import os
import re
import sys

NODE = re.compile(r"ZYDIS_INVALID|ZYDIS_(FILTER|DEFINITION)\((\w+), 0x([0-9A-F]+)\)")
TABLE = re.compile(r"const ZydisDecoderTreeNode FILTERS_(\w+)\[\]\[(\d+)\] =\n\{\n(.*?)\n\};", re.S)
DEFINITIONS = re.compile(r"(const \w+ ISTR_DEFINITIONS_(?:VEX|XOP)\[\] =\n\{\n)(.*?)(\n\};)", re.S)
# Their child 0 is the old instruction of that byte (LES, LDS, POP, BOUND); the others are extensions.
ESCAPES = ("VEX", "XOP", "EMVEX")
TYPE = "ZYDIS_NODETYPE_FILTER_"


def parse(text):
    """Rows of nodes of each table, by its name."""
    tables = {}
    for name, width, body in TABLE.findall(text):
        tables[name] = [[m.group(0) for m in NODE.finditer(row)] for row in body.split("\n")]
        if any(len(row) != int(width) for row in tables[name]):
            sys.exit(f"zydis_prune: FILTERS_{name} is not of the expected form")
    return tables


def prune(tables):
    """The same, of what is reached from row 0 of OPCODE; rows are numbered anew, as they are visited."""
    kept = {name: [] for name in tables}
    numbers = {name: {} for name in tables}  # a row's new number, by its old one and by its content

    def visit(name, old):
        if old in numbers[name]:
            return numbers[name][old]
        row = tables[name][old]
        if name in ESCAPES:
            row = row[:1] + ["ZYDIS_INVALID"] * (len(row) - 1)
        root = name == "OPCODE" and old == 0
        if root:  # which keeps its number
            kept[name].append(None)
        done = tuple(NODE.sub(renumber, node) for node in row)
        if root:
            kept[name][0] = done
            new = 0
        elif done in numbers[name]:
            new = numbers[name][done]
        else:
            new = len(kept[name])
            kept[name].append(done)
        numbers[name][old] = numbers[name][done] = new
        return new

    def renumber(m):
        if m.group(1) != "FILTER":
            return m.group(0)
        return f"ZYDIS_FILTER({m.group(2)}, 0x{visit(m.group(2).removeprefix(TYPE), int(m.group(3), 16)):X})"

    visit("OPCODE", 0)
    return kept


def main():
    generated, output = os.path.join(sys.argv[1], "src", "Generated"), sys.argv[2]
    with open(os.path.join(generated, "DecoderTables.inc"), encoding="ascii") as f:
        tables = parse(f.read())
    with open(os.path.join(generated, "InstructionDefinitions.inc"), encoding="ascii") as f:
        # One definition stays, since code that can no longer be reached names the array.
        definitions = DEFINITIONS.sub(lambda m: m.group(1) + m.group(2).split("\n")[0] + m.group(3), f.read())
    if "OPCODE" not in tables or any(name not in tables for name in ESCAPES):
        sys.exit("zydis_prune: DecoderTables.inc is not of the expected form")

    lines = ["/* Made by tools/zydis_prune.py */"]
    for name, rows in prune(tables).items():
        width = len(tables[name][0])
        lines.append(f"const ZydisDecoderTreeNode FILTERS_{name}[][{width}] =\n{{")
        lines += ["    { " + ", ".join(row) + " }," for row in rows or [["ZYDIS_INVALID"]]]
        lines.append("};\n")
    os.makedirs(output, exist_ok=True)
    for file, text in (("DecoderTables.inc", "\n".join(lines)), ("InstructionDefinitions.inc", definitions)):
        with open(os.path.join(output, file), "w", encoding="ascii") as f:
            f.write(text)


main()
