# SPDX-License-Identifier: BSD-2-Clause
"""Guests whose working set follows a script: ours and Linux."""

import re

from machine import conf, guest_elf, linux_modules, linux_vm
from platforms import runs_on

LINE = r"wset: t=(\d+\.\d+) step=(\d+) size=(\d+) touched=(\d+) bad=(\d+)"


def lines(text, name):
    """What a guest reported: (time, step, size in pages, pages touched, pages bad)."""
    return [(float(t), *map(int, rest)) for t, *rest in
            re.findall(r"\[%s\] %s" % (re.escape(name), LINE), text)]


@runs_on(svm={"mem": "384M", "limit": 200}, vmx={"mem": "384M", "limit": 400, "long": True},
         shadow_svm={"mem": "384M", "limit": 300, "long": True},
         shadow_vmx={"mem": "384M", "limit": 400, "long": True})
def test_wset(on):
    """One script does the same in both guests; a bad one is answered with what was expected."""
    script = "touch_8M_random_2s;shrink_4M;sleep_1s;fill_unique;touch_12M_hot_1s"
    vms = [("small", {"memory": "24M", "kernel": "wset.elf", "output": "log",
                      "cmdline": '"name=small script=%s end=exit"' % script}),
           ("bad", {"memory": "8M", "kernel": "wset.elf", "output": "log",
                    "cmdline": '"name=bad script=touch_8M;jump_3M end=exit"'}),
           linux_vm("linux", memory="128M", output="log",
                    cmdline='"console=ttyS0 quiet pci=off run=wset_\'%s\'"' % script)]
    modules = {"ballast.conf": conf(*vms, seed=1), "wset.elf": guest_elf("wset"), **linux_modules()}
    with on.machine(modules=modules) as m:
        m.expect(r"vm linux: powered off", 150)
        for said in (r"vm small: exited with code 1\b", r"vm bad: exited with code 3\b",
                     r"\[bad\] wset: at 'jump_3M': expected touch, shrink"):
            assert re.search(said, m.text()), said
        for name in ("small", "linux"):
            seen = lines(m.text(), name)
            by_step = {step: (t, size, touched, bad) for t, step, size, touched, bad in seen}
            sizes = [by_step[i][1] for i in (0, 1, 2, 4)]
            assert sizes == [2048, 1024, 1024, 3072], seen
            assert by_step[2][0] - by_step[1][0] >= 0.99 and by_step[2][2] == by_step[1][2], seen
            assert by_step[0][2] > 4000 and by_step[4][2] > by_step[2][2] + 2048, seen
            assert all(bad == 0 for *_, bad in seen), seen
        m.send("\r")
        m.prompt()
        m.poweroff()
