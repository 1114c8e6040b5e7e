# SPDX-License-Identifier: BSD-2-Clause
"""Reads a telemetry file (docs/telemetry.md): JSON lines, of which the last may be cut."""

import json


class BadTelemetry(Exception):
    """A line that is not what the schema says; the text names file and line."""


def records(path):
    """All records of the file, in order. A last line without its end is left out."""
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = f.read().split("\n")
    out = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            record = json.loads(line)
            record["t"], record["kind"]
        except (ValueError, KeyError, TypeError) as e:
            raise BadTelemetry("%s:%d: not a telemetry line: %.60r" % (path, number, line)) from e
        out.append(record)
    return out


class Telemetry:
    """host: records of the host; vms: name to its records; maps: name to its maps."""

    def __init__(self, path):
        self.host, self.vms, self.maps = [], {}, {}
        for r in records(path):
            if r["kind"] == "host":
                self.host.append(r)
            elif r["kind"] == "vm":
                self.vms.setdefault(r["name"], []).append(r)
            elif r["kind"] == "map":
                self.maps.setdefault(r["name"], []).append(r)

    def series(self, key, vm=None):
        """Times and values of a key; of the host, unless a VM is named."""
        rows = self.host if vm is None else self.vms.get(vm, [])
        return [r["t"] for r in rows], [r[key] for r in rows]

    def cut(self, start, end):
        """Leave only what lies between two times."""
        def within(rows):
            return [r for r in rows if start <= r["t"] <= end]

        self.host = within(self.host)
        for group in (self.vms, self.maps):
            for name in list(group):
                group[name] = within(group[name])
                if not group[name]:
                    del group[name]

    @property
    def now(self):
        """The time of the last host record, 0 before the first."""
        return self.host[-1]["t"] if self.host else 0.0
