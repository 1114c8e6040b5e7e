/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about VMs.
 */
#include "kernel/shell/commands.h"

#include "arch/x86_64/clock.h"
#include "kernel/devices/devices.h"
#include "kernel/drivers/console.h"
#include "kernel/lib/parse.h"
#include "kernel/lib/printf.h"
#include "kernel/lib/string.h"
#include "kernel/shell/format.h"
#include "kernel/startup.h"
#include "kernel/vm/admission.h"
#include "kernel/vm/backend.h"
#include "kernel/vm/guestconsole.h"
#include "kernel/vm/swapping.h"
#include "kernel/vm/vm.h"
#include "mm/p2m.h"
#include "mm/view.h"

struct totals {
    uint64_t exits, ticks, run_ns;
};

static void count_totals(const struct vm *vm, struct totals *t)
{
    *t = (struct totals){0};
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        const struct vcpu *v = vm->vcpus[i];

        for (unsigned k = 0; v && k < NR_EXIT_KINDS; k++) {
            t->exits += v->exits[k].count;
            t->ticks += v->exits[k].ticks;
        }
        if (v && v->thread) {
            t->run_ns += v->thread->run_ns;
        }
    }
}

/* --- vms --- */

struct tally {
    unsigned all, running;
};

static bool print_line(struct vm *vm, void *arg)
{
    char memory[FORMAT_MAX], granted[FORMAT_MAX], time[FORMAT_MAX], reason[200] = "";
    struct p2m_counters p;
    struct view_stats view;
    struct totals t;

    vm_memory_counters(vm, &p, &view);
    count_totals(vm, &t);
    if (vm->stop_reason != STOP_NONE) {
        vm_describe_stop(vm, reason, sizeof(reason));
    }
    /* A long reason wraps rather than being cut: it is what the operator looks for. */
    shell_print("%-12s %-7s %4u %-8s %6s %6s %9s %8llu %s\n", vm->config.name,
                vm_state_name(vm->state), vm->nr_vcpus, vm_mmu_name(vm),
                format_size(memory, vm->config.memory_bytes),
                format_size(granted, p.granted * PAGE_SIZE), format_seconds(time, t.run_ns),
                (unsigned long long)t.exits, reason);
    struct tally *tally = arg;
    tally->all++;
    tally->running += vm->state == VM_RUNNING;
    return true;
}

/* A VM that ballast.conf describes but nobody built. */
static bool print_unbuilt(const struct vm_config *cfg, void *arg)
{
    struct vm *vm = vm_find(cfg->name);

    (void)arg;
    if (vm) {
        vm_put(vm);
    } else {
        shell_print("%-12s %s\n", cfg->name,
                    cfg->bad ? "(wrong in ballast.conf; `log` says why)" : "(not built)");
    }
    return true;
}

void cmd_vms(unsigned nr, char **args)
{
    struct tally tally = {0, 0};

    (void)nr;
    (void)args;
    shell_print("%-12s %-7s %4s %-8s %6s %6s %9s %8s %s\n", "NAME", "STATE", "CPUS", "MMU",
                "MEMORY", "GRANT", "CPU TIME", "EXITS", "ENDED BY");
    vm_for_each(print_line, &tally);
    startup_for_each_vm(print_unbuilt, NULL);
    shell_print("%u VM%s: %u running\n", tally.all, tally.all == 1 ? "" : "s", tally.running);
}

/* --- vm NAME --- */

static void print_memory(struct vm *vm)
{
    char ram[FORMAT_MAX], granted[FORMAT_MAX];
    struct p2m_counters p;
    struct view_stats view;

    vm_memory_counters(vm, &p, &view);
    shell_print("  memory %s, granted %s; first touches: %llu of 4K, %llu of 2M, %llu of 1G\n",
                format_size(ram, p.ram * PAGE_SIZE), format_size(granted, p.granted * PAGE_SIZE),
                (unsigned long long)p.faults_4k, (unsigned long long)p.faults_2m,
                (unsigned long long)p.faults_1g);
    shell_print("  overhead %llu KiB, %s MMU\n",
                (unsigned long long)(vm_overhead_bytes(vm) / KIB(1)), vm_mmu_name(vm));
}

