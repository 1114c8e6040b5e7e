/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about the machine and the hypervisor itself.
 */
#include "kernel/shell/commands.h"

#include "arch/x86_64/acpi.h"
#include "arch/x86_64/clock.h"
#include "arch/x86_64/cpu.h"
#include "arch/x86_64/percpu.h"
#include "boot/bootinfo.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/log.h"
#include "kernel/main.h"
#include "kernel/sched/sched.h"
#include "kernel/shell/format.h"
#include "kernel/vm/backend.h"

#ifndef BALLAST_VERSION
#define BALLAST_VERSION "unknown"
#endif

#ifdef __clang__
#define COMPILER "" /* its version string names it */
#else
#define COMPILER "gcc "
#endif
#define NS_PER_MS 1000000ULL

static void help_one(const struct shell_command *cmd)
{
    shell_print("%s%s%s\n    %s\n", cmd->name, cmd->args ? " " : "", cmd->args ? cmd->args : "",
                cmd->help);
}

void cmd_help(unsigned nr, char **args)
{
    for (const struct shell_command *cmd = shell_commands; cmd->name; cmd++) {
        if (nr == 1) {
            shell_print("  %-9s %s\n", cmd->name, cmd->help);
        } else if (str_equal(cmd->name, args[1])) {
            help_one(cmd);
            return;
        }
    }
    if (nr > 1) {
        shell_error("help", "no command '%s'; `help` lists them", args[1]);
    } else {
        shell_print("Tab completes, Up and Down recall; `help COMMAND` explains.\n");
    }
}

/* --- log --- */

static bool count_entry(const struct log_entry *e, void *arg)
{
    (void)e;
    (*(uint64_t *)arg)++;
    return true;
}

static bool print_entry(const struct log_entry *e, void *arg)
{
    uint64_t *skip = arg;
    uint64_t us = e->time_ns / 1000;

    if (*skip > 0) {
        (*skip)--;
        return true;
    }
    shell_print("[%5llu.%06llu] %-5s %s\n", (unsigned long long)(us / 1000000),
                (unsigned long long)(us % 1000000), log_level_name((enum log_level)e->level),
                e->text);
    return true;
}

static void log_level_command(unsigned nr, char **args)
{
    enum log_level level;

    if (nr > 2 && log_level_find(args[2], &level)) {
        log_set_level(level);
    } else if (nr > 2) {
        shell_error("log", "'%s' is not a level; accepted: error, warn, info, debug", args[2]);
    } else {
        shell_print("printed up to level %s\n", log_level_name(log_get_level()));
    }
}

void cmd_log(unsigned nr, char **args)
{
    bool previous = nr > 1 && str_equal(args[1], "previous");
    uint64_t last = UINT64_MAX;
    uint64_t total = 0;

    if (nr > 1 && str_equal(args[1], "level")) {
        log_level_command(nr, args);
        return;
    }
    if (nr > (previous ? 3u : 2u)) {
        shell_error("log", "'%s' is too much; accepted: [previous] [a number of lines]",
                    args[previous ? 3 : 2]);
        return;
    }
    if (nr > (previous ? 2u : 1u) && parse_u64(args[previous ? 2 : 1], &last)) {
        shell_error("log", "'%s'; accepted: previous, level, a number of lines",
                    args[previous ? 2 : 1]);
        return;
    }
    log_for_each(previous, count_entry, &total);
    if (total == 0) {
        shell_print(previous ? "no log of an earlier boot survived\n" : "the log is empty\n");
        return;
    }
    uint64_t skip = total > last ? total - last : 0;

    log_for_each(previous, print_entry, &skip);
}

void cmd_log_complete(unsigned index, struct line_completions *c)
{
    static const char *const words[] = {"previous", "level"};

    if (index == 1) {
        shell_offer_list(c, words, ARRAY_SIZE(words));
    } else {
        shell_offer_list(c, log_level_names, ARRAY_SIZE(log_level_names));
    }
}

/* --- processors and threads --- */

