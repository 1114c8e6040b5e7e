# SPDX-License-Identifier: BSD-2-Clause
"""The picture of tests/bench/mmu_linux.py's rows: cost, exits, overhead and walks, nested beside shadow."""

from plotting import CYCLE, plt, save

NESTED, SHADOW = CYCLE[0], CYCLE[1]


def _bars(axes, labels, groups, **kw):
    """A group of bars for each label; groups: (legend, colour, alpha, values)."""
    width = 0.8 / len(groups)
    for i, (legend, colour, alpha, values) in enumerate(groups):
        at = [x + (i - (len(groups) - 1) / 2) * width for x in range(len(labels))]
        axes.bar(at, values, width * 0.92, color=colour, alpha=alpha, label=legend, **kw)
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(axis="x", visible=False)


def _by_work(pairs, vcpus, value):
    return [value(nested, shadow) for work, n, nested, shadow in pairs if work.unit and n == vcpus]


def _both(pairs, vcpus, value):
    """Groups for each number of vCPUs and each kind of table; the more vCPUs, the darker."""
    return [("%s, %d vCPU%s" % (name, n, "" if n == 1 else "s"), colour, 0.4 + 0.6 * i / (len(vcpus) - 1),
             _by_work(pairs, n, lambda *rows, which=which: value(rows[which])))
            for which, (name, colour) in enumerate((("nested", NESTED), ("shadow", SHADOW)))
            for i, n in enumerate(vcpus)]


def draw(pairs, vcpus, walks_of, path, note):
    """pairs: (work, number of vCPUs, nested row, shadow row); walks_of: size of the guest's pages to the
    references of a TLB miss with nested pages of 4K, of 2M, and with shadow tables."""
    works = [work for work, n, _, _ in pairs if work.unit and n == vcpus[0]]
    names = ["%s\n(%s)" % (w.name, w.unit) for w in works]
    figure, ((cost, exits), (overhead, walks)) = plt.subplots(2, 2, figsize=(12, 7.6))

    def rate(row):
        return row["exits"] / row["units"]

    _bars(cost, names, [("%d vCPU%s" % (n, "" if n == 1 else "s"), SHADOW, 0.4 + 0.6 * i / (len(vcpus) - 1),
                         _by_work(pairs, n, lambda a, b: b["instructions"] / a["instructions"]))
                        for i, n in enumerate(vcpus)])
    cost.axhline(1, color=NESTED, lw=1.5, label="nested")
    cost.set(ylabel="instructions a unit, nested = 1", title="What it takes: shadow tables against nested")
    cost.set_ylim(0, cost.get_ylim()[1] * 1.12)
    _bars(exits, names, _both(pairs, vcpus, rate))
    exits.set(yscale="log", ylabel="exits a unit", title="VM exits")
    _bars(overhead, names, _both(pairs, vcpus, lambda row: row["overhead_kib"] / 1024))
    overhead.set(ylabel="MiB", title="Overhead memory of the VM (768 MiB)")
    kinds = (("nested, nested pages of 4K", NESTED, 0.4), ("nested, nested pages of 2M (here)", NESTED, 1),
             ("shadow", SHADOW, 1))
    _bars(walks, ["guest pages of " + size for size in walks_of],
          [(*kind, [walk[i] for walk in walks_of.values()]) for i, kind in enumerate(kinds)])
    walks.set(ylabel="references to memory", title="A TLB miss (computed)")
    for axes, columns in ((cost, 4), (exits, 2), (overhead, 2), (walks, 1)):
        axes.legend(ncols=columns, loc="upper left" if axes is overhead else "upper right")
    figure.tight_layout()
    save(figure, path, note)