static void print_registers(struct vcpu *v)
{
    const uint64_t *r = v->gpr;

    shell_print("    rip %016llx rsp %016llx rflags %08llx\n", (unsigned long long)v->rip,
                (unsigned long long)hv->get_reg(v, REG_RSP),
                (unsigned long long)hv->get_reg(v, REG_RFLAGS));
    shell_print("    rax %016llx rbx %016llx rcx %016llx\n", (unsigned long long)r[GPR_RAX],
                (unsigned long long)r[GPR_RBX], (unsigned long long)r[GPR_RCX]);
    shell_print("    rdx %016llx rsi %016llx rdi %016llx\n", (unsigned long long)r[GPR_RDX],
                (unsigned long long)r[GPR_RSI], (unsigned long long)r[GPR_RDI]);
    shell_print(
        "    cr0 %08llx cr2 %016llx cr3 %012llx cr4 %08llx efer %04llx\n",
        (unsigned long long)hv->get_reg(v, REG_CR0), (unsigned long long)hv->get_reg(v, REG_CR2),
        (unsigned long long)hv->get_reg(v, REG_CR3), (unsigned long long)hv->get_reg(v, REG_CR4),
        (unsigned long long)hv->get_reg(v, REG_EFER));
}

/* Registers belong to the vCPU's thread while it runs: then only where it last left the guest. */
static void print_vcpu(const struct vm *vm, struct vcpu *v)
{
    char time[FORMAT_MAX];
    bool runs = vm->state == VM_RUNNING;

    shell_print("  vcpu %u: %s, %s used, rip %llx\n", v->id,
                v->wait_sipi ? "not started"
                : v->halted  ? "halted"
                : runs       ? "running"
                             : "stopped",
                format_seconds(time, v->thread ? v->thread->run_ns : 0),
                (unsigned long long)v->rip);
    if (!runs && v->vendor) {
        print_registers(v);
    }
}

static void print_exits(const struct vm *vm)
{
    shell_print("  %-18s %12s %14s\n", "EXITS", "COUNT", "MEAN TICKS");
    for (unsigned k = 0; k < NR_EXIT_KINDS; k++) {
        uint64_t count = 0;
        uint64_t ticks = 0;

        for (unsigned i = 0; i < vm->nr_vcpus; i++) {
            if (vm->vcpus[i]) {
                count += vm->vcpus[i]->exits[k].count;
                ticks += vm->vcpus[i]->exits[k].ticks;
            }
        }
        if (count > 0) {
            shell_print("  %-18s %12llu %14llu\n", exit_kind_name((enum exit_kind)k),
                        (unsigned long long)count, (unsigned long long)(ticks / count));
        }
    }
}

static void show(struct vm *vm)
{
    char reason[200], line[200];

    shell_print("%s: %s, kernel %s%s%s\n", vm->config.name, vm_state_name(vm->state),
                vm->config.kernel, vm->config.initrd[0] ? ", initrd " : "", vm->config.initrd);
    if (vm->stop_reason != STOP_NONE) {
        vm_describe_stop(vm, reason, sizeof(reason));
        shell_print("  ended: %s\n", reason);
    }
    print_memory(vm);
    if (vm->console) {
        shell_print("  console: %llu bytes written\n",
                    (unsigned long long)guestconsole_written(vm->console));
    }
    for (unsigned i = 0; devices_describe(vm, i, line, sizeof(line)); i++) {
        shell_print("  %s\n", line);
    }
    for (unsigned i = 0; i < vm->nr_vcpus; i++) {
        if (vm->vcpus[i]) {
            print_vcpu(vm, vm->vcpus[i]);
        }
    }
    print_exits(vm);
}

/* --- vm NAME ACTION --- */

