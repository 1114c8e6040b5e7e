# SPDX-License-Identifier: BSD-2-Clause
"""Each flush and each comparison is needed, and its absence is noticed: for every mutant of
kernel/lib/mutant.h the tests named here must fail, which pass without it.
"""

import os
import re
import subprocess
import threading

import pytest

import machine
from machine import BUILD, SLOW, THIRD_PARTY, Machine
from test_flush import TYPICAL_US, drop, kick, kick_modules

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))

# Mutant: the host tests that each catch it.
HOST = {
    "free_without_flush": "flush",
    "drop_without_flush": "tlb",
    "protect_without_flush": "tlb",
    "age_without_flush": "tlb",
    "table_freed_at_once": "tlb",
    "no_join": "tlb",
    "fill_without_recheck": "tlb",
    "fast_fill_without_recheck": "tlb",
    "no_kick": "tlb",
    "no_wait": "tlb",
    "no_epoch_at_entry": "tlb",
    "no_mitigate_at_entry": "tlb",
    "no_mitigate_at_leave": "tlb",
    "local_break_without_flush": "share",
    "break_without_flush": "share_breaks",
    "let_go_without_flush": "share_breaks p2m_balloon swap",
    "settle_without_lock": "shadow_directed",
    "nominate_without_protect": "share",
    "merge_without_flush": "share",
    "promote_without_flush": "share",
    "join_without_flush": "share_breaks",
    "take_without_flush": "swap",
    "fill_before_flush": "swap",
    "pin_before_flush": "swap",
    "overwrite_before_flush": "swap",
    "balloon_without_drop": "p2m_balloon",
    "balloon_put_before_flush": "p2m_balloon",
    "tag_kept_on_move": "tag",
    "tag_kept_over_generation": "tag",
    "tag_not_flushed": "tag",
    "no_generation_flush": "tag",
    "vmx_no_invept": "entry_flush",
    "vmx_no_invvpid": "entry_flush",
    "vmx_no_invvpid_all": "entry_flush",
    "svm_no_tlb_control": "entry_flush",
    "svm_asid_kept_clean": "entry_flush",
    "softmmu_no_flush": "softmmu",
    "shadow_no_sync": "shadow",
    "shadow_link_without_sync": "shadow",
    "shadow_no_invlpg": "shadow",
    "shadow_invlpg_leaf_only": "shadow",
    "shadow_no_trace": "shadow",
    "shadow_no_untrace": "shadow",
    "shadow_tidy_without_flush": "shadow",
    "shadow_tidy_together": "shadow_directed",
    "shadow_no_join": "shadow",
    "shadow_no_dirty": "shadow",
    "shadow_fill_before_flush": "shadow_directed",
    "shadow_walk_old_frame": "shadow_directed",
    "shadow_clear_unnoted": "shadow",
    "shadow_protect_without_flush": "shadow",
    "shadow_drop_without_flush": "shadow_directed",
    "shadow_protect_unnoted": "shadow",
    "shadow_enter_unnoted": "shadow_directed",
    "shadow_load_traces": "shadow",
    "shadow_invlpg_traces": "shadow",
    "shadow_written_without_untrace": "shadow",
    "shadow_drop_without_untrace": "shadow_directed",
    "shadow_table_freed_at_once": "shadow_directed",
    "shadow_age_without_flush": "shadow_directed",
    "shadow_watch_without_flush": "shadow_directed",
    "shadow_watch_bit_without_flush": "shadow_directed",
    "shadow_unwatch_without_flush": "shadow_directed",
}


def named_in_sources():
    names = set()
    for top in ("boot", "arch", "kernel", "mm", "vmx", "svm"):
        for folder, _, files in os.walk(os.path.join(ROOT, top)):
            for name in files:
                if name.endswith(".c"):
                    with open(os.path.join(folder, name), encoding="utf-8") as f:
                        names.update(re.findall(r"\bMUTANT\((\w+)\)", f.read()))
    return names


def build(directory, mutant, *goals):
    """Build in a directory of its own, where only the sources that contain the mutant or the one
    before are compiled again. Models catch mutants: compilers' watchmen are left out, for speed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-C", ROOT, "-j%d" % (os.cpu_count() or 1), "BUILD=" + directory,
                           "MUTANT=" + mutant, "HOST_SANITIZE=", THIRD_PARTY,
                           "HOSTLIBS=" + os.path.join(directory, "hostlibs"), *goals], env=environment, capture_output=True,
                          text=True, timeout=600 * SLOW)
    assert done.returncode == 0, done.stdout + done.stderr


def passes(program):
    """Does a host test pass? One that hangs does not; the first case that fails decides, since those
    behind it find what it left."""
    with subprocess.Popen([program], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          errors="replace") as p:
        timer = threading.Timer(120 * SLOW, p.kill)
        timer.start()
        failed = any(line.startswith("[  ERROR   ]") for line in p.stderr)
        if failed:
            p.kill()
        timer.cancel()
        return p.wait() == 0 and not failed


def test_flush_proof_mutants():
    assert named_in_sources() == set(HOST)
    directory = os.path.join(BUILD, "mutants")
    programs = {t: os.path.join(directory, "tests/host/test_" + t) for t in " ".join(HOST.values()).split()}
    build(directory, "", *programs.values())
    for name, program in programs.items():
        assert passes(program), name + " fails without a mutant"
    for mutant, names in HOST.items():
        build(directory, mutant, *[programs[n] for n in names.split()])
        for name in names.split():
            assert not passes(programs[name]), "%s does not notice %s" % (name, mutant)


@pytest.mark.long
def test_flush_proof_mutants_kernel(monkeypatch):
    """The same of the debug kernel: a frame that is freed before its flush is a panic, and a guest
    that nobody kicks keeps the flush waiting."""
    directory = os.path.join(BUILD, "mutants-kernel")
    monkeypatch.setattr(machine, "KERNEL", os.path.join(directory, "ballast.elf"))

    def run(mutant, millions=20000):
        build(directory, mutant, "DEBUG=1", "kernel")
        return Machine("flush_proof_" + (mutant or "none"), smp=2, mem="512M", limit=200,
                       modules=kick_modules(3, millions))

    with run("", 700) as m:
        kick(m)
    with run("no_kick") as m:
        m.prompt()
        m.wait_for("vms", r"spin\s+running")
        took = [drop(m, "spin", 60)[1] for _ in range(5)]
        # Where the processor has just answered to the serial port, there is nothing to wait for.
        assert sum(us > TYPICAL_US * SLOW for us in took) >= 2, took
    with run("free_without_flush") as m:
        m.prompt()
        m.wait_for("vms", r"spin\s+running")
        m.send("vm spin drop\r")
        m.expect(r"PANIC[^\r\n]*flush: frame 0x[0-9a-f]+ freed before its epoch \d+ passed", 60)
