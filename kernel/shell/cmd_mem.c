/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands about memory. The screen follows esxtop's memory screen, its names and definitions.
 */
#include "kernel/shell/commands.h"

#include "kernel/shell/format.h"
#include "kernel/vm/vm.h"
#include "mm/audit.h"
#include "mm/buddy.h"
#include "mm/p2m.h"
#include "mm/slab.h"
#include "mm/view.h"

static uint64_t frames_mb(uint64_t frames)
{
    return frames * PAGE_SIZE / MIB(1);
}

static void print_host(void)
{
    struct buddy_stats s;

    buddy_stats(&s);
    uint64_t structures = s.used[FRAME_P2M] + s.used[FRAME_VIEW] + s.used[FRAME_VM];
    uint64_t other = s.used[FRAME_GUEST] + structures;

    shell_print("PMEM  /MB: %6llu total: %6llu vmk, %6llu other, %6llu free\n",
                (unsigned long long)frames_mb(s.total),
                (unsigned long long)frames_mb(s.used[FRAME_HOST]),
                (unsigned long long)frames_mb(other), (unsigned long long)frames_mb(s.free));
    shell_print("VM    /KB: %llu guest memory, %llu overhead\n",
                (unsigned long long)(s.used[FRAME_GUEST] * PAGE_SIZE / KIB(1)),
                (unsigned long long)(structures * PAGE_SIZE / KIB(1)));
    shell_print("VMK   /KB: %llu frame table, %llu bytes in small objects; %llu frames retired\n",
                (unsigned long long)(s.table_bytes / KIB(1)),
                (unsigned long long)kmalloc_bytes(OWNER_HOST),
                (unsigned long long)s.used[FRAME_RETIRED]);
    if (s.total_high > 0) {
        shell_print("HIGH  /MB: %llu total above 4 GiB, %llu of it used\n",
                    (unsigned long long)frames_mb(s.total_high),
                    (unsigned long long)frames_mb(s.total_high - s.free_high));
    }
    shell_print("FREE     :");
    for (unsigned order = 0; order <= BUDDY_MAX_ORDER; order++) {
        if (s.free_blocks[order] > 0) {
            char size[FORMAT_MAX];

            shell_print(" %llux%s", (unsigned long long)s.free_blocks[order],
                        format_size(size, PAGE_SIZE << order));
        }
    }
    shell_print("\n");
}

struct sums {
    struct p2m_counters p;
    uint64_t overhead;
    unsigned nr;
};

static void print_row(const char *name, const struct p2m_counters *p, uint64_t overhead)
{
    char memsz[FORMAT_MAX], grant[FORMAT_MAX], cnsm[FORMAT_MAX];
    uint64_t large = p->large_2m * 512 + p->large_1g * 262144;

    shell_print("%-15s %9s %9s %9s %8llu %6llu %6llu %9llu\n", name,
                format_mb(memsz, p->ram * PAGE_SIZE), format_mb(grant, p->granted * PAGE_SIZE),
                format_mb(cnsm, p->consumed * PAGE_SIZE), (unsigned long long)(overhead / KIB(1)),
                (unsigned long long)p->large_1g, (unsigned long long)p->large_2m,
                (unsigned long long)(p->granted > large ? p->granted - large : 0));
}

static bool print_vm(struct vm *vm, void *arg)
{
    struct sums *sum = arg;
    struct p2m_counters p;
    struct view_stats view;

    vm_memory_counters(vm, &p, &view);
    uint64_t overhead = vm_overhead_bytes(vm);

    p.ram = vm->config.memory_bytes / PAGE_SIZE; /* MEMSZ is what was configured */
    print_row(vm->config.name, &p, overhead);
    sum->p.ram += p.ram;
    sum->p.granted += p.granted;
    sum->p.consumed += p.consumed;
    sum->p.large_1g += p.large_1g;
    sum->p.large_2m += p.large_2m;
    sum->overhead += overhead;
    sum->nr++;
    return true;
}

void cmd_mem(unsigned nr, char **args)
{
    struct sums sum = {0};

    (void)nr;
    (void)args;
    print_host();
    shell_print("%-15s %9s %9s %9s %8s %6s %6s %9s\n", "NAME", "MEMSZ/MB", "GRANT/MB", "CNSM/MB",
                "OVHD/KB", "1G", "2M", "4K");
    vm_for_each(print_vm, &sum);
    if (sum.nr > 1) {
        print_row("(all)", &sum.p, sum.overhead);
    }
}

static bool audit_vm(struct vm *vm, void *arg)
{
    bool *good = arg;
    bool ok = vm_audit(vm);

    shell_print("  %-15s %s\n", vm->config.name,
                ok ? "every page counted" : "DISAGREES; see `log`");
    *good = *good && ok;
    return true;
}

void cmd_audit(unsigned nr, char **args)
{
    bool good = mm_audit();
    struct buddy_stats stats;

    (void)nr;
    (void)args;
    buddy_stats(&stats);
    shell_print("  %-15s %s\n", "machine", good ? "every frame counted" : "DISAGREES; see `log`");
    shell_print("  %-15s %llu frames free of %llu\n", "", (unsigned long long)stats.free,
                (unsigned long long)stats.total);
    vm_for_each(audit_vm, &good);
    shell_print("audit: %s\n", good ? "passed" : "FAILED");
}