/* One of run and with_value. */
struct action {
    const char *name;
    enum hv_err (*run)(struct vm *vm);
    const char *done; /* NULL: it says so itself */
    void (*with_value)(struct vm *vm, const char *what, const char *value);
    const char *value; /* what is expected */
};

static enum hv_err drop(struct vm *vm)
{
    struct vm_dropped d;
    enum hv_err err = vm_drop(vm, &d);

    if (err == HV_OK) {
        shell_print("%s: %llu translations in %llu tables, dropped in %llu us, flushed in %llu us "
                    "(%llu ticks)\n",
                    vm->config.name, (unsigned long long)d.leaves, (unsigned long long)d.tables,
                    (unsigned long long)clock_tsc_to_ns(d.drop_ticks) / 1000,
                    (unsigned long long)clock_tsc_to_ns(d.flush_ticks) / 1000,
                    (unsigned long long)d.flush_ticks);
    }
    return err;
}

struct search {
    const char *name;
    struct vm_config config;
    bool found;
};

static bool match_config(const struct vm_config *cfg, void *arg)
{
    struct search *s = arg;

    if (str_equal(cfg->name, s->name)) {
        s->config = *cfg;
        s->found = true;
    }
    return !s->found;
}

/* Build the VM that ballast.conf describes; NULL after an error was printed. */
static struct vm *build(const char *name)
{
    struct search s = {.name = name};
    struct vm *vm;

    startup_for_each_vm(match_config, &s);
    if (!s.found) {
        shell_error("vm", "no VM '%s' here or in ballast.conf; `vms` lists them", name);
        return NULL;
    }
    if (s.config.bad) {
        shell_error("vm", "%s is wrong in ballast.conf, line %u; `log` says why", name,
                    s.config.line);
        return NULL;
    }
    enum hv_err err = vm_create(&s.config, &vm);

    if (err) {
        shell_error("vm", "%s cannot be built: %s", name, hv_strerror(err));
        return NULL;
    }
    return vm_find(name);
}

/* Held; NULL after an error was printed. */
static struct vm *known_vm(const char *name)
{
    struct vm *vm = vm_find(name);

    if (vm == NULL) {
        shell_error("vm", "no VM '%s'; `vms` lists them", name);
    }
    return vm;
}

static void act(const char *name, const struct action *a)
{
    struct vm *vm = a->run == vm_start ? vm_find(name) : known_vm(name);

    if (vm == NULL && a->run == vm_start) {
        vm = build(name);
    }
    if (vm == NULL) {
        return;
    }
    const char *state = vm_state_name(vm->state);
    enum hv_err err = a->run(vm);

    if (err) {
        shell_error("vm", "%s: cannot %s while %s: %s", name, a->name, state, hv_strerror(err));
    } else if (a->done != NULL) {
        shell_print("%s %s\n", name, a->done);
    }
    /* A destroyed VM took the reference with it; HV_EIO: destroyed, but frames of it remain. */
    if (a->run != vm_destroy || (err != HV_OK && err != HV_EIO)) {
        vm_put(vm);
    }
}

/* Compress and swap some of a VM by hand. */
static void swap_out_by_hand(struct vm *vm, const char *what, const char *size)
{
    uint64_t bytes, taken;

    (void)what;
    if (parse_size(size, MIB(1), &bytes) != HV_OK || bytes < PAGE_SIZE) {
        shell_error("vm", "'%s' is no size of a page or more; accepted: as 4K or 64M (K, M, G, T)",
                    size);
    } else if (vm->config.swap == SWAP_OFF) {
        shell_error("vm", "%s: its swap is off: none of its pages is compressed or swapped",
                    vm->config.name);
    } else if (swapping_force(vm, bytes / PAGE_SIZE, &taken) != HV_OK) {
        shell_error("vm", "%s: nothing of it can be taken", vm->config.name);
    } else {
        shell_print("%s: %llu pages compressed, or on their way out\n", vm->config.name,
                    (unsigned long long)taken);
    }
}

