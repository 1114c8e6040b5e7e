# SPDX-License-Identifier: BSD-2-Clause
"""Figure 6: the estimate of active memory follows a staircase."""

from lab import Lab, Result, between, mean, wset_vm
from plotting import COLOURS, beside, mib, plt, save

MEMORY = 128      # MiB of the VM
PERIOD = 5        # seconds: Mem.SamplePeriod
STAIRS = [16, 48, 96, 48, 16]  # MiB touched
STAIR = 30        # seconds each: six periods
# Each page is touched several times a period: 40,000 a second, 24,576 pages at most.
RATE = 40000
# 100 samples a period: one standard deviation of an estimate by one period is 5 points, and by the slow
# average far less. Two of them are a quarter of a stair upwards, most of which is there after 1.6 periods.
POINTS = 10


def script():
    first = "fill light; touch %dM; rate %d; " % (MEMORY - 12, RATE)
    return first + "; ".join("touch %dM linear %ds" % (s, STAIR) for s in STAIRS) + "; sleep 20s"


def truth_of(rows):
    """(start, end, MiB) of each stair on the host's clock, from what the guest said of its steps."""
    ends = [next(r["host_t"] for r in reversed(rows) if r["step"] == 3 + i) for i in range(len(STAIRS))]
    return [(end - STAIR, end, size) for end, size in zip(ends, STAIRS)]


def in_mib(data, key):
    """A percentage of what is granted, as MiB."""
    t, grant = data.series("grant", "toucher")
    part = data.series(key, "toucher")[1]
    return t, [p * g / 100 / 1024 for p, g in zip(part, grant)]


def judge(r, data, stairs):
    series = {k: in_mib(data, k) for k in ("active", "active_slow", "active_fast", "active_next")}
    grant = mean(data.series("grant", "toucher")[1]) / 1024
    slack = POINTS * grant / 100
    for i, (start, end, size) in enumerate(stairs):
        late = mean(between(series["active_fast"], end - 2 * PERIOD, end))
        r.check(abs(late - size) < slack, "stair of %d MiB: fast average %.1f MiB at its end (%.1f allowed)",
                size, late, slack)
        if i > 0 and size > stairs[i - 1][2]:
            risen = max(between(series["active"], start, start + 1.6 * PERIOD))
            step = size - stairs[i - 1][2]
            r.check(risen > stairs[i - 1][2] + 0.5 * step,
                    "up to %d MiB: estimate at %.1f MiB within 1.6 periods", size, risen)
        elif i > 0:
            soon = mean(between(series["active"], start, start + PERIOD))
            fallen = mean(between(series["active"], end - PERIOD, end))
            r.check(soon > size + 0.5 * (stairs[i - 1][2] - size),
                    "down to %d MiB: still %.1f MiB in the first period", size, soon)
            r.check(fallen < soon - 5, "and %.1f MiB in the last of six", fallen)
    bias = mean([mean(between(series["active_fast"], e - 3 * PERIOD, e)) - s for _, e, s in stairs])
    r.check(abs(bias) < 0.6 * slack, "no bias: fast average is off by %.1f MiB in the mean", bias)


def draw(data, stairs, path, note):
    figure, axes = plt.subplots(figsize=(9, 3.8))
    for start, end, size in stairs:
        axes.plot([start, end], [size, size], color="black", lw=2.4,
                  label="truth" if start == stairs[0][0] else None)
    for key, label, colour in (("active", "estimate (their maximum)", COLOURS["active"]),
                               ("active_slow", "slow average", COLOURS["slow"]),
                               ("active_fast", "fast average", COLOURS["fast"])):
        axes.plot(*in_mib(data, key), color=colour, label=label,
                  lw=2 if key == "active" else 1.2, ls="-" if key == "active" else "--")
    axes.plot(data.series("memsz", "toucher")[0], mib(data.series("memsz", "toucher")[1]), ":",
              color=COLOURS["configured"], label="configured")
    axes.set(xlabel="seconds since the host started", ylabel="memory, MiB", ylim=(0, MEMORY * 1.1),
             title="Active memory: what a guest touches, and what sampling finds")
    beside(axes)
    save(figure, path, note)


def run():
    r = Result("sampling_staircase", "Figure 6",
               "One VM whose toucher goes up and down between 50 and 250 MB: the estimate follows fast "
               "upwards and slowly downwards, without a lasting error.",
               "One VM of %d MiB, stairs of %s MiB for %d s each; Mem.SamplePeriod = %d s instead of 60 "
               "(time is compressed 12 times), 100 samples a period." %
               (MEMORY, ", ".join(map(str, STAIRS)), STAIR, PERIOD))
    vm = wset_vm("toucher", MEMORY, script(), options="balloon=no")
    host = {"Mem.SamplePeriod": PERIOD, "Mem.ShareScanGHz": 0}
    with Lab("exp_sampling_staircase", [vm], "384M", host) as lab:
        lab.expect(r"\[toucher\] SUMMARY passed \d+ failed 0")
        lab.send("\r")
        lab.prompt()
        lab.poweroff()
        data, rows = lab.data(), lab.wset()["toucher"]
    stairs = truth_of(rows)
    data.cut(stairs[0][0], stairs[-1][1])
    judge(r, data, stairs)
    r.rows = [{"t": x["t"], "grant_kib": x["grant"], "active_pct": x["active"], "slow_pct": x["active_slow"],
               "fast_pct": x["active_fast"],
               "truth_mib": next((s for a, b, s in stairs if a <= x["t"] <= b), 0)}
              for x in data.vms["toucher"]]
    r.plot = lambda path: draw(data, stairs, path, r.setup)
    return r
