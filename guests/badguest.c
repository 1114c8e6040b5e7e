/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that misbehaves on purpose, one way per run: mode=NAME on the command line, from the table
 * below. Modes that the hypervisor must survive and the guest as well print PASS lines and power off;
 * those that end the VM (triple, cli, wild, idt) say so first.
 */
#include "guests/bad/bad.h"
#include "guests/lib/boot.h"
#include "guests/lib/console.h"
#include "guests/lib/power.h"
#include "guests/lib/report.h"
#include "guests/lib/string.h"

static const struct mode {
    const char *name;
    void (*run)(void);
} modes[] = {
    {"triple", bad_triple},  {"mmio", bad_mmio},   {"ports", bad_ports},   {"vmrun", bad_vmrun},
    {"msrs", bad_msrs},      {"cli", bad_cli},     {"clihlt", bad_clihlt}, {"reset", power_reset},
    {"poweroff", power_off}, {"wild", bad_wild},   {"cr", bad_cr},         {"crkill", bad_crkill},
    {"idt", bad_idt},        {"apic", bad_apic},   {"timer", bad_timer},   {"flood", bad_flood},
    {"babble", bad_babble},  {"edge", bad_edge},   {"exec", bad_exec},     {"morph", bad_morph},
    {"tables", bad_tables},  {"stack", bad_stack}, {"real", bad_real},
};

void guest_main(void)
{
    char mode[16] = "";
    boot_option("mode", mode, sizeof mode);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (string_equal(mode, modes[i].name)) {
            console_printf("badguest: mode %s begins\n", mode);
            modes[i].run();
            console_printf("badguest: mode %s survived\n", mode);
            report_summary();
            return;
        }
    }
    console_printf("badguest: unknown mode \"%s\"; there are", mode);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        console_printf(" %s", modes[i].name);
    }
    console_printf("\n");
    report_check(false, "badguest", "unknown mode");
    report_summary();
}