static enum hv_err parse_pages(const char *text, uint64_t *value)
{
    enum hv_err err = parse_size(text, MIB(1), value);

    return err == HV_OK && !IS_ALIGNED(*value, PAGE_SIZE) ? HV_ERANGE : err;
}

/* `min`, `max` or `shares` of a VM that may be running. */
static void entitle(struct vm *vm, const char *what, const char *text)
{
    char why[ADMISSION_TEXT_MAX];
    bool is_shares = str_equal(what, "shares");
    uint64_t value;

    if ((is_shares ? config_parse_shares(text, vm->config.memory_bytes, &value)
                   : parse_pages(text, &value)) != HV_OK) {
        shell_error("vm", "%s: '%s'; accepted: %s", what, text,
                    is_shares ? CONFIG_SHARES_ACCEPTED : "a multiple of 4K, as 64M (K, M, G, T)");
    } else if (admission_change(vm, str_equal(what, "min") ? value : vm->config.min_bytes,
                                str_equal(what, "max") ? value : vm->config.max_bytes,
                                is_shares ? value : config_shares(&vm->config), why) != HV_OK) {
        shell_error("vm", "%s: %s is not changed: %s", vm->config.name, what, why);
    } else {
        shell_print("%s: min %lluK, max %lluK, %llu shares%s\n", vm->config.name,
                    (unsigned long long)(vm->config.min_bytes >> 10),
                    (unsigned long long)(vm->config.max_bytes >> 10),
                    (unsigned long long)config_shares(&vm->config),
                    vm->config.swap == SWAP_OFF ? "; its swap is off, so max counts as min" : "");
    }
}

static const struct action actions[] = {
    {.name = "start", .run = vm_start, .done = "started"},
    {.name = "pause", .run = vm_pause, .done = "paused"},
    {.name = "resume", .run = vm_resume, .done = "resumed"},
    {.name = "reset", .run = vm_reset, .done = "reset"},
    {.name = "destroy", .run = vm_destroy, .done = "destroyed"},
    {.name = "drop", .run = drop},
    {.name = "swapout", .with_value = swap_out_by_hand, .value = "SIZE"},
    {.name = "min", .with_value = entitle, .value = "SIZE"},
    {.name = "max", .with_value = entitle, .value = "SIZE"},
    {.name = "shares", .with_value = entitle, .value = "low|normal|high|NUMBER"},
};

static const struct action *find_action(const char *name, bool with_value)
{
    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        if (str_equal(actions[i].name, name) && (actions[i].with_value != NULL) == with_value) {
            return &actions[i];
        }
    }
    return NULL;
}

static void refuse_action(const char *name)
{
    char accepted[256];
    size_t n = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
        const struct action *a = &actions[i];

        n += scnprintf(accepted + n, sizeof(accepted) - n, "%s%s%s%s", i > 0 ? ", " : "", a->name,
                       a->value != NULL ? " " : "", a->value != NULL ? a->value : "");
    }
    shell_error("vm", "'%s'; accepted: %s", name, accepted);
}

static void show_or_change(struct vm *vm, const struct action *a, const char *value)
{
    if (vm == NULL) {
        return;
    }
    if (a != NULL) {
        a->with_value(vm, a->name, value);
    } else {
        show(vm);
    }
    vm_put(vm);
}

void cmd_vm(unsigned nr, char **args)
{
    const struct action *a = nr > 2 ? find_action(args[2], nr > 3) : NULL;

    if (nr > 2 && a == NULL) {
        refuse_action(args[2]);
    } else if (nr == 3) {
        act(args[1], a);
    } else {
        show_or_change(known_vm(args[1]), a, nr > 3 ? args[3] : NULL);
    }
}

void cmd_vm_complete(unsigned index, struct line_completions *c)
{
    if (index == 1) {
        shell_offer_vms(c);
    }
    for (unsigned i = 0; index == 2 && i < ARRAY_SIZE(actions); i++) {
        line_offer(c, actions[i].name);
    }
}
