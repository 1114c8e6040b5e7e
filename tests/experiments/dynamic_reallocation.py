# SPDX-License-Identifier: BSD-2-Clause
"""Figure 8: five VMs that are promised far more memory than there is, from boot to a steady state."""

from lab import Lab, Result, between, mean, wset_vm
from plotting import COLOURS, beside, mib, plt, save, shade_states

VM = 64           # MiB each
MIN = 16          # MiB guaranteed
MACHINE = "208M"
PERIOD, BALANCE = 5, 3
GROW = 66         # when the others need more
QUERY = 120       # when the idle VM gets work again
END = 165
NAMES = ("sql", "mail", "client", "terminal", "thin")


def scripts():
    """Every VM needs much for a moment when it starts, one after the other, and keeps less. Then the
    database goes idle, the others grow, and the database gets a query."""
    out = {"sql": "fill half; work 2000; touch 54M random 4s; touch 44M random 40s; shrink 43M; sleep %ds; "
                  "touch 44M random 300s" % (QUERY - 46)}
    for i, name in enumerate(NAMES[1:], 1):
        out[name] = ("fill half; work 2000; sleep %ds; touch 54M random 4s; rate 4000; touch 22M random %ds; "
                     "touch 32M random 300s" % (6 * i, GROW - 6 * i))
    return out


def run():
    r = Result("dynamic_reallocation", "Figure 8",
               "Five Windows VMs, 1472 MB on 1 GB. While they boot, Windows zeroes all memory before a "
               "balloon driver runs: sharing takes 325 MB of zero pages, only 35 MB are swapped. Later the "
               "balloons take over; the idle database falls to its minimum and grows again with a query.",
               "Five VMs of %d MiB (%d %% of what the machine has for guests), each of which zeroes its memory "
               "before its balloon driver starts; Mem.SamplePeriod = %d s, Mem.BalancePeriod = %d s (time is "
               "compressed 12 and 5 times)." % (VM, round(100 * 5 * VM / 195), PERIOD, BALANCE))
    vms = [wset_vm(n, VM, s, options="wipe=yes seed=%d" % i, min="%dM" % MIN)
           for i, (n, s) in enumerate(scripts().items())]
    host = {"Mem.SamplePeriod": PERIOD, "Mem.BalancePeriod": BALANCE, "Mem.IdleTaxType": 0,
            "Mem.MemZipMaxPct": 50, "overcommit": "unbacked"}
    with Lab("exp_dynamic_reallocation", vms, MACHINE, host) as lab:
        lab.run_until(END)
        lab.send("\r")
        assert "audit: passed" in lab.command("audit")
        lab.poweroff()
        data, rows = lab.data(), lab.wset()
        begun = max(v[0]["host_t"] - v[0]["t"] for v in rows.values())
    assert all(x["bad"] == 0 for name in rows for x in rows[name])
    judge(r, data, begun)
    r.rows = [{"t": h["t"], "state": h["state"], **{k + "_kib": h[k] for k in (
        "free", "shared", "saving", "zero", "memctl_curr", "zipped", "swap_curr")}} for h in data.host]
    r.plot = lambda path: draw(data, begun, path, r.setup)
    return r


def judge(r, data, begun):
    boot = [h for h in data.host if h["t"] <= begun + 2]
    zero = max(h["zero"] for h in boot) / 1024
    paged = max(h["zipped"] + h["swap_curr"] for h in boot) / 1024
    r.check(zero > 0 and zero >= 0.8 * (zero + paged),
            "boot: %.1f MiB of zero pages shared, %.1f MiB compressed or swapped: %.0f %% by sharing", zero,
            paged, 100 * zero / (zero + paged) if zero else 0)
    late = [h for h in data.host if begun + 30 < h["t"] < QUERY]
    balloon = mean(h["memctl_curr"] for h in late) / 1024
    shared = mean(h["saving"] for h in late) / 1024
    r.check(balloon > shared and balloon > 3 * mean(h["memctl_curr"] for h in boot) / 1024,
            "later: %.1f MiB in balloons, %.1f MiB saved by sharing", balloon, shared)
    def sql(key, a, b):
        return between(data.series(key, "sql"), a, b)
    # What its compressed pages take is charged to it.
    lowest = min(c + z for c, z in zip(sql("cnsm", QUERY - 30, QUERY), sql("cacheusd", QUERY - 30, QUERY))) / 1024
    target = mean(sql("sztgt", QUERY - 10, QUERY)) / 1024
    r.check(MIN * 0.8 <= lowest <= MIN * 1.25, "the idle database comes down to %.1f MiB; its minimum is %d, its target %.1f",
            lowest, MIN, target)
    again = mean(sql("cnsm", END - 10, END)) / 1024
    r.check(again >= 44 * 0.85, "and is back at %.1f MiB for a query over 44 MiB", again)
    # No VM is under its minimum because others took it: what it lacks of it, it has not asked for.
    for name in NAMES:
        low = min(v for v in between(data.series("sztgt", name), begun + 10, END)) / 1024
        r.check(low >= MIN - 0.1, "%s: target never under its minimum (%.1f MiB)", name, low)


def draw(data, begun, path, note):
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(9, 7.6), height_ratios=(2, 1.3, 1.3))
    times = [h["t"] for h in data.host]
    seen = shade_states(axes[0], times, [h["state"] for h in data.host])
    guest = [h["other"] - h["overhead"] for h in data.host]
    for key, label, colour in (("saving", "saved by sharing", "shared"), ("memctl_curr", "in balloons", "balloon"),
                               ("zipped", "compressed", "compressed"), ("swap_curr", "on disk", "swapped")):
        axes[0].plot(times, mib([h[key] for h in data.host]), color=COLOURS[colour], label=label)
    axes[0].plot(times, mib(guest), color=COLOURS["consumed"], label="machine memory of all VMs")
    active = [sum(v["active"] * v["grant"] / 100 for n in NAMES for v in data.vms[n] if v["t"] == t)
              for t in times]
    axes[0].plot(times, mib(active), "--", color=COLOURS["active"], label="active, all VMs")
    axes[0].set_title("Five VMs, %d MiB promised" % (5 * VM) +
                      ("; shaded: state " + ", ".join(seen) if seen else ""))
    axes[0].axvline(begun, color="black", lw=0.8)
    axes[0].annotate("all balloon drivers run", (begun, 0), xytext=(3, 4), textcoords="offset points",
                     fontsize=8)
    for a, name in zip(axes[1:], ("sql", "mail")):
        t, cnsm = data.series("cnsm", name)
        cache = data.series("cacheusd", name)[1]
        a.plot(t, mib(c + z for c, z in zip(cnsm, cache)), color=COLOURS["consumed"],
               label="consumed, with the cache")
        a.plot(t, mib(cache), color=COLOURS["compressed"], label="of it, cache of compressed pages", lw=1)
        a.plot(t, mib(data.series("sztgt", name)[1]), "--", color=COLOURS["target"], label="target", lw=1)
        a.plot(t, mib(data.series("mctlsz", name)[1]), color=COLOURS["balloon"], label="balloon")
        a.plot(t, [x["active"] * x["grant"] / 100 / 1024 for x in data.vms[name]], color=COLOURS["active"],
               label="active", lw=1)
        a.axhline(MIN, color=COLOURS["configured"], ls=":", label="minimum")
        a.set_title("The VM %s alone" % name, loc="left")
    for a in axes:
        a.set(ylabel="MiB", ylim=(0, None), xlim=(0, times[-1]))
        beside(a)
    axes[-1].set_xlabel("seconds since the host started")
    figure.align_ylabels()
    save(figure, path, note)
