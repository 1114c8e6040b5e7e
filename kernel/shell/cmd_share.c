/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about host options and page sharing.
 */
#include "kernel/shell/commands.h"

#include "kernel/lib/string.h"
#include "kernel/options.h"
#include "kernel/shell/format.h"
#include "kernel/vm/sharing.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/share/share.h"
#include "mm/view.h"

/* --- set --- */

static void print_option(enum option_id id)
{
    const struct option *o = &options_table[id];
    char now[OPTIONS_TEXT_MAX], standard[OPTIONS_TEXT_MAX], accepted[OPTIONS_TEXT_MAX];

    options_print(id, options_get(id), now);
    options_print(id, o->standard, standard);
    options_accepted(id, accepted);
    shell_print("%-28s %7s  (%s, standard %s)  %s\n", o->name, now, accepted, standard, o->help);
}

void cmd_set(unsigned nr, char **args)
{
    enum option_id id = nr > 1 ? options_find(args[1]) : NR_OPTIONS;
    char accepted[OPTIONS_TEXT_MAX];
    uint64_t value;

    if (nr == 1) {
        for (unsigned i = 0; i < NR_OPTIONS; i++) {
            print_option((enum option_id)i);
        }
        return;
    }
    if (id == NR_OPTIONS) {
        shell_error("set", "no option '%s'; `set` lists them", args[1]);
        return;
    }
    if (nr > 2 &&
        (options_parse(id, args[2], &value) != HV_OK || options_set(id, value) != HV_OK)) {
        options_accepted(id, accepted);
        shell_error("set", "%s: '%s'; accepted: %s", options_table[id].name, args[2], accepted);
        return;
    }
    print_option(id);
}

void cmd_set_complete(unsigned index, struct line_completions *c)
{
    for (unsigned i = 0; index == 1 && i < NR_OPTIONS; i++) {
        line_offer(c, options_table[i].name);
    }
}

/* --- share --- */

static bool print_vm(struct vm *vm, void *arg)
{
    struct scan_stats s;

    (void)arg;
    struct p2m_counters p;
    struct view_stats view;

    vm_memory_counters(vm, &p, &view);
    sharing_stats(vm, &s);
    shell_print("%-15s %9llu %9llu %9llu %9llu %9llu %9llu %9llu %6llu %6llu\n", vm->config.name,
                (unsigned long long)s.pages, (unsigned long long)s.hashed,
                (unsigned long long)s.merged, (unsigned long long)p.broken,
                (unsigned long long)s.stale, (unsigned long long)s.differed,
                (unsigned long long)s.hot, (unsigned long long)s.passes,
                (unsigned long long)(sharing_rate(vm) / 1000));
    return true;
}

static void print_sharing(void)
{
    struct share_stats s;

    share_stats(&s);
    shell_print("%llu guest pages on %llu frames, %llu of them on the zero frame; %llu hints; "
                "table %lluK of at most %lluK\n",
                (unsigned long long)s.pages, (unsigned long long)s.common,
                (unsigned long long)s.zero, (unsigned long long)s.hints,
                (unsigned long long)(s.table_bytes / KIB(1)),
                (unsigned long long)(s.table_max_bytes / KIB(1)));
    shell_print("%-15s %9s %9s %9s %9s %9s %9s %9s %6s %6s\n", "NAME", "SCANNED", "HASHED",
                "MERGED", "BROKEN", "STALE", "DIFFERED", "LEFT", "PASSES", "RATE/s");
    vm_for_each(print_vm, NULL);
}

void cmd_share(unsigned nr, char **args)
{
    struct vm *vm;

    if (nr == 1) {
        print_sharing();
        return;
    }
    if (nr != 3 || !str_equal(args[1], "scan")) {
        shell_print("usage: share [scan VM]\n");
        return;
    }
    vm = vm_find(args[2]);
    if (vm == NULL) {
        shell_error("share", "no VM '%s'; `vms` lists them", args[2]);
        return;
    }
    if (sharing_scan(vm) == HV_OK) {
        struct scan_stats s;

        sharing_stats(vm, &s);
        shell_print("%s: scanned; %llu pages merged since it started\n", args[2],
                    (unsigned long long)s.merged);
    } else {
        shell_error("share", "%s takes no part in sharing", args[2]);
    }
    vm_put(vm);
}

void cmd_share_complete(unsigned index, struct line_completions *c)
{
    if (index == 1) {
        line_offer(c, "scan");
    } else {
        shell_offer_vms(c);
    }
}
