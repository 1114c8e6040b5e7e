/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command about balloons. Columns have esxtop's names and definitions.
 */
#include "kernel/shell/commands.h"

#include "kernel/lib/parse.h"
#include "kernel/lib/string.h"
#include "kernel/shell/format.h"
#include "kernel/vm/ballooning.h"
#include "kernel/vm/vm.h"

/* What is to be said of a driver beyond Y and N. */
static const char *remark(const struct balloon_state *s)
{
    if (s->driver == BALLOON_NO_DRIVER) {
        return "no driver";
    }
    if (s->silent) {
        return "driver silent";
    }
    if (s->distrusted) {
        return "driver not believed";
    }
    return s->relieved ? "guest short of memory" : "";
}

static bool print_vm(struct vm *vm, void *arg)
{
    char size[FORMAT_MAX], target[FORMAT_MAX], told[FORMAT_MAX], max[FORMAT_MAX];
    struct balloon_state s;

    (void)arg;
    ballooning_state(vm, &s);
    shell_print("%-15s %5s %9s %10s %9s %10s %6s %6llu %6llu %8llu %s\n", vm->config.name,
                s.present ? "Y" : "N", format_mb(size, s.size * PAGE_SIZE),
                format_mb(target, s.target * PAGE_SIZE), format_mb(told, s.told * PAGE_SIZE),
                format_mb(max, s.max * PAGE_SIZE), s.by_hand ? "hand" : "auto",
                (unsigned long long)s.starts, (unsigned long long)s.resets,
                (unsigned long long)s.refused, remark(&s));
    return true;
}

static void print_all(void)
{
    shell_print("%-15s %5s %9s %10s %9s %10s %6s %6s %6s %8s\n", "NAME", "MCTL?", "MCTLSZ/MB",
                "MCTLTGT/MB", "TOLD/MB", "MCTLMAX/MB", "BY", "STARTS", "RESETS", "REFUSED");
    vm_for_each(print_vm, NULL);
}

static const char *driver_name(enum balloon_driver driver)
{
    static const char *const names[] = {
        [BALLOON_NO_DRIVER] = "none", [BALLOON_VMWARE] = "vmware", [BALLOON_VIRTIO] = "virtio"};

    return names[driver];
}

/* What the guest says of itself. */
static void print_guest(const struct balloon_guest *g)
{
    static const struct {
        enum balloon_stat stat;
        const char *name;
        bool bytes;
    } rows[] = {{BALLOON_STAT_TOTAL, "total", true},
                {BALLOON_STAT_FREE, "free", true},
                {BALLOON_STAT_AVAILABLE, "available", true},
                {BALLOON_STAT_CACHES, "caches", true},
                {BALLOON_STAT_SWAP_IN, "swapped in", true},
                {BALLOON_STAT_SWAP_OUT, "swapped out", true},
                {BALLOON_STAT_MAJOR_FAULTS, "major faults", false},
                {BALLOON_STAT_MINOR_FAULTS, "minor faults", false}};
    char size[FORMAT_MAX];

    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t value = g->value[rows[i].stat];

        if (!(g->known & BIT(rows[i].stat))) {
            continue;
        }
        if (rows[i].bytes) {
            shell_print("  guest's %-13s %s MB\n", rows[i].name, format_mb(size, value));
        } else {
            shell_print("  guest's %-13s %llu\n", rows[i].name, (unsigned long long)value);
        }
    }
}

static void print_one(struct vm *vm)
{
    char given[FORMAT_MAX], taken[FORMAT_MAX], reported[FORMAT_MAX];
    struct balloon_state s;

    ballooning_state(vm, &s);
    shell_print("  driver %s, %llu signs of distress\n", driver_name(s.driver),
                (unsigned long long)s.distresses);
    shell_print("  given up %s MB, taken back %s MB, reported free %s MB\n",
                format_mb(given, s.given * PAGE_SIZE), format_mb(taken, s.taken * PAGE_SIZE),
                format_mb(reported, s.reported * PAGE_SIZE));
    print_guest(&s.guest);
}

static void set_target(struct vm *vm, const char *text)
{
    char limit[FORMAT_MAX];
    uint64_t bytes, most;

    if (str_equal(text, "auto")) {
        ballooning_set_auto(vm);
        shell_print("%s: as the policy wants\n", vm->config.name);
        return;
    }
    if (parse_size(text, MIB(1), &bytes) != HV_OK) {
        shell_error("balloon", "'%s' is not a size; accepted: 100M and the like, auto", text);
    } else if (ballooning_set_by_hand(vm, bytes >> PAGE_SHIFT, &most) != HV_OK) {
        shell_error("balloon", "%s may give up %s MB at most (Mem.CtlMaxPercent, maxmemctl)",
                    vm->config.name, format_mb(limit, most * PAGE_SIZE));
    } else {
        shell_print("%s: to give up %s MB\n", vm->config.name,
                    format_mb(limit, ALIGN_DOWN(bytes, PAGE_SIZE)));
    }
}

void cmd_balloon(unsigned nr, char **args)
{
    struct vm *vm;

    if (nr == 1) {
        print_all();
        return;
    }
    vm = vm_find(args[1]);
    if (vm == NULL) {
        shell_error("balloon", "no VM '%s'; `vms` lists them", args[1]);
        return;
    }
    if (nr == 2) {
        print_one(vm);
    } else {
        set_target(vm, args[2]);
    }
    vm_put(vm);
}

void cmd_balloon_complete(unsigned index, struct line_completions *c)
{
    if (index == 1) {
        shell_offer_vms(c);
    } else {
        line_offer(c, "auto");
    }
}
