# SPDX-License-Identifier: BSD-2-Clause
"""What our pictures have in common: colours, axes, and SVG files that are the same for the same data."""

import textwrap

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

# Okabe and Ito's colours, which are told apart by everybody.
COLOURS = {
    "configured": "#999999", "granted": "#56b4e9", "consumed": "#0072b2", "target": "#000000",
    "active": "#d55e00", "balloon": "#009e73", "shared": "#cc79a7", "zero": "#e8c5da",
    "compressed": "#e69f00", "swapped": "#b22222", "free": "#eeeeee", "host": "#777777",
    "overhead": "#bbbb55", "slow": "#009e73", "fast": "#e69f00",
}
STATES = {"high": None, "clear": "#fff9d6", "soft": "#ffeeb0", "hard": "#ffd0b0", "low": "#ffb0b0"}
CYCLE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000"]

plt.rcParams.update({
    "svg.hashsalt": "ballast", "svg.fonttype": "path", "font.size": 9, "axes.grid": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "legend.fontsize": 8,
    "axes.titlesize": 10, "axes.titleweight": "bold", "figure.facecolor": "white",
    "axes.prop_cycle": matplotlib.cycler(color=CYCLE),
})


def mib(values):
    """KiB as MiB."""
    return [v / 1024 for v in values]


def beside(axes, **kw):
    """The legend at the right of the axes, so that it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, **kw)


def shade_states(axes, times, states):
    """The background tells the memory state; returns the states that were seen, for a legend."""
    seen = []
    start = 0
    for i in range(1, len(times) + 1):
        if i < len(times) and states[i] == states[start]:
            continue
        colour = STATES.get(states[start])
        if colour:
            axes.axvspan(times[start], times[min(i, len(times) - 1)], color=colour, lw=0, zorder=0)
            if states[start] not in seen:
                seen.append(states[start])
        start = i
    return seen


def save(figure, path, note=""):
    """As SVG (or what the name's ending says), with a line about how it was made."""
    if note:
        text = "\n".join(line for part in note.split("\n") for line in textwrap.wrap(part, 135))
        figure.text(0.02, -0.01, text, fontsize=7, color="#555555", va="top")
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None,
                   bbox_inches="tight", pad_inches=0.12)
    plt.close(figure)
