#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Telemetry's memory maps as a picture: what stood behind each 2 MiB of every VM, over time.

    tools/plot_map.py build/telemetry.jsonl map.svg [--vm NAME]...
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import matplotlib.colors  # noqa: E402
from matplotlib.patches import Patch  # noqa: E402
from plotting import plt, save  # noqa: E402
from telemetry import BadTelemetry, Telemetry  # noqa: E402

# The characters of the map: colour of a whole cell, name. A cell that is only mostly so is paler.
PERIOD = 5  # seconds between two maps of a VM
LARGE_HOT, LARGE_COLD = "#08306b", "#9ecae1"
STATES = {"p": ("#d55e00", "4 KiB pages"), "s": ("#cc79a7", "shared"), "z": ("#f0d9e6", "zero"),
          "b": ("#009e73", "ballooned"), "c": ("#e69f00", "compressed"), "d": ("#b22222", "on disk"),
          ".": ("#f4f4f4", "untouched"), " ": ("#ffffff", "no memory")}


def mix(a, b, part):
    a, b = matplotlib.colors.to_rgb(a), matplotlib.colors.to_rgb(b)
    return tuple(x + (y - x) * part for x, y in zip(a, b))


def colour(char):
    """Of one character of a map."""
    if char.isdigit():
        return mix(LARGE_HOT, LARGE_COLD, int(char) / 9)
    full = STATES[char.lower()][0]
    return mix(full, "#ffffff", 0.45) if char.islower() else mix(full, full, 0)


def rounds(lines):
    """(time, first address, characters) per round: lines of one time are parts of one map."""
    out = {}
    for r in lines:
        out.setdefault(r["t"], []).append(r)
    for t, parts in sorted(out.items()):
        low = min(p["first"] for p in parts)
        chars = {}
        for p in parts:
            for i, c in enumerate(p["map"]):
                chars[(p["first"] - low) // p["cell"] + i] = c
        yield t, low, "".join(chars.get(i, " ") for i in range(max(chars) + 1))


def panel(axes, name, lines):
    """Time from left to right, addresses upwards. Returns the first and the last time that it shows."""
    maps = list(rounds(lines))
    cells = max(len(m) for _, _, m in maps)
    cell_mib = lines[0]["cell"] / 1024
    image = [[colour(m[row] if row < len(m) else " ") for _, _, m in maps] for row in range(cells)]
    times = [t for t, _, _ in maps]
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else PERIOD
    axes.imshow(image, aspect="auto", origin="lower", interpolation="nearest",
                extent=(times[0], times[-1] + step, maps[0][1] / 1024,
                        maps[0][1] / 1024 + cells * cell_mib))
    axes.set_title(name, loc="left")
    axes.set_ylabel("guest address, MiB")
    axes.grid(False)
    return times[0], times[-1] + step


def plot(data, path, vms=None, note=""):
    """The picture of all maps that `data` holds, or of some VMs."""
    names = [n for n in data.maps if not vms or n in vms]
    figure, axes = plt.subplots(len(names), 1, sharex=True, squeeze=False,
                                figsize=(9, 0.6 + 2.4 * len(names)))
    spans = [panel(a, name, data.maps[name]) for a, name in zip(axes[:, 0], names)]
    axes[0, 0].set_xlim(min(a for a, _ in spans), max(b for _, b in spans))
    axes[-1, 0].set_xlabel("seconds since the host started")
    seen = {c.lower() for n in names for r in data.maps[n] for c in r["map"]}
    handles = []
    if any(c.isdigit() for c in seen):
        handles += [Patch(color=LARGE_HOT, label="2 MiB page, just used"),
                    Patch(color=mix(LARGE_HOT, LARGE_COLD, 0.5), label="not for 4 s"),
                    Patch(color=LARGE_COLD, label="not for 9 s or more")]
    handles += [Patch(facecolor=c, edgecolor="#cccccc", lw=0.5, label=label)
                for key, (c, label) in STATES.items() if key in seen and key != " "]
    axes[0, 0].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0,
                      title="2 MiB each; pale: mostly")
    figure.align_ylabels()
    figure.subplots_adjust(hspace=0.3)
    save(figure, path, note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("file")
    parser.add_argument("out")
    parser.add_argument("--vm", action="append", help="only this VM's panel; may be given again")
    args = parser.parse_args()
    try:
        data = Telemetry(args.file)
    except (OSError, BadTelemetry) as e:
        sys.exit("plot_map: %s" % e)
    unknown = [n for n in args.vm or [] if n not in data.maps]
    if unknown or not data.maps:
        sys.exit("plot_map: no map of %s; there are: %s" %
                 (unknown[0] if unknown else "any VM", ", ".join(data.maps) or "none"))
    plot(data, args.out, args.vm, "telemetry of " + os.path.basename(args.file))


if __name__ == "__main__":
    main()
