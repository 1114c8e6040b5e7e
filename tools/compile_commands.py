#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Print a compilation database: compile_commands.py COMPILER+FLAGS EMUL-FLAGS SOURCE..."""
import json
import os
import sys

command, emul_flags, sources = sys.argv[1], sys.argv[2], sys.argv[3:]
entries = []
for source in sources:
    extra = f" {emul_flags}" if source.startswith(("kernel/emul/", "mm/reclaim/")) else ""
    entries.append({"directory": os.getcwd(), "file": source,
                    "command": f"{command}{extra} -c {source}"})
json.dump(entries, sys.stdout, indent=1)
print()
