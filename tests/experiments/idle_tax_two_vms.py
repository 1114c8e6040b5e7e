# SPDX-License-Identifier: BSD-2-Clause
"""Figure 7: an idle VM and a busy one of equal shares, before and after the idle tax."""

from lab import Lab, Result, between, mean, rate, wset_vm
from plotting import COLOURS, mib, plt, save

VM = 128          # MiB each
BUSY_SET = 116    # MiB that the busy one works on
TAX = 75
PERIOD, BALANCE = 5, 3   # Mem.SamplePeriod, Mem.BalancePeriod
SWITCH, END = 65, 115
MACHINE = "216M"


def run():
    r = Result("idle_tax_two_vms", "Figure 7",
               "Two VMs of 256 MB and equal shares on 360 MB. Without a tax each gets 179 MB; with 75 % the "
               "idle one shrinks, the busy one grows, and its throughput gains over 30 %.",
               "Two VMs of %d MiB on a machine of %s; Mem.SamplePeriod = %d s, Mem.BalancePeriod = %d s "
               "(time is compressed 12 and 5 times); the tax changes from 0 to %d %% in mid-run." %
               (VM, MACHINE, PERIOD, BALANCE, TAX))
    idle = wset_vm("idle", VM, "fill half; touch %dM; shrink %dM; sleep 1000s" % (BUSY_SET, BUSY_SET - 2),
                   options="seed=1")
    busy = wset_vm("busy", VM, "fill half; work 4000; touch %dM random 1000s" % BUSY_SET, options="seed=2")
    host = {"Mem.SamplePeriod": PERIOD, "Mem.BalancePeriod": BALANCE, "Mem.ShareScanGHz": 0,
            "Mem.IdleTax": 0, "Mem.IdleTaxType": 0, "Mem.MemZipMaxPct": 50,
            "overcommit": "unbacked"}
    with Lab("exp_idle_tax_two_vms", [idle, busy], MACHINE, host) as lab:
        lab.run_until(SWITCH)
        lab.send("\r")
        lab.prompt()
        switch = lab.set("Mem.IdleTax", TAX)
        lab.run_until(switch + END - SWITCH)
        assert "audit: passed" in lab.command("audit")
        lab.poweroff()
        data, rows = lab.data(), lab.wset()
    judge(r, data, rows["busy"], switch)
    assert all(x["bad"] == 0 for name in rows for x in rows[name])
    r.rows = [{"t": a["t"], "tax_pct": TAX if a["t"] > switch else 0, "idle_cnsm_kib": a["cnsm"],
               "busy_cnsm_kib": b["cnsm"], "idle_target_kib": a["sztgt"], "busy_target_kib": b["sztgt"],
               "idle_active_pct": a["active"], "busy_active_pct": b["active"],
               "idle_balloon_kib": a["mctlsz"], "busy_compressed_kib": b["zipped"]}
              for a, b in zip(data.vms["idle"], data.vms["busy"])]
    r.plot = lambda path: draw(data, rows["busy"], switch, path, r.setup)
    return r


def judge(r, data, busy, switch):
    def cnsm(name, a, b):
        """With what its compressed pages take, which is charged to it."""
        return sum(mean(between(data.series(key, name), a, b)) for key in ("cnsm", "cacheusd")) / 1024

    before = {n: cnsm(n, switch - 15, switch) for n in ("idle", "busy")}
    end = data.now
    after = {n: cnsm(n, end - 15, end) for n in ("idle", "busy")}
    r.check(abs(before["idle"] - before["busy"]) < 0.12 * VM, "without tax: idle %.1f MiB, busy %.1f MiB: equal",
            before["idle"], before["busy"])
    last = {n: data.vms[n][-1] for n in ("idle", "busy")}
    active = {n: last[n]["active"] * last[n]["grant"] / 100 / 1024 for n in last}
    expected = min(TAX / 100 * (active["busy"] - active["idle"]), VM - after["idle"])
    found = after["busy"] - after["idle"]
    r.check(abs(found - expected) < 0.15 * VM,
            "with %d %%: idle %.1f MiB, busy %.1f MiB; apart by %.1f MiB, tax times active %.1f MiB", TAX,
            after["idle"], after["busy"], found, expected)
    slow, fast = rate(busy, switch - 25, switch), rate(busy, end - 25, end)
    r.check(slow > 0 and fast >= 1.2 * slow, "busy VM's throughput %.0f -> %.0f pages/s: %+.0f %%", slow, fast,
            100 * (fast / slow - 1) if slow else 0)


def draw(data, busy, switch, path, note):
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(9, 5.6), height_ratios=(2, 1))
    for name, colour in (("idle", COLOURS["consumed"]), ("busy", COLOURS["active"])):
        t, cnsm = data.series("cnsm", name)
        top.plot(t, mib(cnsm), color=colour, label="%s VM: consumed" % name)
        top.plot(t, mib(data.series("sztgt", name)[1]), "--", color=colour, lw=1, label="its target")
    top.axhline(VM, color=COLOURS["configured"], ls=":", label="configured, each")
    top.set(ylabel="machine memory, MiB", ylim=(0, VM * 1.15),
            title="Two VMs of equal shares, one idle: idle tax 0 %%, then %d %%" % TAX)
    top.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    rows = busy[::2]
    bottom.plot([b["host_t"] for b in rows[1:]],
                [(b["touched"] - a["touched"]) / (b["host_t"] - a["host_t"])
                 for a, b in zip(rows, rows[1:])], color=COLOURS["active"])
    bottom.set(ylabel="busy VM, pages/s", xlabel="seconds since the host started", ylim=(0, None))
    for axes in (top, bottom):
        axes.axvline(switch, color="black", lw=1)
        axes.set_xlim(0, data.now)
    top.annotate("tax %d %%" % TAX, (switch, VM * 1.09), xytext=(4, 0), textcoords="offset points")
    figure.align_ylabels()
    save(figure, path, note)