void cmd_cpus(unsigned nr, char **args)
{
    (void)nr;
    (void)args;
    shell_print("%3s %5s %6s %9s %9s %9s %9s %5s\n", "CPU", "APIC", "BUSY%", "BUSY/s", "SWITCHES",
                "IRQS", "KICKS", "QUEUE");
    for (unsigned i = 0; i < nr_cpus(); i++) {
        const struct cpu *cpu = cpu_by_id(i);
        struct sched_cpu_stats s;

        sched_cpu_stats(i, &s);
        uint64_t total_ms = (s.busy_ns + s.idle_ns) / NS_PER_MS;
        uint64_t busy_ms = s.busy_ns / NS_PER_MS;
        uint64_t permille = total_ms ? busy_ms * 1000 / total_ms : 0;

        shell_print("%3u %5u %4llu.%llu %5llu.%03llu %9llu %9llu %9llu %5u\n", i, cpu->apic_id,
                    (unsigned long long)(permille / 10), (unsigned long long)(permille % 10),
                    (unsigned long long)(busy_ms / 1000), (unsigned long long)(busy_ms % 1000),
                    (unsigned long long)s.switches, (unsigned long long)cpu->nr_irqs,
                    (unsigned long long)cpu->nr_kicks, s.runnable);
    }
}

static bool print_thread(struct thread *t, void *arg)
{
    static const char *const states[] = {
        [THREAD_NEW] = "new",         [THREAD_RUNNABLE] = "runnable", [THREAD_RUNNING] = "running",
        [THREAD_BLOCKED] = "blocked", [THREAD_DEAD] = "dead",
    };
    char time[FORMAT_MAX];
    unsigned state = t->state;

    (void)arg;
    shell_print("%-31s %-8s %3u %6u %12s\n", t->name,
                state < ARRAY_SIZE(states) ? states[state] : "?", t->cpu, t->weight,
                format_seconds(time, t->run_ns));
    return true;
}

void cmd_threads(unsigned nr, char **args)
{
    (void)nr;
    (void)args;
    shell_print("%-31s %-8s %3s %6s %12s\n", "THREAD", "STATE", "CPU", "WEIGHT", "CPU TIME");
    thread_for_each(print_thread, NULL);
}

/* --- the rest --- */

void cmd_modules(unsigned nr, char **args)
{
    const struct boot_info *info = main_boot_info();
    char size[FORMAT_MAX];

    (void)nr;
    (void)args;
    for (uint32_t i = 0; i < info->nr_modules; i++) {
        shell_print("%-40s %8s\n", info->modules[i].name, format_size(size, info->modules[i].size));
    }
    if (info->nr_modules == 0) {
        shell_print("no modules were loaded\n");
    }
}

void cmd_version(unsigned nr, char **args)
{
    const struct boot_info *info = main_boot_info();
    char up[FORMAT_MAX];

    (void)nr;
    (void)args;
    shell_print("Ballast %s, compiled with %s\n", BALLAST_VERSION, COMPILER __VERSION__);
    shell_print("%s, %u processor%s\n", cpu_features.brand, nr_cpus(), nr_cpus() == 1 ? "" : "s");
    shell_print("%s%s, clock %llu kHz (%s), up %s\n", hv ? hv->name : "no virtualisation",
                hv_caps.nested_paging ? " with nested paging" : "",
                (unsigned long long)(clock_tsc_hz() / 1000), clock_source(),
                format_seconds(up, clock_now_ns()));
    shell_print("loaded by %s, %s\n", info->loader[0] ? info->loader : "an unknown loader",
                info->firmware == BOOT_FIRMWARE_UEFI ? "UEFI" : "BIOS");
}

void cmd_poweroff(unsigned nr, char **args)
{
    (void)nr;
    (void)args;
    shell_print("switching off\n");
    log_wait_printed();
    acpi_poweroff();
    shell_error("poweroff", "this machine does not switch itself off; it is safe to do so now");
}

void cmd_reboot(unsigned nr, char **args)
{
    (void)nr;
    (void)args;
    shell_print("resetting\n");
    log_info("reboot: asked for by the operator");
    log_wait_printed();
    acpi_reset();
}
