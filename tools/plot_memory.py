#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Telemetry as a picture of memory over time: the machine's, what is saved and taken, every VM's.

    tools/plot_memory.py build/telemetry.jsonl memory.svg [--vm NAME]... [--from SECONDS] [--to SECONDS]
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from matplotlib.patches import Patch  # noqa: E402
from plotting import COLOURS, STATES, beside, mib, plt, save, shade_states  # noqa: E402
from telemetry import BadTelemetry, Telemetry  # noqa: E402

MACHINE = [("vmk", "hypervisor", "host"), ("overhead", "VMs' overhead", "overhead"),
           ("guest", "guest memory", "consumed"), ("free", "free", "free")]
# What sharing saves, and what is not in frames of its own.
MEANS = [("saving", "saved by sharing", "shared"), ("memctl_curr", "in balloons", "balloon"),
         ("zipped", "compressed", "compressed"), ("swap_curr", "on disk", "swapped")]
OF_VM = [("memsz", "configured", "configured", ":", 1.2), ("grant", "granted", "granted", "-", 3.4),
         ("cnsm", "consumed", "consumed", "-", 2), ("sztgt", "target", "target", "--", 1),
         ("active", "active", "active", "-", 1), ("mctlsz", "balloon", "balloon", "-", 1.3),
         ("zipped", "compressed", "compressed", "-", 1.3), ("swcur", "on disk", "swapped", "-", 1.3)]


def machine(axes, host, times):
    rows = [[r["guest"] if key == "guest" else r[key] for r in host] for key, _, _ in MACHINE]
    axes.stackplot(times, *[mib(row) for row in rows], colors=[COLOURS[c] for _, _, c in MACHINE],
                   labels=[label for _, label, _ in MACHINE], lw=0)
    axes.plot(times, mib([r["total"] - r["minfree"] for r in host]), "k--", lw=0.9,
              label="minfree below the top")
    axes.set_ylabel("machine memory, MiB")
    axes.set_ylim(0)
    beside(axes)


def means(axes, host, times):
    seen = shade_states(axes, times, [r["state"] for r in host])
    for key, label, colour in MEANS:
        values = mib([r[key] for r in host])
        if any(values):
            axes.plot(times, values, color=COLOURS[colour], label=label)
    handles, labels = axes.get_legend_handles_labels()
    handles += [Patch(color=STATES[s]) for s in seen]
    axes.set_ylabel("guest memory, MiB")
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    if not handles:
        axes.annotate("nothing shared, ballooned, compressed or swapped", (0.5, 0.5), ha="center",
                      xycoords="axes fraction", color="#777777")
        return
    beside(axes, handles=handles, labels=labels + ["state " + s for s in seen])


def active_kib(record):
    """The estimate of active memory: a percentage of what is granted."""
    return record["active"] * record["grant"] / 100


def vm_panel(axes, name, rows):
    times = [r["t"] for r in rows]
    for key, label, colour, style, width in OF_VM:
        if key not in rows[0]:
            continue
        values = [active_kib(r) for r in rows] if key == "active" else [r[key] for r in rows]
        if any(values):
            axes.plot(times, mib(values), style, color=COLOURS[colour], label=label, lw=width)
    axes.set_title(name, loc="left")
    axes.set_ylabel("MiB")
    axes.set_ylim(0)
    beside(axes)


def plot(data, path, vms=None, note=""):
    """The picture of all that `data` holds, or of some VMs."""
    names = [n for n in data.vms if not vms or n in vms]
    host = [dict(r, guest=r["other"] - r["overhead"]) for r in data.host]
    times = [r["t"] for r in host]
    figure, axes = plt.subplots(2 + len(names), 1, sharex=True, squeeze=False,
                                figsize=(9, 2.3 * (2 + len(names))))
    axes = axes[:, 0]
    machine(axes[0], host, times)
    axes[0].set_title("The machine", loc="left")
    means(axes[1], host, times)
    axes[1].set_title("Saved and taken", loc="left")
    for a, name in zip(axes[2:], names):
        vm_panel(a, name, data.vms[name])
    axes[-1].set_xlabel("seconds since the host started")
    figure.align_ylabels()
    figure.subplots_adjust(hspace=0.35, bottom=0.08)
    save(figure, path, note)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("file")
    parser.add_argument("out")
    parser.add_argument("--vm", action="append", help="only this VM's panel; may be given again")
    parser.add_argument("--from", dest="start", type=float, default=0, help="seconds")
    parser.add_argument("--to", dest="end", type=float, default=float("inf"), help="seconds")
    args = parser.parse_args()
    try:
        data = Telemetry(args.file)
    except (OSError, BadTelemetry) as e:
        sys.exit("plot_memory: %s" % e)
    data.cut(args.start, args.end)
    if not data.host:
        sys.exit("plot_memory: %s holds nothing for that time" % args.file)
    unknown = [n for n in args.vm or [] if n not in data.vms]
    if unknown:
        sys.exit("plot_memory: no VM %s; there are: %s" % (unknown[0], ", ".join(data.vms)))
    plot(data, args.out, args.vm, "telemetry of " + os.path.basename(args.file))


if __name__ == "__main__":
    main()
